"""``tokenbridge`` as a process, over a real nats-server and the simulator."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO

import pytest
import pytest_asyncio

from bridge.embedded import EmbeddedServer

PROGRAM = Path(sys.executable).with_name("tokenbridge")

#: Generous: the machine may be busy, and what is waited for takes well under a second.
PATIENCE_S = 30.0

Environment = Mapping[str, str]
NOTHING: Environment = MappingProxyType({})


def environment(more: Environment) -> dict[str, str]:
    """This process's environment without its own settings, and with ``more``."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("TOKENBRIDGE_")}
    return {**own, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", **more}


class Running:
    """A command that runs; what it prints is collected as it comes."""

    def __init__(
        self, arguments: tuple[str, ...], more: Environment, stdout: int
    ) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, *arguments],
            env=environment(more),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.out = ""
        self.err = ""
        self._changed = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(stream, name), daemon=True)
            for stream, name in (
                (self.process.stdout, "out"),
                (self.process.stderr, "err"),
            )
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], name: str) -> None:
        # By characters: a test may wait for the middle of a line.
        while text := stream.read(1):
            with self._changed:
                setattr(self, name, getattr(self, name) + text)
                self._changed.notify_all()

    def wait_for(self, pattern: str, name: str = "out") -> re.Match[str]:
        """Wait until what was printed there has ``pattern``."""
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                match = re.search(pattern, getattr(self, name))
                if match is not None:
                    return match
                ended = self.process.poll() is not None and not self._reading
                left = deadline - time.monotonic()
                if ended or left <= 0:
                    pytest.fail(f"no {pattern!r}: {self.out!r} {self.err!r}")
                self._changed.wait(min(left, 0.1))

    @property
    def _reading(self) -> bool:
        return any(reader.is_alive() for reader in self._readers)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Running]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a command to its end."""

    def run_command(
        *arguments: str, env: Environment = NOTHING, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *arguments],
            env=environment(env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
        )

    return run_command


@contextmanager
def commands() -> Iterator[Start]:
    """Start commands that are stopped at the end of the block, the last one first."""
    running: list[Running] = []

    def start_command(
        *arguments: str, env: Environment = NOTHING, stdout: int = subprocess.PIPE
    ) -> Running:
        running.append(Running(arguments, env, stdout))
        return running[-1]

    try:
        yield start_command
    finally:
        for command in reversed(running):
            command.stop()


def serve(start: Start, env: Environment) -> Running:
    serving = start("serve", env=env)
    serving.wait_for(r'"event":"ready"', "err")
    return serving


def settings(nats_url: str, simulator_url: str) -> dict[str, str]:
    """Name the settings of a bridge between that NATS and that simulator."""
    return {
        "TOKENBRIDGE_NATS_URL": nats_url,
        "TOKENBRIDGE_BACKEND_URL": simulator_url,
        "TOKENBRIDGE_BACKEND_CONTINUE": "final_message",
        "TOKENBRIDGE_HTTP_HOST": "127.0.0.1",
        "TOKENBRIDGE_HTTP_PORT": "0",
    }


# --- One deployment for all tests that only use it -----------------------------------


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_nats_url() -> AsyncIterator[str]:
    async with EmbeddedServer() as server:
        yield server.url


@pytest.fixture(scope="session")
def shared_start(shared_nats_url: str) -> Iterator[Start]:
    with commands() as start_command:
        yield start_command


@pytest.fixture(scope="session")
def simulator_url(shared_start: Start) -> str:
    """Start a simulator at a pace that leaves time to interrupt it."""
    pace = ("--first-token-ms", "20", "--tokens-per-second", "60")
    simulator = shared_start("simulate", "--port", "0", *pace)
    return simulator.wait_for(r"listens on (\S+)")[1]


@pytest.fixture(scope="session")
def shared_bridge(
    shared_start: Start, shared_nats_url: str, simulator_url: str
) -> Running:
    return serve(shared_start, settings(shared_nats_url, simulator_url))


@pytest.fixture
def shared(
    shared_bridge: Running, shared_nats_url: str, simulator_url: str
) -> dict[str, str]:
    """The environment of a bridge that runs; not to be stopped."""
    return settings(shared_nats_url, simulator_url)


# --- One of a test's own -------------------------------------------------------------


@pytest.fixture
async def nats_url() -> AsyncIterator[str]:
    async with EmbeddedServer() as server:
        yield server.url


@pytest.fixture
def start(nats_url: str) -> Iterator[Start]:
    """Start commands that are stopped at the end of the test, before NATS is."""
    with commands() as start_command:
        yield start_command


@pytest.fixture
def env(nats_url: str, simulator_url: str) -> dict[str, str]:
    """The environment of a bridge that does not run yet."""
    return settings(nats_url, simulator_url)


@pytest.fixture
def bridge(start: Start, env: dict[str, str]) -> Running:
    """Start a bridge and wait until it takes jobs."""
    return serve(start, env)
