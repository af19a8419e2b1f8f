"""A backend that answers each call with the bytes of its script, and ends as told."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

End = Literal["whole", "cut", "reset", "silence"]

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)


class Call(NamedTuple):
    """What one call is answered with.

    ``end``: ``whole`` ends the body, ``cut`` the connection before that, ``reset``
    resets it, and ``silence`` leaves it open.
    """

    pieces: Sequence[bytes]
    end: End = "whole"
    content_type: bytes = b"text/event-stream"


def event(value: Any) -> bytes:
    """One record of an event stream; a string is the text of a delta."""
    if isinstance(value, str):
        value = {"choices": [{"index": 0, "delta": {"content": value}}]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def finish(reason: str = "stop", **fields: Any) -> bytes:
    """The record with the finish reason."""
    choice = {"index": 0, "delta": {}, "finish_reason": reason}
    return event({"choices": [choice], **fields})


DONE = b"data: [DONE]\n\n"


class ScriptedBackend:
    """Serves on loopback from ``async with`` on; the last call of the script repeats.

    ``requests`` are the bodies that came in.
    """

    def __init__(self, *script: Call) -> None:
        self._script = script
        self.requests: list[dict[str, Any]] = []
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The base that ends in /v1."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)
        await self._server.wait_closed()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        self.requests.append(json.loads(await reader.readexactly(length)))
        number = min(len(self.requests), len(self._script)) - 1
        call = self._script[number]
        writer.write(HEAD % call.content_type)
        for piece in call.pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        if call.end == "whole":
            writer.write(b"0\r\n\r\n")
        elif call.end == "silence":
            await reader.read()  # until the client goes away
        elif call.end == "reset":
            # The bytes have to arrive before what takes them back.
            await asyncio.sleep(0.05)
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
