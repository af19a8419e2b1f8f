"""At most one interrupt, which ends every wait, and undoes what came too late."""

from __future__ import annotations

import asyncio

import pytest

from bridge.generation.interrupt import Interrupt, Interrupted, Interruption, Kind

CANCEL = Interrupt(Kind.CANCELLED, "barge-in")


async def test_without_an_interrupt_a_wait_is_a_wait() -> None:
    interruption = Interruption()

    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await interruption.race(work()) == 7
    assert not interruption.fired
    assert "not fired" in repr(interruption)


async def test_what_the_work_raises_is_raised() -> None:
    async def work() -> None:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        await Interruption().race(work())


async def test_an_interrupt_ends_and_cancels() -> None:
    interruption = Interruption()
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    racing = asyncio.create_task(interruption.race(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert interruption.fire(CANCEL)
    with pytest.raises(Interrupted) as caught:
        await racing
    assert caught.value.interrupt == CANCEL
    assert str(caught.value) == "cancelled: barge-in"
    assert ended == ["cancelled"]


async def test_only_the_first_interrupt_counts() -> None:
    interruption = Interruption()
    assert interruption.fire(CANCEL)
    assert not interruption.fire(Interrupt(Kind.DRAIN, "drain"))
    for _ in range(2):
        with pytest.raises(Interrupted) as caught:
            await interruption.race(asyncio.sleep(0))
        assert caught.value.interrupt is CANCEL


async def test_what_was_done_too_late_is_undone() -> None:
    interruption = Interruption()
    undone: list[str] = []

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "connection"
        return ""

    racing = asyncio.create_task(interruption.race(stubborn(), undo=undone.append))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    interruption.fire(CANCEL)
    with pytest.raises(Interrupted):
        await racing
    assert undone == ["connection"]


async def test_a_cancelled_race_undoes_too() -> None:
    interruption = Interruption()
    undone: list[str] = []

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "connection"
        return ""

    racing = asyncio.create_task(interruption.race(stubborn(), undo=undone.append))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    racing.cancel()
    await asyncio.wait([racing])
    assert racing.cancelled()
    assert undone == ["connection"]


async def test_a_future_is_waited_for_and_left_alone() -> None:
    interruption = Interruption()
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(interruption.race_future(future))
    await asyncio.sleep(0)
    interruption.fire(CANCEL)
    with pytest.raises(Interrupted):
        await waiting
    assert not future.done()
