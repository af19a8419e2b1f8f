"""The work queue is deleted and made again under running bridges.

Its sequences begin anew, and what names a job of the old queue names another one in
the new: acknowledgements, renewals, batches, repeats and what supersedes a session.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bridge.service import Service
from bridge.simulator import Behaviour, Simulator
from tests.plain_client import (
    Json,
    PlainClient,
    assert_whole,
    eventually,
    plain_client,
    request,
)
from tests.replicas import replicas
from tests.servers import NatsServer, running_service

LONG = request(max_tokens=5000)


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=50)) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def bus(nats_server: NatsServer, prefix: str) -> AsyncIterator[PlainClient]:
    async with plain_client(nats_server.url, prefix) as client:
        yield client


async def ask(bus: PlainClient, what: str, body: object = None) -> dict[str, object]:
    """One question to JetStream's API about the work queue."""
    name = f"{bus.prefix.upper()}_JOBS"
    data = json.dumps(body).encode() if body is not None else b""
    answer = await bus.nats.request(
        f"$JS.API.{what.replace('JOBS', name)}", data, timeout=5
    )
    said: dict[str, object] = json.loads(answer.data)
    assert "error" not in said, said
    return said


async def make_again(bus: PlainClient) -> None:
    """Delete the work queue, and make it again, with the same consumer."""
    stream = await ask(bus, "STREAM.INFO.JOBS")
    consumer = await ask(bus, "CONSUMER.INFO.JOBS.default")
    await ask(bus, "STREAM.DELETE.JOBS")
    await ask(bus, "STREAM.CREATE.JOBS", stream["config"])
    body = {"stream_name": f"{bus.prefix.upper()}_JOBS", "config": consumer["config"]}
    await ask(bus, "CONSUMER.DURABLE.CREATE.JOBS.default", body)


async def left(service: Service, running: int) -> None:
    """Wait until a bridge runs so many, and the server has read what it settled."""

    async def ended() -> bool:
        assert service.worker is not None
        return service.worker.running == running

    await eventually(ended)
    assert service._connection is not None
    await service._connection.flush()


async def test_a_late_acknowledgement_leaves_the_new_streams_job(
    nats_server: NatsServer, prefix: str, bus: PlainClient, simulator: Simulator
) -> None:
    async with running_service(nats_server.url, simulator.url, prefix=prefix) as one:
        first = await bus.submit("old", LONG)
        await bus.seen("old", "token", 3)
        await make_again(bus)
        second = await bus.submit("new", LONG)
        assert second.seq == first.seq
        await bus.seen("new", "token", 3)
        await bus.cancel("old")
        await bus.ended("old")
        await left(one, 1)
        assert await bus.jobs_left() == 1
        await bus.cancel("new")
        await bus.ended("new")
        await bus.settled()
    for id in ("old", "new"):
        assert_whole(await bus.log(id))


async def test_a_renewal_keeps_no_other_job_from_a_new_owner(
    nats_server: NatsServer, prefix: str, bus: PlainClient, simulator: Simulator
) -> None:
    """The new job's worker dies; the old one's would go on renewing for it."""
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, slots=1, ack_wait_s=1.0
    ):
        await bus.submit("old", LONG)
        await bus.seen("old", "token", 3)
        await make_again(bus)
        async with running_service(
            nats_server.url, simulator.url, prefix=prefix, ack_wait_s=1.0
        ):
            await bus.submit("new", LONG)
            await bus.seen("new", "token", 3)
        async with running_service(
            nats_server.url, simulator.url, prefix=prefix, ack_wait_s=1.0
        ):
            await bus.seen("new", "resumed")
            await bus.cancel("new")
            await bus.ended("new")
            await bus.settled()
        # It outlived the time after which another worker would have had it.
        await bus.seen("old", "token", len(bus.live["old"]) + 5)
        await bus.cancel("old")
        await bus.ended("old")
    for id in ("old", "new"):
        assert_whole(await bus.log(id))


async def test_every_job_that_is_stored_or_running_ends_once(
    nats_server: NatsServer, prefix: str, bus: PlainClient, simulator: Simulator
) -> None:
    """The bridges make the queue again, as for the producers that submit again."""
    running = [f"r{n}" for n in range(8)]
    queued = [f"q{n}" for n in range(4)]
    async with replicas(
        nats_server.url, simulator.url, prefix, count=2, slots=4, ack_wait_s=1.0
    ):
        for id in running:
            await bus.submit(id, request(id, max_tokens=100))
        for id in running:
            await bus.seen(id, "token")
        for id in queued:
            await bus.submit(id, request(id))
        await ask(bus, "STREAM.DELETE.JOBS")
        accepted = [*queued, *(f"n{n}" for n in range(8)), *running[:4]]

        for id in accepted:
            await accept(bus, id)
        for id in {*running, *accepted}:
            await bus.ended(id)
        await bus.settled()
    for id in {*running, *accepted}:
        log = await bus.log(id)
        assert_whole(log)
        assert log[-1]["type"] == "completed"
    assert not await bus.dead()


