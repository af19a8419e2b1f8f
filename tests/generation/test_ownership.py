"""Whether a job is still ours, and that waiting ends with it."""

from __future__ import annotations

import asyncio

import pytest

from bridge.backends.http import Backends
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.leases import Lease
from bridge.bus.refusals import Fenced
from bridge.config import Settings
from bridge.errors import BusError, ConnectionLost, SetupError, StreamUnavailable
from bridge.generation.interrupt import Interrupt, Interrupted, Interruption, Kind
from bridge.generation.ownership import RETRY_S, Ownership
from bridge.generation.surroundings import Surroundings
from bridge.metrics import Meters


class Scene:
    """An ownership whose clock goes on while it pauses; connected to nothing."""

    def __init__(self, ack_wait_s: float) -> None:
        settings = Settings()
        self.now = 0.0
        self.remade = 0
        self.calls = 0
        self.errors: list[BusError] = []
        self.away: list[BusError] = []
        self.interruption = Interruption()
        around = Surroundings(
            cell=PausingCell(self, settings),
            backends=Backends([], []),
            settings=settings,
            meters=Meters(),
            now=lambda: self.now,
            crowded=lambda: None,
            gone=self.remake,
        )
        self.ownership = Ownership(
            around, "t/one", Lease(self.now, ack_wait_s), self.interruption
        )

    async def remake(self) -> None:
        self.remade += 1
        if self.away:
            raise self.away.pop(0)

    async def call(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


class PausingCell(Cell):
    def __init__(self, scene: Scene, settings: Settings) -> None:
        super().__init__(Connection(settings, name="test"), settings, "llm")
        self.scene = scene

    async def pause(self, seconds: float) -> None:
        self.scene.now += seconds


async def test_a_lease_holds_until_its_end() -> None:
    scene = Scene(ack_wait_s=2.0)
    scene.now = 2.0
    assert scene.ownership.holds()
    scene.ownership.check()
    scene.now = 2.1
    assert not scene.ownership.holds()
    with pytest.raises(Fenced, match="lease"):
        scene.ownership.check()
    scene.ownership.lease.extend(1.0)
    scene.ownership.check()


async def test_a_call_is_made_until_nats_answers() -> None:
    scene = Scene(ack_wait_s=2.0)
    scene.errors = [
        ConnectionLost("away"),
        StreamUnavailable("no leader"),
        StreamUnavailable("deleted", gone=True),
    ]
    assert await scene.ownership.retried(scene.call) == "answer"
    assert scene.calls == 4
    assert scene.remade == 1
    assert scene.now == 3 * RETRY_S


async def test_a_call_is_not_made_without_the_lease() -> None:
    scene = Scene(ack_wait_s=2 * RETRY_S)
    scene.errors = [ConnectionLost("away")] * 10
    with pytest.raises(Fenced):
        await scene.ownership.retried(scene.call)
    assert scene.calls == 3


async def test_an_interrupt_ends_the_waiting() -> None:
    scene = Scene(ack_wait_s=2.0)
    scene.interruption.fire(Interrupt(Kind.DRAIN, "drain"))
    with pytest.raises(Interrupted):
        await scene.ownership.retried(scene.call)
    with pytest.raises(Interrupted):
        await scene.ownership.pause(1.0)
    assert scene.calls == 0
    assert scene.now == 0.0


async def test_streams_that_cannot_be_made_again_yet_are_no_defect() -> None:
    scene = Scene(10.0)
    scene.errors = [StreamUnavailable("no stream", gone=True)] * 2
    scene.away = [ConnectionLost("no answer"), SetupError("not allowed")]
    assert await scene.ownership.retried(scene.call) == "answer"
    assert scene.remade == 2


async def test_an_interrupt_ends_a_call_that_is_under_way() -> None:
    scene = Scene(10.0)
    ended = asyncio.Event()

    async def call() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    calling = asyncio.ensure_future(scene.ownership.retried(call))
    await asyncio.sleep(0)
    scene.interruption.fire(Interrupt(Kind.DRAIN, "drain"))
    with pytest.raises(Interrupted):
        await calling
    assert ended.is_set()
