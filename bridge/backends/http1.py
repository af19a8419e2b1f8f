"""HTTP/1.1 seen by a client, without I/O: requests to bytes, bytes to responses.

RFC 9112, parsed by llhttp (`httptools`) in its strict mode: a bare LF for a line's
end, folded header lines, Content-Length twice or beside Transfer-Encoding are errors
here, as section 6.3 recommends against response splitting.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import NamedTuple

import httptools
import httpx

#: A response's head, 1xx ones before it included. Backends send about 1 KiB, gateways
#: with cookies and tracing a few; nginx and Node stop at 16 to 32 KiB.
MAX_HEAD_BYTES = 64 * 1024

#: Header fields of one response. Backends send 5 to 40.
MAX_HEADERS = 256

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_UNSENDABLE = re.compile(rb"[\x00\r\n]")  # section 5.5: would end the line
_VERSIONS = ("1.1", "1.0")


def encode_head(request: httpx.Request) -> bytes:
    """The request line and the header fields, with the empty line after them.

    Raises `httpx.LocalProtocolError` for what would break out of its line, and for
    want of a Host.
    """
    method = request.method.encode("ascii", "replace")
    target = request.url.raw_path
    if not _TOKEN.fullmatch(method) or _UNSENDABLE.search(target) or b" " in target:
        raise httpx.LocalProtocolError(f"cannot send the request line of {request!r}")
    if "host" not in request.headers:  # RFC 9112, section 3.2
        raise httpx.LocalProtocolError("cannot send a request without a Host field")
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    for name, value in request.headers.raw:
        if not _TOKEN.fullmatch(name) or _UNSENDABLE.search(value):
            raise httpx.LocalProtocolError(f"cannot send the header field {name!r}")
        lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join((*lines, b"", b""))


async def encode_body(request: httpx.Request) -> AsyncIterator[bytes]:
    """A streamed request body, framed as the request's header fields say.

    Raises `httpx.LocalProtocolError` when it is not as long as its Content-Length.
    """
    assert isinstance(request.stream, httpx.AsyncByteStream)
    if "transfer-encoding" in request.headers:
        async for part in request.stream:
            if part:
                yield b"%x\r\n%b\r\n" % (len(part), part)
        yield b"0\r\n\r\n"
        return
    missing = int(request.headers.get("content-length", 0))
    async for part in request.stream:
        missing -= len(part)
        if missing < 0:
            raise httpx.LocalProtocolError("the body is longer than its Content-Length")
        yield part
    if missing:
        raise httpx.LocalProtocolError("the body is shorter than its Content-Length")


class ResponseHead(NamedTuple):
    """Status line and header fields of a final response."""

    status: int
    reason: bytes
    http_version: bytes
    headers: list[tuple[bytes, bytes]]

    def field(self, name: bytes) -> str | None:
        """The value of a field by its lower-case name, joined where it is repeated.

        RFC 9110, section 5.2; bytes beyond ASCII are read as ISO 8859-1.
        """
        values = [value for key, value in self.headers if key.lower() == name]
        return b", ".join(values).decode("latin-1") if values else None


class ResponseParser:
    """Reads the one response to one request, cut anywhere.

    ``head`` is set once the final head is whole (1xx ones are passed over); ``done``
    once nothing more is to come, with ``error`` if that is no regular end.
    ``keep_alive``, valid when done, says whether the connection may be used again.
    """

    __slots__ = (
        "_bodyless",
        "_head_bytes",
        "_headers",
        "_max_head_bytes",
        "_max_headers",
        "_parser",
        "_pieces",
        "_reason",
        "_silent_bytes",
        "_until_close",
        "done",
        "error",
        "head",
        "keep_alive",
        "on_body",
    )

    def __init__(
        self,
        method: str,
        *,
        max_head_bytes: int = MAX_HEAD_BYTES,
        max_headers: int = MAX_HEADERS,
    ) -> None:
        self.head: ResponseHead | None = None
        self.done = False
        self.error: httpx.RemoteProtocolError | None = None
        self.keep_alive = False
        self._bodyless = method == "HEAD"
        self._until_close = False
        self._max_head_bytes = max_head_bytes
        self._max_headers = max_headers
        self._head_bytes = 0
        self._silent_bytes = 0
        self._reason = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        # llhttp's callback, straight into the list: no Python frame per piece.
        self.on_body = self._refuse_body if self._bodyless else self._pieces.append
        self._parser = httptools.HttpResponseParser(self)

    @property
    def untouched(self) -> bool:
        """Whether not a byte has come yet."""
        return self.head is None and not self._silent_bytes

    def receive_data(self, data: bytes | memoryview) -> bytes:
        """Take one read of the socket; return the body's bytes that were in it.

        Nothing of ``data`` is held on to. Never raises: look at ``head``, ``done``
        and ``error`` afterwards.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("the server switched to a protocol that nobody asked for")
        except httptools.HttpParserError as error:
            self._fail(str(error.__context__ or error))
        pieces = self._pieces
        if not pieces:
            self._count_silence(len(data))
            return b""
        self._silent_bytes = 0
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return body

    def receive_eof(self) -> None:
        """The server has closed; ``done`` from now on."""
        if self.done:
            return
        self.keep_alive = False
        if self._until_close:
            self.done = True
        elif self.head is None:
            self._fail("the server disconnected without sending a response")
        else:
            self._fail("the server disconnected before the end of its response")

    def close(self) -> None:
        """Take no more data, and break the cycle with llhttp's callbacks.

        Without that every response would be left to the garbage collector.
        """
        del self._parser

    def _fail(self, reason: str) -> None:
        self.keep_alive = False
        if not self.done:  # else it is what came after the response that is wrong
            self.done = True
            self.error = httpx.RemoteProtocolError(reason)

    def _count_silence(self, size: int) -> None:
        # Heads, trailers, chunk extensions: whatever goes on without a body's byte.
        self._silent_bytes += size
        if self._silent_bytes > self._max_head_bytes and not self.done:
            self._fail(f"no end of a head or chunk in {self._max_head_bytes} bytes")

    def _refuse_body(self, _: bytes) -> None:
        raise httpx.RemoteProtocolError("a body in the response to HEAD")

    # What llhttp calls. What is raised here stops it and is told by `receive_data`.

    def on_message_begin(self) -> None:
        """A head begins: the first, or one after a 1xx."""
        if self.done:
            raise httpx.RemoteProtocolError("data after the response")
        self._reason = b""
        self._headers = []

    def on_status(self, part: bytes) -> None:
        """A part of the reason phrase."""
        self._reason += part
        self._count_head(len(part))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header or trailer field."""
        if self.head is not None:
            return  # trailers, which RFC 9110, section 6.5.1, lets us discard
        self._count_head(len(name) + len(value))
        if len(self._headers) == self._max_headers:
            raise httpx.RemoteProtocolError(
                f"more than {self._max_headers} header fields"
            )
        self._headers.append((name, value.rstrip(b" \t")))

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._max_head_bytes:
            raise httpx.RemoteProtocolError(
                f"a head of more than {self._max_head_bytes} bytes"
            )

    def on_headers_complete(self) -> None:
        """A head is whole: final, or a 1xx."""
        status = self._parser.get_status_code()
        version = self._parser.get_http_version()
        if version not in _VERSIONS or status < 100 or status == 101:
            raise httpx.RemoteProtocolError(f"unexpected HTTP/{version} {status}")
        if status < 200:
            return
        self.head = ResponseHead(
            status, self._reason, b"HTTP/" + version.encode(), self._headers
        )
        self.keep_alive = self._parser.should_keep_alive()
        self._until_close = _ends_with_connection(self._headers)
        self.done = self._bodyless

    def on_message_complete(self) -> None:
        """A message is whole; a 1xx one has no body and ends at once."""
        self.done = self.head is not None


def _ends_with_connection(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a body is framed by the end of the connection (section 6.3)."""
    coding = b""
    for name, value in headers:
        match name.lower():
            case b"content-length":
                return False
            case b"transfer-encoding":
                coding = value.rpartition(b",")[2].strip().lower()
    return coding != b"chunked"
