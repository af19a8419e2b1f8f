"""The worker on its own: what it holds, and that stop and drain may come at any time.

What it does with jobs is in tests/integration: deliveries, cancelling, draining.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bridge.backends.http import make_backends
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.streams import Lane
from bridge.config import LaneSettings, Settings
from bridge.generation.controls import Controls
from bridge.generation.course import Generation
from bridge.metrics import Meters
from bridge.simulator import Simulator
from bridge.worker import Worker
from tests.plain_client import eventually, plain_client, request
from tests.servers import NatsServer


class Setting:
    """A worker with everything that it needs, not started."""

    def __init__(self, worker: Worker, meters: Meters, simulator: Simulator) -> None:
        self.worker = worker
        self.meters = meters
        self.simulator = simulator


@pytest_asyncio.fixture
async def setting(nats_server: NatsServer, prefix: str) -> AsyncIterator[Setting]:
    async with Simulator() as simulator:
        settings = Settings(
            nats_url=nats_server.url,
            backend_url=simulator.url,
            lanes={"default": LaneSettings(), "voice": LaneSettings(reserved_slots=1)},
            slots=3,
            ack_wait_s=2.0,
        )
        connection = Connection(settings, name="test")
        await connection.connect()
        cell = Cell(connection, settings, prefix)
        await cell.ensure([Lane("default", 2.0), Lane("voice", 2.0)], "create")
        backends = make_backends(settings)
        meters = Meters()
        worker = Worker([cell], backends, settings, meters)
        yield Setting(worker, meters, simulator)
        await worker.stop()
        await backends.aclose()
        await connection.close()


async def test_a_worker_shows_what_it_does(setting: Setting) -> None:
    worker = setting.worker
    assert repr(worker) == "<Worker not taking jobs running=0>"
    await worker.start()
    assert worker.taking
    assert repr(worker) == "<Worker taking jobs running=0>"
    await worker.drain(1.0)
    assert repr(worker) == "<Worker not taking jobs running=0>"


async def test_stop_and_drain_at_any_time(setting: Setting) -> None:
    worker = setting.worker
    await worker.stop()
    await worker.start()
    await worker.drain(1.0)
    await worker.drain(1.0)
    await worker.stop()
    await worker.stop()


async def test_what_was_served_is_counted(
    setting: Setting, nats_server: NatsServer, prefix: str
) -> None:
    worker, meters = setting.worker, setting.meters
    await worker.start()
    async with plain_client(nats_server.url, prefix) as bus:
        for n in range(4):
            await bus.submit(f"r{n}", request(max_tokens=5), lane="voice")
        await bus.submit("bad", request(simulate={"status": 400}))
        await bus.submit_bytes(b"no json")
        await bus.settled()

        async def counted() -> bool:
            return worker.running == 0

        await eventually(counted)
    assert meters.ended == {
        ("completed", ""): 4,
        ("failed", "backend_rejected"): 1,
    }
    assert meters.deltas == 20
    assert meters.claims == {"fresh": 5}
    assert meters.failures == {("default", "backend_rejected"): 1}
    assert meters.dead_letters == 1
    assert sum(meters.first_token.counts) == 4


async def test_a_stopped_worker_leaves_its_jobs_and_closes_the_backends(
    setting: Setting, nats_server: NatsServer, prefix: str
) -> None:
    worker = setting.worker
    await worker.start()
    async with plain_client(nats_server.url, prefix) as bus:
        await bus.submit("one", request(simulate={"stall_after": 2}))
        await bus.seen("one", "token", 2)
        assert worker.running == 1
        await worker.stop()
        assert worker.running == 0
        assert await bus.jobs_left() == 1
    await setting.simulator.wait_closed(setting.simulator.requests[0])
    assert setting.meters.left == 1


async def test_a_drain_may_be_cancelled(
    setting: Setting, nats_server: NatsServer, prefix: str
) -> None:
    worker = setting.worker
    await worker.start()
    async with plain_client(nats_server.url, prefix) as bus:
        await bus.submit("one", request(simulate={"stall_after": 2}))
        await bus.seen("one", "token", 2)
        draining = asyncio.create_task(worker.drain(100.0))
        await bus.cancel("other")
        draining.cancel()
        await asyncio.wait([draining])
        assert draining.cancelled()
        await worker.stop()
        assert await bus.jobs_left() == 1


@pytest.mark.parametrize("where", ["generation", "controls"])
async def test_a_job_that_cannot_be_taken_costs_no_slot_and_is_not_lost(
    setting: Setting,
    nats_server: NatsServer,
    prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    worker, failures = setting.worker, [True, True, True]

    def fail() -> None:
        if failures:
            failures.pop()
            raise RuntimeError("a defect")

    class Failing(Generation):
        def __init__(self, *args: Any) -> None:
            fail()
            super().__init__(*args)

    enter = Controls.enter

    def failing(controls: Controls, *args: Any) -> None:
        enter(controls, *args)
        fail()

    if where == "generation":
        monkeypatch.setattr("bridge.worker.Generation", Failing)
    else:
        monkeypatch.setattr(Controls, "enter", failing)
    await worker.start()
    async with plain_client(nats_server.url, prefix) as bus:
        # As many as there are slots: all of them would be gone.
        for n in range(3):
            await bus.submit(f"r{n}", request(max_tokens=3))
        for n in range(3):
            assert (await bus.ended(f"r{n}"))["type"] == "completed"
        await bus.settled()
    assert not failures
    assert worker.running == 0
