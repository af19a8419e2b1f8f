"""Ask for an answer with nothing but a NATS client: ``pip install nats-py``.

    python consumer.py "Why is the sky blue?"
    NATS_URL=nats://nats:4222 MODEL=llama3.2 python consumer.py --id req-1 "Hi"

What a consumer in any language does, of ``docs/protocol.md``: choose the id, subscribe,
publish the job, show the events in order. It reads the log where live events leave a
hole, and so survives reconnects and takeovers; it shows nothing behind a hole that
stays, and gives up when the request cannot end any more.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
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

#: The job's deadline in milliseconds, and how long after it a request is given up, in
#: seconds: its job is gone then.
DEADLINE_MS = 600_000
LOST_AFTER_S = 30.0

#: A hole in the log that reading it again for so long does not fill stays, in seconds.
HOLE_S = 2.0

Event = dict[str, Any]


class Lost(Exception):
    """No end will come, or not all of what comes before it."""


def read_event(data: bytes, id: str) -> Event | None:
    """The event, or None for what is none of this request's: to be passed over."""
    try:
        event = json.loads(data)
        numbers = (event["seq"], event["attempt"])
        fits = event["id"] == id and isinstance(event["type"], str)
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    fits = fits and all(type(n) is int and 1 <= n <= 2**53 for n in numbers)
    return event if fits else None


class Screen:
    """Shows events in order: the rules of section 4 for a plain consumer."""

    def __init__(self) -> None:
        self.attempt = 0
        self.seq = 0
        self.end: Event | None = None

    def stale(self, event: Event) -> bool:
        """Whether it was shown before, or comes from a worker that lost the job."""
        return (event["attempt"], event["seq"]) <= (self.attempt, self.seq)

    def follows(self, event: Event) -> bool:
        """Whether it is the next one. Another attempt is entered through the log."""
        same = event["attempt"] == self.attempt or self.seq == 0
        return same and bool(event["seq"] == self.seq + 1)

    def continues(self, event: Event, last: int) -> bool:
        """Whether nothing is missing before ``event``, behind ``last`` in the log."""
        if event["seq"] == last + 1 or self.follows(event):
            return True
        # The log was lost, and made anew for the end alone, which keeps its number.
        error = event.get("error") or {}
        return last == 0 and error.get("code") == "log_lost"

    def show(self, event: Event) -> None:
        if event["type"] == "token":
            print(event.get("text", ""), end="", flush=True)
        elif event["type"] == "resumed" and (
            event.get("mode") == "restart" or event["seq"] <= self.seq
        ):
            # What stands on the screen is void, all of it or its end.
            print("\n[another worker goes on]", flush=True)
        elif event["type"] in EXIT_CODES:
            self.end = event
        self.attempt, self.seq = event["attempt"], event["seq"]


async def read_log(client: Client, subject: str, id: str) -> AsyncIterator[Event]:
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
            event = read_event(message.data, id)
            if event is not None:
                yield event
            request["seq"] = int(headers["Nats-Sequence"]) + 1
        if not int(headers.get("Nats-Num-Pending", "0")):
            break
    await subscription.unsubscribe()


async def show_log(client: Client, subject: str, id: str, screen: Screen) -> bool:
    """Show what the log has; whether it was whole as far as it went."""
    last = 0
    async for event in read_log(client, subject, id):
        if screen.stale(event):
            if event["seq"] <= screen.seq:
                last = event["seq"]  # shown already
            continue
        if not screen.continues(event, last):
            return False
        last = event["seq"]
        screen.show(event)
        if screen.end is not None:
            break
    return True


async def follow(client: Client, id: str, prompt: str) -> Event:
    """Submit the job and show its events; the terminal one. Raises `Lost`."""
    subject = f"{PREFIX}.tokens.{TENANT}.{id}"
    live = await client.subscribe(subject)
    model = os.environ.get("MODEL", "llama3.2")
    messages = [{"role": "user", "content": prompt}]
    request = {"model": model, "messages": messages}
    job = {"id": id, "request": request, "deadline_ms": DEADLINE_MS}
    await client.jetstream().publish(
        f"{PREFIX}.jobs.{TENANT}.{LANE}",
        json.dumps(job).encode(),
        headers={"Nats-Msg-Id": f"{TENANT}/{id}"},
    )
    screen = Screen()
    hole_since = None
    while screen.end is None:
        event: Event | None = None
        quiet = True
        with contextlib.suppress(NoMessage):  # then perhaps something was missed
            event = read_event((await live.next_msg(timeout=QUIET_S)).data, id)
            quiet = False
        if event is not None and screen.follows(event):
            screen.show(event)
        elif quiet or (event is not None and not screen.stale(event)):
            whole = True
            with contextlib.suppress(NoMessage):  # nobody answers now
                whole = await show_log(client, subject, id, screen)
            hole_since = None if whole else hole_since or time.monotonic()
        if hole_since is not None and time.monotonic() - hole_since > HOLE_S:
            raise Lost(f"what follows event {screen.seq} is no longer kept")
    return screen.end


async def main() -> int:
    parser = argparse.ArgumentParser(description="Ask, and print the answer.")
    parser.add_argument("prompt")
    parser.add_argument("--id", default=f"req-{uuid.uuid4().hex}")
    arguments = parser.parse_args()
    url = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
    client = await nats.connect(url, max_reconnect_attempts=-1)
    try:
        async with asyncio.timeout(DEADLINE_MS / 1000 + LOST_AFTER_S):
            end = await follow(client, arguments.id, arguments.prompt)
    except (Lost, TimeoutError) as error:
        print(f"\nlost: {error or 'no end came in time'}", file=sys.stderr)
        return EXIT_CODES["failed"]
    finally:
        await client.close()
    said = end.get("error", {}).get("message") or end.get("reason") or "completed"
    print(f"\n{end['type']} after {end['seq']} events: {said}", file=sys.stderr)
    return EXIT_CODES[end["type"]]


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
