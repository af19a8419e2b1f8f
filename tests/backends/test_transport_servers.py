"""The transport against servers that were not written for it."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn
from aiohttp import web

from bridge.backends.transport import SlimTransport

TOKENS = 200
STREAM = b"".join(b"data: %d\n\n" % number for number in range(TOKENS))

#: Debian puts it where only root's PATH leads.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

Running = AbstractAsyncContextManager[str]


@asynccontextmanager
async def aiohttp_server() -> AsyncIterator[str]:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), headers={"X-Server": "aiohttp"})

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(TOKENS):
            await response.write(b"data: %d\n\n" % number)
        return response

    async def empty(_: web.Request) -> web.Response:
        return web.Response(status=204)

    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"a")
        assert request.transport is not None
        request.transport.abort()
        return response

    app = web.Application(client_max_size=20_000_000)
    app.router.add_post("/echo", echo)
    app.router.add_route("*", "/stream", stream)
    app.router.add_get("/empty", empty)
    app.router.add_get("/broken", broken)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    async def start(status: int, *headers: tuple[bytes, bytes]) -> None:
        message = {"type": "http.response.start", "status": status, "headers": headers}
        await send(message)

    async def body(data: bytes, more: bool = False) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    if scope["path"] == "/echo":
        received, more = b"", True
        while more:
            message = await receive()
            received += message.get("body", b"")
            more = message.get("more_body", False)
        await start(200, (b"content-length", b"%d" % len(received)))
        await body(received)
    elif scope["path"] == "/stream":
        await start(200, (b"content-type", b"text/event-stream"))
        for number in range(TOKENS):
            await body(b"data: %d\n\n" % number, more=True)
        await body(b"")
    elif scope["path"] == "/empty":
        await start(204)
        await body(b"")
    else:
        await start(200)
        await body(b"a", more=True)
        raise ConnectionAbortedError


@asynccontextmanager
async def uvicorn_server(http: Any) -> AsyncIterator[str]:
    config = uvicorn.Config(asgi, http=http, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.001)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listening.close()


@pytest_asyncio.fixture(params=["aiohttp", "uvicorn-h11", "uvicorn-httptools"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    name, _, http = request.param.partition("-")
    running: Running = aiohttp_server() if name == "aiohttp" else uvicorn_server(http)
    async with running as url:
        yield url


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=SlimTransport(), timeout=20) as client:
        yield client


def idle(client: httpx.AsyncClient) -> bool:
    return repr(client._transport) == "<SlimTransport open, 0 active, 1 idle>"


async def test_echo(client: httpx.AsyncClient, server: str) -> None:
    for size in (0, 1, 1000, 3_000_000):
        response = await client.post(f"{server}/echo", content=b"x" * size)
        assert response.status_code == 200
        assert response.content == b"x" * size
    assert idle(client)


async def test_a_streamed_request(client: httpx.AsyncClient, server: str) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    response = await client.post(f"{server}/echo", content=parts())
    assert response.content == b"x" * 1_000_000
    assert idle(client)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_stream(client: httpx.AsyncClient, server: str, method: str) -> None:
    for _ in range(3):
        async with client.stream(method, f"{server}/stream") as response:
            assert response.headers["content-type"] == "text/event-stream"
            received = b"".join([piece async for piece in response.aiter_raw()])
        assert received == STREAM
    assert idle(client)


async def test_no_content(client: httpx.AsyncClient, server: str) -> None:
    for _ in range(2):
        response = await client.get(f"{server}/empty")
        assert response.status_code == 204
        assert response.content == b""
    assert idle(client)


async def test_head(client: httpx.AsyncClient, server: str) -> None:
    for _ in range(2):
        response = await client.head(f"{server}/stream")
        assert response.status_code == 200
        assert response.content == b""


async def test_a_stream_that_breaks(client: httpx.AsyncClient, server: str) -> None:
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await client.get(f"{server}/broken")
    assert "0 active, 0 idle" in repr(client._transport)


async def test_many_streams(client: httpx.AsyncClient, server: str) -> None:
    responses = await asyncio.gather(
        *[client.get(f"{server}/stream") for _ in range(50)]
    )
    assert {response.content for response in responses} == {STREAM}


NGINX_CONFIG = """
daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; default_type text/plain; keepalive_requests 4;
    client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root};
    uwsgi_temp_path {root}; scgi_temp_path {root};
    server {{
        listen 127.0.0.1:{port}; root {root};
        client_max_body_size 1k;
        location /ssi {{ ssi on; ssi_types text/plain; alias {root}/large; }}
        location = /empty {{ return 204; }}
        location = /go {{ return 302 /large; }}
        location = /gone {{ return 444; }}
    }}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


async def answers(port: int, process: asyncio.subprocess.Process) -> None:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            await writer.wait_closed()
            return
    raise RuntimeError(f"nginx ended with {process.returncode}")


LARGE = b"0123456789abcdef" * 100_000


@pytest_asyncio.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[str]:
    if NGINX is None:
        pytest.skip("nginx is not installed")
    (tmp_path / "large").write_bytes(LARGE)
    port = free_port()
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(root=tmp_path, port=port))
    process = await asyncio.create_subprocess_exec(
        NGINX, "-e", str(tmp_path / "error.log"), "-p", str(tmp_path), "-c", str(config)
    )
    try:
        await asyncio.wait_for(answers(port, process), 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


class TestNginx:
    async def test_files(self, client: httpx.AsyncClient, nginx: str) -> None:
        """Sized and chunked; nginx says ``close`` with every fourth response."""
        for path in ("large", "ssi") * 5:
            response = await client.get(f"{nginx}/{path}")
            assert ("content-length" in response.headers) is (path == "large")
            assert response.content == LARGE

    async def test_a_redirect(self, client: httpx.AsyncClient, nginx: str) -> None:
        response = await client.get(f"{nginx}/go", follow_redirects=True)
        assert response.content == LARGE

    async def test_conditional(self, client: httpx.AsyncClient, nginx: str) -> None:
        etag = (await client.head(f"{nginx}/large")).headers["etag"]
        response = await client.get(f"{nginx}/large", headers={"If-None-Match": etag})
        assert response.status_code == 304
        assert (await client.get(f"{nginx}/empty")).status_code == 204

    async def test_a_body_that_is_refused_unread(
        self, client: httpx.AsyncClient, nginx: str
    ) -> None:
        response = await client.post(f"{nginx}/large", content=b"x" * 10_000_000)
        assert response.status_code == 413

    async def test_no_answer(self, client: httpx.AsyncClient, nginx: str) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{nginx}/gone")
