import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.errors import ConfigurationError
from bridge.simulator import (
    Behaviour,
    InvalidBehaviour,
    Simulator,
    run,
    text_for,
    tokens_for,
)

Ask = Callable[..., dict[str, Any]]
PATH = "/chat/completions"


def open_descriptors() -> int:
    """How many there are, on systems that tell."""
    listing = Path("/proc/self/fd")
    return len(list(listing.iterdir())) if listing.exists() else 0


async def test_a_taken_port_is_a_clear_error(simulator: Simulator) -> None:
    other = Simulator(port=simulator.port)
    with pytest.raises(ConfigurationError, match=f"{simulator.port}.*port is taken"):
        await other.start()
    assert "stopped" in repr(other)
    await other.stop()


async def test_an_address_of_somebody_else_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1:"):
        await Simulator("192.0.2.1").start()


async def test_a_wrong_behaviour_is_refused() -> None:
    with pytest.raises(InvalidBehaviour, match="status"):
        Simulator(behaviour=Behaviour(status=200))
    simulator = Simulator()
    with pytest.raises(InvalidBehaviour, match="jitter"):
        simulator.behaviour = Behaviour(jitter=-1)
    assert simulator.behaviour == Behaviour()


async def test_the_url() -> None:
    assert Simulator(port=81).url == "http://127.0.0.1:81/v1"
    assert Simulator("0.0.0.0", 81).url == "http://127.0.0.1:81/v1"
    assert Simulator("::1", 81).url == "http://[::1]:81/v1"


async def test_it_starts_again_on_its_port(ask: Ask) -> None:
    simulator = Simulator()
    ports = []
    for _ in range(3):
        await simulator.start()
        with pytest.raises(RuntimeError):
            await simulator.start()
        async with httpx.AsyncClient(base_url=simulator.url) as client:
            assert (await client.post(PATH, json=ask())).status_code == 200
        await simulator.stop()
        await simulator.stop()
        ports.append(simulator.port)
    assert len(set(ports)) == 1
    assert len(simulator.requests) == 3


async def test_stop_breaks_answers_off(ask: Ask) -> None:
    simulator = Simulator(behaviour=Behaviour(stall_after=3))
    async with httpx.AsyncClient(timeout=30) as client:
        await simulator.start()
        url = simulator.url + PATH
        streaming = asyncio.ensure_future(
            client.post(url, json=ask(stream=True)),
        )
        waiting = asyncio.ensure_future(client.post(url, json=ask()))
        await simulator.wait_for(lambda record: record.tokens_sent == 3)
        await simulator._log.wait_until(lambda: simulator.active == 2, 10)
        await simulator.stop()
        for request in (streaming, waiting):
            with pytest.raises(httpx.RemoteProtocolError):
                await request
    assert [r.outcome for r in simulator.requests] == ["stopped", "stopped"]
    assert all(record.closed_at is None for record in simulator.requests)
    assert simulator.active == 0


async def test_waiting_for_what_does_not_come(simulator: Simulator) -> None:
    with pytest.raises(TimeoutError):
        await simulator.wait_for(lambda record: True, timeout=0.01)
    await simulator.wait_idle(timeout=0.01)


async def test_run_serves_until_cancelled(ask: Ask) -> None:
    ready: asyncio.Future[Simulator] = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(
        run("127.0.0.1", 0, Behaviour(), on_ready=ready.set_result)
    )
    simulator = await ready
    async with httpx.AsyncClient(base_url=simulator.url) as client:
        assert (await client.get("/models")).status_code == 200
        with pytest.raises(ConfigurationError):
            await run("127.0.0.1", simulator.port)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(httpx.HTTPError):
            await client.get("/models")


async def test_many_streams_at_once_keep_their_texts_and_leave_nothing(
    simulator: Simulator, ask: Ask
) -> None:
    tasks, descriptors = len(asyncio.all_tasks()), open_descriptors()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=simulator.url, timeout=60, limits=limits
    ) as client:

        async def one(number: int) -> None:
            simulate = {"tokens_per_second": 100, "jitter": 1, "pieces": 50}
            request = ask(f"prompt {number}", max_tokens=20)
            body = request | {"stream": True, "simulate": simulate}
            response = await client.post(PATH, json=body)
            events = response.text.split("\n\n")
            assert len(events) == 1 + 20 + 2 + 1
            assert events[-2] == "data: [DONE]"
            record = await simulator.wait_for(
                lambda record: record.body == body and record.outcome is not None
            )
            assert record.tokens_sent == len(tokens_for(request)) == 20

        await asyncio.gather(*(one(number) for number in range(100)))
    await simulator.wait_idle()
    while len(asyncio.all_tasks()) > tasks:
        await asyncio.sleep(0.01)
    while open_descriptors() > descriptors:
        await asyncio.sleep(0.01)


def test_on_uvloop(ask: Ask) -> None:
    uvloop = pytest.importorskip("uvloop")  # There is none for Windows.

    async def main() -> None:
        async with (
            Simulator() as simulator,
            httpx.AsyncClient(base_url=simulator.url, timeout=30) as client,
        ):
            await use(simulator, client)

    async def use(simulator: Simulator, client: httpx.AsyncClient) -> None:
        simulate: dict[str, Any] = {"pieces": [3, 5], "tokens_per_second": 500}
        whole = await client.post(PATH, json=ask(simulate=simulate))
        text = whole.json()["choices"][0]["message"]["content"]
        assert text == text_for(ask())
        body = ask(stream=True, simulate=simulate | {"reset_after": 3})
        with pytest.raises(httpx.ReadError):
            await client.post(PATH, json=body)

        # A client that first does not read, and then goes away.
        _, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        data = httpx.Request(
            "POST", simulator.url, json=ask(stream=True, max_tokens=100_000)
        ).content
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: s\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
        )
        record = await simulator.wait_for(lambda record: record.tokens_sent > 1000)
        before = -1
        while record.tokens_sent != before:  # until the sockets' buffers are full
            before = record.tokens_sent
            await asyncio.sleep(0.3)
        assert before < 100_000
        writer.transport.abort()
        await simulator.wait_closed(record)
        await simulator.wait_idle()

    uvloop.run(main())
