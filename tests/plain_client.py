"""A plain NATS client: what anyone on the bus can send and see, without the SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import PubAck
from nats.js.errors import NotFoundError

TERMINAL = ("completed", "failed", "cancelled")

#: Far above what anything takes here, also on a busy machine.
PATIENCE_S = 30.0

Json = dict[str, Any]


class Stored(NamedTuple):
    """One message of a stream."""

    seq: int
    subject: str
    data: bytes
    headers: dict[str, str]


def request(prompt: str = "hello", **fields: Any) -> Json:
    """A chat completion's body; the simulator answers the same one always alike."""
    return {
        "model": "simulator",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 20,
        **fields,
    }


def story(tokens: int, prompt: str = "hello", **simulate: Any) -> Json:
    """The same with an answer that ends by itself, so that a continuation ends there.

    Of ``max_tokens`` a continuation knows only what the backend had reported.
    """
    body = request(prompt, simulate={"tokens": tokens, **simulate})
    del body["max_tokens"]
    return body


class PlainClient:
    """Listens to every event of one prefix from before the first job on."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.nats = client
        self.jetstream = client.jetstream()
        self.prefix = prefix
        self.live: dict[str, list[Json]] = defaultdict(list)
        self._changed = asyncio.Event()

    async def listen(self) -> None:
        await self.nats.subscribe(f"{self.prefix}.tokens.*.*", cb=self._received)
        await barrier(self.nats)

    async def _received(self, message: Msg) -> None:
        if not message.data:
            return  # a ping or closing of a batch, on the bridge's own subject
        event = read_event(message.data)
        if event is not None:
            self.live[event["id"]].append(event)
            self._changed.set()

    # Sending

    async def submit(
        self,
        id: str,
        body: Json | None = None,
        *,
        tenant: str = "default",
        lane: str = "default",
        msg_id: str | None = None,
        **fields: Any,
    ) -> PubAck:
        """Publish a job; ``fields`` are its further top-level fields."""
        job = {"id": id, "request": body if body is not None else request(), **fields}
        headers = {"Nats-Msg-Id": msg_id} if msg_id else None
        return await self.jetstream.publish(
            f"{self.prefix}.jobs.{tenant}.{lane}",
            json.dumps(job).encode(),
            headers=headers,
        )

    async def submit_bytes(
        self, data: bytes, *, tenant: str = "default", lane: str = "default"
    ) -> PubAck:
        """Publish anything at all as a job."""
        subject = f"{self.prefix}.jobs.{tenant}.{lane}"
        return await self.jetstream.publish(subject, data)

    async def cancel(
        self, id: str, reason: str = "barge-in", tenant: str = "default"
    ) -> None:
        """Cancel a request; returns when the control message is stored."""
        await self.jetstream.publish(
            f"{self.prefix}.control.{tenant}.request.{id}",
            json.dumps({"action": "cancel", "reason": reason}).encode(),
        )

    # Seeing

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds; asked again with every live event."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def seen(self, id: str, type: str, count: int = 1) -> Json:
        """Wait for the ``count``-th live event of a type."""

        def found() -> list[Json]:
            return [event for event in self.live[id] if event["type"] == type]

        await self.until(lambda: len(found()) >= count)
        return found()[count - 1]

    async def ended(self, id: str) -> Json:
        """Wait for a request's live terminal event."""

        def last() -> Json | None:
            events = self.live[id]
            return events[-1] if events and events[-1]["type"] in TERMINAL else None

        await self.until(lambda: last() is not None)
        event = last()
        assert event is not None
        return event

    async def stored(self, stream: str, subject: str) -> list[Stored]:
        """All messages of a subject, asked of the leader one by one."""
        found = []
        seq = 1
        while True:
            with contextlib.suppress(NotFoundError):
                message = await self.jetstream.get_msg(
                    f"{self.prefix.upper()}_{stream}",
                    seq=seq,
                    subject=subject,
                    next=True,
                )
                assert message.seq is not None
                found.append(
                    Stored(
                        message.seq,
                        message.subject or "",
                        message.data or b"",
                        dict(message.headers or {}),
                    )
                )
                seq = message.seq + 1
                continue
            return found

    async def log(self, id: str, tenant: str = "default") -> list[Json]:
        """The stored events of a request, the last one that was seen live included.

        A server hands an event on before it stores it.
        """
        subject = f"{self.prefix}.tokens.{tenant}.{id}"
        last = max((event["seq"] for event in self.live[id]), default=0)
        events: list[Json] = []

        async def complete() -> bool:
            messages = await self.stored("TOKENS", subject)
            found = [read_event(message.data) for message in messages]
            events[:] = [e for e in found if e is not None and e["id"] == id]
            return len(events) >= last

        await eventually(complete)
        return events

    async def dead(self, tenant: str = "default") -> list[Stored]:
        """The dead letters of a tenant."""
        return await self.stored("DEAD", f"{self.prefix}.dead.{tenant}")

    async def jobs_left(self) -> int:
        """How many jobs are queued or claimed."""
        info = await self.jetstream.stream_info(f"{self.prefix.upper()}_JOBS")
        return info.state.messages

    async def settled(self) -> None:
        """Wait until every job is settled for good."""

        async def none_left() -> bool:
            return await self.jobs_left() == 0

        await eventually(none_left)


def read_event(data: bytes) -> Json | None:
    """The event, or None for what is none, which a consumer passes over."""
    try:
        event = json.loads(data)
        numbers = (event["seq"], event["attempt"])
        named = isinstance(event["id"], str) and isinstance(event["type"], str)
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    whole = all(type(n) is int and 1 <= n <= 2**53 for n in numbers)
    return event if named and whole else None


async def barrier(client: Client) -> None:
    """Wait until the server has read what ``client`` sent before.

    nats-py's own flush does not: its PING overtakes what is pending.
    """
    echo: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def received(_: Msg) -> None:
        if not echo.done():
            echo.set_result(None)

    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=received)
    await client.publish(inbox)
    async with asyncio.timeout(PATIENCE_S):
        await echo
    await subscription.unsubscribe()


def quiet_port() -> int:
    """A free port that the system gives to no outgoing connection.

    A client that tries again and again on one of those, while nobody listens, may in
    the end be connected to itself, and the server cannot start.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until ``condition`` holds: for what nobody tells."""
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, "it never came to that"
        await asyncio.sleep(0.02)


def text_of(log: list[Json]) -> str:
    """The text that stands at the end of a log."""
    text = ""
    for event in log:
        if event["type"] == "token":
            text += event["text"]
        elif event["type"] == "resumed" and event["mode"] == "restart":
            text = ""
    return text


def assert_whole(log: list[Json]) -> None:
    """Events 1…N without a hole, one terminal event at the end, rising attempts."""
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))
    ends = [event["seq"] for event in log if event["type"] in TERMINAL]
    assert ends == [len(log)]
    attempts = [event["attempt"] for event in log]
    assert attempts == sorted(attempts)
    if "text" in log[-1]:
        assert log[-1]["text"] == text_of(log)


@contextlib.asynccontextmanager
async def plain_client(
    nats_url: str, prefix: str, **options: Any
) -> AsyncIterator[PlainClient]:
    """A connected `PlainClient` that listens already."""

    async def quiet(_: Exception) -> None:
        """Tests stop servers on purpose."""

    options.setdefault("error_cb", quiet)
    client = await nats.connect(
        nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, **options
    )
    try:
        plain = PlainClient(client, prefix)
        await plain.listen()
        yield plain
    finally:
        await client.close()
