"""The bridge as a process: connected, ready, serving, drained."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from bridge.backends.http import Backends, make_backends
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.streams import Lane
from bridge.config import Settings
from bridge.config.urls import proxy_for
from bridge.errors import (
    BusError,
    ConfigurationError,
    ConnectionLost,
    SetupError,
    StreamUnavailable,
)
from bridge.health import HealthServer
from bridge.metrics import Meters
from bridge.worker import Worker

log = logging.getLogger(__name__)

#: While the streams cannot be looked at, so long between two tries, in seconds.
RETRY_S = 1.0

#: A probe believes the last look at the streams for so long, in seconds.
LOOK_EVERY_S = 1.0

#: A probe waits so long for NATS, in seconds; Kubernetes' own default is 1.
PROBE_S = 0.9


class Service:
    """One bridge process. `run` is its whole life; `drain` and `stop` end it."""

    def __init__(self, settings: Settings) -> None:
        if not settings.all_backends():
            raise ConfigurationError(
                "no backend is configured: set TOKENBRIDGE_BACKEND_URL to the base "
                "that ends in /v1 (Ollama: http://127.0.0.1:11434/v1)"
            )
        self._settings = settings
        self._meters = Meters()
        self._draining = asyncio.Event()
        self._stopping = asyncio.Event()
        self._started = asyncio.Event()
        self._connection: Connection | None = None
        self._cells: list[Cell] = []
        self._worker: Worker | None = None
        self._looked_at = 0.0
        self._look = "the streams were not looked at yet"
        self._health = HealthServer(
            settings.http_host,
            settings.http_port,
            alive=self._is_alive,
            ready=self._is_ready,
            meters=self._meters,
            gauges=self._gauges,
        )

    def __repr__(self) -> str:
        return f"<Service {self._connection!r} {self._worker!r}>"

    @property
    def http_port(self) -> int:
        """The port of the probes, once started."""
        return self._health.port

    @property
    def worker(self) -> Worker | None:
        """The worker, once started."""
        return self._worker

    async def ready(self) -> None:
        """Wait until jobs are taken."""
        await self._started.wait()

    def drain(self) -> None:
        """Take no new jobs, end when the running ones have; see `Worker.drain`."""
        self._draining.set()

    def stop(self) -> None:
        """End at once, and leave what runs to others."""
        self._draining.set()
        self._stopping.set()

    async def run(self) -> None:
        """Serve until drained or stopped.

        Raises `ConfigurationError` and `SetupError` where starting makes no sense, and
        `ConnectionLost` when the NATS client closed for good. Cancelling stops at once.
        """
        backends = make_backends(self._settings)
        self._say_proxies()
        try:
            await self._health.start()
            await self._serve(backends)
        finally:
            await backends.aclose()
            await self._health.stop()
            if self._connection is not None:
                await self._connection.close()

    def _say_proxies(self) -> None:
        settings = self._settings
        for backend in settings.all_backends():
            proxy = proxy_for(
                backend.url, settings.backend_https_proxy, settings.backend_no_proxy
            )
            if proxy is not None:
                log.info(
                    "backend is asked through a proxy, by httpx",
                    extra={"backend": backend.name, "proxy": proxy.url},
                )

    async def _serve(self, backends: Backends) -> None:
        settings = self._settings
        connection = self._connection = Connection(settings, name="tokenbridge")
        if not await self._unless_drained(self._prepare(connection, settings)):
            return
        worker = self._worker = Worker(
            self._cells, backends, self._settings, self._meters
        )
        await worker.start()
        self._started.set()
        log.info(
            "ready",
            extra={
                "nats": connection.servers,
                "prefixes": self._settings.prefixes,
                "lanes": list(self._settings.lanes),
                "slots": self._settings.slots,
                "backends": [backend.name for backend in backends.routes],
                "http_port": self.http_port,
            },
        )
        try:
            await self._until_over(connection, worker)
        finally:
            await worker.stop()

    async def _until_over(self, connection: Connection, worker: Worker) -> None:
        """Wait for the drain or for the end of the connection."""
        await _first(self._draining.wait(), connection.closed.wait())
        if not self._draining.is_set():
            raise ConnectionLost(
                "the NATS client closed for good; the process ends so that it can be "
                "started anew"
            )
        if self._stopping.is_set():
            return
        await _first(
            worker.drain(self._settings.drain_timeout_s), self._stopping.wait()
        )

    async def _unless_drained(self, work: Coroutine[Any, Any, None]) -> bool:
        """Finish ``work`` unless the drain begins first; whether it was finished."""
        task = asyncio.ensure_future(work)
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            both: set[asyncio.Future[Any]] = {task, draining}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            draining.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if task.cancelled():
            return False
        task.result()
        return True

    async def _prepare(self, connection: Connection, settings: Settings) -> None:
        """Connect, and make or check the streams, for as long as it takes."""
        await connection.connect()
        self._cells = [
            Cell(connection, settings, prefix) for prefix in settings.prefixes
        ]
        lanes = [Lane(name, settings.ack_wait_of(name)) for name in settings.lanes]
        for cell in self._cells:
            await self._ensure(cell, lanes)

    async def _ensure(self, cell: Cell, lanes: list[Lane]) -> None:
        while True:
            try:
                await cell.ensure(lanes, self._settings.stream_setup)
                return
            except SetupError:
                raise
            except (StreamUnavailable, ConnectionLost) as error:
                log.warning(
                    "JetStream is not ready: %s; trying again. Is it enabled "
                    "(nats-server --jetstream)?",
                    error,
                )
            except BusError as error:
                raise SetupError(f"the streams cannot be prepared: {error}") from error
            await asyncio.sleep(RETRY_S)

    # Health

    async def _is_alive(self) -> str | None:
        if self._connection is not None and self._connection.state == "closed":
            return "the NATS client is closed"
        return None

    async def _is_ready(self) -> str | None:
        connection, worker = self._connection, self._worker
        if self._draining.is_set():
            return "draining"
        if connection is None or not connection.connected:
            return f"not connected to NATS ({self._settings_servers})"
        if worker is None or not worker.taking:
            return "starting"
        return await self._streams_problem()

    @property
    def _settings_servers(self) -> str:
        return self._connection.servers if self._connection is not None else "starting"

    async def _streams_problem(self) -> str | None:
        now = time.monotonic()
        if now - self._looked_at > LOOK_EVERY_S:
            try:
                async with asyncio.timeout(PROBE_S):
                    missing = [
                        name
                        for cell in self._cells
                        for name in await cell.missing_streams()
                    ]
                self._look = f"missing: {', '.join(missing)}" if missing else ""
            except (BusError, TimeoutError) as error:
                self._look = f"JetStream does not answer ({error or 'in time'})"
            self._looked_at = time.monotonic()
        return self._look or None

    def _gauges(self) -> dict[str, tuple[str, float]]:
        worker, connection = self._worker, self._connection
        connected = connection is not None and connection.connected
        return {
            "running": (
                "Requests that occupy a slot.",
                worker.running if worker is not None else 0,
            ),
            "slots": ("Slots of this process.", self._settings.slots),
            "nats_connected": ("Whether NATS is connected.", float(connected)),
            "nats_pending_bytes": (
                "Bytes published and not yet taken by the socket.",
                connection.pending_bytes if connected and connection else 0,
            ),
            "log_repairs": (
                "Batches of logs that broke and were begun anew.",
                sum(cell.repairs for cell in self._cells),
            ),
        }


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait for the first, cancel the others, and raise what it raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
