"""What of a backend's URL is sent: its query, its login, and never both logins."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from bridge.backends.http import Backend, Backends, make_backends
from bridge.config import Secret, Settings
from bridge.errors import ConfigurationError

LISTED = b'{"data": [{"id": "m"}]}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(LISTED), LISTED)
)

Make = Callable[..., Backend]


@pytest_asyncio.fixture(params=["slim", "httpx"])
async def backend_at(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    made: list[Backends] = []

    def make(url: str, **settings: Any) -> Backend:
        backends = make_backends(
            Settings(backend_url=url, backend_transport=request.param, **settings)
        )
        made.append(backends)
        return backends.routes[0]

    yield make
    for backends in made:
        await backends.aclose()


async def heads(
    backend: Backend, server: Any, kinds: tuple[str, ...] = ("open", "probe")
) -> list[list[str]]:
    """Ask for a completion and for the models; the lines of the requests' heads."""
    if "open" in kinds:
        (await backend.open(b"{}")).abort()
    if "probe" in kinds:
        await backend.probe(timeout_s=5.0)
    requests = [request for peer in server.peers for request in peer.requests]
    return [request.decode().split("\r\n") for request in requests]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("d", "?api-version=1"),
        ("d/", "?api-version=1&a=b%20c"),
        ("v1///", ""),
        ("", "?a"),
    ],
)
async def test_the_query_is_at_the_end_of_what_is_asked(
    serve: Callable[..., Awaitable[Any]],
    answering: Callable[..., Any],
    backend_at: Make,
    path: str,
    query: str,
) -> None:
    server = await serve(answering(ANSWER))
    completion, models = await heads(backend_at(f"{server.url}{path}{query}"), server)
    base = f"/{path}".rstrip("/")
    assert completion[0] == f"POST {base}/chat/completions{query} HTTP/1.1"
    assert models[0] == f"GET {base}/models{query} HTTP/1.1"


async def test_a_login_is_sent_as_basic_authentication(
    serve: Callable[..., Awaitable[Any]],
    answering: Callable[..., Any],
    backend_at: Make,
) -> None:
    server = await serve(answering(ANSWER))
    url = f"{server.url}v1".replace("://", "://me:p%40%C3%A9%2F@")
    backend = backend_at(url)
    encoded = base64.b64encode("me:p@é/".encode()).decode()
    for head in await heads(backend, server):
        sent = [line for line in head if line.lower().startswith("authorization")]
        assert sent == [f"Authorization: Basic {encoded}"]
        assert f"Host: 127.0.0.1:{server.port}" in head
    for shown in (repr(backend), str(backend.url), str(backend.models_url)):
        assert "p%40" not in shown
        assert "p@" not in shown


UNUSABLE: list[tuple[dict[str, Any], str]] = [
    (
        {"backend_url": "https://me:s3cret@h", "backend_api_key": Secret("k")},
        "only one",
    ),
    ({"backend_url": "https://h", "backend_api_key": Secret("s3cret\n")}, "ASCII"),
    ({"backend_url": "https://h", "backend_api_key": Secret("s3crét")}, "ASCII"),
    ({"backend_url": "https://h/" + "a" * 70_000}, "cannot be used"),
    ({"backend_url": "https://h/v1#s3cret"}, "fragment"),
    ({"backend_url": "https://h", "backend_https_proxy": "socks5://h"}, "HTTPS_PROXY"),
]


@pytest.mark.parametrize(("settings", "sentence"), UNUSABLE)
def test_what_cannot_be_sent_is_refused(
    settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        make_backends(Settings(**settings))
    assert "s3cr" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
