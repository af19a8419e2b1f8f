"""HTTP for streams that live long and come a token at a time: a transport for httpx.

httpx asks a transport for one thing, a response to a request. Its default one spends
most of a bridge's CPU on locks, timers and layers per read; this one is an
`asyncio.Protocol` and llhttp::

    transport    one exchange: connection, request, the wait for the head, one retry
    pool         open connections, idle ones by origin
    connection   one socket: its bytes, its end, its two directions of backpressure
    http1        HTTP/1.1 without I/O
    body         what a response's body is read from

Not here, and why httpx's default transport stays selectable: proxies, HTTP/2,
WebSockets and other upgrades, Unix sockets, a limit on connections, racing IPv6 and
IPv4 (addresses are tried in turn). Redirects, cookies, authentication and content
decoding are httpx's, above any transport.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import NamedTuple, TypeVar

import httpx

from bridge.backends.body import READ_HIGH_WATER
from bridge.backends.connection import Answer, Connection, Limits, Origin, Reply
from bridge.backends.http1 import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    encode_body,
    encode_head,
)
from bridge.backends.pool import ConnectionPool

#: Just below the 5 s after which uvicorn, and so vLLM, closes an idle connection:
#: it is better that we do it than that a request meets the server's close.
KEEPALIVE_EXPIRY_S = 4.0

CONNECT_TIMEOUT_S = 5.0

T = TypeVar("T")


class Outgoing(NamedTuple):
    """A request as it is sent: its head, and its body in one piece or framed in parts.

    ``timeouts`` are httpx's: ``connect``, ``write`` and ``read``, in seconds.
    """

    method: str
    origin: Origin
    head: bytes
    body: bytes | AsyncIterator[bytes]
    timeouts: Mapping[str, float | None]

    def __repr__(self) -> str:
        # Never the head: it may carry a key.
        return f"<Outgoing {self.method} {self.origin}>"

    @classmethod
    def of(cls, request: httpx.Request) -> Outgoing:
        """Httpx's request.

        Raises `httpx.UnsupportedProtocol` and `httpx.LocalProtocolError`.
        """
        body: bytes | AsyncIterator[bytes]
        if isinstance(request.stream, httpx.ByteStream):
            body = b"".join(request.stream)
        else:
            body = encode_body(request)
        return cls(
            request.method,
            Origin.of(request.url),
            encode_head(request),
            body,
            request.extensions.get("timeout", {}),
        )


class SlimTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 over TCP and TLS, on asyncio's and uvloop's event loops.

    ``ssl_context`` defaults to httpx's, made at the first https request. Of httpx's
    timeouts (seconds, ``None`` for none) it keeps ``connect``, ``connect_timeout_s``
    where a request says nothing; ``write``, for each wait until the socket takes
    more; and ``read``, for the whole wait for the response's head. There is none per
    read of the body, and with no limit on connections none for the ``pool``.

    A request whose body is bytes is sent once more, on a new connection, when the
    server closed a kept one before any byte of the answer. An answer that comes
    before the request is sent ends the sending.

    Raises `httpx.TransportError`s: ``ConnectError`` (refused, unresolved, bad
    certificate), ``ConnectTimeout``, ``WriteTimeout``, ``ReadTimeout``, ``ReadError``
    (reset, closed by `aclose`), ``RemoteProtocolError`` (no HTTP/1.1, over a limit, cut
    off), ``LocalProtocolError``, ``UnsupportedProtocol``.

    To be used in one event loop, by any number of tasks. Cancelling a request closes
    its connection. `exchange` gives a response's body for reading by push.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout_s: float | None = CONNECT_TIMEOUT_S,
        keepalive_expiry_s: float = KEEPALIVE_EXPIRY_S,
        max_head_bytes: int = MAX_HEAD_BYTES,
        max_headers: int = MAX_HEADERS,
        read_high_water: int = READ_HIGH_WATER,
    ) -> None:
        self._ssl_context = ssl_context
        self._connect_timeout_s = connect_timeout_s
        self._limits = Limits(max_head_bytes, max_headers, read_high_water)
        self._pool = ConnectionPool(keepalive_expiry_s)

    def __repr__(self) -> str:
        state = "closed" if self._pool.closed else "open"
        return (
            f"<SlimTransport {state}, "
            f"{self._pool.active} active, {self._pool.idle} idle>"
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``; return the response as soon as its head is here."""
        reply = await self.exchange(Outgoing.of(request))
        return httpx.Response(
            reply.head.status,
            headers=reply.head.headers,
            stream=reply.body,
            extensions={
                "http_version": reply.head.http_version,
                "reason_phrase": reply.head.reason,
            },
        )

    async def exchange(self, request: Outgoing) -> Reply:
        """The same without httpx's objects, which take longer than the sending."""
        if self._pool.closed:
            raise RuntimeError("the transport was closed")
        kept = self._pool.take(request.origin)
        if kept is not None:
            answer = kept.begin(request.method)
            try:
                return await self._exchange(kept, answer, request)
            except httpx.TransportError:
                if not (kept.unanswered and isinstance(request.body, bytes)):
                    raise
        new = Connection(request.origin, self._pool, self._limits)
        answer = new.begin(request.method)
        await self._connect(new, request)
        return await self._exchange(new, answer, request)

    async def aclose(self) -> None:
        """Close every connection; whoever still reads gets `httpx.ReadError`."""
        await self._pool.aclose()

    async def _connect(self, connection: Connection, request: Outgoing) -> None:
        try:
            await self._connect_in_time(connection, request)
        except BaseException:
            # uvloop, cancelled (by a timeout, too) in the turn of the connect, closes
            # the socket without a word to the protocol that it had just told of it.
            connection.abort()
            self._pool.gone(connection)
            raise

    async def _connect_in_time(self, connection: Connection, request: Outgoing) -> None:
        origin = connection.origin
        tls = self._tls() if origin.scheme == "https" else None
        try:
            await _within(
                request.timeouts.get("connect", self._connect_timeout_s),
                asyncio.get_running_loop().create_connection(
                    lambda: connection,
                    origin.host,
                    origin.port,
                    ssl=tls,
                    server_hostname=None if tls is None else origin.host,
                ),
                httpx.ConnectTimeout,
                f"connecting to {origin}",
            )
        except (OSError, UnicodeError) as error:  # UnicodeError: no name for DNS
            raise httpx.ConnectError(f"cannot connect to {origin}: {error}") from error

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = httpx.create_ssl_context()
            self._ssl_context.set_alpn_protocols(["http/1.1"])
        return self._ssl_context

    async def _exchange(
        self, connection: Connection, answer: Answer, request: Outgoing
    ) -> Reply:
        try:
            await _send(connection, answer, request)
            reply = await _within(
                request.timeouts.get("read"),
                answer,
                httpx.ReadTimeout,
                f"waiting for a response of {connection.origin}",
            )
        except BaseException:
            connection.abandon(answer)
            raise
        if isinstance(reply, Exception):
            raise reply
        return reply


async def _send(connection: Connection, answer: Answer, request: Outgoing) -> None:
    if isinstance(request.body, bytes):
        connection.write(request.head + request.body)
        connection.request_sent(answer)
        if connection.blocked:
            await _drain(connection, answer, request)
        return
    connection.write(request.head)
    async for part in request.body:
        if answer.done():
            return
        connection.write(part)
        if connection.blocked:
            await _drain(connection, answer, request)
    connection.request_sent(answer)


async def _drain(connection: Connection, answer: Answer, request: Outgoing) -> None:
    await _within(
        request.timeouts.get("write"),
        connection.writable(answer),
        httpx.WriteTimeout,
        f"sending to {connection.origin}",
    )


async def _within(
    seconds: float | None,
    awaitable: Awaitable[T],
    error: type[httpx.TimeoutException],
    what: str,
) -> T:
    if seconds is None:
        return await awaitable
    try:
        async with asyncio.timeout(seconds):
            return await awaitable
    except TimeoutError as exc:
        raise error(f"{what} took longer than {seconds} s") from exc