async def accept(bus: PlainClient, id: str, body: Json | None = None) -> None:
    """Submit until the queue takes it."""
    job = {"id": id, "request": body or request(id, max_tokens=30)}

    async def accepted() -> bool:
        try:
            await bus.nats.request(
                f"{bus.prefix}.jobs.default.default", json.dumps(job).encode()
            )
        except Exception:
            return False
        return True

    await eventually(accepted)


async def test_a_drain_ends_what_nobody_would_be_delivered_again(
    nats_server: NatsServer, prefix: str, bus: PlainClient, simulator: Simulator
) -> None:
    async with running_service(
        nats_server.url, simulator.url, prefix=prefix, drain_timeout_s=0.2
    ) as service:
        await bus.submit("old", LONG)
        await bus.seen("old", "token", 3)
        await make_again(bus)
        worker = service.worker
        assert worker is not None

        async def known() -> bool:
            return not any(running.stored for running in worker._running)

        await eventually(known)
        await bus.submit("new", LONG)
        await bus.seen("new", "token", 3)
        service.drain()
        error = (await bus.ended("old"))["error"]
        assert (error["code"], error["retryable"]) == ("internal", True)
        await bus.seen("new", "handover")

        async def kept() -> bool:  # right behind its end
            return len(await bus.dead()) == 1

        await eventually(kept)
    assert await bus.jobs_left() == 1
    assert_whole(await bus.log("old"))


async def test_what_superseded_a_session_of_the_old_stream_ends_none_of_the_new(
    nats_server: NatsServer, prefix: str, bus: PlainClient, simulator: Simulator
) -> None:
    async with running_service(nats_server.url, simulator.url, prefix=prefix):
        for turn in range(4):
            await bus.submit(f"old{turn}", LONG, session="call", supersede=True)
            await bus.seen(f"old{turn}", "token")
        await bus.cancel("old3")
        await bus.settled()
        await make_again(bus)
        short = request(max_tokens=5)
        for turn in range(3):
            await bus.submit(f"new{turn}", short, session="call", supersede=turn > 0)
            assert (await bus.ended(f"new{turn}"))["type"] == "completed"
        # And what is new supersedes as ever.
        for turn in (3, 4):
            await bus.submit(f"new{turn}", LONG, session="call", supersede=True)
            await bus.seen(f"new{turn}", "token")
        assert (await bus.ended("new3"))["reason"] == "superseded"
        await bus.cancel("new4")
        await bus.settled()


async def test_a_user_who_may_not_hear_advisories_is_served(
    tmp_path_factory: pytest.TempPathFactory, prefix: str, simulator: Simulator
) -> None:
    server = NatsServer(
        tmp_path_factory.mktemp("nats"),
        more="""authorization { users: [
            {user: "admin", password: "a"}
            {user: "bridge", password: "b", permissions: {
                subscribe: {deny: ["$JS.EVENT.>"]}}}
        ]}""",
    )
    server.start()
    url = server.url.replace("//", "//{}@")
    try:
        async with (
            running_service(url.format("bridge:b"), simulator.url, prefix=prefix) as s,
            plain_client(url.format("admin:a"), prefix) as bus,
        ):
            await bus.submit("one", LONG)
            await bus.seen("one", "token")
            # It makes the queue again itself, and knows it from that.
            await ask(bus, "STREAM.DELETE.JOBS")
            await accept(bus, "two")
            await bus.ended("two")
            await left(s, 1)
            await bus.cancel("one")
            await bus.ended("one")
            await bus.settled()
    finally:
        server.stop()


async def test_an_older_store_that_is_put_back(
    tmp_path: Path, prefix: str, simulator: Simulator
) -> None:
    """The stream says that it was made when it was: only the job's time tells."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    store, copy = server.folder / "store", tmp_path / "copy"
    try:
        async with (
            running_service(
                server.url, simulator.url, prefix=prefix, ack_wait_s=8.0
            ) as one,
            plain_client(server.url, prefix) as bus,
        ):
            await bus.submit("first", request(max_tokens=3))
            await bus.ended("first")
            await bus.settled()
            server.stop()
            shutil.copytree(store, copy)
            server.start()
            await accept(bus, "old", LONG)
            await bus.seen("old", "token", 3)
            server.stop()
            shutil.rmtree(store)
            shutil.copytree(copy, store)
            server.start()
            await accept(bus, "new", LONG)
            await bus.seen("new", "token", 3)
            await bus.cancel("old")
            await bus.ended("old")
            await left(one, 1)
            assert await bus.jobs_left() == 1
            await bus.cancel("new")
            await bus.ended("new")
            await bus.settled()
            for id in ("old", "new"):
                assert_whole(await bus.log(id))
    finally:
        server.stop()
