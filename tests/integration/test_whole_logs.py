"""A takeover goes on with a log that is proven whole, and with no other."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bridge.bus.api import StoredMessage
from bridge.bus.cell import Cell
from bridge.simulator import Behaviour, Simulator, text_for
from tests.cable import Cable
from tests.plain_client import (
    Json,
    PlainClient,
    assert_whole,
    eventually,
    plain_client,
    request,
    text_of,
)
from tests.servers import NatsServer, running_service

BODY = request(max_tokens=10)


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=50)) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def bus(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> AsyncIterator[PlainClient]:
    """The streams are there, and nobody serves."""
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        pass
    async with plain_client(nats_server.url, prefix) as client:
        yield client


async def taken_once(bus: PlainClient, **fields: Any) -> int:
    """Submit job ``one``, and deliver it once to nobody; its stream sequence."""
    ack = await bus.submit("one", BODY, **fields)
    stream = f"{bus.prefix.upper()}_JOBS"
    pull = await bus.jetstream.pull_subscribe_bind("default", stream)
    (delivered,) = await pull.fetch(1, timeout=10)
    await delivered.nak()
    await pull.unsubscribe()
    return ack.seq


async def store(bus: PlainClient, *messages: bytes | Json, id: str = "one") -> None:
    """Put messages on the request's subject, one after the other."""
    for message in messages:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        await bus.jetstream.publish(f"{bus.prefix}.tokens.default.{id}", data)


def started(job: int, seq: int = 1, attempt: int = 1) -> Json:
    head = {"type": "started", "id": "one", "seq": seq, "attempt": attempt, "v": 1}
    rest = {"model": "m", "created": 0, "queue_ms": 0, "job": job, "metadata": {}}
    return {**head, **rest}


def token(seq: int, attempt: int = 1, text: str = "x", id: str = "one") -> Json:
    return {"type": "token", "id": id, "seq": seq, "attempt": attempt, "text": text}


def completed(seq: int, attempt: int = 1) -> Json:
    head = {"type": "completed", "id": "one", "seq": seq, "attempt": attempt}
    rest = {"finish_reason": "stop", "timings": {}, "backend": "b", "metadata": {}}
    return {**head, **rest}


async def events(bus: PlainClient) -> list[Json]:
    """The events of the log, without what else stands there."""
    found = []
    for message in await bus.stored("TOKENS", f"{bus.prefix}.tokens.default.one"):
        with contextlib.suppress(ValueError, RecursionError):
            event = json.loads(message.data)
            if message.data not in GARBAGE.values() and isinstance(event, dict):
                found.append(event)
    return found


