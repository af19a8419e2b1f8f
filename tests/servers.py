"""The real servers that tests run against: nats-server, and the bridge beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bridge.config import Settings
from bridge.service import Service

NATS_SERVER = Path(sys.executable).with_name("nats-server")

CONFIGURATION = """
listen: "127.0.0.1:{port}"
server_name: "{name}"
jetstream {{
  store_dir: "{store}"
  max_mem: 512M
  max_file: 2G
  limits {{ batch {{ timeout: "120s", max_inflight_per_stream: {batches} }} }}
}}
{more}
"""


def free_port() -> int:
    """A port that was free a moment ago.

    Below the range that outgoing connections are given: a client that tries a port of
    that range again and again may be connected to itself.
    """
    for port in random.sample(range(15_000, 32_000), 200):
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port among 200")


class NatsServer:
    """One nats-server process with JetStream, on loopback, in its own folder."""

    def __init__(
        self, folder: Path, *, name: str = "one", batches: int = 5000, more: str = ""
    ) -> None:
        assert NATS_SERVER.exists(), (
            f"{NATS_SERVER} is missing: run make test, which installs it"
        )
        self.folder = folder
        self.port = free_port()
        self.name = name
        self.batches = batches
        self.more = more
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, or start again on the same port and store."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "nats.conf"
        path.write_text(
            CONFIGURATION.format(
                port=self.port,
                name=self.name,
                store=self.folder / "store",
                batches=self.batches,
                more=self.more,
            )
        )
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(NATS_SERVER), "-c", str(path)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 0.2),
            ):
                return
            assert self._process.poll() is None, self.log
            time.sleep(0.01)
        raise AssertionError(f"nats-server did not start: {self.log}")

    @property
    def log(self) -> str:
        return (self.folder / "nats.log").read_text(errors="replace")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process and wait for it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def running_service(
    nats_url: str, backend_url: str, *, prefix: str = "llm", **settings: Any
) -> AsyncIterator[Service]:
    """A bridge in this process, ready; stopped at once in the end."""
    values: dict[str, Any] = {
        "nats_url": nats_url,
        "backend_url": backend_url,
        "prefixes": [prefix],
        "http_host": "127.0.0.1",
        "http_port": 0,
        "ack_wait_s": 2.0,
        **settings,
    }
    service = Service(Settings(**values))
    running = asyncio.create_task(service.run())
    ready = asyncio.create_task(service.ready())
    try:
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield service
    finally:
        ready.cancel()
        service.stop()
        await asyncio.wait({running, ready})
    running.result()
