"""Log and live spliced, over a real log; what live brings is the test's own doing."""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

import pytest

from bridge.client import feed as feeds
from bridge.client import reader as readers
from bridge.client.feed import Feed
from bridge.client.reader import Reader
from bridge.errors import ConnectionLost, LogExpired, NothingInLog, RequestLost
from bridge.events import AnyEvent, KnownEvent, encode
from tests.client.bridge_side import PATIENCE_S, Author, Bus, running_bus
from tests.servers import NatsServer


class Message(NamedTuple):
    data: bytes


def show(feed: Feed, *events: KnownEvent) -> None:
    """Let live events arrive at the reader."""
    for event in events:
        feed.receive(Message(encode(event)))


def open_reader(
    bus: Bus,
    id: str,
    *,
    read: bool = False,
    from_seq: int = 1,
    wait_s: float | None = None,
    deadline_ms: int | None = None,
) -> tuple[Reader, Feed]:
    feed = Feed()
    reader = Reader(
        bus.cell, "default", id, feed,
        from_seq=from_seq, wait_s=wait_s, deadline_ms=deadline_ms,
    )  # fmt: skip
    reader.begin(read=read)
    return reader, feed


async def read(reader: Reader, count: int) -> list[AnyEvent]:
    async with asyncio.timeout(PATIENCE_S):
        return [await reader.next() for _ in range(count)]


async def nothing_comes(reader: Reader) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reader.next()


async def test_live_events_need_no_log(bus: Bus) -> None:
    author = Author("live")
    reader, feed = open_reader(bus, "live")
    events = [author.started(), *author.tokens(3)]
    show(feed, *events)
    assert await read(reader, 4) == events
    await nothing_comes(reader)


async def test_a_hole_is_read_from_the_log(bus: Bus) -> None:
    author = Author("hole")
    reader, feed = open_reader(bus, "hole")
    events = [author.started(), *author.tokens(9)]
    await bus.log(*events)
    show(feed, *events[:3], *events[7:])
    assert await read(reader, 10) == events


async def test_a_hole_waits_for_a_log_that_lags(bus: Bus) -> None:
    author = Author("lag")
    reader, feed = open_reader(bus, "lag")
    events = [author.started(), *author.tokens(9)]
    await bus.log(*events[:4])
    show(feed, events[0], *events[8:])
    assert await read(reader, 4) == events[:4]
    await nothing_comes(reader)
    await bus.log(*events[4:])
    assert await read(reader, 6) == events[4:]


async def test_a_repair_fills_a_hole_from_live_too(bus: Bus) -> None:
    author = Author("repair")
    reader, feed = open_reader(bus, "repair")
    events = [author.started(), *author.tokens(5)]
    show(feed, *events[:2], *events[3:])
    assert await read(reader, 2) == events[:2]
    await nothing_comes(reader)
    show(feed, *events[2:])
    assert await read(reader, 4) == events[2:]


async def test_a_late_reader_goes_over_into_live(bus: Bus) -> None:
    author = Author("late")
    events = [author.started(), *author.tokens(50)]
    await bus.log(*events[:40])
    reader, feed = open_reader(bus, "late", read=True)
    show(feed, *events[30:])
    await bus.log(*events[40:])
    assert await read(reader, 51) == events


async def test_a_long_log_is_read_page_by_page(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "PAGE_MESSAGES", 7)
    author = Author("long")
    events = [author.started(), *author.tokens(40), author.completed()]
    await bus.log(*events)
    reader, _ = open_reader(bus, "long", read=True)
    assert await read(reader, 42) == events


async def test_a_reader_may_begin_anywhere(bus: Bus) -> None:
    author = Author("middle")
    events = [author.started(), *author.tokens(8), author.completed()]
    await bus.log(*events[:-1])
    reader, feed = open_reader(bus, "middle", read=True, from_seq=6)
    assert await read(reader, 4) == events[5:-1]
    await bus.log(events[-1])
    show(feed, events[-1])
    assert await read(reader, 1) == events[-1:]


async def test_a_request_that_ended_before_gives_its_end(bus: Bus) -> None:
    author = Author("ended")
    events = [author.started(), author.completed()]
    await bus.log(*events)
    reader, _ = open_reader(bus, "ended", read=True, from_seq=50)
    assert await read(reader, 1) == events[-1:]


# Ends


