"""The process: probes that tell the truth, starts that wait or refuse, and its end."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import nats.errors
import pytest
import pytest_asyncio

from bridge.config import Secret, Settings
from bridge.errors import ConfigurationError, ConnectionLost, SetupError
from bridge.service import Service
from bridge.simulator import Simulator
from tests.plain_client import (
    PATIENCE_S,
    assert_whole,
    eventually,
    plain_client,
    quiet_port,
    request,
)
from tests.servers import NATS_SERVER, NatsServer, running_service


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server that a test may stop."""
    server = NatsServer(tmp_path / "nats")
    server.port = quiet_port()
    yield server
    server.stop()


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


def settings(nats_url: str, backend_url: str, prefix: str, **more: Any) -> Settings:
    values: dict[str, Any] = {
        "nats_url": nats_url,
        "backend_url": backend_url,
        "prefixes": [prefix],
        "http_host": "127.0.0.1",
        "http_port": 0,
        "ack_wait_s": 2.0,
        **more,
    }
    return Settings(**values)


class Probe:
    """Asks a service's port as Kubernetes would."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, path: str) -> tuple[int, str]:
        base = f"http://127.0.0.1:{self._service.http_port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            response = await client.get(path, timeout=10)
            return response.status_code, response.text

    async def until(self, path: str, status: int) -> str:
        """Ask until the status is the one; the text of that answer."""
        said = ""

        async def answered() -> bool:
            nonlocal said
            try:
                code, said = await self(path)
            except httpx.TransportError:
                return False
            return code == status

        await eventually(answered)
        return said


async def ended(running: asyncio.Task[None]) -> BaseException | None:
    """Wait for a service to end by itself; what it raised."""
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([running])
    return running.exception()


async def test_ready_as_long_as_nats_is_there(
    own_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    own_server.start()
    async with running_service(own_server.url, simulator.url, prefix=prefix) as service:
        probe = Probe(service)
        assert await probe("/livez") == (200, "ok\n")
        assert await probe("/readyz") == (200, "ok\n")
        own_server.stop()
        said = await probe.until("/readyz", 503)
        assert "not connected" in said
        assert str(own_server.port) in said
        assert await probe("/livez") == (200, "ok\n")
        own_server.start()
        await probe.until("/readyz", 200)
        async with plain_client(own_server.url, prefix) as bus:
            await bus.submit("one")
            assert (await bus.ended("one"))["type"] == "completed"
            assert_whole(await bus.log("one"))


@pytest.mark.parametrize("stream", ["TOKENS", "CONTROL", "DEAD"])
async def test_not_ready_without_a_stream(
    nats_server: NatsServer, prefix: str, simulator: Simulator, stream: str
) -> None:
    async with (
        running_service(nats_server.url, simulator.url, prefix=prefix) as service,
        plain_client(nats_server.url, prefix) as bus,
    ):
        probe = Probe(service)
        assert (await probe("/readyz"))[0] == 200
        name = f"{prefix.upper()}_{stream}"
        await bus.jetstream.delete_stream(name)
        assert name in await probe.until("/readyz", 503)
        assert (await probe("/livez"))[0] == 200


async def test_nats_away_at_the_start(
    own_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(settings(own_server.url, simulator.url, prefix))
    running = asyncio.create_task(service.run())
    try:
        probe = Probe(service)
        said = await probe.until("/readyz", 503)
        assert "not connected" in said or "starting" in said
        assert (await probe("/livez"))[0] == 200

        async def said_so() -> bool:
            return f"127.0.0.1:{own_server.port} cannot be reached" in caplog.text

        await eventually(said_so)
        own_server.start()
        await probe.until("/readyz", 200)
        async with plain_client(own_server.url, prefix) as bus:
            await bus.submit("one")
            assert (await bus.ended("one"))["type"] == "completed"
    finally:
        service.stop()
        await asyncio.wait([running])
    assert running.exception() is None


async def test_jetstream_is_not_enabled(
    tmp_path: Path,
    prefix: str,
    simulator: Simulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = quiet_port()

    process = await asyncio.create_subprocess_exec(
        str(NATS_SERVER),
        *("-a", "127.0.0.1", "-p", str(port)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    service = Service(settings(f"nats://127.0.0.1:{port}", simulator.url, prefix))
    running = asyncio.create_task(service.run())
    try:

        async def said_so() -> bool:
            return "JetStream is not ready" in caplog.text

        await eventually(said_so)
        assert (await Probe(service)("/readyz"))[0] == 503
    finally:
        service.stop()
        await asyncio.wait([running])
        process.terminate()
        await process.wait()
    assert running.exception() is None


async def test_an_old_server_is_refused(prefix: str, simulator: Simulator) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {
            "server_id": "X",
            "version": "2.11.4",
            "proto": 1,
            "host": "127.0.0.1",
            "port": port,
            "headers": True,
            "max_payload": 1048576,
            "jetstream": True,
        }
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    service = Service(settings(f"nats://127.0.0.1:{port}", simulator.url, prefix))
    error = await ended(asyncio.create_task(service.run()))
    server.close()
    assert isinstance(error, SetupError)
    assert "2.11.4" in str(error)
    assert "2.14" in str(error)


async def test_without_a_backend_there_is_no_start(nats_server: NatsServer) -> None:
    with pytest.raises(ConfigurationError, match="TOKENBRIDGE_BACKEND_URL"):
        Service(settings(nats_server.url, "", "llm"))


async def test_a_port_that_is_taken(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        service = Service(
            settings(nats_server.url, simulator.url, prefix, http_port=port)
        )
        with pytest.raises(ConfigurationError, match=f"{port}.*TOKENBRIDGE_HTTP_PORT"):
            await service.run()


async def test_refused_credentials_end_the_start(
    tmp_path: Path, prefix: str, simulator: Simulator
) -> None:
    server = NatsServer(
        tmp_path / "nats", more='authorization { user: "u", password: "right" }'
    )
    server.start()
    try:
        service = Service(
            settings(
                server.url,
                simulator.url,
                prefix,
                nats_user="u",
                nats_password=Secret("wrong-pw"),
            )
        )
        error = await ended(asyncio.create_task(service.run()))
        assert isinstance(error, SetupError)
        assert "refused" in str(error)
        assert "wrong-pw" not in str(error)
    finally:
        server.stop()


async def test_a_client_that_closed_for_good_ends_the_process(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    service = Service(settings(nats_server.url, simulator.url, prefix))
    running = asyncio.create_task(service.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await service.ready()
        # Past every check of ours: the server cuts off who exceeds its max_payload,
        # and nats-py closes for good in spite of reconnecting without limit.
        connection = service._connection
        assert connection is not None
        client = connection._client
        headers = {"x": "y" * 1000}
        await client.publish("anything", b"x" * client.max_payload, headers=headers)
        error = await ended(running)
        assert isinstance(error, ConnectionLost)
        assert "closed" in str(error)
    finally:
        service.stop()
        await asyncio.wait([running])


# nats-py leaves the connections that were refused to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_server_that_refuses_us_now_is_tried_again(
    own_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    own_server.start()
    async with running_service(own_server.url, simulator.url, prefix=prefix) as service:
        own_server.stop()
        own_server.more = 'authorization { user: "u", password: "p" }'
        own_server.start()
        probe = Probe(service)
        assert "not connected" in await probe.until("/readyz", 503)
        own_server.stop()
        own_server.more = ""
        own_server.start()
        await probe.until("/readyz", 200)
        gc.collect()


async def test_a_deleted_queue_is_made_again(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with (
        running_service(nats_server.url, simulator.url, prefix=prefix),
        plain_client(nats_server.url, prefix) as bus,
    ):
        await bus.jetstream.delete_stream(f"{prefix.upper()}_JOBS")

        async def stored() -> bool:
            try:
                await bus.submit("one")
            except nats.errors.Error:
                return False
            return True

        await eventually(stored)
        assert (await bus.ended("one"))["type"] == "completed"


async def test_a_deleted_consumer_does_not_make_a_useless_bridge(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with (
        running_service(nats_server.url, simulator.url, prefix=prefix) as service,
        plain_client(nats_server.url, prefix) as bus,
    ):
        await bus.jetstream.delete_consumer(f"{prefix.upper()}_JOBS", "default")
        await bus.submit("one")
        probe = Probe(service)

        async def served_or_not_ready() -> bool:
            return bool(bus.live["one"]) or (await probe("/readyz"))[0] == 503

        await eventually(served_or_not_ready)


async def test_several_prefixes_are_apart(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    prefixes = [f"{prefix}a", f"{prefix}b"]
    async with (
        running_service(nats_server.url, simulator.url, prefixes=prefixes),
        plain_client(nats_server.url, prefixes[0]) as one,
        plain_client(nats_server.url, prefixes[1]) as two,
    ):
        await one.submit("x")
        await two.submit("x")
        await one.ended("x")
        await two.ended("x")
        assert_whole(await one.log("x"))
        assert_whole(await two.log("x"))
        await one.cancel("y")
        await two.submit("y")
        assert (await two.ended("y"))["type"] == "completed"


@pytest.mark.parametrize("jobs", [16])
async def test_more_requests_than_open_batches(
    tmp_path: Path, prefix: str, simulator: Simulator, jobs: int
) -> None:
    server = NatsServer(tmp_path / "nats", batches=2)
    server.start()
    try:
        async with (
            running_service(server.url, simulator.url, prefix=prefix, slots=12),
            plain_client(server.url, prefix) as bus,
        ):
            for n in range(jobs):
                await bus.submit(f"r{n}")
            for n in range(jobs):
                await bus.ended(f"r{n}")
            await bus.settled()
            for n in range(jobs):
                log = await bus.stored("TOKENS", f"{prefix}.tokens.default.r{n}")
                events = [json.loads(message.data) for message in log]
                assert_whole(events)
                assert events[-1]["type"] == "completed"
                assert {e["attempt"] for e in events} == {1}
            assert len(simulator.requests) == jobs
            for n in range(2):
                await bus.submit(f"long{n}", request(simulate={"stall_after": 3}))
                await bus.seen(f"long{n}", "token", 3)
            await bus.submit_bytes(b'{"id":"bad"}')
            await bus.submit("waits")
            for n in range(2):
                await bus.cancel(f"long{n}")
            for id in ("bad", "waits"):
                await bus.ended(id)

                async def stored(id: str = id) -> bool:
                    return bool(
                        await bus.stored("TOKENS", f"{prefix}.tokens.default.{id}")
                    )

                await eventually(stored)
            await bus.settled()
            assert bus.live["bad"][-1]["error"]["code"] == "invalid_job"
    finally:
        server.stop()
