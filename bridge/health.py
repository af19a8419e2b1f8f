"""``/livez``, ``/readyz`` and ``/metrics`` over HTTP."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from bridge.config.texts import without_brackets
from bridge.errors import ConfigurationError
from bridge.metrics import Gauges, Meters

#: What the probe asks: ``None`` when all is well, else the reason why not.
Probe = Callable[[], Awaitable[str | None]]


class HealthServer:
    """Answers probes on one port. ``alive`` and ``ready`` say what is the matter."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        alive: Probe,
        ready: Probe,
        meters: Meters,
        gauges: Gauges,
    ) -> None:
        self._host = host
        self._port = port
        self._alive = alive
        self._ready = ready
        self._meters = meters
        self._gauges = gauges
        self._runner: web.AppRunner | None = None

    def __repr__(self) -> str:
        return f"<HealthServer {self._host}:{self.port}>"

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        if self._runner is not None:
            for address in self._runner.addresses:
                return int(address[1])
        return self._port

    async def start(self) -> None:
        """Listen. Raises `ConfigurationError` when the address cannot be had."""
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            for listening in await _listening(self._host, self._port):
                await web.SockSite(self._runner, listening).start()
        except (OSError, UnicodeError, ValueError) as error:
            await self.stop()
            raise ConfigurationError(
                f"cannot listen on {self._host}:{self._port} for health checks: "
                f"{_reason(error)}"
            ) from error

    async def stop(self) -> None:
        """Stop listening. Safe to call twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return _answer(await self._alive())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(await self._ready())

    async def _metrics(self, _: web.Request) -> web.Response:
        # Loaded when first asked for: it would be an eighth of the time to start.
        from bridge.exposition import exposition

        return web.Response(
            body=exposition(self._meters, self._gauges),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )


async def _listening(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of ``host``, all on one port, and ``::`` on IPv4 too.

    Raises `OSError`, and `ValueError` for a name that can be none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        without_brackets(host),
        port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )
    opened: list[socket.socket] = []
    failure = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, _, _, _, address in dict.fromkeys(found):
        # A free port that the first one got is that of all.
        taken = opened[0].getsockname()[1] if opened else port
        try:
            opened.append(_listen(family, (address[0], taken, *address[2:])))
        except OSError as error:
            failure = error
            # A name may have an address of a family that this machine lacks.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
    else:
        if opened:
            return opened
    for each in opened:
        each.close()
    raise failure


def _listen(family: int, address: tuple[Any, ...]) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            only = address[0] != "::"
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        listening.bind(address)
        listening.listen(socket.SOMAXCONN)
    except BaseException:
        listening.close()
        raise
    return listening


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError):
        return "http_host is no address and no name"
    if error.errno == errno.EADDRINUSE:
        return (
            "the port is taken; is another bridge running? Set TOKENBRIDGE_HTTP_PORT "
            "to a free port"
        )
    return f"{error.strerror}; set TOKENBRIDGE_HTTP_HOST and TOKENBRIDGE_HTTP_PORT"


def _answer(problem: str | None) -> web.Response:
    if problem is None:
        return web.Response(text="ok\n")
    return web.Response(status=503, text=f"{problem}\n")
