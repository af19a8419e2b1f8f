"""A TCP cable that can be pulled, and put back."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class Cable:
    """Forwards connections to a port on loopback, until it is pulled."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._port = 0
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.plug_in()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.pull()

    async def plug_in(self) -> None:
        """Let connections through, on the same port as before."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self._port
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def pull(self) -> None:
        """Cut what is connected, refuse what comes."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for end in list(self._ends):
            end.transport.abort()
        while self._ends:
            await asyncio.sleep(0.005)

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1", self._target
        )
        self._ends |= {writer, far_writer}
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(_forward(reader, far_writer)),
                    asyncio.create_task(_forward(far_reader, writer)),
                ],
                return_when=asyncio.ALL_COMPLETED,
            )
        finally:
            self._ends -= {writer, far_writer}


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
