"""One TCP or TLS connection to a server: one exchange at a time."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol, TypeAlias, cast

import httpx

from bridge.backends.body import READ_HIGH_WATER, BodyStream
from bridge.backends.http1 import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    ResponseHead,
    ResponseParser,
)


class Limits(NamedTuple):
    """The bounds of what a connection keeps; the reasons are with the defaults."""

    max_head_bytes: int = MAX_HEAD_BYTES
    max_headers: int = MAX_HEADERS
    read_high_water: int = READ_HIGH_WATER


class Origin(NamedTuple):
    """Whom a connection leads to (RFC 9110, section 4.3.1)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> Origin:
        """The origin of ``url``.

        Raises `httpx.UnsupportedProtocol` for all but http and https with a host.
        """
        default = {"http": 80, "https": 443}.get(url.scheme)
        if default is None or not url.host:
            raise httpx.UnsupportedProtocol(
                f"{str(url)!r} is not an absolute http:// or https:// URL"
            )
        return cls(url.scheme, url.raw_host.decode("ascii"), url.port or default)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class Reply(NamedTuple):
    """A response whose body may still be coming."""

    head: ResponseHead
    body: BodyStream


#: What an exchange waits for. The error is a result, not the future's exception: a
#: waiter that was cancelled in the same turn must not leave one that nobody retrieves.
Answer: TypeAlias = "asyncio.Future[Reply | httpx.TransportError]"


class Keeper(Protocol):
    """Who keeps track of connections: a pool. One per event loop."""

    #: What all its connections read into, one after the other.
    read_buffer: memoryview

    def opened(self, connection: Connection) -> None:
        """A connection was made."""

    def released(self, connection: Connection) -> None:
        """It has become idle and may be used again."""

    def withdraw(self, connection: Connection) -> None:
        """It is closing and must not be used again."""

    def gone(self, connection: Connection) -> None:
        """Its socket is closed."""


