"""The SDK and the bridge together, on real parts: what a caller sees of the whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from bridge import (
    Cancelled,
    Client,
    Completed,
    Failed,
    KnownEvent,
    RequestCancelled,
    RequestFailed,
    Resumed,
    Started,
    Token,
)
from bridge.client import feed as feeds
from bridge.client.link import LEFT
from bridge.service import Service
from bridge.simulator import Behaviour, Simulator, text_for
from tests.plain_client import story
from tests.servers import NatsServer, running_service

PATIENCE_S = 30.0

#: Some 200 tokens in a second: long enough to be cut off in the middle.
PACE = Behaviour(first_token_ms=5, tokens_per_second=200)


class House(NamedTuple):
    """A running deployment, and a client of it."""

    service: Service
    simulator: Simulator
    client: Client


@pytest.fixture
async def house(nats_server: NatsServer, prefix: str) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        simulator = await enter(Simulator(behaviour=PACE))
        service = await enter(
            running_service(
                nats_server.url,
                simulator.url,
                prefix=prefix,
                backend_continue="final_message",
            )
        )
        client = await enter(
            Client(nats_server.url, model="simulator", prefixes=[prefix])
        )
        await enter(asyncio.timeout(3 * PATIENCE_S))
        yield House(service, simulator, client)


def expected(prompt: str, max_tokens: int) -> str:
    messages = [{"role": "user", "content": prompt}]
    return text_for(
        {"model": "simulator", "messages": messages, "max_tokens": max_tokens}
    )


async def end_of(client: Client, id: str) -> KnownEvent:
    """The terminal event of a request, from its log."""
    return [event async for event in client.join(id, wait_s=PATIENCE_S)][-1]


async def test_the_whole_answer(house: House) -> None:
    answer = await house.client.generate("hello", max_tokens=20)
    assert answer.text == expected("hello", 20)
    assert answer.usage is not None
    assert answer.usage["completion_tokens"] == 20


async def test_a_stream_and_its_log_are_the_same(house: House) -> None:
    stream = house.client.stream(
        "hello", max_tokens=30, metadata={"caller": "web"}, session="call"
    )
    live = [event async for event in stream]
    assert [event.seq for event in live] == list(range(1, 33))
    assert isinstance(live[0], Started)
    assert live[0].metadata == {"caller": "web"}
    assert isinstance(live[-1], Completed)
    assert live[-1].text == stream.text == expected("hello", 30)
    assert [event async for event in house.client.join(stream.id)] == live
    late = house.client.join(stream.id, from_seq=20)
    assert [event async for event in late] == live[19:]


async def test_many_at_once(house: House) -> None:
    prompts = [f"hello {number}" for number in range(40)]
    answers = await asyncio.gather(
        *(house.client.generate(prompt, max_tokens=15) for prompt in prompts)
    )
    assert [answer.text for answer in answers] == [expected(p, 15) for p in prompts]


async def test_joining_while_it_runs(house: House) -> None:
    async with house.client.stream("hello", max_tokens=120) as stream:
        first = [await anext(stream) for _ in range(40)]
        joined = house.client.join(stream.id)
        others = asyncio.ensure_future(joined.completed())
        rest = [event async for event in stream]
    assert [event.seq for event in first + rest] == list(range(1, 123))
    assert (await others).text == stream.text == joined.text


async def test_a_job_that_nobody_has_read_yet(house: House) -> None:
    id = await house.client.submit("hello", max_tokens=5)
    end = await end_of(house.client, id)
    assert isinstance(end, Completed)
    # The same id again is the same answer, and not generated anew.
    again = [event async for event in house.client.stream("hello", id=id)]
    assert again[-1] == end


async def test_leaving_early_closes_the_backends_stream(house: House) -> None:
    stream = house.client.stream("hello", max_tokens=2000)
    async for event in stream:
        if isinstance(event, Token):
            break
    end = await end_of(house.client, stream.id)
    assert isinstance(end, Cancelled)
    assert end.reason == LEFT
    assert end.seq < 1000


async def test_cancelling_the_task_cancels_the_request(house: House) -> None:
    id = "task"
    generating = asyncio.ensure_future(
        house.client.generate("hello", id=id, max_tokens=2000)
    )
    await anext(house.client.join(id, wait_s=PATIENCE_S))
    generating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await generating
    end = await end_of(house.client, id)
    assert isinstance(end, Cancelled)


async def test_a_cancel_from_elsewhere(house: House) -> None:
    client = house.client
    async with client.stream("hello", max_tokens=2000) as stream:
        async for event in stream:
            if event.seq == 5:
                await client.cancel(stream.id, reason="barge-in")
        assert isinstance(stream.end, Cancelled)
        assert stream.end.reason == "barge-in"
        assert stream.end.text == stream.text
        with pytest.raises(RequestCancelled, match="barge-in"):
            await stream.completed()


async def test_a_request_is_alive_while_it_is_read(house: House) -> None:
    answer = await house.client.generate("hello", max_tokens=250, keepalive_ms=400)
    assert answer.text == expected("hello", 250)


async def test_a_request_that_nobody_reads_is_abandoned(house: House) -> None:
    id = await house.client.submit("hello", max_tokens=2000, keepalive_ms=400)
    end = await end_of(house.client, id)
    assert isinstance(end, Cancelled)
    assert end.reason == "abandoned"


async def test_a_request_is_alive_while_it_is_joined(house: House) -> None:
    id = await house.client.submit("hello", max_tokens=250, keepalive_ms=400)
    answer = await house.client.join(id, keepalive_ms=400).completed()
    assert answer.text == expected("hello", 250)


async def test_a_request_that_fails(house: House) -> None:
    with pytest.raises(RequestFailed) as caught:
        await house.client.generate("hello", max_tokens=2000, deadline_ms=300)
    assert caught.value.code == "deadline_exceeded"
    assert caught.value.text
    assert not caught.value.retryable


async def test_a_slow_reader_loses_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MAX_MESSAGES", 8)
    async with house.client.stream("hello", max_tokens=150) as stream:
        got = [await anext(stream)]
        # The log is whole before the reader goes on.
        await end_of(house.client, stream.id)
        got += [event async for event in stream]
    assert [event.seq for event in got] == list(range(1, 153))
    assert stream.text == expected("hello", 150)


async def test_nats_restarts_under_a_stream(tmp_path: Path, prefix: str) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        async with (
            asyncio.timeout(3 * PATIENCE_S),
            Simulator(behaviour=PACE) as simulator,
            running_service(
                server.url,
                simulator.url,
                prefix=prefix,
                ack_wait_s=10.0,
                backend_continue="final_message",
            ),
            Client(server.url, model="simulator", prefixes=[prefix]) as client,
        ):
            seqs: list[int] = []
            stream = client.stream("hello", max_tokens=300)
            async for event in stream:
                if stream.truncated_to is not None:
                    seqs = [seq for seq in seqs if seq <= stream.truncated_to]
                seqs.append(event.seq)
                if event.seq == 60:
                    server.kill()
                    server.start()
            assert isinstance(stream.end, Completed)
            assert seqs == list(range(1, len(seqs) + 1))
            assert stream.text == stream.end.text == expected("hello", 300)
    finally:
        server.stop()


async def test_another_worker_takes_over(nats_server: NatsServer, prefix: str) -> None:
    async with (
        asyncio.timeout(3 * PATIENCE_S),
        Simulator(behaviour=PACE) as simulator,
        Client(nats_server.url, model="simulator", prefixes=[prefix]) as client,
    ):

        def bridge() -> AbstractAsyncContextManager[Service]:
            return running_service(
                nats_server.url,
                simulator.url,
                prefix=prefix,
                backend_continue="final_message",
            )

        body = story(200)
        stream = client.stream(request=body)
        async with bridge():
            events = [await anext(stream) for _ in range(30)]
        # Stopped at once, its job neither done nor handed over.
        async with bridge():
            events += [event async for event in stream]
        assert isinstance(stream.end, Completed)
        assert stream.text == stream.end.text == text_for(body)
        (resumed,) = [event for event in events if isinstance(event, Resumed)]
        assert (resumed.mode, resumed.reason) == ("continue", "takeover")


async def test_a_job_that_is_invalid_for_the_backend(house: House) -> None:
    stream = house.client.stream("hello", model="simulator", max_tokens=-1)
    events = [event async for event in stream]
    assert isinstance(events[-1], Failed)
