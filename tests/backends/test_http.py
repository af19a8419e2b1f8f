"""Routes to real sockets: what is sent, what comes of the answer's head, candidates."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import trustme

from bridge.backends.http import Backend, Backends, make_backends, make_transport
from bridge.config import BackendSettings, Secret, Settings
from bridge.errors import (
    BackendProtocolError,
    BackendRejected,
    BackendUnavailable,
    ConfigurationError,
    GenerationError,
    RateLimited,
    UnknownModel,
)

BODY = b'{"model":"m"}'
JSON = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)

Serve = Callable[..., Awaitable[Any]]
Open = Callable[..., Awaitable[Backend]]


@pytest.fixture(params=["slim", "httpx"])
def transport_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def backend_at(transport_name: str) -> AsyncIterator[Callable[..., Backend]]:
    made: list[Backends] = []

    def make(url: str, **settings: Any) -> Backend:
        values: dict[str, Any] = {"backend_url": url, **settings}
        backends = make_backends(Settings(backend_transport=transport_name, **values))  # type: ignore[arg-type]
        made.append(backends)
        return backends.routes[0]

    yield make
    for backends in made:
        await backends.aclose()


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
    return head.encode() + body


async def test_what_is_sent(
    serve: Serve,
    answering: Callable[..., Any],
    backend_at: Callable[..., Backend],
) -> None:
    server = await serve(answering(JSON))
    backend = backend_at(f"{server.url}v1/", backend_api_key=Secret("s3cret"))
    upstream = await backend.open(BODY)
    upstream.abort()
    [head] = [request for peer in server.peers for request in peer.requests]
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/chat/completions HTTP/1.1"
    fields = [line.lower().split(": ", 1) for line in lines[1:] if line]
    sent = dict(fields)
    assert len(sent) == len(fields), "a field was sent twice"
    assert sent["host"] == f"127.0.0.1:{server.port}"
    assert sent["content-type"] == "application/json"
    assert sent["content-length"] == str(len(BODY))
    assert "text/event-stream" in sent["accept"]
    assert sent["authorization"] == "bearer s3cret"
    assert "accept-encoding" not in sent or sent["accept-encoding"] == "identity"
    assert "s3cret" not in repr(backend)


async def test_no_key_no_header(
    serve: Serve,
    answering: Callable[..., Any],
    backend_at: Callable[..., Backend],
) -> None:
    server = await serve(answering(JSON))
    (await backend_at(f"{server.url}v1").open(BODY)).abort()
    [head] = [request for peer in server.peers for request in peer.requests]
    assert b"authorization" not in head.lower()


@pytest.mark.parametrize("coding", ["identity", "none", "utf-8, None"])
async def test_an_answer_without_a_content_type_is_read(
    serve: Serve,
    answering: Callable[..., Any],
    backend_at: Callable[..., Backend],
    coding: str,
) -> None:
    server = await serve(answering(answer("200 OK", b"{}", Content_Encoding=coding)))
    upstream = await backend_at(f"{server.url}v1").open(BODY)
    upstream.abort()


HEADS: dict[str, tuple[bytes, type[GenerationError], str]] = {
    "400": (
        answer("400 Bad Request", b'{"error":{"message":"no such field"}}'),
        BackendRejected,
        "no such field",
    ),
    "429": (answer("429 Slow", b"", Retry_After="7"), RateLimited, "429"),
    "500": (answer("500 Oops", b"<html>"), BackendUnavailable, "500"),
    "302": (
        answer("302 Found", b"", Location="http://other/v1"),
        GenerationError,
        "redirect",
    ),
    "204": (answer("204 No Content"), GenerationError, "204"),
    "html": (
        answer("200 OK", b"hi", Content_Type="text/html"),
        BackendProtocolError,
        "/v1",
    ),
    "gzip": (
        answer(
            "200 OK", b"x", Content_Type="application/json", Content_Encoding="gzip"
        ),
        BackendProtocolError,
        "compressed",
    ),
    "smtp": (b"220 mail.example.org ESMTP\r\n", BackendProtocolError, "HTTP"),
}


@pytest.mark.parametrize(("head", "kind", "said"), HEADS.values(), ids=HEADS.keys())
async def test_heads_that_are_no_answer(
    serve: Serve,
    answering: Callable[..., Any],
    backend_at: Callable[..., Backend],
    head: bytes,
    kind: type[GenerationError],
    said: str,
) -> None:
    server = await serve(answering(head, close=True))
    with pytest.raises(kind) as caught:
        await backend_at(f"{server.url}v1").open(BODY)
    assert said in caught.value.message
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after_s == 7.0


async def test_an_error_body_is_read_to_a_limit(
    serve: Serve, backend_at: Callable[..., Backend]
) -> None:
    async def endless(peer: Any) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 500 Oops\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            await peer.send(b"x" * 10_000)

    server = await serve(endless)
    async with asyncio.timeout(20):
        with pytest.raises(BackendUnavailable) as caught:
            await backend_at(f"{server.url}v1").open(BODY)
        await server.peers[0].closed.wait()
    assert len(caught.value.message) < 1000


async def test_an_error_body_that_breaks_off(
    serve: Serve, backend_at: Callable[..., Backend]
) -> None:
    async def half(peer: Any) -> None:
        await peer.request()
        await peer.send(b'HTTP/1.1 400 No\r\nContent-Length: 99\r\n\r\n{"error":"half')

    server = await serve(half)
    with pytest.raises(BackendRejected, match="half"):
        await backend_at(f"{server.url}v1").open(BODY)


async def test_cancelling_closes_the_connection(
    serve: Serve, backend_at: Callable[..., Backend]
) -> None:
    asked = asyncio.Event()

    async def silent(peer: Any) -> None:
        await peer.request()
        asked.set()
        await peer.eof()

    server = await serve(silent)
    opening = asyncio.create_task(backend_at(f"{server.url}v1").open(BODY))
    async with asyncio.timeout(20):
        await asked.wait()
        opening.cancel()
        await asyncio.wait([opening])
        await server.peers[0].closed.wait()
    assert opening.cancelled()


async def test_a_backend_that_did_not_answer_is_shunned_for_a_while(
    serve: Serve, answering: Callable[..., Any]
) -> None:
    now = 100.0
    server = await serve(answering(answer("500 Oops"), close=True))
    transport = make_transport(Settings(), "")
    backend = Backend(
        BackendSettings(name="b", url=f"{server.url}v1"),
        Secret(),
        transport,
        connect_timeout_s=5.0,
        max_record_bytes=1000,
        now=lambda: now,
    )
    assert "shunned" not in repr(backend)
    with pytest.raises(BackendUnavailable):
        await backend.open(BODY)
    assert backend.shunned
    assert "shunned" in repr(backend)
    now += 60.0
    assert "shunned" not in repr(backend)
    await transport.aclose()


def test_candidates_in_the_configured_order_the_ailing_last() -> None:
    routes = [
        BackendSettings(name="a", url="http://a/v1", models=["small", "large"]),
        BackendSettings(name="b", url="http://b/v1", models=["large"]),
        BackendSettings(name="any", url="http://c/v1"),
    ]
    backends = make_backends(Settings(backends=routes))

    def names(model: str) -> list[str]:
        return [route.name for route in backends.candidates(model)]

    assert names("large") == ["a", "b", "any"]
    assert names("small") == ["a", "any"]
    assert names("other") == ["any"]
    backends.routes[0].failed()
    assert names("large") == ["b", "any", "a"]
    few = make_backends(Settings(backends=routes[:2]))
    with pytest.raises(UnknownModel, match=r"'tiny'.*large, small"):
        few.candidates("tiny")
    with pytest.raises(UnknownModel) as caught:
        few.candidates("x" * 10_000)
    assert len(caught.value.message) < 500


async def test_a_probe_lists_the_models(
    serve: Serve,
    answering: Callable[..., Any],
    backend_at: Callable[..., Backend],
) -> None:
    listed = json.dumps({"data": [{"id": "small"}, {"id": "large"}]}).encode()
    server = await serve(answering(answer("200 OK", listed)))
    backend = backend_at(f"{server.url}v1")
    assert await backend.probe(timeout_s=5.0) == ["small", "large"]
    other = await serve(answering(answer("200 OK", b"[]")))
    with pytest.raises(BackendProtocolError, match="/v1/models"):
        await backend_at(f"{other.url}v1").probe(timeout_s=5.0)


async def test_tls_is_verified(
    serve: Serve,
    answering: Callable[..., Any],
    backend_at: Callable[..., Backend],
    tmp_path: Path,
) -> None:

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = await serve(answering(JSON), ssl=context)
    trusting = backend_at(f"{server.url}v1", backend_ca_file=str(tmp_path / "ca.pem"))
    (await trusting.open(BODY)).abort()
    with pytest.raises(BackendUnavailable, match=r"(?i)certificate"):
        await backend_at(f"{server.url}v1").open(BODY)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="backend_ca_file"):
        make_backends(Settings(backend_url="https://a/v1", backend_ca_file=missing))
    with pytest.raises(ConfigurationError, match="backend_api_key_file"):
        make_backends(
            Settings(backend_url="https://a/v1", backend_api_key_file=missing)
        )


async def test_a_key_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("  s3cret\n")
    backends = make_backends(
        Settings(backend_url="http://a/v1", backend_api_key_file=str(tmp_path / "key"))
    )
    assert "s3cret" not in repr(backends)
    await backends.aclose()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://nowhere.invalid/v1"])
async def test_nobody_there(backend_at: Callable[..., Backend], url: str) -> None:
    backend = backend_at(url)
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        await backend.open(BODY)
    assert backend.shunned
    assert isinstance(backend.url, httpx.URL)
