"""The SDK's front: connecting, addressing, submitting."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bridge.client import Client, Stream, cell_of
from bridge.config import ClientSettings, Secret
from bridge.errors import ConnectionLost, InvalidJob, NothingInLog, SetupError
from bridge.events import KnownEvent
from bridge.intake import decode_job
from bridge.subjects import InvalidToken
from tests.client.bridge_side import PATIENCE_S, Author, Bus, eventually, running_bus
from tests.servers import NatsServer, free_port


async def stored_job(bus: Bus, seq: int = 1) -> tuple[str, bytes]:
    stored = await bus.cell.jetstream.message(bus.cell.names.jobs, seq)
    assert stored is not None
    return stored.subject, stored.data


# Connecting


async def test_a_client_that_is_not_connected(nats_server: NatsServer) -> None:
    client = Client(nats_server.url, model="m")
    assert not client.connected
    for call in (client.submit("Hi"), client.cancel("a"), client.generate("Hi")):
        with pytest.raises(ConnectionLost, match="async with Client"):
            await call
    with pytest.raises(ConnectionLost, match="async with Client"):
        client.stream("Hi")
    with pytest.raises(ConnectionLost, match="async with Client"):
        client.join("a")
    await client.close()
    assert repr(client) == "<Client tenant=default not connected>"


async def test_a_client_may_be_connected_again(bus: Bus, client: Client) -> None:
    await client.connect()
    stream = client.join("a")
    await client.close()
    assert "not connected" in repr(client)
    await client.connect()
    assert client.connected
    with pytest.raises(ConnectionLost, match="was closed"):
        await anext(stream)


async def test_nobody_is_there() -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        await Client(url).connect()


async def test_credentials_are_settings(tmp_path: Path) -> None:
    server = NatsServer(
        tmp_path, more='authorization { user: "me", password: "secret" }'
    )
    server.start()
    try:
        with pytest.raises(SetupError, match="refused"):
            await Client(server.url).connect()
        settings = ClientSettings(
            nats_url=server.url, nats_user="me", nats_password=Secret("secret")
        )
        async with Client(settings=settings) as client:
            assert client.connected
        settings.nats_password = Secret("another")
        with pytest.raises(SetupError) as caught:
            await Client(settings=settings).connect()
        assert "another" not in str(caught.value)
    finally:
        server.stop()


# Submitting


async def test_a_job_is_what_was_asked_for(bus: Bus, client: Client) -> None:
    id = await client.submit(
        "Hi",
        system="Be brief.",
        temperature=0.5,
        session="call",
        deadline_ms=1000,
        metadata={"caller": "web"},
    )
    subject, data = await stored_job(bus)
    assert subject == f"{bus.prefix}.jobs.default.default"
    job = decode_job(data)
    assert job.id == id
    assert id.startswith("req-")
    assert job.request == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
        "temperature": 0.5,
    }
    assert (job.session, job.deadline_ms) == ("call", 1000)
    assert job.metadata == {"caller": "web"}


@pytest.mark.parametrize("prompt", [b"hello", 3, ["x"]])
async def test_a_prompt_that_is_no_text(
    bus: Bus, client: Client, prompt: object
) -> None:
    for system in (None, prompt):
        given: dict[str, Any] = {"prompt": prompt if system is None else "Hi"}
        said = "system must be" if system is not None else "prompt must be"
        with pytest.raises(TypeError, match=said):
            await client.submit(**given, system=system)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=said):
            client.stream(**given, system=system)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=said):
            await client.generate(**given, system=system)  # type: ignore[arg-type]
    assert await bus.jobs() == 0


async def test_half_an_emoji_is_sent_as_a_replacement_character(
    bus: Bus, client: Client
) -> None:
    await client.submit("cut \ud83d", metadata={"k": "\ud83d"})
    _, data = await stored_job(bus)
    job = decode_job(data)
    assert job.request["messages"][0]["content"] == "cut \ufffd"
    assert job.metadata == {"k": "\ufffd"}
    await client.cancel("one", reason="cut \ud83d")
    assert await bus.cancel_reason("request", "one") == "cut \ufffd"
    for name in ("cut\ud83d", "a.b"):
        with pytest.raises(InvalidToken):
            await client.cancel(name)
        with pytest.raises(InvalidJob):
            await client.submit("Hi", session=name)


async def test_tenant_and_lane_of_a_call(nats_server: NatsServer, prefix: str) -> None:
    lanes = ("default", "fast")
    async with (
        running_bus(nats_server, prefix, lanes) as bus,
        Client(nats_server.url, tenant="acme", model="m", prefixes=[prefix]) as client,
    ):
        await client.submit("Hi", id="one", lane="fast")
        await client.submit("Hi", id="one", tenant="other")
        assert (await stored_job(bus, 1))[0] == f"{prefix}.jobs.acme.fast"
        assert (await stored_job(bus, 2))[0] == f"{prefix}.jobs.other.default"
        await client.cancel("one", tenant="other", reason="why")
        await client.cancel_session("call")
        assert await bus.cell.kept_control("acme", "request", "one") is None
        assert await bus.cell.kept_control("other", "request", "one") is not None
        assert await bus.cell.kept_control("acme", "session", "call") is not None
        author = Author("one")
        events = [author.started(), author.completed()]
        await bus.log(*events, tenant="other")
        assert [e async for e in client.join("one", tenant="other")] == events
        with pytest.raises(NothingInLog):
            await anext(client.join("one", wait_s=0.05))


async def test_an_id_is_submitted_once(bus: Bus, client: Client) -> None:
    assert await client.submit("Hi", id="one") == "one"
    assert await client.submit("Hi", id="one") == "one"
    assert await bus.jobs() == 1


async def test_an_id_that_was_served_already_is_read(bus: Bus, client: Client) -> None:
    author = Author("served")
    events = [author.started(), author.token("so"), author.completed("so")]
    await bus.log(*events)
    async with asyncio.timeout(PATIENCE_S):
        assert (await client.generate("Hi", id="served")).text == "so"
        # JetStream calls it a duplicate now.
        assert [e async for e in client.stream("Hi", id="served")] == events


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"id": "a.b"}, InvalidJob),
        ({"tenant": "_"}, InvalidToken),
        ({"lane": "a b"}, InvalidToken),
        ({"supersede": True}, InvalidJob),
        ({"request": {"messages": []}}, ValueError),
    ],
)
async def test_wrong_arguments(
    bus: Bus, client: Client, arguments: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await client.submit("Hi", **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="from_seq"):
        client.join("a", from_seq=0)
    with pytest.raises(InvalidToken):
        client.join("a.b")
    assert await bus.jobs() == 0


# Cells


async def test_four_cells(nats_server: NatsServer, prefix: str) -> None:
    prefixes = [f"{prefix}-{number}" for number in range(4)]
    async with Client(nats_server.url, model="m", prefixes=prefixes) as client:
        for number, each in enumerate(prefixes):
            async with running_bus(nats_server, each) as bus:
                id = next(
                    f"req-{n}"
                    for n in range(1000)
                    if cell_of("default", f"req-{n}", 4) == number
                )
                stream = client.stream("Hi", id=id)
                async with stream:
                    assert await bus.jobs() == 1
                    author = Author(id)
                    events = [author.started(), author.completed()]
                    await bus.log(*events)
                    assert [event async for event in stream] == events
                assert [event async for event in client.join(id)] == events
                await client.cancel(id)
                assert await bus.cancelled(id)
        await client.cancel_session("call")
        for each in prefixes:
            async with running_bus(nats_server, each) as bus:
                assert await bus.cancel_reason("session", "call")


async def test_superseding_across_cells_is_refused(
    nats_server: NatsServer, prefix: str
) -> None:
    prefixes = [f"{prefix}-{number}" for number in range(3)]
    async with Client(nats_server.url, model="m", prefixes=prefixes) as client:
        cell = cell_of("default", "call", 3)
        other = next(
            f"req-{n}" for n in range(1000) if cell_of("default", f"req-{n}", 3) != cell
        )
        with pytest.raises(ValueError, match="within one of them"):
            await client.submit("Hi", id=other, session="call", supersede=True)


def test_a_deployment_has_a_prefix() -> None:
    with pytest.raises(ValueError, match="at least one prefix"):
        Client(prefixes=[])


# NATS goes away and comes back


async def test_a_stream_outlives_a_restart_of_nats(tmp_path: Path, prefix: str) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:
        async with (
            running_bus(server, prefix) as bus,
            Client(server.url, model="m", prefixes=[prefix]) as client,
            asyncio.timeout(3 * PATIENCE_S),
        ):
            author = Author("one")
            events = [author.started(), *author.tokens(20), author.completed()]
            stream = client.stream("Hi", id="one")

            async def read() -> list[KnownEvent]:
                return [event async for event in stream]

            reading = asyncio.ensure_future(read())
            await bus.log(*events[:5])
            await eventually(lambda: reached(stream, 5))
            server.kill()
            await eventually(lambda: connected(client, False))
            server.start()
            await eventually(lambda: connected(bus.connection, True))
            # Published perhaps before the reader is back.
            await bus.log(*events[5:])
            assert await reading == events
    finally:
        server.stop()


async def reached(stream: Stream, seq: int) -> bool | None:
    return stream.seq >= seq or None


async def connected(client: object, wanted: bool) -> bool | None:
    return getattr(client, "connected") is wanted or None  # noqa: B009
