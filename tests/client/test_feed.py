"""A bounded queue: what does not fit is dropped and told, never kept."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import NamedTuple

import pytest

from bridge.client.feed import MAX_BYTES, MAX_MESSAGES, QUIET_FIRST_S, Feed


class Message(NamedTuple):
    data: bytes


def receive(feed: Feed, *payloads: bytes) -> None:
    for payload in payloads:
        feed.receive(Message(payload))


def test_what_comes_in_comes_out() -> None:
    feed = Feed()
    receive(feed, b"1", b"22")
    assert feed.bytes == 3
    assert [feed.pop(), feed.pop()] == [b"1", b"22"]
    assert feed.bytes == 0


def test_a_full_feed_drops_and_says_so() -> None:
    feed = Feed()
    receive(feed, *[b"x"] * (MAX_MESSAGES + 5))
    assert len(feed.queue) == MAX_MESSAGES
    assert feed.dropped == 5
    assert feed.due


def test_bytes_are_bounded_too() -> None:
    feed = Feed()
    receive(feed, b"x" * MAX_BYTES, b"y")
    assert len(feed.queue) == 1
    assert feed.due


async def test_a_message_wakes_the_reader() -> None:
    feed = Feed()
    waiting = asyncio.ensure_future(feed.wait(None))
    await asyncio.sleep(0)
    receive(feed, b"x", b"y")
    await asyncio.wait_for(waiting, 5)
    # What nobody waits for is kept; a wake without a reader is nothing.
    feed.wake()


async def test_a_wait_has_an_end() -> None:
    feed = Feed()
    await feed.wait(asyncio.get_running_loop().time() - 1)


async def test_one_reader_at_a_time() -> None:
    feed = Feed()
    waiting = asyncio.ensure_future(feed.wait(None))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="one reader"):
        await feed.wait(None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await feed.wait(asyncio.get_running_loop().time())


async def test_a_reconnect_ends_a_question() -> None:
    feed = Feed()

    async def ask() -> None:
        async with feed.asking("$JS.API.X"):
            await asyncio.sleep(60)

    asking = asyncio.ensure_future(ask())
    await asyncio.sleep(0)
    feed.reconnected()
    feed.reconnected()
    with pytest.raises(TimeoutError):
        await asking
    assert feed.due


async def test_closing_wakes_the_reader() -> None:
    feed = Feed()
    waiting = asyncio.ensure_future(feed.wait(None))
    await asyncio.sleep(0)
    feed.close("over")
    await asyncio.wait_for(waiting, 5)
    assert feed.closed == "over"


def test_silence_is_noticed_ever_more_seldom() -> None:
    feed = Feed()
    noticed = []
    for tick in range(200):
        now = tick / 4
        feed.sweep(now)
        if feed.due:
            noticed.append(now)
            feed.due = False
    assert noticed[:3] == [QUIET_FIRST_S, 3 * QUIET_FIRST_S, 7 * QUIET_FIRST_S]
    assert {b - a for a, b in pairwise(noticed[3:])} == {8.0}
    receive(feed, b"x")
    feed.sweep(50.0)
    feed.sweep(50.0 + QUIET_FIRST_S - 0.1)
    assert not feed.due
    feed.sweep(50.0 + QUIET_FIRST_S)
    assert feed.due
