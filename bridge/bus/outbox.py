"""What goes out to NATS: gathered over one turn of the loop, then written at once.

nats-py's own ``publish`` checks, formats and counts each message through four calls and
wakes a task to write them; at a token a turn that is the larger part of a token's cost.
This module writes the same bytes through the same client: what it gathers goes behind
whatever the client itself has pending, so the order of everything stays what it was. It
uses four private attributes of nats-py's client, which is why nats-py is pinned, and
`Outbox.open` refuses to start with a client that lacks them.
"""

from __future__ import annotations

import asyncio

from nats.aio.client import Client

from bridge.errors import ConnectionLost, SetupError

#: What may wait while the client reconnects; far above the high watermark, at which
#: backends are not read any further.
PENDING_BYTES = 64 * 1024 * 1024

#: Above this many bytes that NATS has not taken yet, readers of backends pause; below
#: the low mark they go on. 8 MiB is about a second of 60,000 tokens.
HIGH_WATER_BYTES = 8 * 1024 * 1024
LOW_WATER_BYTES = 2 * 1024 * 1024


class Outbox:
    """The way out through one client. Not to be used from other threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gathered: list[bytes] = []
        self._along: list[bytes] = []
        #: Whether the loop will write when it turns.
        self._due = False
        #: Whether more than `HIGH_WATER_BYTES` wait for NATS.
        self.congested = False

    def __repr__(self) -> str:
        return f"<Outbox {self.pending_bytes} bytes pending>"

    def open(self) -> None:
        """Get ready, in the running loop, once the client is connected.

        Raises `SetupError` when the client is not built as this module expects.
        """
        client = self._client
        self._loop = asyncio.get_running_loop()
        try:
            _ = (
                client._pending,
                client._pending_data_size,
                client._flush_queue,
                client._transport._io_writer.transport,  # type: ignore[union-attr]
            )
        except AttributeError as error:
            raise SetupError(
                f"this version of nats-py does not fit: {error}; tokenbridge needs "
                "the version that it pins"
            ) from error

    @property
    def pending_bytes(self) -> int:
        """What was sent and is not with the socket yet."""
        waiting = sum(map(len, self._gathered)) if self._gathered else 0
        along = sum(map(len, self._along)) if self._along else 0
        return self._client._pending_data_size + waiting + along

    @property
    def relaxed(self) -> bool:
        """Whether less than `LOW_WATER_BYTES` wait, and the client is connected."""
        if self.pending_bytes >= LOW_WATER_BYTES or not self._client.is_connected:
            return False
        self.congested = False
        return True

    def send(self, command: bytes) -> None:
        """Put one whole protocol command on its way; written when the loop turns."""
        if not self._due:
            self._opened().call_soon(self._write)
            self._due = True
        self._gathered.append(command)

    def send_along(self, command: bytes) -> None:
        """Put a command on its way with whatever is sent next, or by `flush`.

        For commands that no caller waits for: a write of its own would wake the server
        for it. Not for another connection than this one: see `forget_along`.
        """
        self._opened()
        self._along.append(command)

    def forget_along(self) -> None:
        """The connection is lost, and with it what was to go along."""
        self._along.clear()

    def _opened(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise ConnectionLost("cannot publish: NATS was never connected")
        return self._loop

    def _write(self) -> None:
        self._due = False
        gathered = self._gathered
        if self._along:
            gathered[:0] = self._along
            self._along.clear()
        if not gathered:
            return
        client = self._client
        data = b"".join(gathered) if len(gathered) > 1 else gathered[0]
        gathered.clear()
        if client.is_connected:
            transport = client._transport._io_writer.transport  # type: ignore[union-attr]
            if not (transport.get_write_buffer_size() or transport.is_closing()):
                if client._pending:
                    data = b"".join((*client._pending, data))
                    client._pending = []
                    client._pending_data_size = 0
                transport.write(data)
                self.congested = False
                return
            # The socket is slow: the client's own flusher waits for it and keeps
            # count, so that what is pending can be seen.
            self._wake_flusher()
        # Else the client writes it once it is connected again.
        client._pending.append(data)
        client._pending_data_size += len(data)
        self.congested = client._pending_data_size > HIGH_WATER_BYTES

    def _wake_flusher(self) -> None:
        queue = self._client._flush_queue
        if queue is not None and self._loop is not None and queue.empty():
            queue.put_nowait(self._loop.create_future())

    def flush(self) -> None:
        """Write what is gathered now, not when the loop turns."""
        self._write()

    def make_room(self, size: int) -> None:
        """Raises `ConnectionLost` when ``size`` more bytes cannot be kept."""
        if self._client.is_closed:
            raise ConnectionLost("cannot publish: the NATS client is closed")
        if self._client._pending_data_size + size > PENDING_BYTES:
            raise ConnectionLost(
                f"cannot publish: {PENDING_BYTES} bytes wait for NATS already"
            )
