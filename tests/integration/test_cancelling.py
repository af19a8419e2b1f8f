"""A plain cancel: of a running request, of a queued one, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bridge.simulator import Behaviour, Simulator
from tests.plain_client import (
    PlainClient,
    assert_whole,
    eventually,
    plain_client,
    request,
)
from tests.servers import NatsServer, running_service

#: Tokens come for minutes unless somebody cancels.
LONG = request(max_tokens=5000)


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=50)) as simulator:
        yield simulator


@pytest_asyncio.fixture(params=["slim", "httpx"])
async def bus(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    request: pytest.FixtureRequest,
) -> AsyncIterator[PlainClient]:
    async with (
        running_service(
            nats_server.url,
            simulator.url,
            prefix=prefix,
            backend_transport=request.param,
        ),
        plain_client(nats_server.url, prefix) as client,
    ):
        yield client


async def test_a_running_request_ends_with_its_partial_text(
    bus: PlainClient, simulator: Simulator
) -> None:
    await bus.submit("one", LONG, metadata={"caller": "web"})
    await bus.seen("one", "token", 3)
    await bus.cancel("one", "barge-in")
    event = await bus.ended("one")
    assert event["type"] == "cancelled"
    assert event["reason"] == "barge-in"
    assert event["metadata"] == {"caller": "web"}
    assert event["timings"]["total_ms"] >= 0
    log = await bus.log("one")
    assert_whole(log)
    assert event["text"] == "".join(e["text"] for e in log if e["type"] == "token")
    assert event["text"]
    record = simulator.requests[0]
    await simulator.wait_closed(record)
    assert record.outcome == "client_closed"
    await bus.settled()
    assert len(simulator.requests) == 1


async def test_the_upstream_is_closed_while_it_is_silent(
    bus: PlainClient, simulator: Simulator
) -> None:
    for hang in ("before_head", "after_head"):
        await bus.submit(hang, request(simulate={"hang": hang}))
        record = await simulator.wait_for(lambda record: record.outcome is None)
        await bus.seen(hang, "started")
        await bus.cancel(hang)
        event = await bus.ended(hang)
        assert (event["type"], event["text"]) == ("cancelled", "")
        await simulator.wait_closed(record)
        assert_whole(await bus.log(hang))


async def test_a_cancel_between_two_retries(
    bus: PlainClient, simulator: Simulator
) -> None:
    await bus.submit("one", request(simulate={"status": 429, "retry_after_s": 60}))
    await simulator.wait_for(lambda record: record.outcome == "status")
    await bus.cancel("one")
    assert (await bus.ended("one"))["type"] == "cancelled"
    assert_whole(await bus.log("one"))
    assert len(simulator.requests) == 1


async def test_before_the_job_is_stored_it_is_never_generated(
    bus: PlainClient, simulator: Simulator
) -> None:
    await bus.cancel("early", "changed my mind")
    await bus.submit("early")
    event = await bus.ended("early")
    assert event["type"] == "cancelled"
    assert event["reason"] == "changed my mind"
    assert (event["seq"], event["text"]) == (1, "")
    assert_whole(await bus.log("early"))
    await bus.settled()
    assert not simulator.requests


async def test_a_queued_job_is_never_generated(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with (
        running_service(nats_server.url, simulator.url, prefix=prefix, slots=1),
        plain_client(nats_server.url, prefix) as bus,
    ):
        await bus.submit("first", LONG)
        await bus.seen("first", "token")
        await bus.submit("second", LONG)
        await bus.cancel("second")
        await bus.cancel("first")
        assert (await bus.ended("second"))["type"] == "cancelled"
        assert_whole(await bus.log("second"))
        await bus.settled()
    assert len(simulator.requests) == 1


async def test_what_has_ended_stays_as_it_is(
    bus: PlainClient, simulator: Simulator
) -> None:
    await bus.submit("one", request(max_tokens=2))
    await bus.ended("one")
    log = await bus.log("one")
    await bus.cancel("one")
    await bus.submit("two", request(max_tokens=2))
    await bus.ended("two")
    assert await bus.log("one") == log


async def test_only_the_named_request_of_the_named_tenant(bus: PlainClient) -> None:
    body = request(max_tokens=40)
    await bus.submit("one", body)
    await bus.submit("two", body)
    await bus.seen("one", "token")
    await bus.seen("two", "token")
    await bus.cancel("one", tenant="somebody-else")
    await bus.cancel("two")
    assert (await bus.ended("two"))["type"] == "cancelled"
    assert (await bus.ended("one"))["type"] == "completed"


async def test_twice_and_at_once_with_the_end(bus: PlainClient) -> None:
    ids = [f"r{n}" for n in range(30)]
    for id in ids:
        await bus.submit(id, request(id, max_tokens=3))
    for id in ids:
        await bus.cancel(id)
        await bus.cancel(id, "again")
    for id in ids:
        await bus.ended(id)
        assert_whole(await bus.log(id))
    await bus.settled()


async def test_messages_that_are_no_cancel(bus: PlainClient) -> None:
    subject = f"{bus.prefix}.control.default.request.one"
    junk = [
        b"",
        b"no json",
        b'{"action":"\xff"}',
        b"[" * 5000,
        b"{}",
        b'{"action":"pause"}',
        b'{"action":7}',
    ]
    await bus.submit("one", request(max_tokens=40))
    await bus.seen("one", "token")
    for data in junk:
        await bus.jetstream.publish(subject, data)
    assert (await bus.ended("one"))["type"] == "completed"


async def test_kept_junk_does_not_keep_a_job_from_being_served(
    bus: PlainClient,
) -> None:
    for n, data in enumerate((b"no json", b'{"action":"\xff"}', b"[" * 5000, b"")):
        id = f"r{n}"
        await bus.jetstream.publish(f"{bus.prefix}.control.default.request.{id}", data)
        await bus.submit(id, request(max_tokens=2))
        assert (await bus.ended(id))["type"] == "completed"
        assert_whole(await bus.log(id))
    await bus.settled()


async def test_a_reason_that_leaves_no_room_for_the_event(bus: PlainClient) -> None:
    reason = "x" * 1_048_400
    data = json.dumps({"action": "cancel", "reason": reason}).encode()
    await bus.submit("running", LONG)
    await bus.seen("running", "token")
    for id in ("running", "queued"):
        subject = f"{bus.prefix}.control.default.request.{id}"
        await bus.jetstream.publish(subject, data)
    await bus.submit("queued")
    for id in ("running", "queued"):
        event = await bus.ended(id)
        assert event["type"] == "cancelled"
        assert event["reason"].startswith("xxx")
        assert_whole(await bus.log(id))
    await bus.settled()


async def test_a_repeat_does_not_shield_the_original(
    bus: PlainClient, simulator: Simulator
) -> None:
    await bus.submit("one", LONG)
    await bus.seen("one", "token")
    await bus.submit("one", LONG)  # no Nats-Msg-Id: stored again
    await bus.submit("next", request(max_tokens=1))
    await bus.ended("next")  # the repeat was taken before it

    async def only_the_original() -> bool:
        return await bus.jobs_left() == 1

    await eventually(only_the_original)
    await bus.cancel("one")
    assert (await bus.ended("one"))["type"] == "cancelled"
    assert_whole(await bus.log("one"))
    await bus.settled()
