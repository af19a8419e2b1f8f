"""https backends behind a real CONNECT proxy; http backends are asked directly."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

from bridge.backends.http import make_backends
from bridge.backends.transport import SlimTransport
from bridge.config import Settings
from bridge.config.loading import load
from bridge.errors import BackendUnavailable
from bridge.service import Service

BODY = b"data: [DONE]\n\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)

Serve = Callable[..., Awaitable[Any]]


class ConnectProxy:
    """A proxy that tunnels what it is asked to; ``heads`` are the requests."""

    def __init__(self, refusal: bytes = b"") -> None:
        self.heads: list[list[str]] = []
        self.refusal = refusal
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            self.heads.append(head)
            if self.refusal:
                writer.write(self.refusal)
            else:
                host, _, port = head[0].split(" ")[1].rpartition(":")
                theirs = await asyncio.open_connection(host, int(port))
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_pump(reader, theirs[1]), _pump(theirs[0], writer))
        writer.close()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[ConnectProxy]:
    proxy = ConnectProxy()
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest_asyncio.fixture
async def backend(serve: Serve, answering: Callable[..., Any], tmp_path: Path) -> Any:
    """A TLS backend that only this test's authority vouches for."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return await serve(answering(ANSWER), ssl=context)


async def ask(environ: dict[str, str], url: str, ca_file: Path) -> None:
    """Ask the backend at ``url`` once, as a bridge of that environment would."""
    ours = {
        "TOKENBRIDGE_BACKEND_URL": url,
        "TOKENBRIDGE_BACKEND_CA_FILE": str(ca_file),
    }
    backends = make_backends(load(Settings, environ | ours))
    try:
        async with asyncio.timeout(20):
            (await backends.routes[0].open(b"{}")).abort()
    finally:
        await backends.aclose()


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize("transport", ["slim", "httpx"])
async def test_an_https_backend_is_asked_through_the_proxy(
    proxy: ConnectProxy, backend: Any, tmp_path: Path, variable: str, transport: str
) -> None:
    environ = {
        variable: f"http://me:p%40ss@{proxy.address}\n",
        "TOKENBRIDGE_BACKEND_TRANSPORT": transport,
        "NO_PROXY": "example.com",
    }
    await ask(environ, f"https://localhost:{backend.port}/v1", tmp_path / "ca.pem")
    [head] = proxy.heads
    assert head[0].startswith(f"CONNECT localhost:{backend.port} ")
    login = base64.b64encode(b"me:p@ss").decode()
    assert f"proxy-authorization: basic {login}".lower() in [
        line.lower() for line in head
    ]
    [request] = backend.peers[0].requests
    assert request.startswith(b"POST /v1/chat/completions ")
    assert b"roxy" not in request


@pytest.mark.parametrize(
    "environ",
    [
        {"NO_PROXY": "127.0.0.0/8"},
        {"no_proxy": "a.example,127.0.0.1"},
        {"NO_PROXY": "*"},
        {"TOKENBRIDGE_BACKEND_NO_PROXY": "127.0.0.1"},
        {"TOKENBRIDGE_BACKEND_HTTPS_PROXY": ""},
    ],
)
async def test_a_host_that_no_proxy_names_is_asked_directly(
    proxy: ConnectProxy, backend: Any, tmp_path: Path, environ: dict[str, str]
) -> None:
    environ = {"HTTPS_PROXY": f"http://{proxy.address}", **environ}
    await ask(environ, f"https://127.0.0.1:{backend.port}/v1", tmp_path / "ca.pem")
    assert not proxy.heads
    assert len(backend.peers) == 1


@pytest.mark.parametrize("transport", ["slim", "httpx"])
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"])
async def test_an_http_backend_is_asked_directly(
    proxy: ConnectProxy,
    serve: Serve,
    answering: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    transport: str,
) -> None:
    server = await serve(answering(ANSWER))
    environ = {
        variable: f"http://{proxy.address}",
        variable.lower(): f"http://{proxy.address}",
        "TOKENBRIDGE_BACKEND_URL": f"{server.url}v1",
        "TOKENBRIDGE_BACKEND_TRANSPORT": transport,
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    backends = make_backends(load(Settings, environ))
    (await backends.routes[0].open(b"{}")).abort()
    await backends.aclose()
    assert not proxy.heads
    assert len(server.peers) == 1


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("transport", ["slim", "httpx"])
async def test_other_variables_are_not_read_for_an_https_backend_either(
    proxy: ConnectProxy,
    backend: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    transport: str,
) -> None:
    for name in (variable, variable.lower()):
        monkeypatch.setenv(name, f"http://{proxy.address}")
    environ = {
        variable: f"http://{proxy.address}",
        "TOKENBRIDGE_BACKEND_TRANSPORT": transport,
    }
    await ask(environ, f"https://127.0.0.1:{backend.port}/v1", tmp_path / "ca.pem")
    assert not proxy.heads


async def test_a_proxy_that_refuses_is_named(backend: Any, tmp_path: Path) -> None:
    proxy = ConnectProxy(b"HTTP/1.1 407 Login first\r\nContent-Length: 0\r\n\r\n")
    await proxy.start()
    environ = {"HTTPS_PROXY": f"http://me:s3cret@{proxy.address}"}
    with pytest.raises(BackendUnavailable, match=r"through its proxy.*407") as caught:
        await ask(environ, f"https://127.0.0.1:{backend.port}/v1", tmp_path / "ca.pem")
    assert "s3cret" not in str(caught.value)
    assert not backend.peers
    await proxy.stop()


def test_only_backends_behind_the_proxy_have_httpx() -> None:
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "near"}
    settings = load(Settings, environ)
    for url, slim in (
        ("https://far/v1", False),
        ("https://near/v1", True),
        ("http://far/v1", True),
    ):
        settings.backend_url = url
        backend = make_backends(settings).routes[0]
        assert isinstance(backend._transport, SlimTransport) is slim


async def test_the_start_says_which_backends_have_a_proxy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    settings = Settings(
        backend_url="https://far/v1",
        backend_https_proxy="http://me:s3cret@p:3128",
        nats_url="nats://127.0.0.1:1",
        http_host="127.0.0.1",
        http_port=0,
    )
    service = Service(settings)
    service.stop()
    async with asyncio.timeout(20):
        await service.run()
    [said] = [record for record in caplog.records if "proxy" in record.__dict__]
    assert (said.backend, said.proxy) == ("default", "http://p:3128")  # type: ignore[attr-defined]
    assert "s3cret" not in caplog.text
