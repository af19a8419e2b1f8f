"""NATS goes away and comes back: stopped, killed, for long, without its streams."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import logs
from tests.chaos.logs import text_of
from tests.chaos.processes import Cluster
from tests.chaos.scene import (
    ACK_WAIT_S,
    Scene,
    job,
    kinds,
    only,
    scene,
    undisturbed,
)
from tests.servers import NatsServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server for the test alone, which may stop and start it."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_short_restart_is_no_takeover(
    server: NatsServer, tmp_path: Path, how: signal.Signals
) -> None:
    async with scene(tmp_path, server.url, "llm", ack_wait_s=8) as s:
        await s.start(s.first, s.second)
        wanted = [job(150, 60) for _ in range(6)]
        for one in wanted:
            await s.submit(one)
        for one in wanted:
            await s.tokens(one["id"], 10)
        server.stop(how)
        await asyncio.sleep(0.5)
        server.start()
        back = time.monotonic()
        found = [await s.ended(one["id"]) for one in wanted]
        await s.job_is_settled()
    for one, events in zip(wanted, found, strict=True):
        assert kinds(events) == ["started", "token", "completed"]
        assert text_of(events) == events[-1]["text"] == undisturbed(one)
        after = [at for at, event in s.live[one["id"]] if at > back]
        assert after[0] - back < 5


async def test_a_long_outage_is_a_takeover(server: NatsServer, tmp_path: Path) -> None:
    async with scene(tmp_path, server.url, "llm") as s:
        await s.start(s.first, s.second)
        wanted = [job(400, 60) for _ in range(4)]
        for one in wanted:
            await s.submit(one)
        for one in wanted:
            await s.tokens(one["id"], 10)
        server.stop()
        await asyncio.sleep(2 * ACK_WAIT_S)
        server.start()
        found = [await s.ended(one["id"]) for one in wanted]
        await s.job_is_settled()
    for one, events in zip(wanted, found, strict=True):
        resumed = only(events, "resumed")
        assert (resumed["mode"], resumed["reason"]) == ("continue", "takeover")
        assert text_of(events) == events[-1]["text"] == undisturbed(one)


async def test_the_backend_is_held_back_while_nats_is_away(
    server: NatsServer, tmp_path: Path
) -> None:
    async with scene(tmp_path, server.url, "llm", ack_wait_s=30) as s:
        await s.start(s.first)
        # As fast as the bridge takes it: far more than it may keep.
        wanted = job(60_000, 0)
        id = await s.submit(wanted)
        await s.tokens(id, 100)
        server.stop()
        record = s.simulator.requests[-1]
        held = await _comes_to_rest(s)
        assert held < 60_000
        server.start()
        events = await s.ended(id, within_s=60)
        memory = _peak_memory_kib(s.first.pid)
    assert record.outcome == "completed"
    assert events[-1]["text"] == undisturbed(wanted)
    assert kinds(events) == ["started", "token", "completed"]
    assert memory < 300_000


async def _comes_to_rest(s: Scene) -> int:
    """Wait until the simulator sends no more; how many tokens it has sent."""
    record = s.simulator.requests[-1]
    sent, since = -1, time.monotonic()
    async with asyncio.timeout(20):
        while time.monotonic() - since < 0.5:
            if record.tokens_sent != sent:
                sent, since = record.tokens_sent, time.monotonic()
            await asyncio.sleep(0.02)
    return sent


def _peak_memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


async def test_streams_in_memory_are_made_again_and_requests_end(
    server: NatsServer, tmp_path: Path
) -> None:
    async with scene(
        tmp_path, server.url, "llm", stream_storage="memory", ack_wait_s=4
    ) as s:
        await s.start(s.first, s.second)
        wanted = [job(300, 60) for _ in range(6)]
        for one in wanted:
            await s.submit(one)
        for one in wanted:
            await s.tokens(one["id"], 60)
        server.kill()
        server.start()
        for one in wanted:
            end = await _ended_live(s, one["id"])
            if end["type"] == "failed":
                assert end["error"]["code"] == "log_lost"
                assert end["error"]["retryable"] is True
            else:
                # Nothing of it was proven yet, so that all of it was sent again.
                assert end["text"] == undisturbed(one)
        ends = [s.live[one["id"]][-1][1]["type"] for one in wanted]
        assert "failed" in ends
        again = job(10, 200)
        await s.submit(again)
        assert (await s.ended(again["id"]))[-1]["text"] == undisturbed(again)


async def test_requests_whose_job_and_log_are_gone_end_though_nobody_owns_them(
    server: NatsServer, tmp_path: Path
) -> None:
    async with scene(tmp_path, server.url, "llm", stream_storage="memory") as s:
        await s.start(s.first, s.second)
        wanted = [job(300, 60) for _ in range(4)]
        for one in wanted:
            await s.submit(one)
        for one in wanted:
            await s.tokens(one["id"], 10)
        server.kill()
        # Longer than any lease: who comes back first owns nothing of it.
        await asyncio.sleep(2 * ACK_WAIT_S)
        server.start()
        for one in wanted:
            end = await _ended_live(s, one["id"])
            assert end["error"]["code"] == "log_lost"
        again = job(10, 200)
        await s.submit(again)
        assert (await s.ended(again["id"]))[-1]["text"] == undisturbed(again)


async def test_an_idle_bridge_makes_streams_that_are_gone_again(
    server: NatsServer, tmp_path: Path
) -> None:
    async with scene(tmp_path, server.url, "llm", stream_storage="memory") as s:
        await s.start(s.first)
        server.kill()
        server.start()
        again = job(10, 200)
        async with asyncio.timeout(20):
            await s.submit(again)
            events = await s.ended(again["id"])
    assert events[-1]["text"] == undisturbed(again)


async def _ended_live(s: Scene, id: str) -> logs.Event:
    async with asyncio.timeout(20):
        while s.live[id][-1][1]["type"] not in logs.TERMINAL:
            await asyncio.sleep(0.02)
    return s.live[id][-1][1]


async def test_a_killed_leader_leaves_no_hole(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        async with scene(
            tmp_path, cluster.url, "llm", stream_replicas=3, ack_wait_s=10
        ) as s:
            await s.start(s.first, s.second)
            wanted = [job(300, 60) for _ in range(10)]
            for one in wanted:
                await s.submit(one)
            for one in wanted:
                await s.tokens(one["id"], 10)
            leader = cluster.named(await _leader(s))
            leader.kill()
            found = [await s.ended(one["id"]) for one in wanted]
            with contextlib.suppress(AssertionError):
                leader.start()
            await s.job_is_settled()
    for one, events in zip(wanted, found, strict=True):
        assert text_of(events) == events[-1]["text"] == undisturbed(one)
        assert events[-1]["type"] == "completed"


async def _leader(s: Scene) -> str:
    info = await s.cell.jetstream.call(f"STREAM.INFO.{s.cell.names.tokens}")
    return str(info["cluster"]["leader"])
