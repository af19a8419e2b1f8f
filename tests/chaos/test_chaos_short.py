"""The short chaos run: some dozens of requests, one fault of nearly every kind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from pathlib import Path

import pytest

from tests.chaos.__main__ import plan_of
from tests.chaos.load import SHARES, orders
from tests.chaos.run import Plan, run


async def test_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(["--short", "--seed", "1"])
    verdict = await run(plan, tmp_path)
    with capsys.disabled():
        if not verdict.passed:
            print(f"\nthe logs of all processes are in {tmp_path}")
    assert verdict.passed, "\n".join([verdict.table(), *verdict.wrong])
    assert verdict.jobs == plan.requests
    assert sum(verdict.faults.values()) >= 3
    assert verdict.resumed["takeover"] + verdict.resumed["handover"] > 0


def test_the_seed_decides_the_requests() -> None:
    first, second = (orders(100, 10, random.Random(7)) for _ in range(2))
    assert first == second
    assert {order.kind for order in first} == set(SHARES)
    assert first != orders(100, 10, random.Random(8))


def test_the_command_line() -> None:
    assert plan_of(["--requests", "5", "--seconds", "2", "--seed", "3"]) == Plan(
        5, 2.0, 3, False
    )
    assert plan_of(["--cluster"]).cluster
    assert 0 <= plan_of([]).seed < 1_000_000


def test_no_process_is_left(tmp_path: Path) -> None:
    async def cancelled() -> None:
        async with asyncio.timeout(4):
            await run(Plan(50, 60, 1), tmp_path)

    before = _children()
    with pytest.raises(TimeoutError):
        asyncio.run(cancelled())
    assert _children() == before


def _children() -> set[str]:
    found = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"PPid:\t{os.getpid()}\n" in status.read_text("utf-8", "replace"):
                found.add(status.parent.name)
    return found
