"""Bridges, a simulator and NATS servers as processes that can be killed and frozen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers import NatsServer, free_port

TOKENBRIDGE = Path(sys.executable).with_name("tokenbridge")

#: A bridge is ready in under a second; a machine that is busy may take its time.
START_S = 30.0

#: How often a condition is looked at, in seconds.
POLL_S = 0.01


async def until(condition: Callable[[], bool], what: str, within_s: float = 30) -> None:
    """Wait for ``condition``. Raises `AssertionError` in time, naming ``what``."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(POLL_S)


class Process:
    """One process with its own session and log file; no process survives the tests."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.frozen = False
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} running={self.running}>"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log_path(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", errors="replace")

    def launch(self, arguments: list[str], environment: dict[str, str]) -> None:
        assert not self.running, f"{self.name} is running already"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.frozen = False
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                arguments, stdout=log, stderr=log, env=environment
            )

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def freeze(self) -> None:
        self.frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.frozen = False
        self.signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to drain; `wait` tells when it has."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a word, and wait for that."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(20)
        self.frozen = False

    async def wait(self, within_s: float = 30) -> int:
        """Wait for the end; the exit code. One that hangs says where, in its log."""
        try:
            await until(lambda: not self.running, f"{self.name} ends", within_s)
        except AssertionError:
            self.signal(signal.SIGABRT)
            raise
        assert self._process is not None
        code = self._process.returncode
        assert code is not None
        return code


class BridgeProcess(Process):
    """``tokenbridge serve`` in a process of its own."""

    def __init__(
        self,
        folder: Path,
        name: str,
        nats_url: str,
        backend_url: str,
        **settings: Any,
    ) -> None:
        super().__init__(folder, name)
        self.http_port = free_port()
        self._settings: dict[str, Any] = {
            "nats_url": nats_url,
            "backend_url": backend_url,
            "backend_continue": "final_message",
            "http_host": "127.0.0.1",
            "http_port": self.http_port,
            "ack_wait_s": 2.0,
            "log_format": "json",
            **settings,
        }

    def start(self) -> None:
        """Start, or start again, without waiting for its readiness."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("TOKENBRIDGE_")
        }
        environment["PYTHONFAULTHANDLER"] = "1"
        for name, value in self._settings.items():
            environment[f"TOKENBRIDGE_{name.upper()}"] = str(value)
        self.launch([str(TOKENBRIDGE), "serve"], environment)

    async def ready(self, within_s: float = START_S) -> None:
        """Wait until it takes jobs."""
        deadline = time.monotonic() + within_s
        while await self.ask("/readyz") != "ok":
            assert self.running, f"{self.name} ended: {self.log[-4000:]}"
            assert time.monotonic() < deadline, f"{self.name}: {self.log[-4000:]}"
            await asyncio.sleep(POLL_S * 2)

    async def ask(self, path: str) -> str | None:
        """The body of a probe or of the metrics; ``None`` where none came."""
        try:
            async with asyncio.timeout(2):
                return await _get(self.http_port, path)
        except (OSError, TimeoutError):
            return None

    async def metric(self, name: str) -> float:
        """The sum over all labels of one metric; 0 where nobody answers."""
        text = await self.ask("/metrics") or ""
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        )


async def _get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        answer = await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return answer.partition(b"\r\n\r\n")[2].decode().strip()


class SimulatorProcess(Process):
    """``tokenbridge simulate`` in a process of its own."""

    def __init__(
        self, folder: Path, *, tokens_per_second: float, first_token_ms: float
    ) -> None:
        super().__init__(folder, "simulator")
        self.port = free_port()
        self._pace = {
            "--tokens-per-second": tokens_per_second,
            "--first-token-ms": first_token_ms,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        options = [f"{name}={value}" for name, value in self._pace.items()]
        self.launch(
            [str(TOKENBRIDGE), "simulate", f"--port={self.port}", *options],
            dict(os.environ),
        )
        await until(self._listens, "the simulator listens", START_S)

    def _listens(self) -> bool:
        assert self.running, self.log
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 0.2),
        ):
            return True
        return False


class Cluster:
    """Three nats-servers on loopback that replicate their streams."""

    SIZE = 3

    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in range(self.SIZE)]
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        self.servers = [
            NatsServer(
                folder / f"nats-{index}",
                name=f"nats-{index}",
                more=(
                    f'cluster {{ name: "chaos", listen: "127.0.0.1:{port}", '
                    f"routes: [{routes}] }}"
                ),
            )
            for index, port in enumerate(ports)
        ]

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    def __enter__(self) -> Self:
        try:
            for server in self.servers:
                server.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        for server in self.servers:
            server.kill()

    def named(self, name: str) -> NatsServer:
        return next(server for server in self.servers if server.name == name)


@contextlib.contextmanager
def bridges(
    count: int, folder: Path, nats_url: str, backend_url: str, **settings: Any
) -> Iterator[list[BridgeProcess]]:
    """So many bridges, not started yet; killed in the end whatever happens."""
    processes = [
        BridgeProcess(folder, f"bridge-{index}", nats_url, backend_url, **settings)
        for index in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
