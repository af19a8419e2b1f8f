"""Renewals: counted from when they were sent, and only once they were heard."""

from __future__ import annotations

import time

from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery, LanePull
from bridge.bus.leases import Lease, Leases
from tests.plain_client import eventually


def test_a_lease_only_grows() -> None:
    lease = Lease(10.0, 2.0)
    assert lease.until == 12.0
    lease.extend(11.0)
    assert lease.until == 13.0
    lease.extend(9.0)
    assert lease.until == 13.0
    assert "13.000" in repr(lease)


async def taken_job(cell: Cell) -> tuple[Delivery, LanePull, list[Delivery]]:
    """Submit a job and take it; its consumer's ack_wait is 2 s."""
    jobs: list[Delivery] = []
    pull = LanePull(
        cell.connection,
        cell.names.jobs,
        "default",
        ack_wait_s=2.0,
        on_job=jobs.append,
        on_change=lambda: None,
        now=time.monotonic,
    )
    await pull.open()
    await cell.connection.request(cell.subjects.job("t", "default"), b"job")
    pull.ask(1)

    async def came() -> bool:
        return bool(jobs)

    await eventually(came)
    return jobs[0], pull, jobs


def fail() -> None:
    """For renewals that are heard, or that are never sent."""
    raise AssertionError("nobody serves the consumer")


async def test_an_answer_extends_from_the_time_of_asking(cell: Cell) -> None:
    delivery, pull, _ = await taken_job(cell)
    now = 100.0
    leases = Leases(cell.connection, lambda: now)
    await leases.open()
    heard: list[float] = []
    leases.renew(delivery, heard.append, fail)
    now = 107.0

    async def answered() -> bool:
        return bool(heard)

    await eventually(answered)
    assert heard == [100.0]
    assert "unanswered=0" in repr(leases)
    await pull.close()


async def test_renewals_keep_a_job_claimed(cell: Cell) -> None:
    delivery, pull, jobs = await taken_job(cell)
    leases = Leases(cell.connection, time.monotonic)
    await leases.open()
    lease = Lease(time.monotonic(), 2.0)
    until = time.monotonic() + 4.5

    async def renewed_for_long() -> bool:
        leases.renew(delivery, lease.extend, fail)
        if not pull.reserved:
            pull.ask(1)
        pull.sweep(time.monotonic())
        return time.monotonic() > until

    await eventually(renewed_for_long)
    assert len(jobs) == 1
    assert lease.until > until
    # Left alone, it is delivered again.

    async def redelivered() -> bool:
        if not pull.reserved:
            pull.ask(1)
        return len(jobs) == 2

    await eventually(redelivered)
    assert jobs[1].attempt == 2
    await pull.close()


async def test_what_is_not_answered_is_forgotten(cell: Cell) -> None:
    leases = Leases(cell.connection, lambda: 100.0)
    await leases.open()
    heard: list[float] = []
    silent = "$JS.ACK.NOWHERE.default.1.1.1.1.0"
    delivery = Delivery("s", b"", silent, "default", 1, 1, 0)
    unheard: list[str] = []
    leases.renew(delivery, heard.append, lambda: unheard.append("no consumer"))
    leases.sweep(101.0, 2.0)
    await cell.connection.flush()
    leases.sweep(103.0, 2.0)
    assert "unanswered=0" in repr(leases)
    assert heard == []
    assert unheard == ["no consumer"]


async def test_without_a_connection_nothing_is_sent(cell: Cell) -> None:
    leases = Leases(cell.connection, lambda: 100.0)
    await leases.open()
    await cell.connection.close()
    delivery = Delivery("s", b"", "$JS.ACK.S.C.1.1.1.1.0", "default", 1, 1, 0)
    leases.renew(delivery, lambda _: None, fail)
    assert "unanswered=0" in repr(leases)
