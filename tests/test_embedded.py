"""The embedded nats-server: there when it is started, gone when it is stopped."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from bridge.bus.api import JetStream
from bridge.bus.connection import Connection
from bridge.config import NatsSettings
from bridge.embedded import EmbeddedServer, find_program
from bridge.errors import SetupError


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_has_jetstream_and_takes_connections_at_once() -> None:
    async with EmbeddedServer() as server:
        connection = Connection(NatsSettings(nats_url=server.url), name="test")
        await connection.connect(wait=False)
        info = await JetStream(connection).call("INFO")
        await connection.close()
    assert info["streams"] == 0


async def test_it_leaves_nothing_behind() -> None:
    server = EmbeddedServer()
    await server.start()
    pid, port = server.pid, server.port
    assert pid is not None
    folder = Path(f"/proc/{pid}/cmdline").read_text("utf-8").split("\0")[2]
    assert Path(folder).exists()
    await server.stop()
    await server.stop()
    assert not is_running(pid)
    assert not Path(folder).parent.exists()
    assert server.pid is None
    assert repr(server) == "<EmbeddedServer stopped>"
    await server.start()
    try:
        assert server.port == port
        assert repr(server) == f"<EmbeddedServer nats://127.0.0.1:{port}>"
    finally:
        await server.stop()


async def test_two_do_not_disturb_each_other_but_on_one_port() -> None:
    async with EmbeddedServer() as one, EmbeddedServer() as two:
        assert one.port != two.port
        with pytest.raises(
            SetupError, match=f"port {one.port} did not start: .*in use"
        ):
            await EmbeddedServer(one.port).start()


async def test_starting_it_twice_is_a_mistake() -> None:
    async with EmbeddedServer() as server:
        with pytest.raises(RuntimeError, match="running already"):
            await server.start()


async def test_a_cancelled_start_leaves_nothing_behind(tmp_path: Path) -> None:
    # A server that never listens: only the cancel ends it.
    pid_file = tmp_path / "pid"
    silent = tmp_path / "nats-server"
    silent.write_text(f"#!/bin/sh\necho $$ >{pid_file}\nexec sleep 600\n", "utf-8")
    silent.chmod(0o755)
    starting = asyncio.create_task(EmbeddedServer(program=str(silent)).start())
    async with asyncio.timeout(30):
        while not (pid_file.exists() and pid_file.read_text("utf-8").strip()):
            await asyncio.sleep(0.005)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not is_running(int(pid_file.read_text("utf-8")))


async def test_a_program_that_ends_at_once_is_explained(tmp_path: Path) -> None:
    broken = tmp_path / "nats-server"
    broken.write_text("#!/bin/sh\nexit 3\n", "utf-8")
    broken.chmod(0o755)
    with pytest.raises(SetupError, match="did not start: it left no log"):
        await EmbeddedServer(program=str(broken)).start()
    with pytest.raises(SetupError, match=r"cannot start .*missing"):
        await EmbeddedServer(program=str(tmp_path / "missing")).start()


def test_it_is_found_beside_python_or_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_program() == str(Path(sys.executable).with_name("nats-server"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match=r"tokenbridge\[server\]"):
        find_program()
    elsewhere = tmp_path / "nats-server"
    elsewhere.write_text("#!/bin/sh\n", "utf-8")
    elsewhere.chmod(0o755)
    assert find_program() == str(elsewhere)
