"""Ask for an answer with nothing but a NATS client: ``pip install nats-py``.

    python consumer.py "Why is the sky blue?"
    NATS_URL=nats://nats:4222 MODEL=llama3.2 python consumer.py --id req-1 "Hi"

What a consumer in any language does, of ``docs/protocol.md``: choose the id, subscribe,
publish the job, show the events in order. It reads the log where live events leave a
hole, and so survives reconnects and takeovers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import TimeoutError as NoMessage

PREFIX = os.environ.get("PREFIX", "llm")
TENANT = os.environ.get("TENANT", "default")
LANE = os.environ.get("LANE", "default")

EXIT_CODES = {"completed": 0, "failed": 1, "cancelled": 3}

#: A subject that is silent for so long is compared with the log, in seconds.
QUIET_S = 2.0

Event = dict[str, Any]


class Screen:
    """Shows events in order: the rules of section 4 for a plain consumer."""

    def __init__(self) -> None:
        self.attempt = 0
        self.seq = 0

    def stale(self, event: Event) -> bool:
        """Whether it was shown before, or comes from a worker that lost the job."""
        return (event["attempt"], event["seq"]) <= (self.attempt, self.seq)

    def follows(self, event: Event) -> bool:
        """Whether it is the next one. Another attempt is entered through the log."""
        same = event["attempt"] == self.attempt or self.seq == 0
        return same and bool(event["seq"] == self.seq + 1)

    def show(self, event: Event) -> None:
        if event["type"] == "token":
            print(event["text"], end="", flush=True)
        elif event["type"] == "resumed" and (
            event["mode"] == "restart" or event["seq"] <= self.seq
        ):
            # What stands on the screen is void, all of it or its end.
            print("\n[another worker goes on]", flush=True)
        self.attempt, self.seq = event["attempt"], event["seq"]


async def read_log(client: Client, subject: str) -> AsyncIterator[Event]:
    """The log of a request so far, without a consumer on the server."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    request = {"seq": 1, "next_by_subj": subject, "batch": 4096, "max_bytes": 1 << 20}
    stream = f"{PREFIX.upper()}_TOKENS"
    while True:
        await client.publish(
            f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), reply=inbox
        )
        while True:
            message = await subscription.next_msg(timeout=5)
            headers = message.headers or {}
            if headers.get("Status"):
                break  # the end of this page, or nothing was found
            yield json.loads(message.data)
            request["seq"] = int(headers["Nats-Sequence"]) + 1
        if not int(headers.get("Nats-Num-Pending", "0")):
            break
    await subscription.unsubscribe()


async def follow(client: Client, id: str, prompt: str) -> Event:
    """Submit the job and show its events; the terminal one."""
    subject = f"{PREFIX}.tokens.{TENANT}.{id}"
    live = await client.subscribe(subject)
    model = os.environ.get("MODEL", "llama3.2")
    messages = [{"role": "user", "content": prompt}]
    job = {"id": id, "request": {"model": model, "messages": messages}}
    await client.jetstream().publish(
        f"{PREFIX}.jobs.{TENANT}.{LANE}",
        json.dumps(job).encode(),
        headers={"Nats-Msg-Id": f"{TENANT}/{id}"},
    )
    screen = Screen()
    while True:
        event: Event | None = None
        with contextlib.suppress(NoMessage):  # then perhaps something was missed
            event = json.loads((await live.next_msg(timeout=QUIET_S)).data)
        if event is not None and screen.stale(event):
            continue
        if event is not None and screen.follows(event):
            screen.show(event)
            if event["type"] in EXIT_CODES:
                return event
            continue
        async for stored in read_log(client, subject):
            if stored["seq"] > screen.seq or stored["attempt"] > screen.attempt:
                screen.show(stored)
                if stored["type"] in EXIT_CODES:
                    return stored


async def main() -> int:
    parser = argparse.ArgumentParser(description="Ask, and print the answer.")
    parser.add_argument("prompt")
    parser.add_argument("--id", default=f"req-{uuid.uuid4().hex}")
    arguments = parser.parse_args()
    url = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
    client = await nats.connect(url, max_reconnect_attempts=-1)
    try:
        end = await follow(client, arguments.id, arguments.prompt)
    finally:
        await client.close()
    said = end.get("error", {}).get("message") or end.get("reason") or "completed"
    print(f"\n{end['type']} after {end['seq']} events: {said}", file=sys.stderr)
    return EXIT_CODES[end["type"]]


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