class Connection(asyncio.BufferedProtocol):
    """A connection's state: active between `begin` and the response's end, else idle.

    Everything that ends an exchange goes through `_end`, everything that ends the
    connection through `_close`. ``unanswered`` says that the server closed before a
    byte of the response, which on a connection used before means: it was stale.
    """

    __slots__ = (
        "_answer",
        "_keeper",
        "_limits",
        "_parser",
        "_reading_paused",
        "_request_sent",
        "_stream",
        "_transport",
        "_unblocked",
        "closed",
        "origin",
        "unanswered",
    )

    def __init__(self, origin: Origin, keeper: Keeper, limits: Limits) -> None:
        self.origin = origin
        self.closed = False
        self.unanswered = False
        self._keeper = keeper
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._parser: ResponseParser | None = None
        self._stream: BodyStream | None = None
        self._answer: Answer | None = None
        self._request_sent = False
        self._reading_paused = False
        self._unblocked: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        active = "waiting" if self._stream is None else "streaming"
        state = active if self._parser is not None else "idle"
        return f"<Connection {self.origin} {'closed' if self.closed else state}>"

    # The exchange's side.

    def begin(self, method: str) -> Answer:
        """Start an exchange: what comes from now on answers a request of ``method``.

        Before connecting, too: a server may answer as soon as it has accepted.
        """
        limits = self._limits
        self._parser = ResponseParser(
            method,
            max_head_bytes=limits.max_head_bytes,
            max_headers=limits.max_headers,
        )
        self._request_sent = False
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    def write(self, data: bytes) -> None:
        """Send ``data``, or nothing where the connection is closed."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    @property
    def blocked(self) -> bool:
        """Whether the socket takes no more for now: see `writable`."""
        return self._unblocked is not None

    async def writable(self, answer: Answer) -> None:
        """Wait until the socket takes more, or the answer is there. Cancellable."""
        if self._unblocked is not None:
            await asyncio.wait(
                (answer, self._unblocked), return_when=asyncio.FIRST_COMPLETED
            )

    def request_sent(self, answer: Answer) -> None:
        """The request is whole: the connection may be used again after the response."""
        if self._answer is answer:
            self._request_sent = True

    def abandon(self, answer: Answer) -> None:
        """Close, unless the connection has gone on to another exchange."""
        if self._answer is answer:
            self.abort()

    def fail(self, error: httpx.TransportError) -> None:
        """Close at once; whoever waits or reads gets ``error``."""
        if self._parser is not None:
            self._end(error)
        self._close()

    # The body's side.

    def abort(self) -> None:
        """Close at once, dropping what is unsent; nobody is told."""
        if self._parser is not None:
            self._parser.close()
        self._parser = self._stream = self._answer = None
        self._close()

    def pause_reading(self) -> None:
        """Leave what comes in the socket's buffer, so that the server has to wait."""
        if not self._reading_paused and not self.closed and self._transport:
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._reading_paused and not self.closed and self._transport:
            self._reading_paused = False
            self._transport.resume_reading()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Both loops have set TCP_NODELAY already."""
        self._transport = cast("asyncio.Transport", transport)
        if self.closed:  # nobody waits for it any more
            self._transport.abort()
        else:
            self._keeper.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next read goes; both loops call `buffer_updated` right after it.

        A `Protocol` would be given bytes, for which asyncio allocates 256 KiB every
        time: an mmap and its page faults, several times the cost of the read.
        """
        return self._keeper.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """The hot path: once per read, for most streams once per token."""
        parser = self._parser
        if parser is None:
            self._close()  # unasked: must not answer the next request
            return
        body = parser.receive_data(self._keeper.read_buffer[:nbytes])
        stream = self._stream
        if stream is None:
            stream = self._answer_with(parser)
        if body and stream is not None:
            stream.feed_data(body)
        # A receiver may have aborted this exchange.
        if parser.done and self._parser is parser:
            self._end(parser.error)

    def eof_received(self) -> None:
        """The server has sent all it will; the loop closes the transport."""
        self._disconnected(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, by the server, by us, or by an error."""
        self._disconnected(exc)
        if self._unblocked is not None:
            self.resume_writing()
        self._keeper.gone(self)

    def pause_writing(self) -> None:
        """The server reads more slowly than we send."""
        self._unblocked = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        unblocked, self._unblocked = self._unblocked, None
        if unblocked is not None and not unblocked.done():
            unblocked.set_result(None)

    # The ways on from there.

    def _answer_with(self, parser: ResponseParser) -> BodyStream | None:
        if parser.head is None:
            return None
        self._stream = BodyStream(self, self._limits.read_high_water)
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Reply(parser.head, self._stream))
        return self._stream

    def _disconnected(self, exc: Exception | None) -> None:
        parser = self._parser
        if parser is None:
            self._close()
            return
        self.unanswered = parser.untouched
        parser.receive_eof()
        if exc is None:
            self._end(parser.error)
            return
        error = httpx.ReadError(f"the connection to {self.origin} broke: {exc}")
        error.__cause__ = exc
        self._end(error)

    def _end(self, error: httpx.TransportError | None) -> None:
        parser, stream, answer = self._parser, self._stream, self._answer
        assert parser is not None
        self._parser = self._stream = self._answer = None
        parser.close()
        if error is None and parser.keep_alive and self._all_sent():
            self.resume_reading()
            self._keeper.released(self)
        else:
            self._close()
        if stream is not None:
            stream.feed_eof(error)
        elif answer is not None and error is not None and not answer.done():
            answer.set_result(error)

    def _all_sent(self) -> bool:
        return (
            self._request_sent
            and self._transport is not None
            and not self._transport.is_closing()
            and self._transport.get_write_buffer_size() == 0
        )

    def _close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._keeper.withdraw(self)
        if self._transport is not None:
            self._transport.abort()