async def test_an_end_from_live_waits_for_the_log(bus: Bus) -> None:
    author = Author("end")
    reader, feed = open_reader(bus, "end")
    events = [author.started(), author.token(), author.completed()]
    await bus.log(*events[:2])
    show(feed, *events)
    assert await read(reader, 2) == events[:2]
    await nothing_comes(reader)
    await bus.log(events[2])
    assert await read(reader, 1) == events[2:]


async def test_an_end_that_the_log_refused_is_not_delivered(bus: Bus) -> None:
    author = Author("stale")
    reader, feed = open_reader(bus, "stale")
    stands = [author.started(), author.token()]
    stale = [author.token(), author.completed()]
    show(feed, *stands, *stale)
    await bus.log(*stands)
    assert await read(reader, 3) == [*stands, stale[0]]
    await nothing_comes(reader)
    rest = [author.resumed(after=2), author.token(), author.completed()]
    await bus.log(*rest)
    show(feed, *rest)
    assert await read(reader, 1) == rest[:1]
    assert reader.truncated_to == 2
    assert await read(reader, 2) == rest[1:]
    assert reader.truncated_to is None


async def test_an_end_may_be_all_there_is(bus: Bus) -> None:
    author = Author("queued")
    end = author.cancelled("superseded")
    reader, feed = open_reader(bus, "queued")
    show(feed, end)
    await nothing_comes(reader)
    await bus.log(end)
    assert await read(reader, 1) == [end]


async def test_an_end_without_an_opening_voids_what_came_after_the_log(
    bus: Bus,
) -> None:
    author = Author("exhausted")
    reader, feed = open_reader(bus, "exhausted")
    events = [author.started(), *author.tokens(3)]
    show(feed, *events)
    await bus.log(*events[:2])
    author.seq, author.attempt = 2, 6
    end = author.failed("attempts_exhausted")
    await bus.log(end)
    show(feed, end)
    assert await read(reader, 5) == [*events, end]
    assert reader.truncated_to == 2


# Takeovers


async def test_a_takeover_comes_from_the_log(bus: Bus) -> None:
    author = Author("taken")
    reader, feed = open_reader(bus, "taken")
    first = [author.started(), *author.tokens(3)]
    await bus.log(*first)
    late = author.token()  # the old worker's: live only
    second = [author.resumed(after=4), *author.tokens(2), author.completed()]
    await bus.log(*second)
    show(feed, *first, second[0], late, *second[1:])
    assert await read(reader, 8) == [*first, *second]


async def test_an_opening_that_the_log_refused_is_replaced(bus: Bus) -> None:
    accepted, refused = Author("race"), Author("race")
    refused.attempt = 2
    reader, feed = open_reader(bus, "race")
    wrong = refused.started()
    right = [accepted.started(), accepted.token()]
    show(feed, wrong)
    assert await read(reader, 1) == [wrong]
    await bus.log(*right)
    show(feed, *right)
    assert await read(reader, 1) == right[:1]
    assert reader.truncated_to == 0
    assert await read(reader, 1) == right[1:]


# Silence, slowness


async def test_what_live_lost_at_the_end_is_found_by_looking(bus: Bus) -> None:
    author = Author("quiet")
    reader, feed = open_reader(bus, "quiet")
    events = [author.started(), *author.tokens(4)]
    show(feed, *events[:2])
    await bus.log(*events)
    assert await read(reader, 2) == events[:2]
    reading = asyncio.ensure_future(read(reader, 3))
    await asyncio.sleep(0)
    feed.reconnected()
    assert await reading == events[2:]


