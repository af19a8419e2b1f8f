"""A job is stored, or its caller learns why not; the answers are a real server's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from bridge.client.submission import submit_job
from bridge.errors import (
    ConnectionLost,
    JobRefused,
    JobTooLarge,
    QueueFull,
    UnknownLane,
)
from bridge.events import Job
from tests.client.bridge_side import PATIENCE_S, Bus, running_bus
from tests.servers import NatsServer


def job(id: str, content: str = "Hi") -> Job:
    messages = [{"role": "user", "content": content}]
    return Job(id=id, request={"model": "m", "messages": messages})


async def submit(
    bus: Bus, job: Job, *, lane: str = "default", timeout_s: float = PATIENCE_S
) -> bool:
    return await submit_job(bus.cell, "default", lane, job, timeout_s=timeout_s)


async def test_a_job_is_stored_once(bus: Bus) -> None:
    assert not await submit(bus, job("one"))
    assert await submit(bus, job("one"))
    assert await bus.jobs() == 1


async def test_an_unknown_lane(bus: Bus) -> None:
    with pytest.raises(UnknownLane, match="is lane 'slow' one of the bridge's lanes"):
        await submit(bus, job("one"), lane="slow")
    assert await bus.jobs() == 0


async def test_a_job_over_the_streams_limit(
    nats_server: NatsServer, prefix: str
) -> None:
    async with running_bus(nats_server, prefix, max_job_bytes=1000) as bus:
        with pytest.raises(JobTooLarge, match="10054"):
            await submit(bus, job("one", "x" * 1000))
        assert await bus.jobs() == 0


async def test_a_job_over_the_servers_limit(bus: Bus) -> None:
    with pytest.raises(JobTooLarge, match="max_payload"):
        await submit(bus, job("one", "x" * bus.connection.max_payload))
    assert bus.connection.connected


async def test_a_full_queue(nats_server: NatsServer, prefix: str) -> None:
    async with running_bus(nats_server, prefix, jobs_max_count=2) as bus:
        await submit(bus, job("one"))
        await submit(bus, job("two"))
        with pytest.raises(QueueFull, match="Try again later"):
            await submit(bus, job("three"))
        assert await bus.jobs() == 2


async def test_a_queue_without_room(nats_server: NatsServer, prefix: str) -> None:
    async with running_bus(nats_server, prefix, jobs_max_bytes=2000) as bus:
        for number in range(3):
            await submit(bus, job(f"job-{number}", "x" * 400))
        with pytest.raises(QueueFull, match="maximum bytes"):
            await submit(bus, job("last", "x" * 1200))


async def test_another_refusal(bus: Bus) -> None:
    name = bus.cell.names.jobs
    info = await bus.cell.jetstream.call(f"STREAM.INFO.{name}")
    config = {**info["config"], "sealed": True}
    await bus.cell.jetstream.call(f"STREAM.UPDATE.{name}", config)
    with pytest.raises(JobRefused, match="sealed") as caught:
        await submit(bus, job("one"))
    assert type(caught.value) is JobRefused


@pytest.mark.parametrize("answer", [b"{}", b"ok", b"[" * 100_000, b'{"seq":1}'])
async def test_somebody_else_answers(
    nats_server: NatsServer, prefix: str, answer: bytes
) -> None:
    async with running_bus(nats_server, prefix, ("default",)) as bus:

        def reply(message: Msg) -> None:
            bus.connection.publish(message.reply, answer)

        await bus.connection.subscribe(f"{prefix}.jobs.default.other", reply)
        with pytest.raises(ConnectionLost, match="same id is safe"):
            await submit(bus, job("one"), lane="other", timeout_s=0.2)


async def test_no_jetstream(tmp_path: Path, prefix: str) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        async with running_bus(server, prefix) as bus:
            server.stop()
            with pytest.raises(ConnectionLost, match="same id is safe"):
                await submit(bus, job("one"), timeout_s=0.2)
    finally:
        server.stop()


async def test_a_restart_under_a_submission(tmp_path: Path, prefix: str) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        async with running_bus(server, prefix) as bus:
            server.kill()
            submitting = asyncio.ensure_future(submit(bus, job("one")))
            await asyncio.sleep(0.1)
            assert not submitting.done()
            server.start()
            assert not await submitting
            assert await bus.jobs() == 1
    finally:
        server.stop()
