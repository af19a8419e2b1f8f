"""One contender between a fresh nats-server and a fresh backend, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
from nats.js.api import RetentionPolicy, StreamConfig

from benchmarks.backend import TICK_US
from benchmarks.contenders import ROOT, Contender, beside_python
from benchmarks.load import Load
from benchmarks.processes import Process
from benchmarks.quota import limited

#: More slots than any scenario has streams: no measurement is of a queue.
SLOTS = 4096
START_TIMEOUT_S = 20.0

_NATS_CONFIG = """\
listen: "127.0.0.1:{port}"
jetstream {{
  store_dir: "{store}"
  limits {{ batch {{ timeout: "120s", max_inflight_per_stream: 5000 }} }}
}}
"""


class NotReady(Exception):
    """A part of the rig did not come up in time."""


def free_port() -> int:
    """A TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str, timeout_s: float = 5.0) -> tuple[int, bytes]:
    """Fetch ``path`` from loopback; blocks. Raises `OSError` and HTTP's errors."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def until(
    done: Callable[[], Awaitable[bool]],
    what: str,
    timeout_s: float,
    *,
    every_s: float = 0.02,
) -> None:
    """Wait for a condition; raises `NotReady` saying ``what`` was waited for."""
    deadline = time.monotonic() + timeout_s
    while not await done():
        if time.monotonic() > deadline:
            raise NotReady(f"{what}: not within {timeout_s:.0f} s")
        await asyncio.sleep(every_s)


@dataclass
class Rig:
    """What a scenario works with."""

    contender: Contender
    process: Process
    nats: Process
    backend_process: Process
    load: Load
    backend_port: int
    ready_s: float

    async def backend(self, path: str) -> dict[str, Any]:
        """What the backend answers at ``/bench/<path>``."""
        _, body = await asyncio.to_thread(get, self.backend_port, f"/bench/{path}")
        answer: dict[str, Any] = json.loads(body)
        return answer

    async def wait_open(self, streams: int, timeout_s: float) -> None:
        """Wait until the backend has so many streams open at once."""

        async def done() -> bool:
            self.process.check()
            return int((await self.backend("stats"))["open"]) >= streams

        await until(done, f"{streams} streams open", timeout_s, every_s=0.05)


async def _start_nats(folder: Path) -> tuple[Process, str]:
    port = free_port()
    config = folder / "nats.conf"
    config.write_text(_NATS_CONFIG.format(port=port, store=folder / "store"))
    command = (beside_python("nats-server"), "-c", str(config))
    server = Process(command, log=folder / "nats.log")
    try:

        async def done() -> bool:
            server.check()
            return "Server is ready" in server.tail()

        await until(done, "nats-server", START_TIMEOUT_S)
    except BaseException:
        server.stop()
        raise
    return server, f"nats://127.0.0.1:{port}"


async def _start_backend(folder: Path, tick_us: int) -> tuple[Process, int]:
    backend = Process(
        (sys.executable, "-m", "benchmarks.backend", "--tick-us", str(tick_us)),
        log=folder / "backend.log",
        environment={"PYTHONPATH": str(ROOT)},
    )
    try:

        async def done() -> bool:
            backend.check()
            return "listening" in backend.tail()

        await until(done, "the backend", START_TIMEOUT_S)
        found = re.search(r":(\d+)/v1", backend.tail())
        if found is None:
            raise NotReady(f"the backend names no port: {backend.tail()}")
    except BaseException:
        backend.stop()
        raise
    return backend, int(found[1])


async def _make_streams(url: str, contender: Contender) -> None:
    nc = await nats.connect(url)
    js = nc.jetstream()
    await js.add_stream(
        StreamConfig(
            name="LLM_JOBS",
            subjects=["llm.jobs.*.default"],
            retention=RetentionPolicy.WORK_QUEUE,
        )
    )
    if contender.stores_events:
        await js.add_stream(StreamConfig(name="LLM_TOKENS", subjects=["llm.tokens.>"]))
    await nc.close()


async def _start_contender(
    contender: Contender, folder: Path, environment: dict[str, str]
) -> tuple[Process, float]:
    port = free_port()
    process = Process(
        contender.command,
        log=folder / "contender.log",
        environment={
            **environment,
            "TOKENBRIDGE_SLOTS": str(SLOTS),
            "TOKENBRIDGE_HTTP_PORT": str(port),
            **contender.environment,
        },
    )

    async def ready() -> bool:
        process.check()
        try:
            return (await asyncio.to_thread(get, port, "/readyz", 1.0))[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    try:
        await until(ready, contender.title, START_TIMEOUT_S, every_s=0.005)
        return process, time.monotonic() - process.started_at
    except NotReady as error:
        process.stop()
        raise NotReady(f"{error}\n{process.tail()}") from None
    except BaseException:
        process.stop()
        raise


@contextlib.asynccontextmanager
async def running(
    contender: Contender, *, cpus: float | None = None, tick_us: int = TICK_US
) -> AsyncIterator[Rig]:
    """Start everything around ``contender``; end all of it on the way out.

    ``cpus`` limits the contender, once it is ready, to so many processors' time;
    raises `Unavailable` where that cannot be done.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
            )
        )
        server, url = await _start_nats(folder)
        stack.callback(server.stop)
        backend, backend_port = await _start_backend(folder, tick_us)
        stack.callback(backend.stop)
        if not contender.makes_streams:
            await _make_streams(url, contender)
        environment = {
            "TOKENBRIDGE_NATS_URL": url,
            "TOKENBRIDGE_BACKEND_URL": f"http://127.0.0.1:{backend_port}/v1",
        }
        process, ready_s = await _start_contender(contender, folder, environment)
        if cpus is not None:
            stack.enter_context(limited(process.pid, cpus))
        stack.callback(process.stop)
        load = await stack.enter_async_context(Load.connected(url))
        yield Rig(contender, process, server, backend, load, backend_port, ready_s)
