"""How a generation's request is sent, by the transport that sends it.

All of it but the body and its length is the same every time. The slim transport is
given it in one piece; for any other one it is made into httpx's request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx

from bridge.backends.body import Body
from bridge.backends.connection import Origin
from bridge.backends.http1 import ResponseHead, encode_head
from bridge.backends.pulled import PulledBody
from bridge.backends.transport import Outgoing, SlimTransport

Headers = list[tuple[bytes, bytes]]

#: Sends a request with this body; returns the answer's head as soon as it is here.
#: Raises httpx's errors, `OSError` and `ssl.SSLError`. Cancelling it closes the
#: connection.
Open = Callable[[bytes], Awaitable[tuple[ResponseHead, Body]]]


def opener(
    transport: httpx.AsyncBaseTransport,
    url: httpx.URL,
    headers: Headers,
    timeouts: dict[str, float | None],
) -> Open:
    """What posts JSON to ``url`` over ``transport``."""
    headers = [*headers, (b"Content-Type", b"application/json")]
    if isinstance(transport, SlimTransport):
        return _slim(transport, url, headers, timeouts)
    return _httpx(transport, url, headers, timeouts)


def _slim(
    transport: SlimTransport,
    url: httpx.URL,
    headers: Headers,
    timeouts: dict[str, float | None],
) -> Open:
    origin = Origin.of(url)
    # With a stream, or httpx would say that there is no body.
    request = httpx.Request("POST", url, headers=headers, stream=httpx.ByteStream(b""))
    start = encode_head(request).removesuffix(b"\r\n")

    async def open(body: bytes) -> tuple[ResponseHead, Body]:
        head = b"%bContent-Length: %d\r\n\r\n" % (start, len(body))
        request = Outgoing("POST", origin, head, body, timeouts)
        return await transport.exchange(request)

    return open


def _httpx(
    transport: httpx.AsyncBaseTransport,
    url: httpx.URL,
    headers: Headers,
    timeouts: dict[str, float | None],
) -> Open:
    async def open(body: bytes) -> tuple[ResponseHead, Body]:
        request = httpx.Request(
            "POST",
            url,
            headers=[*headers, (b"Content-Length", b"%d" % len(body))],
            stream=httpx.ByteStream(body),
            extensions={"timeout": timeouts},
        )
        response = await transport.handle_async_request(request)
        head = ResponseHead(response.status_code, b"", b"", response.headers.raw)
        return head, PulledBody(response)

    return open
