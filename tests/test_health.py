"""The probes' answers, and the metrics in Prometheus' format."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from bridge.errors import ConfigurationError
from bridge.health import HealthServer
from bridge.metrics import Meters


class Process:
    """What a process tells its probes."""

    def __init__(self) -> None:
        self.sick: str | None = None
        self.busy: str | None = None
        self.meters = Meters()
        self.server = HealthServer(
            "127.0.0.1",
            0,
            alive=self._alive,
            ready=self._ready,
            meters=self.meters,
            gauges=lambda: {"slots": ("Slots.", 64.0)},
        )

    async def _alive(self) -> str | None:
        return self.sick

    async def _ready(self) -> str | None:
        return self.busy

    async def get(self, path: str) -> httpx.Response:
        base = f"http://127.0.0.1:{self.server.port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            return await client.get(path)


@pytest_asyncio.fixture
async def process() -> AsyncIterator[Process]:
    process = Process()
    await process.server.start()
    yield process
    await process.server.stop()


async def test_probes_say_what_is_the_matter(process: Process) -> None:
    for path in ("/livez", "/readyz"):
        response = await process.get(path)
        assert (response.status_code, response.text) == (200, "ok\n")
    process.busy = "missing: LLM_JOBS"
    response = await process.get("/readyz")
    assert (response.status_code, response.text) == (503, "missing: LLM_JOBS\n")
    assert (await process.get("/livez")).status_code == 200
    process.sick = "closed"
    response = await process.get("/livez")
    assert (response.status_code, response.text) == (503, "closed\n")
    assert (await process.get("/other")).status_code == 404


async def test_metrics_are_read_by_prometheus_own_parser(process: Process) -> None:
    meters = process.meters
    meters.ended[("completed", "")] += 3
    meters.ended[("failed", 'odd "code"\n')] += 1
    meters.deltas = 42
    for seconds in (0.01, 0.3, 1000.0):
        meters.total.add(seconds)
    response = await process.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    ended = "tokenbridge_requests_ended_total"
    assert samples[(ended, (("code", ""), ("type", "completed")))] == 3
    assert samples[(ended, (("code", 'odd "code"\n'), ("type", "failed")))] == 1
    assert samples[("tokenbridge_deltas_total", ())] == 42
    assert samples[("tokenbridge_slots", ())] == 64
    assert samples[("tokenbridge_request_seconds_count", ())] == 3
    bucket = "tokenbridge_request_seconds_bucket"
    assert samples[(bucket, (("le", "0.05"),))] == 1
    assert samples[(bucket, (("le", "0.5"),))] == 2
    assert samples[(bucket, (("le", "+Inf"),))] == 3


async def test_a_port_that_is_taken(process: Process) -> None:
    second = HealthServer(
        "127.0.0.1",
        process.server.port,
        alive=process._alive,
        ready=process._ready,
        meters=Meters(),
        gauges=dict,
    )
    with pytest.raises(ConfigurationError, match=str(process.server.port)):
        await second.start()
    await second.stop()
    assert (await process.get("/livez")).status_code == 200


@contextlib.asynccontextmanager
async def listening(process: Process, host: str) -> AsyncIterator[HealthServer]:
    server = HealthServer(
        host,
        0,
        alive=process._alive,
        ready=process._ready,
        meters=Meters(),
        gauges=dict,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("host", "addresses", "silent"),
    [
        ("::", ["127.0.0.1", "[::1]"], []),
        ("[::]", ["127.0.0.1", "[::1]"], []),
        ("0.0.0.0", ["127.0.0.1"], ["[::1]"]),
        ("127.0.0.1", ["127.0.0.1"], ["[::1]"]),
        ("::1", ["[::1]"], ["127.0.0.1"]),
        ("localhost", ["localhost"], []),
    ],
)
async def test_where_it_listens(
    process: Process, host: str, addresses: list[str], silent: list[str]
) -> None:
    async with (
        listening(process, host) as server,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        for address in addresses:
            response = await client.get(f"http://{address}:{server.port}/livez")
            assert response.text == "ok\n"
        for address in silent:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://{address}:{server.port}/livez")


async def test_all_addresses_of_a_name_have_one_port(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()

    async def resolved(*_: object, **__: object) -> list[Any]:
        stream = socket.SOCK_STREAM
        return [
            (socket.AF_INET6, stream, 6, "", ("2001:db8::1", 0, 0, 0)),
            (socket.AF_INET6, stream, 6, "", ("::1", 0, 0, 0)),
            (socket.AF_INET, stream, 6, "", ("127.0.0.1", 0)),
        ]

    monkeypatch.setattr(loop, "getaddrinfo", resolved)
    async with listening(process, "a.name") as server:
        monkeypatch.undo()
        async with httpx.AsyncClient(trust_env=False) as client:
            for address in ("127.0.0.1", "[::1]"):
                response = await client.get(f"http://{address}:{server.port}/livez")
                assert response.text == "ok\n"


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "no.such.invalid", "a..b", "[::1", "x" * 300]
)
async def test_a_host_that_cannot_be_had(process: Process, host: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen") as caught:
        async with listening(process, host):
            pass
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("first", "second"), [("::", "0.0.0.0"), ("0.0.0.0", "::")])
async def test_a_port_of_the_other_family_is_taken_too(
    process: Process, first: str, second: str
) -> None:
    async with listening(process, first) as server:
        other = HealthServer(
            second,
            server.port,
            alive=process._alive,
            ready=process._ready,
            meters=Meters(),
            gauges=dict,
        )
        with pytest.raises(ConfigurationError, match="the port is taken"):
            await other.start()


async def test_stopping_twice_does_no_harm(process: Process) -> None:
    assert str(process.server.port) in repr(process.server)
    await process.server.stop()
    await process.server.stop()
    with pytest.raises(httpx.ConnectError):
        await process.get("/livez")
