"""The obvious Python: nats-py, httpx as it comes, ``aiter_lines``, ``json``.

Pulls jobs, streams each from the backend, publishes every delta and an end as JSON
on the request's subject, acknowledges. No log, no proof, no timeouts, no metrics.
``--loop asyncio`` runs it on the standard library's event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os

import httpx
import nats
import nats.errors
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

NATS_URL = os.environ.get("TOKENBRIDGE_NATS_URL", "nats://127.0.0.1:4222")
BACKEND_URL = os.environ.get("TOKENBRIDGE_BACKEND_URL", "http://127.0.0.1:8000/v1")
SLOTS = int(os.environ.get("TOKENBRIDGE_SLOTS", "64"))
HTTP_PORT = int(os.environ.get("TOKENBRIDGE_HTTP_PORT", "8088"))


async def generate(nc: Client, http: httpx.AsyncClient, msg: Msg) -> None:
    job = json.loads(msg.data)
    id = job["id"]
    subject = f"llm.tokens.{msg.subject.split('.')[2]}.{id}"
    body = {**job["request"], "stream": True, "stream_options": {"include_usage": True}}
    seq = 0
    text = []
    finish_reason = None
    usage = None
    url = f"{BACKEND_URL}/chat/completions"
    async with http.stream("POST", url, json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            data = line[6:]
            if data == "[DONE]":
                break
            record = json.loads(data)
            usage = record.get("usage") or usage
            for choice in record["choices"]:
                finish_reason = choice.get("finish_reason") or finish_reason
                delta = choice["delta"].get("content")
                if delta:
                    seq += 1
                    text.append(delta)
                    event = {
                        "type": "token",
                        "id": id,
                        "seq": seq,
                        "attempt": 1,
                        "text": delta,
                    }
                    await nc.publish(subject, json.dumps(event).encode())
    completed = {
        "type": "completed",
        "id": id,
        "seq": seq + 1,
        "attempt": 1,
        "finish_reason": finish_reason,
        "text": "".join(text),
        "usage": usage,
    }
    await nc.publish(subject, json.dumps(completed).encode())
    await msg.ack()


async def serve_ready(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


async def main() -> None:
    nc = await nats.connect(NATS_URL)
    js = nc.jetstream()
    jobs = await js.pull_subscribe(
        "llm.jobs.*.default",
        durable="peer",
        config=ConsumerConfig(ack_wait=120, max_ack_pending=10_000),
    )
    # httpx stops at 100 connections by default, which would be another job.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    free = asyncio.Semaphore(SLOTS)
    async with (
        httpx.AsyncClient(timeout=None, limits=limits) as http,
        asyncio.TaskGroup() as group,
        await asyncio.start_server(serve_ready, "127.0.0.1", HTTP_PORT),
    ):
        while True:
            await free.acquire()
            try:
                (msg,) = await jobs.fetch(1, timeout=1)
            except nats.errors.TimeoutError:
                free.release()
                continue
            task = group.create_task(generate(nc, http, msg))
            task.add_done_callback(lambda _: free.release())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop")
    if parser.parse_args().loop == "uvloop":
        uvloop.run(main())
    else:
        asyncio.run(main())
