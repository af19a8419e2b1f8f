"""A deployment of four cells: prefixes with streams of their own, one bridge."""

from __future__ import annotations

import asyncio

import nats
from nats.js.api import StreamInfo

from bridge import Client
from bridge.client.cells import cell_of
from bridge.config import Settings
from bridge.service import Service
from bridge.simulator import Simulator, text_for
from tests.servers import NatsServer

CELLS = 4
REQUESTS = 40


def request_of(number: int) -> dict[str, object]:
    content = f"request {number}"
    return {
        "model": "simulator",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 15,
    }


async def test_a_request_is_served_in_the_cell_of_its_hash(
    nats_server: NatsServer, prefix: str
) -> None:
    prefixes = [f"{prefix}-{number}" for number in range(CELLS)]
    async with Simulator() as simulator:
        service = Service(
            Settings(
                nats_url=nats_server.url,
                backend_url=simulator.url,
                prefixes=prefixes,
                http_host="127.0.0.1",
                http_port=0,
                slots=16,
            )
        )
        running = asyncio.create_task(service.run())
        try:
            async with asyncio.timeout(20):
                await service.ready()
            texts = await generate_all(nats_server, prefixes)
            stored = await subjects_by_prefix(nats_server, prefixes)
        finally:
            service.stop()
            await running
    for number in range(REQUESTS):
        assert texts[number] == text_for(request_of(number))
    expected = {name: set[str]() for name in prefixes}
    for number in range(REQUESTS):
        home = prefixes[cell_of("default", f"req-{number}", CELLS)]
        expected[home].add(f"{home}.tokens.default.req-{number}")
    assert stored == expected
    assert all(len(subjects) > 2 for subjects in stored.values())


async def generate_all(server: NatsServer, prefixes: list[str]) -> list[str | None]:
    async with Client(server.url, prefixes=prefixes) as client, asyncio.timeout(60):
        results = await asyncio.gather(
            *(
                client.generate(request=request_of(number), id=f"req-{number}")
                for number in range(REQUESTS)
            )
        )
        late = client.join("req-7")
        assert [event.seq async for event in late] == list(range(1, 18))
    return [completed.text for completed in results]


async def subjects_by_prefix(
    server: NatsServer, prefixes: list[str]
) -> dict[str, set[str]]:
    client = await nats.connect(server.url)
    found = {}
    for name in prefixes:
        info: StreamInfo = await client.jsm().stream_info(
            f"{name.upper()}_TOKENS", subjects_filter=f"{name}.tokens.>"
        )
        found[name] = set(info.state.subjects or {})
    await client.close()
    return found
