"""What a job supersedes: in a task that is waited for, given up, and never left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.jobs import Delivery
from bridge.config import Settings
from bridge.events import Job, JobIdentity
from bridge.generation import superseding as module
from bridge.generation.superseding import Superseding

SUPERSEDES = Job("one", {}, session="call", supersede=True)


class Script:
    """Stands for `supersede_until_done`: answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, JobIdentity]] = []
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def __call__(
        self,
        cell: Cell,
        tenant: str,
        session: str,
        before: JobIdentity,
        *,
        owned: Callable[[], bool],
        on_newer: Callable[[], None],
    ) -> bool:
        self.asked.append((session, before))
        return await self.answer


def make(monkeypatch: pytest.MonkeyPatch) -> tuple[Superseding, Script]:
    script = Script()
    monkeypatch.setattr(module, "supersede_until_done", script)
    settings = Settings()
    cell = Cell(Connection(settings, name="test"), settings, "llm")
    delivery = Delivery("", b"", "", "default", 7, 1, 70)
    return Superseding(cell, "t", delivery, lambda: True), script


def newer() -> None:
    """Nobody is."""


@pytest.mark.parametrize(
    "job", [Job("one", {}), Job("one", {}, session="call"), None], ids=repr
)
async def test_what_supersedes_nothing_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch, job: Job | None
) -> None:
    superseding, script = make(monkeypatch)
    if job is not None:
        superseding.begin(job, newer)
    assert await superseding.stored()
    await superseding.close()
    assert script.asked == []


@pytest.mark.parametrize("stored", [True, False])
async def test_an_end_waits_for_the_answer(
    monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    superseding, script = make(monkeypatch)
    superseding.begin(SUPERSEDES, newer)
    superseding.begin(SUPERSEDES, newer)  # a start that was made again
    waiting = asyncio.ensure_future(superseding.stored())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    script.answer.set_result(stored)
    assert await waiting is stored
    assert script.asked == [("call", JobIdentity(7, 70))]


async def test_what_is_given_up_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    superseding, _ = make(monkeypatch)
    superseding.begin(SUPERSEDES, newer)
    waiting = asyncio.ensure_future(superseding.stored())
    await asyncio.sleep(0)
    superseding.give_up()
    assert await waiting is False


async def test_a_defect_is_raised_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    superseding, script = make(monkeypatch)
    superseding.begin(SUPERSEDES, newer)
    script.answer.set_exception(ValueError("a defect"))
    with pytest.raises(ValueError, match="a defect"):
        await superseding.stored()
    await superseding.close()


async def test_closing_leaves_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    superseding, _ = make(monkeypatch)
    before = asyncio.all_tasks()
    superseding.begin(SUPERSEDES, newer)
    assert asyncio.all_tasks() != before
    await superseding.close()
    await superseding.close()
    assert asyncio.all_tasks() == before


async def test_a_long_wait_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SAY_AFTER_S", 0.0)
    superseding, script = make(monkeypatch)
    superseding.begin(SUPERSEDES, newer)
    waiting: asyncio.Future[Any] = asyncio.ensure_future(superseding.stored())
    async with asyncio.timeout(20):
        while not caplog.records:
            await asyncio.sleep(0)
    assert "session call" in caplog.text
    script.answer.set_result(True)
    assert await waiting is True
