"""What a NATS user may not do is said, and does not let a reader hang.

The permissions are those of a real server, whose words reach the client as errors of
the connection and name a subject.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import pytest

from bridge.client import Client
from bridge.config import ClientSettings, Secret
from bridge.errors import JobRefused, NotPermitted
from bridge.events import KnownEvent
from tests.client.bridge_side import PATIENCE_S, Author, Bus, eventually, running_bus
from tests.servers import NatsServer

#: Publish and subscribe of each user; `live` is what docs/operations.md recommends for
#: tenants that must not read each other's logs.
USERS = {
    "live": (
        ["p.jobs.Acme.>", "p.control.Acme.>"],
        ["p.tokens.Acme.>", "_INBOX.>"],
    ),
    "log": (
        ["$JS.API.DIRECT.GET.P_TOKENS", "$JS.API.STREAM.MSG.GET.P_TOKENS", "p.jobs.>"],
        ["_INBOX.>"],
    ),
    "reader": (["$JS.API.>"], ["p.tokens.>", "_INBOX.>"]),
    "deaf": (["p.>", "$JS.API.>"], ["p.tokens.>"]),
    "nothing": (["p.jobs.>"], ["_INBOX.>"]),
}


def users() -> str:
    lines = ['{user: "all", password: "x"}']
    for name, (publish, subscribe) in USERS.items():
        allowed = f"publish: {publish}, subscribe: {subscribe}".replace("'", '"')
        lines.append(f'{{user: "{name}", password: "x", permissions: {{{allowed}}}}}')
    return f"authorization {{ users: [{', '.join(lines)}] }}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("users"), more=users())
    server.start()
    yield server
    server.stop()


class All(NamedTuple):
    """A bus with every right, and clients with fewer."""

    bus: Bus
    server: NatsServer

    def client(self, user: str) -> Client:
        settings = ClientSettings(
            nats_url=self.server.url, nats_user=user, nats_password=Secret("x")
        )
        return Client(settings=settings, tenant="Acme", model="m", prefixes=["p"])


@pytest.fixture
async def everything(server: NatsServer) -> AsyncIterator[All]:
    async with running_bus(
        server, "p", nats_user="all", nats_password=Secret("x")
    ) as bus:
        yield All(bus, server)
        for stream in (bus.cell.names.jobs, bus.cell.names.tokens):
            await bus.cell.jetstream.call(f"STREAM.PURGE.{stream}")


def written(id: str) -> list[KnownEvent]:
    author = Author(id)
    return [author.started(), *author.tokens(3), author.completed("text")]


async def test_live_alone_is_read_to_its_end(
    everything: All, caplog: pytest.LogCaptureFixture
) -> None:
    events = written("live")
    async with everything.client("live") as client:
        async with client.stream("Hi", id="live") as stream:
            await everything.bus.log(*events, tenant="Acme")
            async with asyncio.timeout(PATIENCE_S):
                assert [event async for event in stream] == events
        assert stream.end == events[-1]
        assert not stream.confirmed
    assert "cannot be read" in caplog.text


async def test_generate_with_live_alone(everything: All) -> None:
    events = written("whole")
    async with everything.client("live") as client, asyncio.timeout(PATIENCE_S):
        generating = asyncio.ensure_future(client.generate("Hi", id="whole"))
        await eventually(lambda: some_job(everything.bus))
        await everything.bus.log(*events, tenant="Acme")
        assert (await generating).text == "text"


async def test_a_takeover_is_followed_with_live_alone(everything: All) -> None:
    author = Author("taken")
    first = [author.started(), *author.tokens(3)]
    second = [author.resumed(), *author.tokens(2), author.completed()]
    async with (
        asyncio.timeout(PATIENCE_S),
        everything.client("live") as client,
        client.stream("Hi", id="taken") as stream,
    ):
        await everything.bus.log(*first, *second, tenant="Acme")
        assert [event async for event in stream] == [*first, *second]
        assert not stream.confirmed


async def test_a_hole_in_live_alone_is_said(everything: All) -> None:
    events = written("hole")
    async with (
        asyncio.timeout(PATIENCE_S),
        everything.client("live") as client,
        client.stream("Hi", id="hole") as stream,
    ):
        await everything.bus.log(*events[:2], *events[3:], tenant="Acme")
        assert [await anext(stream) for _ in range(2)] == events[:2]
        with pytest.raises(NotPermitted, match=r"DIRECT\.GET\.P_TOKENS"):
            await anext(stream)


async def test_joining_with_live_alone(everything: All) -> None:
    events = written("joined")
    await everything.bus.log(*events, tenant="Acme")
    async with everything.client("live") as client, asyncio.timeout(PATIENCE_S):
        with pytest.raises(NotPermitted, match="may not read the log"):
            await anext(client.join("joined", wait_s=0.2))


async def test_no_right_to_submit_is_said_at_once(everything: All) -> None:
    async with everything.client("reader") as client:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(JobRefused, match=r"p\.jobs\.Acme\.default.*violation"):
            await client.submit("Hi")
        with pytest.raises(JobRefused, match=r"p\.jobs\.Acme\.default.*violation"):
            await client.generate("Hi")
        with pytest.raises(JobRefused, match=r"p\.jobs\.Acme\.fast.*violation"):
            await client.submit("Hi", lane="fast")
        with pytest.raises(NotPermitted, match=r"p\.control\.acme.*violation"):
            await client.cancel("one")
        assert asyncio.get_running_loop().time() - begun < 3
    async with everything.client("live") as client:
        with pytest.raises(JobRefused, match=r"p\.jobs\.Other\.default"):
            await client.submit("Hi", tenant="Other")
        assert await client.submit("Hi", id="mine") == "mine"


async def test_an_inbox_that_may_not_be_heard_is_said(everything: All) -> None:
    async with everything.client("deaf") as client, asyncio.timeout(PATIENCE_S):
        with pytest.raises(JobRefused, match="inbox"):
            await client.submit("Hi")


async def test_the_log_alone_is_enough(everything: All) -> None:
    events = written("logged")
    async with (
        asyncio.timeout(PATIENCE_S),
        everything.client("log") as client,
        client.stream("Hi", id="logged") as stream,
    ):
        await everything.bus.log(*events, tenant="Acme")
        assert [event async for event in stream] == events
        assert stream.confirmed


async def test_a_user_who_may_read_nothing_is_told(everything: All) -> None:
    async with everything.client("nothing") as client, asyncio.timeout(PATIENCE_S):
        with pytest.raises(NotPermitted, match=r"p\.tokens\.Acme"):
            await client.generate("Hi")


async def some_job(bus: Bus) -> bool | None:
    return await bus.jobs() > 0 or None
