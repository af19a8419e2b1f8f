"""``/livez``, ``/readyz`` and ``/metrics`` over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from bridge.errors import BridgeError
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
        """Listen. Raises `BridgeError` when the port cannot be had."""
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self.stop()
            raise BridgeError(
                f"cannot listen on {self._host}:{self._port} for health checks: "
                f"{error.strerror}; is another bridge running? Set "
                "TOKENBRIDGE_HTTP_PORT to a free port"
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


def _answer(problem: str | None) -> web.Response:
    if problem is None:
        return web.Response(text="ok\n")
    return web.Response(status=503, text=f"{problem}\n")
