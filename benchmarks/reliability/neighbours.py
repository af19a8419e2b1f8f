"""The longest turn of a bridge's loop while one hostile answer runs beside 100 others.

The bridge is a process of its own, with a clock that ticks every millisecond; a tick
that is late by so much means that everybody waited for so long. The hostile answers
come from a second process, so that making them is not what is measured.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bridge.cli.event_loop import run
from bridge.cli.serve import spare_the_collector
from bridge.config import BackendSettings, Settings
from bridge.service import Service
from bridge.simulator import Behaviour, Simulator
from tests.plain_client import PlainClient, plain_client, request
from tests.scripted import Call, ScriptedBackend, event, finish
from tests.servers import NatsServer

#: The healthy requests beside it, and how fast each of them is, in tokens/s.
HEALTHY = 100
RATE = 20

TICK_S = 0.001

#: How long the healthy requests are watched alone, in seconds.
CALM_S = 3.0

_BROKEN = b'data: {"choices": [{"index": 0, "delta": {"content": "a\n\n'
_WORDS = "Nobody waits for a sentence, however long the text may be. " * 17_000


def _record(content: str) -> bytes:
    choice = {"index": 0, "delta": {"content": content}}
    value = json.dumps({"choices": [choice]}, ensure_ascii=False)
    return f"data: {value}\n\n".encode()


def _spoken(text: str) -> Call:
    return Call([_record(text), finish()])


ANSWERS = {
    "speech: 60,000 × |": _spoken("|" * 60_000),
    "speech: 60,000 × [": _spoken("[" * 60_000),
    "speech: 60,000 × `": _spoken("`a" * 30_000),
    "speech: 60,000 × *_": _spoken("*_" * 30_000),
    "speech: 60,000 × <": _spoken("<a " * 20_000),
    "speech: 60,000 × (": _spoken("(a. " * 15_000),
    "speech: 1 MB of sentences": _spoken(_WORDS),
    "4,000 unreadable records in one piece": Call([_BROKEN * 4000, finish()]),
    "300,000 values in one record": Call(
        [b'data: {"x": [' + b"{}," * 300_000 + b"{}]}\n\n", event("a"), finish()]
    ),
    "4 million × ä": Call([_record("ä" * 500_000)] * 8 + [finish()]),
    "4 million control characters": Call([event("\x01" * 160_000)] * 25 + [finish()]),
    "a tool call in 100,000 pieces": Call(
        [
            event(
                {
                    "choices": [
                        {
                            "index": 0,
                            "delta": {
                                "tool_calls": [
                                    {"index": 0, "function": {"arguments": "a"}}
                                ]
                            },
                        }
                    ]
                }
            )
            * 1000
        ]
        * 100
        + [finish()]
    ),
}


def _serve_bridge(settings: dict[str, Any], ends: Connection) -> None:
    """The bridge, and its clock: answers each message with the longest turn since."""
    backends = [BackendSettings(**backend) for backend in settings.pop("backends")]

    async def serve() -> int:
        loop = asyncio.get_running_loop()
        longest = 0.0

        def told() -> None:
            nonlocal longest
            if ends.recv() is None:
                service.stop()
                return
            ends.send(longest)
            longest = 0.0

        async def tick() -> None:
            nonlocal longest
            while True:
                begun = loop.time()
                await asyncio.sleep(TICK_S)
                longest = max(longest, loop.time() - begun - TICK_S)

        service = Service(Settings(backends=backends, **settings))
        loop.add_reader(ends.fileno(), told)

        async def tell_ready() -> None:
            await service.ready()
            ends.send(0.0)

        beside = [asyncio.create_task(work()) for work in (tick, tell_ready)]
        spare_the_collector()
        await service.run()
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        return 0

    run(serve())


def _serve_answers(ends: Connection) -> None:
    """One backend for each hostile answer; tells their URLs, until told to end."""

    async def serve() -> None:
        backends = [ScriptedBackend(answer) for answer in ANSWERS.values()]
        for backend in backends:
            await backend.__aenter__()
        ends.send([backend.url for backend in backends])
        await asyncio.to_thread(ends.recv)
        for backend in backends:
            await backend.__aexit__(None, None, None)

    asyncio.run(serve())


@contextmanager
def _process(target: Any, *arguments: Any) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        ours.send(None)
        process.join(10)
        process.kill()


@asynccontextmanager
async def _scene() -> AsyncIterator[tuple[PlainClient, Connection]]:
    with tempfile.TemporaryDirectory() as folder, _process(_serve_answers) as hostile:
        server = NatsServer(Path(folder))
        server.start()
        pace = Behaviour(tokens_per_second=RATE, tokens=1_000_000)
        try:
            async with Simulator(behaviour=pace) as simulator:
                urls = await asyncio.to_thread(hostile.recv)
                backends = [
                    {"name": f"b{n}", "url": url, "models": [f"hostile-{n}"]}
                    for n, url in enumerate(urls)
                ]
                settings = {
                    "nats_url": server.url,
                    "backends": [
                        {"name": "calm", "url": simulator.url, "models": ["calm"]},
                        *backends,
                    ],
                    "slots": HEALTHY + 10,
                    "http_port": 0,
                    "log_level": "error",
                }
                with _process(_serve_bridge, settings) as bridge:
                    await asyncio.to_thread(bridge.recv)
                    async with plain_client(server.url, "llm") as bus:
                        yield bus, bridge
        finally:
            server.kill()


async def neighbours() -> dict[str, tuple[float, str]]:
    """For each answer the longest turn in seconds, and how its request ended."""
    found: dict[str, tuple[float, str]] = {}
    async with _scene() as (bus, bridge):
        calm = request()
        del calm["max_tokens"]
        calm["model"] = "calm"
        for number in range(HEALTHY):
            await bus.submit(f"calm-{number}", calm)
        await bus.until(lambda: len(bus.live) >= HEALTHY)
        await _longest(bridge)  # of the start
        await asyncio.sleep(CALM_S)
        found["none"] = await _longest(bridge), ""
        for number, name in enumerate(ANSWERS):
            body = {**calm, "model": f"hostile-{number}"}
            await bus.submit(f"h{number}", body, speech=True)
            end = await bus.ended(f"h{number}")
            how = end["error"]["code"] if end["type"] == "failed" else end["type"]
            found[name] = await _longest(bridge), how
    return found


async def _longest(bridge: Connection) -> float:
    bridge.send("longest")
    longest: float = await asyncio.to_thread(bridge.recv)
    return longest
