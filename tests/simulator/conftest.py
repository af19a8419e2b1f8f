"""A running simulator, a client of it, and ways to read what it answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from bridge.simulator import Simulator

MODEL = "simulator"


@dataclass
class Streamed:
    """What a stream brought: its records, and the text in them."""

    status: int
    headers: httpx.Headers
    raw: bytes = b""
    chunks: list[dict[str, Any]] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    done: bool = False
    error: httpx.HTTPError | None = None

    def deltas(self, name: str) -> list[str]:
        """The non-empty values of one field of the deltas."""
        found = [
            choice["delta"].get(name)
            for chunk in self.chunks
            for choice in chunk.get("choices", [])
        ]
        return [value for value in found if value]

    @property
    def tokens(self) -> list[str]:
        return self.deltas("content")

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def finish_reason(self) -> str | None:
        reasons = [
            choice["finish_reason"]
            for chunk in self.chunks
            for choice in chunk.get("choices", [])
            if choice["finish_reason"] is not None
        ]
        assert len(reasons) <= 1
        return reasons[0] if reasons else None

    def take(self, record: str) -> None:
        if record == "[DONE]":
            self.done = True
            return
        try:
            self.chunks.append(json.loads(record))
        except ValueError:
            self.malformed.append(record)


def read_records(streamed: Streamed) -> None:
    text = streamed.raw.decode("utf-8", errors="ignore")
    if streamed.headers["content-type"] == "application/json":
        streamed.take(text)
        return
    if streamed.headers["content-type"].startswith("application/x-ndjson"):
        for line in text.splitlines():
            streamed.take(line)
        return
    *events, _ = text.split("\n\n")
    for event in events:
        assert event.startswith("data: ")
        streamed.take(event.removeprefix("data: "))


Stream = Callable[..., Awaitable[Streamed]]
Ask = Callable[..., dict[str, Any]]


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running
    assert running.active == 0


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.url, timeout=30) as client:
        yield client


@pytest.fixture
def ask() -> Ask:
    """A request's object; keyword arguments are further fields of it."""

    def ask(prompt: str = "Tell me of the sea.", **fields: Any) -> dict[str, Any]:
        return {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            **fields,
        }

    return ask


@pytest.fixture
def stream(client: httpx.AsyncClient) -> Stream:
    """Send a request with ``stream: true`` and read what comes, errors included."""

    async def stream(request: dict[str, Any]) -> Streamed:
        body = {**request, "stream": True}
        async with client.stream("POST", "/chat/completions", json=body) as response:
            streamed = Streamed(response.status_code, response.headers)
            try:
                async for data in response.aiter_raw():
                    streamed.raw += data
            except httpx.HTTPError as error:
                streamed.error = error
        read_records(streamed)
        return streamed

    return stream


class RawConnection:
    """A connection without an HTTP library, for what one would hide."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    async def post(self, request: dict[str, Any], version: str = "1.1") -> None:
        body = json.dumps(request).encode()
        self.writer.write(
            b"POST /v1/chat/completions HTTP/%b\r\nHost: simulator\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (version.encode(), len(body), body)
        )
        await self.writer.drain()

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def chunk(self) -> bytes:
        """The next chunk of the body; empty at its end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@pytest.fixture
async def connect(
    simulator: Simulator,
) -> AsyncIterator[Callable[[], Awaitable[RawConnection]]]:
    opened: list[RawConnection] = []

    async def connect() -> RawConnection:
        streams = await asyncio.open_connection("127.0.0.1", simulator.port)
        opened.append(RawConnection(*streams))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.writer.close()