async def test_a_slow_reader_gets_all(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MAX_MESSAGES", 10)
    author = Author("slow")
    reader, feed = open_reader(bus, "slow")
    events = [author.started(), *author.tokens(60)]
    await bus.log(*events)
    show(feed, *events)
    assert feed.dropped == 51
    assert await read(reader, 61) == events


async def test_what_is_no_event_is_passed_over(bus: Bus) -> None:
    author = Author("noise")
    reader, feed = open_reader(bus, "noise")
    for noise in (b"", b"{}", b"\xff", b"[" * 100_000):
        feed.receive(Message(noise))
    event = author.started()
    show(feed, event)
    assert await read(reader, 1) == [event]


async def test_a_cancelled_read_loses_nothing(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "PAGE_MESSAGES", 7)
    author = Author("patient")
    events = [author.started(), *author.tokens(100), author.completed()]
    await bus.log(*events)
    reader, _ = open_reader(bus, "patient", read=True)
    got: list[AnyEvent] = []
    rng = random.Random(5)
    cancelled, patience_s = 0, 0.001
    while len(got) < len(events):
        reading = asyncio.ensure_future(reader.next())
        await asyncio.wait([reading], timeout=rng.random() * patience_s)
        reading.cancel()
        await asyncio.wait([reading])
        if reading.cancelled():
            cancelled += 1
            patience_s *= 1.2
        else:
            got.append(reading.result())
            patience_s = 0.001
    assert got == events
    assert cancelled


# Nothing, and no more


async def test_nothing_in_the_log(bus: Bus) -> None:
    reader, _ = open_reader(bus, "unknown", read=True, wait_s=0.05)
    with pytest.raises(NothingInLog, match=r"'unknown'.* after 0\.05 s"):
        await read(reader, 1)


async def test_a_request_that_starts_in_time(bus: Bus) -> None:
    author = Author("soon")
    reader, feed = open_reader(bus, "soon", read=True, wait_s=PATIENCE_S)
    reading = asyncio.ensure_future(read(reader, 1))
    await asyncio.sleep(0.02)
    event = author.started()
    show(feed, event)
    assert await reading == [event]


async def test_a_log_whose_head_is_gone(bus: Bus) -> None:
    author = Author("old")
    events = [author.started(), *author.tokens(8), author.completed()]
    await bus.log(*events)
    await bus.purge("old", keep=4)
    reader, _ = open_reader(bus, "old", read=True)
    with pytest.raises(LogExpired, match=r"begins at seq 7 .*; seq 1 is no longer"):
        await read(reader, 1)
    reader, _ = open_reader(bus, "old", read=True, from_seq=7)
    assert await read(reader, 4) == events[6:]


async def test_the_end_of_a_lost_log_is_delivered(bus: Bus) -> None:
    author = Author("lost")
    reader, feed = open_reader(bus, "lost")
    events = [author.started(), *author.tokens(5)]
    show(feed, *events[:3])
    assert await read(reader, 3) == events[:3]
    end = author.failed("log_lost")
    await bus.log(end)
    show(feed, end)
    assert await read(reader, 1) == [end]


async def test_a_log_that_is_gone_for_good(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "EMPTY_S", 0.05)
    author = Author("gone")
    reader, feed = open_reader(bus, "gone")
    show(feed, author.started())
    await read(reader, 1)

    async def look_again() -> None:
        while True:
            feed.reconnected()
            await asyncio.sleep(0.02)

    looking = asyncio.ensure_future(look_again())
    with pytest.raises(RequestLost, match="read up to seq 1") as caught:
        await read(reader, 1)
    assert not isinstance(caught.value, LogExpired)
    looking.cancel()


async def test_an_end_whose_log_is_gone_at_once_is_taken_from_live(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "EMPTY_S", 0.05)
    monkeypatch.setattr(readers, "EMPTY_LOOK_S", 0.02)
    author = Author("discarded")
    reader, feed = open_reader(bus, "discarded")
    events = [author.started(), *author.tokens(2), author.completed()]
    show(feed, *events)
    assert await read(reader, 4) == events
    assert not reader.confirmed


async def test_a_closed_feed_ends_the_reader(bus: Bus) -> None:
    reader, feed = open_reader(bus, "closed", read=True)
    reading = asyncio.ensure_future(read(reader, 1))
    await asyncio.sleep(0.02)
    feed.close("the client was closed")
    with pytest.raises(ConnectionLost, match="was closed"):
        await reading


async def test_a_log_that_cannot_be_asked_is_asked_again(
    nats_server: NatsServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_bus(nats_server, prefix) as bus:
        name = bus.cell.names.tokens
        author = Author("away")
        info = await bus.cell.jetstream.call(f"STREAM.INFO.{name}")
        await bus.cell.jetstream.call(f"STREAM.DELETE.{name}")
        reader, feed = open_reader(bus, "away", read=True)
        show(feed, author.started())
        reading = asyncio.ensure_future(read(reader, 2))
        async with asyncio.timeout(PATIENCE_S):
            while "cannot be read" not in caplog.text:
                await asyncio.sleep(0.01)
        await bus.cell.jetstream.call(f"STREAM.CREATE.{name}", info["config"])
        author.seq = 0
        events = [author.started(), author.token()]
        await bus.log(*events)
        show(feed, events[1])
        assert await reading == events
