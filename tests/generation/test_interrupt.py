"""At most one interrupt, which ends every wait, and leaves no cancel behind."""

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


async def test_a_work_that_finishes_all_the_same_has_finished() -> None:
    interruption = Interruption()

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "connection"
        return ""

    async def story() -> str:
        got = await interruption.race(stubborn())
        await asyncio.sleep(0)  # no cancel is left behind
        with pytest.raises(Interrupted):
            await interruption.race(asyncio.sleep(0))
        return got

    racing = asyncio.create_task(story())
    await asyncio.sleep(0)
    interruption.fire(CANCEL)
    assert await racing == "connection"


async def test_a_cancel_from_outside_is_one() -> None:
    interruption = Interruption()
    racing = asyncio.create_task(interruption.race(asyncio.Event().wait()))
    await asyncio.sleep(0)
    racing.cancel()
    await asyncio.wait([racing])
    assert racing.cancelled()
    assert not interruption.fired


@pytest.mark.parametrize("first", ["fire", "cancel"])
async def test_a_cancel_from_outside_outweighs_an_interrupt(first: str) -> None:
    interruption = Interruption()
    racing = asyncio.create_task(interruption.race(asyncio.Event().wait()))
    await asyncio.sleep(0)
    if first == "cancel":
        racing.cancel()
    interruption.fire(CANCEL)
    if first == "fire":
        racing.cancel()
    await asyncio.wait([racing])
    assert racing.cancelled()


@pytest.mark.parametrize("inside", [True, False])
async def test_it_nests_with_a_timeout(inside: bool) -> None:
    interruption = Interruption()

    async def forever() -> None:
        async with asyncio.timeout(60 if inside else None):
            await asyncio.Event().wait()

    async def story() -> None:
        async with asyncio.timeout(None if inside else 60):
            await interruption.race(forever())

    racing = asyncio.create_task(story())
    await asyncio.sleep(0)
    interruption.fire(CANCEL)
    with pytest.raises(Interrupted):
        await racing


async def test_a_timeout_around_a_race_is_a_timeout() -> None:
    interruption = Interruption()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await interruption.race(asyncio.Event().wait())
    assert not interruption.fired
    assert await interruption.race(asyncio.sleep(0, 7)) == 7


async def test_an_interrupt_and_a_timeout_in_one_turn_are_told_one_by_one() -> None:
    interruption = Interruption()

    async def timed() -> None:
        async with asyncio.timeout(60) as timeout:
            deadlines.append(timeout)
            await interruption.race(asyncio.Event().wait())

    async def story() -> None:
        with pytest.raises(TimeoutError):
            await timed()
        await interruption.race(asyncio.sleep(0))

    deadlines: list[asyncio.Timeout] = []
    racing = asyncio.create_task(story())
    await asyncio.sleep(0)
    deadlines[0].reschedule(asyncio.get_running_loop().time())
    asyncio.get_running_loop().call_soon(interruption.fire, CANCEL)
    with pytest.raises(Interrupted):
        await racing


async def test_a_future_is_waited_for() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(Interruption().race(future))
    await asyncio.sleep(0)
    future.set_result(7)
    assert await waiting == 7


async def test_an_interrupt_in_the_turn_of_the_result_comes_first() -> None:
    interruption = Interruption()
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(interruption.race(future))
    await asyncio.sleep(0)
    future.set_result(7)
    interruption.fire(CANCEL)
    with pytest.raises(Interrupted):
        await waiting
