"""Every job that a worker has comes to its end, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from bridge.bus.cell import Cell
from bridge.errors import ConnectionLost, InvalidJob
from bridge.events import Control
from bridge.generation import course, ending, record, refusal
from bridge.generation.claim import Claim, claim
from bridge.generation.interrupt import Interrupt, Kind
from bridge.generation.orphan import is_orphaned
from bridge.generation.voice import Voice
from bridge.service import Service
from bridge.simulator import Behaviour, Simulator
from bridge.transcript import Transcript
from tests.plain_client import (
    PATIENCE_S,
    Json,
    PlainClient,
    assert_whole,
    barrier,
    eventually,
    plain_client,
    request,
)
from tests.servers import NatsServer, running_service

BODY = request(max_tokens=10)

#: What is to go on at once must not wait for it.
ACK_WAIT_S = 30.0


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=100)) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer, prefix: str) -> AsyncIterator[PlainClient]:
    async with plain_client(nats_server.url, prefix) as client:
        yield client


After = Callable[[Cell], Awaitable[None]]


def after_claims(monkeypatch: pytest.MonkeyPatch, *steps: After) -> list[Claim]:
    """Do these after the first claims, one each, before they are acted on."""
    found: list[Claim] = []
    left = list(steps)

    async def claimed(cell: Cell, *args: Any) -> Claim:
        result = await claim(cell, *args)
        found.append(result)
        if left:
            await left.pop(0)(cell)
        return result

    monkeypatch.setattr(course, "claim", claimed)
    return found


async def delete_log(cell: Cell) -> None:
    await cell.jetstream.call(f"STREAM.DELETE.{cell.names.tokens}")


# The log's stream vanishes between claim and start


async def test_a_log_that_vanishes_before_the_start_is_begun_again(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claims = after_claims(monkeypatch, delete_log)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=ACK_WAIT_S
    ):
        began = time.monotonic()
        await bus.submit("one", BODY)
        end = await bus.ended("one")
        assert time.monotonic() - began < ACK_WAIT_S / 3
        await bus.settled()
    assert (end["type"], end["attempt"]) == ("completed", 1)
    assert_whole(await bus.log("one"))
    assert len(claims) == 2


async def test_it_may_vanish_twice(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    after_claims(monkeypatch, delete_log, delete_log)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=ACK_WAIT_S
    ):
        await bus.submit("one", BODY)
        end = await bus.ended("one")
        await bus.settled()
    assert (end["type"], end["attempt"]) == ("completed", 1)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_pending_interrupt_outlives_a_start_that_failed(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
    cancelled: bool,
) -> None:
    services: list[Service] = []

    async def interrupt(cell: Cell) -> None:
        worker = services[0].worker
        assert worker is not None
        (running,) = worker._running
        if cancelled:
            running.generation.interrupt(Interrupt(Kind.CANCELLED, "enough"))
        await delete_log(cell)

    after_claims(monkeypatch, interrupt)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=ACK_WAIT_S
    ) as service:
        services.append(service)
        await bus.submit("one", BODY)
        end = await bus.ended("one")
        await bus.settled()
    if cancelled:
        assert (end["type"], end["reason"]) == ("cancelled", "enough")
        assert not simulator.requests
    else:
        assert end["type"] == "completed"


async def test_a_log_lost_under_a_running_request_ends_speech_too(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=ACK_WAIT_S
    ):
        await bus.submit("one", request(max_tokens=5000), speech=True)
        await bus.seen("one", "token", 20)
        await bus.jetstream.delete_stream(f"{prefix.upper()}_TOKENS")
        end = await bus.seen("one", "failed")
        await bus.settled()
        spoken = await bus.stored("TOKENS", f"{prefix}.speech.default.one")
    assert end["error"]["code"] == "log_lost"
    assert [json.loads(message.data)["type"] for message in spoken] == ["failed"]
    log = await bus.stored("TOKENS", f"{prefix}.tokens.default.one")
    assert [json.loads(message.data) for message in log] == [end]


# Drains


async def test_a_drain_during_a_claim_publishes_nothing(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services: list[Service] = []

    async def drain(_: Cell) -> None:
        services[0].drain()
        await asyncio.sleep(0.3)

    after_claims(monkeypatch, drain)
    async with running_service(
        nats_server.url,
        simulator.url,
        prefix=prefix,
        ack_wait_s=ACK_WAIT_S,
        drain_timeout_s=0.0,
    ) as service:
        services.append(service)
        await bus.submit("one", BODY)

        async def given_back() -> bool:
            worker = service.worker
            return worker is not None and not worker.taking and not worker.running

        await eventually(given_back)
    assert not bus.live["one"]
    assert not await bus.log("one")
    began = time.monotonic()
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=ACK_WAIT_S
    ):
        end = await bus.ended("one")
    assert time.monotonic() - began < ACK_WAIT_S / 3
    assert (end["type"], end["attempt"]) == ("completed", 2)
    assert [e["type"] for e in bus.live["one"]].count("started") == 1


# Defects


class Defect(Exception):
    """What nobody expects."""


def broken(*_: Any, **__: Any) -> Any:
    raise Defect("no word of this is told")


async def assert_told(bus: PlainClient, message: str, **fields: Any) -> Json:
    """The request ends ``failed``, ``internal``, with a dead letter, and is settled."""
    end = await bus.seen("one", "failed")
    await bus.settled()
    assert end["error"]["code"] == "internal"
    assert end["error"]["message"] == message
    assert {name: end.get(name) for name in fields} == fields
    (letter,) = await bus.dead()
    assert letter.headers["Tokenbridge-Code"] == "internal"
    assert letter.headers["Tokenbridge-Message"] == message
    assert (await bus.log("one"))[-1] == end
    return end


@pytest.mark.parametrize("where", ["claim", "decode_job"])
async def test_a_defect_on_every_delivery_is_told_on_the_last(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    monkeypatch.setattr(course, where, broken)
    async with running_service(
        nats_server.url,
        simulator.url,
        prefix=prefix,
        max_deliveries=2,
        ack_wait_s=0.5,
    ):
        await bus.submit("one", BODY)
        await assert_told(
            bus,
            "the job failed with an internal error on all 2 deliveries",
            seq=1,
            attempt=2,
        )
    assert not simulator.requests
    assert_whole(await bus.log("one"))


async def test_a_defect_in_refusing_is_told_on_the_last_delivery(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusal, "close_to_end", broken)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, max_deliveries=2, ack_wait_s=0.5
    ):
        await bus.submit("one", BODY, colour="red")
        await assert_told(
            bus, "the job failed with an internal error on all 2 deliveries", seq=1
        )


async def test_a_defect_in_a_takeover_ends_behind_what_stands(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: dict[str, Any] = {"max_deliveries": 2, "ack_wait_s": 0.5}
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, **settings
    ) as first:
        await bus.submit("one", request(max_tokens=5000))
        await bus.seen("one", "token", 10)
        first.stop()
    monkeypatch.setattr(course, "claim", broken)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, **settings
    ):
        await assert_told(
            bus,
            "the job failed with an internal error on all 2 deliveries",
            attempt=2,
            text_omitted=True,
        )
    assert_whole(await bus.log("one"))


BEGUN_DEFECTS: dict[str, tuple[Any, str]] = {
    "the end of the text": (Transcript, "completed"),
    "the end of the speech": (Voice, "end"),
    "the bytes of the end": (record, "encode_terminal"),
}


@pytest.mark.parametrize("where", BEGUN_DEFECTS.values(), ids=BEGUN_DEFECTS.keys())
async def test_a_defect_in_a_request_that_was_begun_is_told_at_once(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
    where: tuple[Any, str],
) -> None:
    owner, name = where
    right = getattr(owner, name)

    def once(*args: Any, **fields: Any) -> Any:
        monkeypatch.setattr(owner, name, right)
        raise Defect("no word of this is told")

    monkeypatch.setattr(owner, name, once)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=ACK_WAIT_S
    ):
        began = time.monotonic()
        await bus.submit("one", BODY, speech=True)
        end = await assert_told(bus, "a defect of the bridge: Defect", attempt=1)
        assert time.monotonic() - began < ACK_WAIT_S / 3
        spoken = await bus.stored("TOKENS", f"{prefix}.speech.default.one")
    kinds = [json.loads(message.data)["type"] for message in spoken]
    assert kinds[-1] == "failed"
    assert kinds.count("failed") + kinds.count("end") == 1
    numbers = [event["seq"] for event in await bus.log("one")]
    assert numbers == list(range(1, end["seq"] + 1))


async def test_a_defect_in_a_cancel_is_told_at_once(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Transcript, "cancelled", broken)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=ACK_WAIT_S
    ):
        await bus.submit("one", request(max_tokens=5000), speech=True)
        await bus.seen("one", "token", 10)
        await bus.cancel("one")
        await assert_told(bus, "a defect of the bridge: Defect", attempt=1)


async def test_nats_that_is_away_is_no_defect(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = record.Record.start

    def away_once(*args: Any) -> None:
        monkeypatch.setattr(record.Record, "start", right)
        raise ConnectionLost("cannot publish: 16777216 bytes wait for NATS already")

    monkeypatch.setattr(record.Record, "start", away_once)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, max_deliveries=1, ack_wait_s=0.5
    ):
        await bus.submit("one", BODY)
        end = await bus.ended("one")
        await bus.settled()
    # Left to the next delivery, which is one too many here.
    assert end["error"]["code"] == "attempts_exhausted"


# What a job supersedes


def refusing_controls(monkeypatch: pytest.MonkeyPatch) -> list[Control]:
    """The control stream takes nothing; what it was asked to keep."""
    refused: list[Control] = []

    async def refuse(
        self: Cell, tenant: str, kind: str, name: str, control: Control, expected: int
    ) -> None:
        refused.append(control)
        raise ConnectionLost("no answer")

    monkeypatch.setattr(Cell, "store_control", refuse)
    return refused


def tasks_of_the_bridge() -> list[str]:
    return [
        task.get_coro().__qualname__  # type: ignore[union-attr]
        for task in asyncio.all_tasks()
        if "supersede_until_done" in repr(task.get_coro())
    ]


async def kept(bus: PlainClient) -> list[Json]:
    subject = f"{bus.prefix}.control.default.session.call"
    return [
        json.loads(message.data) for message in await bus.stored("CONTROL", subject)
    ]


async def test_a_job_is_acknowledged_once_what_it_supersedes_is_stored(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as slow:
        refused = refusing_controls(slow)
        async with running_service(nats_server.url, simulator.url, prefix=prefix):
            ack = await bus.submit("one", BODY, session="call", supersede=True)
            await bus.ended("one")
            count = len(refused)

            async def asked_again() -> bool:
                return len(refused) > count + 1

            await eventually(asked_again)
            assert await bus.jobs_left() == 1
            slow.undo()
            await bus.settled()
            assert [control["before"] for control in await kept(bus)] == [ack.seq]
    assert len(await bus.log("one")) == len(bus.live["one"])


async def test_a_drain_hands_over_what_is_not_superseded_yet(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as slow:
        refusing_controls(slow)
        async with running_service(
            nats_server.url,
            simulator.url,
            prefix=prefix,
            ack_wait_s=ACK_WAIT_S,
            drain_timeout_s=0.3,
        ) as service:
            ack = await bus.submit("one", BODY, session="call", supersede=True)
            await bus.ended("one")
            service.drain()

            async def drained() -> bool:
                return service.worker is not None and service.worker.running == 0

            began = time.monotonic()
            await eventually(drained)
            assert time.monotonic() - began < 3
        assert not tasks_of_the_bridge()
    assert await bus.jobs_left() == 1
    assert not await kept(bus)
    log = await bus.log("one")
    began = time.monotonic()
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=ACK_WAIT_S
    ):
        await bus.settled()
    assert time.monotonic() - began < ACK_WAIT_S / 3
    assert [control["before"] for control in await kept(bus)] == [ack.seq]
    assert await bus.log("one") == log
    assert len(simulator.requests) == 1


async def test_a_stopped_service_leaves_no_task_behind(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing_controls(monkeypatch)
    for body in (BODY, request(max_tokens=5000)):
        async with running_service(
            nats_server.url, simulator.url, prefix=prefix, ack_wait_s=ACK_WAIT_S
        ) as service:
            id = f"r{body['max_tokens']}"
            await bus.submit(id, body, session="call", supersede=True)
            await bus.seen(id, "token", 5)
            assert tasks_of_the_bridge()
            service.stop()
        assert not tasks_of_the_bridge()
    assert await bus.jobs_left() == 2


async def test_a_repeat_that_has_ended_supersedes_nothing(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        first = await bus.submit("one", BODY, session="call", supersede=True)
        await bus.ended("one")
        await bus.settled()
        await bus.submit("other", request(max_tokens=5000), session="call")
        await bus.seen("other", "token")
        await bus.submit("one", BODY, session="call", supersede=True)

        async def acknowledged() -> bool:
            return await bus.jobs_left() == 1

        await eventually(acknowledged)
        assert [control["before"] for control in await kept(bus)] == [first.seq]
        await bus.seen("other", "token", 20)
        await bus.cancel("other")
        await bus.ended("other")


# A lease that is over at the end


@pytest.mark.parametrize("end", ["completed", "cancelled"])
async def test_a_worker_that_was_frozen_at_the_end_ends_no_speech(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
) -> None:
    spoken: list[Json] = []

    async def hear(message: Msg) -> None:
        spoken.append(json.loads(message.data))

    await bus.nats.subscribe(f"{prefix}.speech.default.one", cb=hear)
    await barrier(bus.nats)
    right = getattr(Transcript, end)
    services: list[Service] = []

    def frozen_once(*args: Any, **fields: Any) -> Any:
        monkeypatch.setattr(Transcript, end, right)
        worker = services[0].worker
        assert worker is not None
        (running,) = worker._running
        running.generation.lease.until = 0.0
        return right(*args, **fields)

    monkeypatch.setattr(Transcript, end, frozen_once)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=1.0
    ) as service:
        services.append(service)
        length = 10 if end == "completed" else 5000
        await bus.submit("one", request(max_tokens=length), speech=True)
        await bus.seen("one", "token", 5)
        if end == "cancelled":
            await bus.cancel("one")
        event = await bus.seen("one", end)
        await bus.settled()
        await barrier(bus.nats)
    assert event["attempt"] == 2
    assert [e["type"] for e in bus.live["one"]].count(end) == 1
    terminal = [e for e in spoken if e["type"] in ("end", "cancelled", "failed")]
    assert [e["attempt"] for e in terminal] == [2]


# Orphans


@pytest.mark.parametrize("how", ["stop", "drain"])
async def test_a_service_that_stops_looks_for_no_orphans(
    tmp_path: Path,
    prefix: str,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """NATS stays away: there is no lease to end the looking."""
    looking = asyncio.Event()

    async def looks(*args: Any) -> bool:
        looking.set()
        return await is_orphaned(*args)

    monkeypatch.setattr(ending, "is_orphaned", looks)
    server = NatsServer(tmp_path)
    server.start()
    try:
        async with running_service(
            server.url,
            simulator.url,
            prefix=prefix,
            ack_wait_s=0.5,
            drain_timeout_s=0.1,
        ) as service:
            async with plain_client(server.url, prefix) as bus:
                await bus.submit("one", request(max_tokens=5000))
                await bus.seen("one", "token", 5)
            server.kill()

            async with asyncio.timeout(PATIENCE_S):
                await looking.wait()
            getattr(service, how)()
            began = time.monotonic()

            async def over() -> bool:
                return service.worker is not None and service.worker.running == 0

            await eventually(over)
            assert time.monotonic() - began < 8
    finally:
        server.stop()


# Intake


SERVED: dict[str, bytes] = {
    "half an emoji": rb'"cut \ud83d"',
    "a raw newline": b'"a\nb"',
    "a control character": b'"a\x01b"',
    "no UTF-8": b'"caf\xe9"',
}


def raw_job(content: bytes, **parts: bytes) -> bytes:
    before, behind = parts.get("before", b""), parts.get("behind", b"")
    messages = b'"messages":[{"role":"user","content":%b}]' % content
    body = b'{"model":"simulator","max_tokens":5,%b}' % messages
    job = b'{"id":"one","session":null,"request":%b}' % body
    return before + job + behind


JOBS = {name: raw_job(content) for name, content in SERVED.items()} | {
    "a byte order mark": raw_job(b'"hi"', before=b"\xef\xbb\xbf"),
    "a trailing NUL": raw_job(b'"hi"', behind=b"\0"),
}


@pytest.mark.parametrize("data", JOBS.values(), ids=JOBS.keys())
async def test_a_job_that_is_not_quite_json_is_served(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    data: bytes,
) -> None:
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        await bus.submit_bytes(data)
        end = await bus.ended("one")
        await bus.settled()
    assert end["type"] == "completed"
    body = simulator.requests[0].body
    assert body is not None
    content = body["messages"][0]["content"]
    expected = json.loads(
        data.decode("utf-8-sig", "replace").strip("\0"), strict=False
    )["request"]["messages"][0]["content"]
    assert content == expected.replace("\ud83d", "\ufffd")


TOLD: dict[str, tuple[bytes, str | None, str]] = {
    "not a number": (raw_job(b'"hi"').replace(b"5", b"NaN"), None, "max_tokens"),
    "nested deeply": (raw_job(b"[" * 10_000 + b"]" * 10_000), None, "nested"),
    "cut off": (raw_job(b'"hi"')[:-30], None, "not valid"),
    "trailing text": (raw_job(b'"hi"', behind=b"x"), None, "not valid"),
    "an array": (b"[1]", "default/one", "object"),
    "a string": (b'"one"', "default/one", "object"),
    "empty": (b"", "default/one", "not valid"),
    "no id": (raw_job(b'"hi"').replace(b'"id":"one",', b""), "default/one", "id"),
    "another id": (
        raw_job(b'"hi"').replace(b'"session":null', b'"colour":1'),
        "default/other",
        "colour",
    ),
}


@pytest.mark.parametrize(
    ("data", "message_id", "named"), TOLD.values(), ids=TOLD.keys()
)
async def test_whoever_can_be_told_is_told(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    data: bytes,
    message_id: str | None,
    named: str,
) -> None:
    headers = {"Nats-Msg-Id": message_id} if message_id else None
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        await bus.jetstream.publish(
            f"{prefix}.jobs.default.default", data, headers=headers
        )
        async with asyncio.timeout(PATIENCE_S):
            end = await bus.ended("one")
        await bus.settled()
    assert end["error"]["code"] == "invalid_job"
    assert named in end["error"]["message"]
    assert list(bus.live) == ["one"]
    (letter,) = await bus.dead()
    assert letter.data == data
    assert not simulator.requests


async def test_an_invalid_job_of_a_log_that_it_has_begun_ends_it(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when a bridge of an older version takes over."""
    async with running_service(nats_server.url, simulator.url, prefix=prefix) as first:
        await bus.submit("one", request(max_tokens=5000))
        await bus.seen("one", "token", 10)
        first.stop()

    def refuse(data: bytes) -> Any:
        raise InvalidJob("the job is not valid: it is of a later version")

    monkeypatch.setattr(course, "decode_job", refuse)
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        end = await bus.seen("one", "failed")
        await bus.settled()
    assert (end["error"]["code"], end["attempt"]) == ("invalid_job", 2)
    log = await bus.log("one")
    assert [e["seq"] for e in log] == list(range(1, end["seq"] + 1))