GARBAGE: dict[str, bytes] = {
    "no JSON": b"garbage",
    "no UTF-8": b"\xff\xfe",
    "empty": b"",
    "deep": b"[" * 100_000,
    "a number": b"7",
    "no numbers": b'{"type":"token","id":"one"}',
    "another id": json.dumps(token(99, 9, id="two")).encode(),
    "no text": b'{"type":"token","id":"one","seq":3,"attempt":1}',
    "no end": b'{"type":"completed","id":"one","seq":3,"attempt":1}',
    "number 0": json.dumps(token(0)).encode(),
    "a text for a number": b'{"type":"token","id":"one","seq":"3","attempt":1}',
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
async def test_what_is_no_event_is_passed_over(
    bus: PlainClient,
    nats_server: NatsServer,
    simulator: Simulator,
    prefix: str,
    garbage: bytes,
) -> None:
    job = await taken_once(bus)
    await store(bus, garbage, started(job), garbage, token(2), garbage)
    bus.live["one"].clear()
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        end = await bus.ended("one")
        await bus.settled()
    assert end["type"] == "completed"
    assert end["text"] == text_for(BODY)
    resumed = bus.live["one"][0]
    assert (resumed["type"], resumed["after"], resumed["seq"]) == ("resumed", 2, 3)
    log = await events(bus)
    assert [e["seq"] for e in log] == list(range(1, end["seq"] + 1))
    assert log[-1] == end


async def test_a_log_of_garbage_alone_is_begun(
    bus: PlainClient, nats_server: NatsServer, simulator: Simulator, prefix: str
) -> None:
    await store(bus, b"garbage", b"more")
    await bus.submit("one", BODY)
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        end = await bus.ended("one")
        await bus.settled()
    assert (end["type"], end["text"]) == ("completed", text_for(BODY))
    log = await events(bus)
    assert_whole(log)
    assert log[0]["type"] == "started"


async def test_an_end_with_garbage_behind_it_is_the_end(
    bus: PlainClient, nats_server: NatsServer, simulator: Simulator, prefix: str
) -> None:
    job = await taken_once(bus)
    await store(bus, started(job), completed(2), b"garbage")
    before = await events(bus)
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        await bus.settled()
    assert await events(bus) == before
    assert not simulator.requests


async def test_an_invalid_job_behind_garbage_gets_its_event(
    bus: PlainClient, nats_server: NatsServer, simulator: Simulator, prefix: str
) -> None:
    await store(bus, b"garbage")
    await bus.submit("one", BODY, colour="red")
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        end = await bus.ended("one")
        await bus.settled()
    assert (end["error"]["code"], end["seq"]) == ("invalid_job", 1)


BROKEN: dict[str, list[tuple[int, int]]] = {
    "a hole": [(1, 1), (2, 1), (4, 1)],
    "no head": [(4, 1), (5, 1)],
    "a repeat": [(1, 1), (2, 1), (2, 1)],
    "order": [(1, 1), (3, 1), (2, 1)],
    "attempts that fall": [(1, 2), (2, 1)],
    "two texts": [(1, 1), (2, 1), (3, 1), (2, 1), (3, 1)],
}


@pytest.mark.parametrize("numbers", BROKEN.values(), ids=BROKEN.keys())
async def test_a_log_that_is_not_whole_ends_behind_what_it_has(
    bus: PlainClient,
    nats_server: NatsServer,
    simulator: Simulator,
    prefix: str,
    numbers: list[tuple[int, int]],
) -> None:
    job = await taken_once(bus)
    for seq, attempt in numbers:
        event = started(job, seq, attempt) if seq == 1 else token(seq, attempt)
        await store(bus, event)
    bus.live["one"].clear()
    # A third delivery, for the logs with an attempt 2.
    stream = f"{prefix.upper()}_JOBS"
    pull = await bus.jetstream.pull_subscribe_bind("default", stream)
    (delivered,) = await pull.fetch(1, timeout=10)
    await delivered.nak()
    await pull.unsubscribe()
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        end = await bus.ended("one")
        await bus.settled()
    assert (end["type"], end["error"]["code"]) == ("failed", "log_lost")
    assert end["seq"] == numbers[-1][0] + 1
    assert (end["text_omitted"], end.get("text")) == (True, None)
    assert end["error"]["retryable"] is True
    assert [e["type"] for e in bus.live["one"]] == ["failed"]
    assert (await events(bus))[-1] == end
    assert not simulator.requests
    assert not await bus.dead()


async def test_a_lost_log_ends_its_speech_too(
    bus: PlainClient, nats_server: NatsServer, simulator: Simulator, prefix: str
) -> None:
    await taken_once(bus, speech=True)
    speech = f"{prefix}.speech.default.one"
    segment = {"type": "segment", "id": "one", "seq": 4, "attempt": 1, "text": "x"}
    places = {"first": 1, "last": 1, "start": 0, "end": 1}
    await bus.jetstream.publish(speech, json.dumps({**segment, **places}).encode())
    await bus.jetstream.publish(speech, b"garbage")
    await store(bus, token(7))
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        assert (await bus.seen("one", "failed"))["error"]["code"] == "log_lost"
        await bus.settled()
    last = (await bus.stored("TOKENS", speech))[-1]
    assert json.loads(last.data) == {
        "type": "failed",
        "id": "one",
        "seq": 5,
        "attempt": 2,
        "code": "log_lost",
    }


async def discard_head(bus: PlainClient, keep: int) -> None:
    """What `tokens_max_bytes` does: the oldest messages of the stream go."""
    await bus.jetstream.purge_stream(f"{bus.prefix.upper()}_TOKENS", keep=keep)


@pytest.mark.parametrize("speech", [False, True])
async def test_a_running_owner_goes_on_without_the_head_of_its_log(
    bus: PlainClient,
    nats_server: NatsServer,
    simulator: Simulator,
    prefix: str,
    speech: bool,
) -> None:
    body = request(max_tokens=60)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix
    ) as service:
        await bus.submit("one", body, speech=speech)
        await bus.seen("one", "token", 20)
        await discard_head(bus, 1)
        await bus.seen("one", "token", 25)
        # Its batches break, so that what is stored is counted.
        assert service.worker is not None
        for cell in service.worker._cells:
            for writer in cell.writers:
                writer.attach()
        end = await bus.ended("one")
        await bus.settled()
    assert (end["type"], end["text"]) == ("completed", text_for(body))
    assert end["attempt"] == 1
    left = await events(bus)
    assert left[-1] == end
    first = left[0]["seq"]
    assert first > 10
    assert [e["seq"] for e in left] == list(range(first, end["seq"] + 1))
    assert len(simulator.requests) == 1


