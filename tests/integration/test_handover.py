"""A bridge that is told to end gives its requests to another one, at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.chaos.logs import text_of
from tests.chaos.processes import until
from tests.chaos.scene import ACK_WAIT_S, job, kinds, only, scene, stalling, undisturbed
from tests.servers import NatsServer


async def test_the_text_goes_on_at_another_bridge_at_once(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    async with scene(
        # With a long ack_wait nobody could take this for a takeover.
        tmp_path,
        nats_server.url,
        prefix,
        drain_timeout_s=0.2,
        ack_wait_s=20,
    ) as s:
        await s.start(s.first)
        wanted = job(150, 100, simulate=stalling())
        id = await s.submit(wanted)
        await s.start(s.second)
        await s.tokens(id, 10)
        s.first.terminate()
        code = await s.first.wait()
        events = await s.ended(id)
        await s.job_is_settled()
        live = s.live[id]
    assert code == 0
    assert kinds(events) == [
        "started",
        "token",
        "handover",
        "resumed",
        "token",
        "completed",
    ]
    resumed = only(events, "resumed")
    assert (resumed["mode"], resumed["reason"]) == ("continue", "handover")
    assert text_of(events) == events[-1]["text"] == undisturbed(wanted)
    at = {event["type"]: time for time, event in live}
    assert at["resumed"] - at["handover"] < 2


async def test_what_ends_within_the_drain_time_is_not_handed_over(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, nats_server.url, prefix, drain_timeout_s=20) as s:
        await s.start(s.first)
        running, late = job(60, 60), job(10, 100)
        await s.submit(running)
        await s.tokens(running["id"], 5)
        s.first.terminate()
        await asyncio.sleep(0.1)
        await s.submit(late)
        assert await s.first.wait() == 0
        # A draining bridge takes nothing new.
        assert await s.cell.last_event("default", late["id"]) is None
        events = await s.ended(running["id"])
        await s.start(s.second)
        assert (await s.ended(late["id"]))[-1]["text"] == undisturbed(late)
    assert kinds(events) == ["started", "token", "completed"]


async def test_five_handovers_never_exhaust_a_job(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    async with scene(
        tmp_path,
        nats_server.url,
        prefix,
        drain_timeout_s=0,
        ack_wait_s=20,
        max_deliveries=2,
    ) as s:
        await s.start(s.first)
        wanted = job(60, 100, simulate=stalling(5, times=5))
        id = await s.submit(wanted)
        here, there = s.first, s.second
        for handover in range(1, 6):
            await s.start(there)
            await s.tokens(id, 5 * handover)
            here.terminate()
            await here.wait()
            await s.handed_over(id, handover)
            here, there = there, here
        events = await s.ended(id)
    assert sum(event["type"] == "handover" for event in events) == 5
    assert events[-1]["type"] == "completed"
    assert events[-1]["attempt"] == 6
    assert text_of(events) == events[-1]["text"] == undisturbed(wanted)


async def test_a_stop_leaves_the_job_to_a_takeover(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    async with scene(tmp_path, nats_server.url, prefix) as s:
        await s.start(s.first)
        wanted = job(150, 100, simulate=stalling())
        id = await s.submit(wanted)
        await s.start(s.second)
        await s.tokens(id, 10)
        s.first.terminate()
        await until(lambda: "draining" in s.first.log, "the drain begins")
        s.first.terminate()
        assert await s.first.wait(within_s=ACK_WAIT_S + 10) != 0
        events = await s.ended(id)
    assert only(events, "resumed")["reason"] == "takeover"
    assert events[-1]["text"] == undisturbed(wanted)
