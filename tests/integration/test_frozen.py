"""A worker that is frozen for twice its ``ack_wait`` has lost its job, and knows it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from tests.chaos import logs
from tests.chaos.logs import text_of
from tests.chaos.processes import until
from tests.chaos.scene import ACK_WAIT_S, Scene, job, only, scene, stalling, undisturbed
from tests.servers import NatsServer


async def test_a_thawed_worker_adds_nothing_and_serves_again(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, nats_server.url, prefix) as s:
        await s.start(s.first)
        # Long enough to be running still when the frozen worker comes back.
        wanted = [job(500, 60) for _ in range(3)]
        for one in wanted:
            await s.submit(one)
        await s.start(s.second)
        for one in wanted:
            await s.tokens(one["id"], 10)
        s.first.freeze()
        await asyncio.sleep(2 * ACK_WAIT_S)
        for one in wanted:
            await _is_taken_over(s, one["id"])
        s.first.thaw()
        found = [await s.ended(one["id"]) for one in wanted]
        await s.job_is_settled()
        await _serves(s)
        left = await s.first.metric("tokenbridge_left_total")
    for one, events in zip(wanted, found, strict=True):
        resumed = only(events, "resumed")
        assert resumed["mode"] == "continue"
        assert {e["attempt"] for e in events[resumed["after"] :]} == {
            resumed["attempt"]
        }
        assert text_of(events) == events[-1]["text"] == undisturbed(one)
    assert left == len(wanted)


async def _is_taken_over(s: Scene, id: str) -> None:
    async with asyncio.timeout(20):
        while True:
            last = await s.cell.last_event("default", id)
            if last is not None and last.attempt > 1:
                return
            await asyncio.sleep(0.05)


async def _serves(s: Scene) -> None:
    """The bridge that was frozen is the only one left, and ends a new job."""
    s.second.kill()
    again = job(10, 200)
    await s.submit(again)
    events = await s.ended(again["id"])
    assert events[-1]["text"] == undisturbed(again)


async def test_a_worker_frozen_while_it_waits_for_its_backend_adds_nothing(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, nats_server.url, prefix) as s:
        await s.start(s.first)
        wanted = job(20, 50, simulate={"first_token_ms": 4 * ACK_WAIT_S * 1000})
        id = await s.submit(wanted)
        await s.simulator.wait_for(lambda record: True)
        await s.start(s.second)
        s.first.freeze()
        await asyncio.sleep(2 * ACK_WAIT_S)
        s.first.thaw()
        events = await s.ended(id)
    resumed = only(events, "resumed")
    assert (resumed["after"], resumed["mode"]) == (1, "continue")
    assert events[-1]["text"] == undisturbed(wanted)


async def test_the_open_pull_of_a_frozen_worker_delays_no_redelivery(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, nats_server.url, prefix, count=3) as s:
        await s.start(s.first)
        id = await s.submit(job(100, 100, simulate=stalling()))
        await s.start(s.second, *s.others)
        await s.tokens(id, 10)
        # Both are away: one held the job, the other only its pull.
        s.second.freeze()
        s.first.kill()
        killed = time.monotonic()
        events = await s.ended(id)
        at = next(at for at, e in s.live[id] if e["type"] == "resumed")
    assert only(events, "resumed")["reason"] == "takeover"
    # A pull without an expiry would swallow the job for another ack_wait at least.
    assert at - killed < 2 * ACK_WAIT_S + 2


async def test_a_frozen_worker_that_is_alone_claims_its_job_again(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, nats_server.url, prefix) as s:
        await s.start(s.first)
        wanted = job(200, 60)
        id = await s.submit(wanted)
        await s.tokens(id, 10)
        s.first.freeze()
        await asyncio.sleep(2 * ACK_WAIT_S)
        s.first.thaw()
        events = await s.ended(id)
        await until(lambda: s.simulator.active == 0, "the first call is closed")
        assert await logs.read(s.cell, id) == events
    assert only(events, "resumed")["mode"] == "continue"
    assert events[-1]["text"] == undisturbed(wanted)
