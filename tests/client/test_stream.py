"""One request as its caller reads it, and every way to leave it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bridge.client import Client, Stream
from bridge.client.link import LEFT
from bridge.errors import (
    ConnectionLost,
    LogExpired,
    NothingInLog,
    RequestCancelled,
    RequestFailed,
    UnknownLane,
)
from bridge.events import Cancelled, Failed, KnownEvent, Resumed, Token
from tests.client.bridge_side import PATIENCE_S, Author, Bus, eventually


@pytest.fixture(autouse=True)
async def patience() -> AsyncIterator[None]:
    async with asyncio.timeout(3 * PATIENCE_S):
        yield


@contextlib.asynccontextmanager
async def written(bus: Bus, *events: KnownEvent) -> AsyncIterator[None]:
    """Write a log as soon as its job is there."""

    async def write() -> None:
        before = await bus.jobs()
        assert await eventually(lambda: more_jobs(bus, before))
        await bus.log(*events)

    writing = asyncio.ensure_future(write())
    await asyncio.sleep(0.02)
    try:
        yield
        await writing
    finally:
        writing.cancel()


async def more_jobs(bus: Bus, before: int) -> bool | None:
    return await bus.jobs() > before or None


async def not_cancelled(bus: Bus, id: str) -> None:
    """Long after a cancel would be there, there is none."""
    await asyncio.sleep(0.1)
    assert await bus.cancel_reason("request", id) is None


async def test_a_stream_is_read_to_its_end(bus: Bus, client: Client) -> None:
    author = Author("whole")
    events = [author.started(), *author.tokens(5), author.completed("text")]
    stream = client.stream("Hi", id="whole")
    assert (stream.id, stream.tenant, stream.seq) == ("whole", "default", 0)
    async with written(bus, *events):
        got = [event async for event in stream]
    assert got == events
    assert stream.end == events[-1]
    assert stream.seq == 7
    assert stream.text == "".join(e.text for e in events if isinstance(e, Token))
    assert [event async for event in stream] == []
    assert repr(stream) == "<Stream default/whole ended seq=7>"
    await not_cancelled(bus, "whole")


async def test_anext_and_a_context_manager(bus: Bus, client: Client) -> None:
    author = Author("steps")
    events = [author.started(), author.token(), author.completed()]
    async with written(bus, *events), client.stream("Hi", id="steps") as stream:
        assert await anext(stream) == events[0]
        assert await anext(stream) == events[1]
        assert await anext(stream) == events[2]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    await not_cancelled(bus, "steps")


async def test_what_became_void_is_told(bus: Bus, client: Client) -> None:
    author = Author("void")
    first = [author.started(), author.token("Hello "), author.token("wo")]
    lost = [author.token("rld"), author.token("!")]
    second = [author.resumed(after=3), author.token("men")]
    third = [author.resumed("restart"), author.token("Bye"), author.completed()]
    texts, told = [], []
    stream = client.stream("Hi", id="void")
    async with stream:
        await bus.log(*first)
        await bus.live(*lost)
        async for event in stream:
            texts.append(stream.text)
            if stream.truncated_to is not None:
                told.append((event.seq, stream.truncated_to))
            if event == lost[-1]:
                await bus.log(*second, *third)
    assert texts[4] == "Hello world!"
    assert texts[5:7] == ["Hello wo", "Hello women"]
    assert texts[7:] == ["", "Bye", "Bye"]
    assert told == [(4, 3)]


async def test_reading_on_after_a_cancelled_read(bus: Bus, client: Client) -> None:
    author = Author("on")
    events = [author.started(), author.completed()]
    async with client.stream("Hi", id="on") as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(stream)
        await bus.log(*events)
        assert [event async for event in stream] == events


async def test_a_type_of_the_future_is_passed_over(bus: Bus, client: Client) -> None:
    author = Author("future")
    events = [author.started(), author.token(), author.completed()]
    subject = bus.cell.subjects.tokens("default", "future")
    async with client.stream("Hi", id="future") as stream:
        await bus.log(events[0])
        noise = b'{"type":"noise","id":"future","seq":2,"attempt":1}'
        await bus.connection.request(subject, noise)
        author.seq = 2
        end = author.completed()
        await bus.log(end)
        assert [event async for event in stream] == [events[0], end]


async def test_what_an_unknown_type_voids_is_told_beside_the_next_event(
    bus: Bus, client: Client
) -> None:
    author = Author("silent")
    first = [author.started(), author.token("Hello "), author.token("wo")]
    subject = bus.cell.subjects.tokens("default", "silent")
    stream = client.stream("Hi", id="silent")
    async with stream:
        await bus.log(*first[:2])
        await bus.live(*first[2:])
        assert [await anext(stream) for _ in first] == first
        assert stream.text == "Hello wo"
        noise = b'{"type":"hint","id":"silent","seq":3,"attempt":2,"count":1}'
        await bus.connection.request(subject, noise)
        author.attempt = 2
        end = author.completed()
        await bus.log(end)
        assert await anext(stream) == end
        assert (stream.truncated_to, stream.text) == (2, "Hello ")
        assert stream.confirmed


async def test_noise_on_the_subject_is_passed_over_and_counted(
    bus: Bus, client: Client
) -> None:
    author = Author("noisy")
    events = [author.started(), author.token(), author.completed()]
    subject = bus.cell.subjects.tokens("default", "noisy")
    for event in events:
        await bus.connection.request(subject, b"garbage")
        await bus.log(event)
    await bus.connection.request(subject, b"[" * 100_000)
    stream = client.join("noisy")
    assert [event async for event in stream] == events
    assert stream.ignored_messages == 3
    await bus.connection.request(
        bus.cell.subjects.tokens("default", "nothing"), b"garbage"
    )
    with pytest.raises(NothingInLog):
        await anext(client.join("nothing", wait_s=0.1))


# The end


async def test_completed_has_the_text_that_did_not_fit(
    bus: Bus, client: Client
) -> None:
    author = Author("big")
    events = [author.started(), author.token("a"), author.token("b")]
    end = author.completed(omitted=True)
    async with written(bus, *events, end):
        completed = await client.generate("Hi", id="big")
    assert completed.text == "ab"


async def test_failed_is_an_event_and_an_error(bus: Bus, client: Client) -> None:
    author = Author("fails")
    events = [author.started(), author.token("so far"), author.failed("rate_limited")]
    async with written(bus, *events):
        stream = client.stream("Hi", id="fails")
        assert isinstance([event async for event in stream][-1], Failed)
        with pytest.raises(RequestFailed, match="rate_limited: it broke") as caught:
            await stream.completed()
    assert caught.value.code == "rate_limited"
    assert caught.value.retryable
    assert caught.value.text == "so far"


async def test_cancelled_is_an_event_and_an_error(bus: Bus, client: Client) -> None:
    author = Author("ends")
    events = [author.started(), author.cancelled("barge-in", text="so")]
    async with written(bus, *events):
        with pytest.raises(RequestCancelled, match="barge-in") as caught:
            await client.generate("Hi", id="ends")
    assert caught.value.reason == "barge-in"
    assert caught.value.text == "so"
    await not_cancelled(bus, "ends")


async def test_cancel_goes_on_to_the_end(bus: Bus, client: Client) -> None:
    author = Author("stop")
    await bus.log(author.started())
    async with client.stream("Hi", id="stop") as stream:
        await anext(stream)
        await stream.cancel("enough")
        assert await bus.cancelled("stop") == "enough"
        await bus.log(author.cancelled("enough"))
        assert isinstance(await anext(stream), Cancelled)


async def test_a_job_that_is_refused(bus: Bus, client: Client) -> None:
    stream = client.stream("Hi", id="lane", lane="nowhere")
    with pytest.raises(UnknownLane):
        async for _ in stream:
            pass
    assert [event async for event in stream] == []
    with pytest.raises(ConnectionLost, match="was left"):
        await stream.completed()
    with pytest.raises(UnknownLane):
        async with client.stream("Hi", id="lane", lane="nowhere"):
            pass
    await not_cancelled(bus, "lane")


async def test_a_reader_that_cannot_go_on_cancels_nothing(
    bus: Bus, client: Client
) -> None:
    author = Author("expired")
    await bus.log(author.started(), *author.tokens(5))
    await bus.purge("expired", keep=2)
    with pytest.raises(LogExpired):
        await client.generate("Hi", id="expired")
    await not_cancelled(bus, "expired")


# Leaving before it. Each way gets a stream whose log has two events.


async def leave_by_break(stream: Stream) -> None:
    async for _ in stream:
        break


async def leave_by_exception(stream: Stream) -> None:
    async def read() -> None:
        async for _ in stream:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()


async def leave_by_the_end_of_with(stream: Stream) -> None:
    async with stream:
        await anext(stream)


async def leave_by_aclose(stream: Stream) -> None:
    await anext(stream)
    await stream.aclose()
    await stream.aclose()


async def leave_by_task_in_body(stream: Stream) -> None:
    async def read() -> None:
        async for _ in stream:
            begun.set()
            await asyncio.sleep(60)

    begun = asyncio.Event()
    await cancel_once(read(), begun)


async def leave_by_task_in_wait(stream: Stream) -> None:
    async def read() -> None:
        async for event in stream:
            if event.seq == 2:
                begun.set()

    begun = asyncio.Event()
    await cancel_once(read(), begun)


async def leave_by_task_in_completed(stream: Stream) -> None:
    async def read() -> None:
        async with stream:
            begun.set()
            await stream.completed()

    begun = asyncio.Event()
    await cancel_once(read(), begun)


async def cancel_once(reading: Awaitable[None], begun: asyncio.Event) -> None:
    task = asyncio.ensure_future(reading)
    await begun.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


WAYS = [
    leave_by_break,
    leave_by_exception,
    leave_by_the_end_of_with,
    leave_by_aclose,
    leave_by_task_in_body,
    leave_by_task_in_wait,
    leave_by_task_in_completed,
]
Way = Callable[[Stream], Awaitable[None]]


@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
async def test_leaving_cancels(bus: Bus, client: Client, leave: Way) -> None:
    author = Author("left")
    await bus.log(author.started(), author.token())
    stream = client.stream("Hi", id="left")
    await leave(stream)
    assert await bus.cancelled("left") == LEFT
    assert stream.end is None
    assert repr(stream).startswith("<Stream default/left left seq=")


@pytest.mark.parametrize("leave", WAYS, ids=lambda way: way.__name__)
async def test_leaving_cancels_only_where_it_was_told_to(
    bus: Bus, client: Client, leave: Way
) -> None:
    author = Author("left")
    await bus.log(author.started(), author.token())
    await leave(client.stream("Hi", id="left", cancel_on_exit=False))
    await leave(client.join("left"))
    await not_cancelled(bus, "left")


async def test_a_stream_that_is_dropped_is_left(bus: Bus, client: Client) -> None:
    author = Author("dropped")
    await bus.log(author.started())
    stream = client.stream("Hi", id="dropped")
    await anext(stream)
    del stream
    gc.collect()
    assert await bus.cancelled("dropped") == LEFT


async def test_a_stream_that_was_never_begun_is_nothing(
    bus: Bus, client: Client
) -> None:
    stream = client.stream("Hi", id="never")
    await stream.aclose()
    assert [event async for event in stream] == []
    del stream
    await not_cancelled(bus, "never")
    assert await bus.jobs() == 0


async def test_a_call_that_is_cancelled_while_it_submits(
    bus: Bus, client: Client
) -> None:
    for turns in range(12):
        id = f"early-{turns}"
        generating = asyncio.ensure_future(client.generate("Hi", id=id))
        for _ in range(turns):
            await asyncio.sleep(0)
        generating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await generating
        if turns > 1:
            assert await bus.cancelled(id) == LEFT


async def test_breaking_off_and_going_on(bus: Bus, client: Client) -> None:
    author = Author("again")
    events = [author.started(), *author.tokens(3), author.completed()]
    await bus.log(*events)
    async with client.stream("Hi", id="again", cancel_on_exit=False) as stream:
        async for event in stream:
            if event.seq == 2:
                break
        assert [event async for event in stream] == events[2:]


async def test_the_client_is_closed_under_a_stream(bus: Bus, client: Client) -> None:
    author = Author("closed")
    await bus.log(author.started())
    stream = client.stream("Hi", id="closed")
    await anext(stream)
    reading = asyncio.ensure_future(stream.completed())
    await asyncio.sleep(0.02)
    await client.close()
    with pytest.raises(ConnectionLost, match="the client was closed"):
        await reading
    assert await bus.cancelled("closed") == LEFT


async def test_a_reader_keeps_its_request_alive(bus: Bus, client: Client) -> None:
    renewed = asyncio.Event()

    def received(_: object) -> None:
        renewed.set()

    subject = bus.cell.subjects.control("default", "lease", "alive")
    await bus.connection.subscribe(subject, received)
    await bus.connection.flush()
    author = Author("alive")
    for stream in (
        client.stream("Hi", id="alive", keepalive_ms=60),
        client.join("alive", keepalive_ms=60, cancel_on_exit=True),
    ):
        renewed.clear()
        async with stream:
            await renewed.wait()
            renewed.clear()
            await renewed.wait()
        await bus.connection.flush()
        renewed.clear()
        await asyncio.sleep(0.1)
        assert not renewed.is_set()
    await bus.log(author.started())


async def test_many_takeovers(bus: Bus, client: Client) -> None:
    author = Author("many")
    events = [author.started()]
    for _ in range(10):
        events += [*author.tokens(3), author.resumed()]
    events.append(author.completed())
    async with written(bus, *events):
        got = [event async for event in client.stream("Hi", id="many")]
    assert got == events
    assert sum(isinstance(event, Resumed) for event in got) == 10
