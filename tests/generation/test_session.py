"""What a superseding request keeps on its session's subject, in a real stream."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.jobs import Delivery
from bridge.bus.streams import Lane
from bridge.config import BusSettings
from bridge.events import Control, JobIdentity
from bridge.generation.claim import cancels_session_job
from bridge.generation.session import SUPERSEDED, supersede
from tests.servers import NatsServer

TENANT, SESSION = "default", "call"


@pytest_asyncio.fixture
async def cell(nats_server: NatsServer, prefix: str) -> AsyncIterator[Cell]:
    settings = BusSettings(nats_url=nats_server.url)
    connection = Connection(settings, name="test")
    await connection.connect()
    cell = Cell(connection, settings, prefix)
    await cell.ensure([Lane("default", 2.0)], "create")
    yield cell
    await connection.close()


async def kept(cell: Cell) -> tuple[Control, int]:
    found = await cell.kept_control(TENANT, "session", SESSION)
    assert found is not None
    return found.control, found.stored_ns


async def job(cell: Cell) -> Delivery:
    """Store a job; its delivery, as far as a session is concerned."""
    subject = cell.subjects.job(TENANT, "default")
    answer = await cell.connection.request(subject, b"{}")
    seq = json.loads(answer.data)["seq"]
    stored = await cell.jetstream.message(cell.names.jobs, seq)
    assert stored is not None
    return Delivery(subject, b"{}", "", "default", seq, 1, stored.stored_ns)


def past(seq: int) -> JobIdentity:
    """A job with a sequence that was stored long before any control message."""
    return JobIdentity(seq, seq)


async def keep(cell: Cell, control: Control) -> None:
    found = await cell.kept_control(TENANT, "session", SESSION)
    expected = found.stream_seq if found is not None else 0
    await cell.store_control(TENANT, "session", SESSION, control, expected)


async def test_the_first_of_a_session(cell: Cell) -> None:
    assert await supersede(cell, TENANT, SESSION, past(7)) is False
    assert (await kept(cell))[0] == Control("cancel", SUPERSEDED, before=7)


@pytest.mark.parametrize("order", list(itertools.permutations((3, 5, 9))))
async def test_one_after_the_other(cell: Cell, order: tuple[int, ...]) -> None:
    highest = 0
    for seq in order:
        newer = await supersede(cell, TENANT, SESSION, past(seq))
        assert newer is (seq < highest)
        highest = max(highest, seq)
        assert (await kept(cell))[0].before == highest


async def test_all_at_once(cell: Cell) -> None:
    """Those that lost are told by the one that won, or see it stand there."""
    newer = await asyncio.gather(
        *(supersede(cell, TENANT, SESSION, past(n)) for n in range(1, 13))
    )
    assert newer[-1] is False
    assert (await kept(cell))[0].before == 12


async def test_the_same_again_changes_nothing(cell: Cell) -> None:
    for _ in range(2):
        assert await supersede(cell, TENANT, SESSION, past(7)) is False
    assert (await kept(cell))[0].before == 7


async def test_a_cancel_of_the_sessions_past_gives_way(cell: Cell) -> None:
    """Whatever it ends has a lower sequence: nothing is lost with it."""
    older = await job(cell)
    await keep(cell, Control("cancel", "barge-in"))
    newest = await job(cell)
    assert await supersede(cell, TENANT, SESSION, newest.identity) is False
    control, at = await kept(cell)
    assert control.before == newest.stream_seq
    assert cancels_session_job(control, older, at)
    assert not cancels_session_job(control, newest, at)


async def test_a_cancel_that_ends_the_new_one_too_stays(cell: Cell) -> None:
    """It may end jobs that came later still, which ``before`` would let live."""
    own, later = await job(cell), await job(cell)
    await keep(cell, Control("cancel", "barge-in"))
    assert await supersede(cell, TENANT, SESSION, own.identity) is False
    control, at = await kept(cell)
    assert control == Control("cancel", "barge-in")
    assert cancels_session_job(control, own, at)
    assert cancels_session_job(control, later, at)


async def test_a_job_that_has_ended_supersedes_nobody_any_more(cell: Cell) -> None:
    await keep(cell, Control("cancel", "barge-in"))
    assert await supersede(cell, TENANT, SESSION, past(7)) is False
    assert (await kept(cell))[0] == Control("cancel", "barge-in")


async def test_what_is_no_cancel_gives_way(cell: Cell) -> None:
    await keep(cell, Control("pause"))
    assert await supersede(cell, TENANT, SESSION, past(7)) is False
    assert (await kept(cell))[0].before == 7


async def test_sessions_and_tenants_have_their_own(cell: Cell) -> None:
    await supersede(cell, TENANT, SESSION, past(9))
    await supersede(cell, TENANT, "another", past(3))
    await supersede(cell, "acme", SESSION, past(5))
    for tenant, session, before in (
        (TENANT, SESSION, 9),
        (TENANT, "another", 3),
        ("acme", SESSION, 5),
    ):
        found = await cell.kept_control(tenant, "session", session)
        assert found is not None
        assert found.control.before == before