async def test_a_takeover_of_a_log_without_its_head_is_its_end(
    bus: PlainClient, nats_server: NatsServer, simulator: Simulator, prefix: str
) -> None:
    async with running_service(nats_server.url, simulator.url, prefix=prefix) as first:
        await bus.submit("one", request(max_tokens=5000))
        await bus.seen("one", "token", 20)
        await discard_head(bus, 5)
        await bus.seen("one", "token", 25)
        first.stop()
    last = bus.live["one"][-1]["seq"]
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        end = await bus.seen("one", "failed")
        await bus.settled()
    assert (end["error"]["code"], end["attempt"]) == ("log_lost", 2)
    assert end["seq"] <= last + 1
    left = await events(bus)
    assert [e["seq"] for e in left][-1] == end["seq"]
    assert text_of(left) not in ("", text_for(request(max_tokens=5000)))
    assert len(simulator.requests) == 1


@pytest.mark.parametrize("speech", [False, True])
async def test_one_message_that_is_no_event_and_a_dead_worker(
    bus: PlainClient,
    nats_server: NatsServer,
    simulator: Simulator,
    prefix: str,
    speech: bool,
) -> None:
    body = request(max_tokens=100)
    async with running_service(nats_server.url, simulator.url, prefix=prefix) as first:
        await bus.submit("one", body, speech=speech)
        await bus.seen("one", "token", 10)
        subject = f"{prefix}.tokens.default.one"
        await bus.jetstream.publish(f"{subject}", b'"no event"')
        await bus.seen("one", "token", 12)
        first.stop()
    await bus.jetstream.publish(f"{prefix}.tokens.default.one", b'"no event"')
    await bus.jetstream.publish(f"{prefix}.speech.default.one", b"no segment")
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        end = await bus.seen("one", "completed")
        await bus.settled()
    assert end["text"] == text_for(body)
    assert_whole(await events(bus))
    spoken = await bus.stored("TOKENS", f"{prefix}.speech.default.one")
    said = [json.loads(m.data) for m in spoken if m.data != b"no segment"]
    assert [event["seq"] for event in said] == list(range(1, len(said) + 1))
    assert [event["type"] for event in said][-1:] == (["end"] if speech else [])


@pytest.mark.parametrize("cut_at", [1, 700, 2990])
async def test_a_connection_that_is_cut_while_the_log_is_read(
    bus: PlainClient,
    nats_server: NatsServer,
    simulator: Simulator,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    cut_at: int,
) -> None:
    count = 3000
    job = await taken_once(bus)
    await store(bus, started(job))
    for seq in range(2, count + 1):
        event = json.dumps(token(seq, text="x" * 200)).encode()
        await bus.nats.publish(f"{prefix}.tokens.default.one", event)

    async def stored() -> bool:
        info = await bus.jetstream.stream_info(f"{prefix.upper()}_TOKENS")
        return info.state.messages == count

    await eventually(stored)
    bus.live["one"].clear()
    right, cuts = Cell.read_log, 0
    async with Cable(nats_server.port) as cable:

        async def read_log(
            cell: Cell, tenant: str, id: str, from_seq: int = 1
        ) -> AsyncIterator[StoredMessage]:
            nonlocal cuts
            read = 0
            async for message in right(cell, tenant, id, from_seq):
                yield message
                read += 1
                if read == cut_at and cuts < 3:
                    cuts += 1
                    await cable.pull()
                    await cable.plug_in()

        monkeypatch.setattr(Cell, "read_log", read_log)
        async with running_service(
            cable.url, simulator.url, prefix=prefix, backend_continue="final_message"
        ):
            end = await bus.ended("one")
            await bus.settled()
    assert cuts == 3
    resumed = next(e for e in bus.live["one"] if e["type"] == "resumed")
    assert (resumed["after"], resumed["seq"]) == (count, count + 1)
    log = await events(bus)
    assert [e["seq"] for e in log] == list(range(1, end["seq"] + 1))
    assert end["type"] == "completed"
    assert end["text"] == text_of(log)
