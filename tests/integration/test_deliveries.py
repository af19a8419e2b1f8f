"""Deliveries of one job: repeats, redeliveries, leases, deadlines, slots."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from nats.aio.msg import Msg

from bridge.config import LaneSettings
from bridge.simulator import Behaviour, Simulator, text_for
from tests.plain_client import (
    TERMINAL,
    PlainClient,
    assert_whole,
    barrier,
    eventually,
    plain_client,
    request,
    text_of,
)
from tests.servers import NatsServer, running_service


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=50)) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer, prefix: str) -> AsyncIterator[PlainClient]:
    async with plain_client(nats_server.url, prefix) as client:
        yield client


async def test_a_repeat_while_the_original_runs(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    body = request(max_tokens=50)
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        first = await bus.submit("one", body)
        await bus.seen("one", "token")
        for _ in range(3):
            repeat = await bus.submit("one", body)
            assert repeat.seq != first.seq

        async def only_the_original() -> bool:
            return await bus.jobs_left() == 1

        await eventually(only_the_original)
        event = await bus.ended("one")
        await bus.settled()
    assert event["text"] == text_for(body)
    log = await bus.log("one")
    assert_whole(log)
    assert log == bus.live["one"]
    assert [e["type"] for e in log].count("started") == 1
    assert len(simulator.requests) == 1


async def test_a_repeat_after_the_end(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        await bus.submit("one")
        await bus.ended("one")
        await bus.settled()
        log = await bus.log("one")
        await bus.submit("one")
        await bus.submit("one", request("something else"))
        await bus.settled()
    assert await bus.log("one") == log == bus.live["one"]
    assert len(simulator.requests) == 1


async def test_repeats_from_the_first_moment_on(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    ids = [f"r{n}" for n in range(20)]
    async with (
        running_service(nats_server.url, simulator.url, prefix=prefix),
        running_service(nats_server.url, simulator.url, prefix=prefix),
    ):
        await asyncio.gather(
            *(bus.submit(id, request(id, max_tokens=5)) for id in ids * 3)
        )
        for id in ids:
            await bus.ended(id)
        await bus.settled()
    for id in ids:
        log = await bus.log(id)
        assert_whole(log)
        assert log[-1]["text"] == text_for(request(id, max_tokens=5))
    assert len(simulator.requests) == len(ids)


async def test_a_message_id_lets_no_repeat_in(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        first = await bus.submit("one", msg_id="default/one")
        again = await bus.submit("one", msg_id="default/one")
        await bus.ended("one")
    assert again.duplicate
    assert again.seq == first.seq


async def test_the_same_id_of_two_tenants_is_two_requests(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        await bus.submit("one", tenant="a")
        await bus.submit("one", tenant="b")
        await bus.settled()
    for tenant in ("a", "b"):
        log = await bus.log("one", tenant)
        assert_whole(log)
        assert log[0]["type"] == "started"
    assert len(simulator.requests) == 2


async def test_an_own_redelivery_is_no_repeat(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    body = request(max_tokens=100)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=1.0
    ):
        await bus.submit("one", body)
        await bus.seen("one", "token", 5)
    assert await bus.jobs_left() == 1
    started = (await bus.log("one"))[0]
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=1.0
    ):
        event = await bus.ended("one")
        await bus.settled()
    log = await bus.log("one")
    assert_whole(log)
    [resumed] = [e for e in log if e["type"] == "resumed"]
    assert resumed["attempt"] == 2
    assert resumed["after"] == resumed["seq"] - 1
    assert (resumed["mode"], resumed["reason"]) == ("restart", "takeover")
    assert [e for e in log if e["type"] == "started"] == [started]
    assert event["text"] == text_of(log) == text_for(body)
    assert len(simulator.requests) == 2
    assert simulator.requests[0].outcome == "client_closed"


async def test_on_restart_fail_is_not_generated_again(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=1.0
    ):
        await bus.submit("one", request(max_tokens=100), on_restart="fail")
        await bus.seen("one", "token", 5)
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, ack_wait_s=1.0
    ):
        event = await bus.ended("one")
        await bus.settled()
    assert event["type"] == "failed"
    log = await bus.log("one")
    assert [e["seq"] for e in log] == list(range(1, len(log) + 1))
    assert len(simulator.requests) == 1


async def test_a_job_longer_than_ack_wait_stays_with_its_worker(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    body = request(max_tokens=200)  # 4 s
    async with (
        running_service(nats_server.url, simulator.url, prefix=prefix, ack_wait_s=1.0),
        running_service(nats_server.url, simulator.url, prefix=prefix, ack_wait_s=1.0),
    ):
        await bus.submit("one", body)
        await bus.ended("one")
        await bus.settled()
        info = await bus.jetstream.consumer_info(f"{prefix.upper()}_JOBS", "default")
    assert info.num_redelivered == 0
    assert info.delivered.consumer_seq == 1
    log = await bus.log("one")
    assert_whole(log)
    assert {e["attempt"] for e in log} == {1}
    assert len(simulator.requests) == 1


async def test_a_queued_job_past_its_deadline(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with running_service(nats_server.url, simulator.url, prefix=prefix, slots=1):
        await bus.submit("long", request(max_tokens=100))
        await bus.seen("long", "token")
        await bus.submit("late", deadline_ms=300, metadata={"a": "b"})
        event = await bus.ended("late")
        await bus.settled()
    assert event["error"]["code"] == "deadline_exceeded"
    assert event["error"]["retryable"] is False
    assert event["metadata"] == {"a": "b"}
    assert event["timings"]["queue_ms"] >= 300
    assert_whole(await bus.log("late"))
    assert len(simulator.requests) == 1


async def test_a_job_that_was_stored_before_any_bridge_ran(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        pass  # makes the streams
    await bus.submit("late", deadline_ms=1)
    await bus.submit("fine")
    await asyncio.sleep(0.05)  # past the deadline
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        assert (await bus.ended("late"))["error"]["code"] == "deadline_exceeded"
        assert (await bus.ended("fine"))["type"] == "completed"


@pytest.mark.parametrize("hang", [None, "before_head", "after_head"])
async def test_a_running_job_past_its_deadline(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    bus: PlainClient,
    hang: str | None,
) -> None:
    body = request(max_tokens=5000, simulate={"hang": hang} if hang else {})
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        await bus.submit("one", body, deadline_ms=1500)
        event = await bus.ended("one")
        await bus.settled()
    assert event["error"]["code"] == "deadline_exceeded"
    assert bool(event["text"]) is (hang is None)
    assert_whole(await bus.log("one"))
    await simulator.wait_closed(simulator.requests[0])


async def test_the_general_deadline_holds_for_jobs_without_one(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, deadline_s=1.0
    ):
        await bus.submit("one", request(max_tokens=5000))
        assert (await bus.ended("one"))["error"]["code"] == "deadline_exceeded"


async def test_no_more_jobs_than_slots(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    running: set[str] = set()
    most = 0

    async def count(message: Msg) -> None:
        # Of one connection, so in the order in which they were published.
        nonlocal most
        if message.data:
            event = json.loads(message.data)
            running.add(event["id"])
            most = max(most, len(running))
            if event["type"] in TERMINAL:
                running.discard(event["id"])

    await bus.nats.subscribe(f"{prefix}.tokens.*.*", cb=count)
    await barrier(bus.nats)
    async with running_service(nats_server.url, simulator.url, prefix=prefix, slots=5):
        for n in range(40):
            await bus.submit(f"r{n}", request(str(n), max_tokens=5))
        await bus.settled()
    assert most == 5
    for n in range(40):
        assert_whole(await bus.log(f"r{n}"))


async def test_lanes_share_the_slots(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    lanes = {"voice": LaneSettings(reserved_slots=2), "bulk": LaneSettings()}
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, slots=4, lanes=lanes
    ) as service:
        for n in range(6):
            await bus.submit(f"b{n}", request(str(n), max_tokens=200), lane="bulk")
        await bus.until(lambda: len(bus.live) == 2)
        await bus.submit("v", request(max_tokens=3), lane="voice")
        event = await bus.ended("v")
        assert event["type"] == "completed"
        worker = service.worker
        assert worker is not None

        async def bulk_has_two_of_four() -> bool:
            return worker.running == 2

        await eventually(bulk_has_two_of_four)
    assert len(bus.live) == 3


async def test_a_burst_does_not_wait_for_pulls_to_expire(
    nats_server: NatsServer, prefix: str, bus: PlainClient
) -> None:
    async with (
        Simulator() as fast,
        running_service(nats_server.url, fast.url, prefix=prefix, slots=64),
    ):
        for n in range(300):
            await bus.nats.publish(
                f"{prefix}.jobs.default.default",
                json.dumps(
                    {"id": f"r{n}", "request": request(str(n), max_tokens=2)}
                ).encode(),
            )
        # a pull that is never told to be over expires after a second: 19 of them
        async with asyncio.timeout(12):
            for n in range(300):
                await bus.ended(f"r{n}")
        await bus.settled()


async def test_what_the_first_and_the_last_event_say(
    nats_server: NatsServer, prefix: str, simulator: Simulator, bus: PlainClient
) -> None:
    metadata = {"caller": "web", "ünïcode": "😀"}
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        stored = await bus.submit("one", session="call-42", metadata=metadata)
        await bus.ended("one")
        await bus.settled()
    log = await bus.log("one")
    first, last = log[0], log[-1]
    assert first["type"] == "started"
    assert first["v"] == 1
    assert first["model"] == "simulator"
    assert first["job"] == stored.seq
    assert first["session"] == "call-42"
    assert first["metadata"] == last["metadata"] == metadata
    assert first["queue_ms"] >= 0
    assert 0 <= time.time() - first["created"] / 1000 < 60
    assert set(last["timings"]) == {"queue_ms", "first_token_ms", "total_ms"}
    assert last["timings"]["total_ms"] >= last["timings"]["first_token_ms"] >= 0
    assert last["usage"]["completion_tokens"] == 20
    assert log == bus.live["one"]
