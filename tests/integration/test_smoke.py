"""A job in, a numbered token stream out."""

from __future__ import annotations

import asyncio
import json

import nats
from nats.aio.msg import Msg

from bridge.simulator import Simulator, text_for
from tests.plain_client import barrier
from tests.servers import NatsServer, running_service

REQUEST = {
    "model": "simulator",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 30,
}


async def test_a_job_becomes_a_numbered_stream(
    nats_server: NatsServer, prefix: str
) -> None:
    events = []
    over = asyncio.Event()

    async def received(message: Msg) -> None:
        events.append(json.loads(message.data))
        if events[-1]["type"] in ("completed", "failed", "cancelled"):
            over.set()

    async with (
        Simulator() as simulator,
        running_service(nats_server.url, simulator.url, prefix=prefix),
    ):
        client = await nats.connect(nats_server.url)
        await client.subscribe(f"{prefix}.tokens.default.one", cb=received)
        await barrier(client)
        job = {"id": "one", "request": REQUEST, "metadata": {"caller": "web"}}
        await client.jetstream().publish(
            f"{prefix}.jobs.default.default", json.dumps(job).encode()
        )
        async with asyncio.timeout(20):
            await over.wait()
        await client.close()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "started"
    assert events[0]["v"] == 1
    assert events[0]["metadata"] == {"caller": "web"}
    assert events[-1]["type"] == "completed"
    assert events[-1]["finish_reason"] == "length"
    text = "".join(event["text"] for event in events[1:-1])
    assert text == events[-1]["text"] == text_for(REQUEST)
    assert events[-1]["usage"]["completion_tokens"] == 30
