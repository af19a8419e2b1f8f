"""What is renewed and settled of a job whose stream may have become another."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.bus.jobs import Delivery
from bridge.bus.leases import Lease
from bridge.errors import ConnectionLost
from bridge.events import JobIdentity
from bridge.generation.running import Running
from bridge.job import Settlement
from bridge.slots import LaneLoad

ACK, NAK, TERM = Settlement.ACK, Settlement.NAK, Settlement.TERM
NOTHING = Settlement.NOTHING

JOB = Delivery("llm.jobs.t.default", b"", "reply", "default", 7, 1, 5)


class Stream:
    """The work queue, as a running job sees it."""

    def __init__(self) -> None:
        self.watch = SimpleNamespace(epoch=0)
        self.connection = SimpleNamespace(connected=True)
        self.jobs = {JOB.identity}
        self.away = False
        self.looked = 0
        self.meanwhile: Callable[[], None] = lambda: None

    async def job_is_stored(self, job: JobIdentity) -> bool:
        self.looked += 1
        if self.away:
            raise ConnectionLost("away")
        found = job in self.jobs
        self.meanwhile()
        return found


class Renewals:
    def __init__(self) -> None:
        self.sent = 0
        self.unheard: Callable[[], None] = lambda: None

    def now(self) -> float:
        return 4.0

    def renew(
        self, _: Delivery, __: Callable[[float], None], unheard: Callable[[], None]
    ) -> None:
        self.sent += 1
        self.unheard = unheard


class Scene:
    """A job that was delivered at 0 s, with 10 s of lease; it is 4 s now."""

    def __init__(self, settlement: Settlement = NOTHING) -> None:
        self.stream, self.renewals = Stream(), Renewals()
        self.generation = SimpleNamespace(
            delivery=JOB,
            lease=Lease(0.0, 10.0),
            settlement=settlement,
            sweep=lambda now: None,
            heard=lambda: None,
        )
        self.running = Running(
            cast("Any", self.generation),
            cast("Any", self.stream),
            LaneLoad(),
            cast("Any", self.renewals),
            0.0,
        )

    async def sweep(self) -> None:
        self.running.sweep(4.0)
        if self.running._checking is not None:
            await self.running._checking


@pytest.mark.parametrize("how", list(Settlement))
async def test_in_one_epoch_nobody_looks(how: Settlement) -> None:
    scene = Scene(how)
    await scene.sweep()
    assert scene.renewals.sent == 1
    assert await scene.running.settlement(4.0) is how
    assert scene.stream.looked == 0


@pytest.mark.parametrize("how", [ACK, NAK, TERM])
async def test_in_another_epoch_the_job_is_looked_for(how: Settlement) -> None:
    scene = Scene(how)
    scene.stream.watch.epoch += 1
    assert await scene.running.settlement(4.0) is how
    assert await scene.running.settlement(4.0) is how
    assert scene.stream.looked == 1


@pytest.mark.parametrize("how", [ACK, NAK, TERM])
@pytest.mark.parametrize("jobs", [set(), {JobIdentity(7, 6)}, {JobIdentity(8, 5)}])
async def test_of_another_job_nothing_is_settled_or_renewed(
    how: Settlement, jobs: set[JobIdentity]
) -> None:
    scene = Scene(how)
    scene.stream.watch.epoch += 1
    scene.stream.jobs = jobs
    assert await scene.running.settlement(4.0) is NOTHING
    await scene.sweep()
    assert scene.renewals.sent == 0
    assert not scene.running.stored
    # It is nobody else's: it may take until its deadline.
    assert scene.generation.lease.until == float("inf")


async def test_a_lease_that_is_over_stays_over() -> None:
    scene = Scene()
    scene.generation.lease.until = 3.0
    scene.stream.watch.epoch += 1
    scene.stream.jobs = set()
    await scene.sweep()
    assert scene.generation.lease.until == 3.0


async def test_while_nobody_answers_nothing_is_settled_or_renewed() -> None:
    scene = Scene(ACK)
    scene.stream.watch.epoch += 1
    scene.stream.away = True
    await scene.sweep()
    assert await scene.running.settlement(4.0) is NOTHING
    assert scene.renewals.sent == 0
    scene.stream.away = False
    await scene.sweep()
    assert scene.renewals.sent == 1
    assert await scene.running.settlement(4.0) is ACK


async def test_what_changes_while_it_is_looked_for_counts() -> None:
    scene = Scene(ACK)
    scene.stream.watch.epoch += 1

    def made_again() -> None:
        scene.stream.watch.epoch = 2
        scene.stream.jobs = {JobIdentity(7, 6)}

    scene.stream.meanwhile = made_again
    assert await scene.running.settlement(4.0) is NOTHING
    assert scene.stream.looked == 2


async def test_a_renewal_that_nobody_hears_is_reason_to_look() -> None:
    scene = Scene(ACK)
    await scene.sweep()
    scene.renewals.unheard()
    scene.stream.jobs = set()
    assert await scene.running.settlement(4.0) is NOTHING


async def test_while_disconnected_nobody_looks() -> None:
    scene = Scene()
    scene.stream.connection.connected = False
    scene.stream.watch.epoch += 1
    await scene.sweep()
    assert scene.stream.looked == 0
