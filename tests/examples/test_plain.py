"""The consumers that need nothing but a NATS client, as processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.simulator import Behaviour, Simulator, text_for
from tests.client.bridge_side import Author, running_bus
from tests.servers import NatsServer, running_service

PLAIN = Path(__file__).parent.parent.parent / "examples" / "plain"

#: For a consumer, on a machine that is busy; npm gets as long.
PATIENCE_S = 60.0


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """How to start the JavaScript consumer, its package installed."""
    source = PLAIN / "javascript"
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no node and npm here")
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "consumer.mjs"):
        shutil.copy(source / name, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install the NATS client in time")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install the NATS client: {done.stderr[-300:]}")
    return ["node", str(folder / "consumer.mjs")]


@pytest.fixture(params=["python", "javascript"])
def consumer(request: pytest.FixtureRequest) -> list[str]:
    if request.param == "python":
        return [sys.executable, str(PLAIN / "consumer.py")]
    command: list[str] = request.getfixturevalue("node")
    return command


@pytest.fixture
async def environment(
    nats_server: NatsServer, prefix: str
) -> AsyncIterator[dict[str, str]]:
    behaviour = Behaviour(first_token_ms=5, tokens_per_second=300)
    async with (
        Simulator(behaviour=behaviour) as simulator,
        running_service(nats_server.url, simulator.url, prefix=prefix),
    ):
        yield {
            **os.environ,
            "NATS_URL": nats_server.url,
            "PREFIX": prefix,
            "MODEL": "simulator",
        }


async def run(
    consumer: list[str], environment: dict[str, str], prompt: str, id: str
) -> tuple[int, str, str]:
    """Exit code, answer, and the last line on stderr."""
    flag = ["--id"] if consumer[0] == sys.executable else []
    process = await asyncio.create_subprocess_exec(
        *consumer,
        prompt,
        *flag,
        id,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode().strip().splitlines()[-1]


async def test_a_plain_consumer_shows_the_answer(
    consumer: list[str], environment: dict[str, str]
) -> None:
    messages = [{"role": "user", "content": "hello"}]
    expected = text_for({"model": "simulator", "messages": messages})
    code, answer, said = await run(consumer, environment, "hello", "one")
    assert (code, answer) == (0, expected)
    assert said.startswith("completed after ")
    # The same id again: nothing comes live, the log has it all.
    code, answer, said = await run(consumer, environment, "hello", "one")
    assert (code, answer) == (0, expected)


async def test_a_plain_consumer_tells_a_failure(
    consumer: list[str], environment: dict[str, str]
) -> None:
    environment = {**environment, "MODEL": ""}
    code, answer, said = await run(consumer, environment, "hello", "bad")
    assert (code, answer) == (1, "")
    assert said.startswith("failed after 1 events: ")
    assert "request.model" in said


async def test_a_plain_consumer_passes_over_what_is_no_event(
    consumer: list[str], nats_server: NatsServer, prefix: str
) -> None:
    author = Author("noisy")
    events = [author.started(), author.token("Hello"), author.completed()]
    async with running_bus(nats_server, prefix) as bus:
        subject = bus.cell.subjects.tokens("default", "noisy")
        for event in events:
            for noise in (b"garbage", b"null", b'{"type":"token","id":"b","seq":2}'):
                await bus.connection.request(subject, noise)
            await bus.log(event)
        environment = {**os.environ, "NATS_URL": nats_server.url, "PREFIX": prefix}
        code, answer, said = await run(consumer, environment, "Hi", "noisy")
    assert (code, answer) == (0, "Hello")
    assert said.startswith("completed after 3 events")


async def test_a_plain_consumer_shows_nothing_behind_a_hole(
    consumer: list[str], nats_server: NatsServer, prefix: str
) -> None:
    author = Author("holed")
    events = [author.started(), author.token("Hello"), *author.tokens(3)]
    async with running_bus(nats_server, prefix) as bus:
        await bus.log(*events[:2], *events[3:], author.completed())
        environment = {**os.environ, "NATS_URL": nats_server.url, "PREFIX": prefix}
        code, answer, _ = await run(consumer, environment, "Hi", "holed")
    assert (code, answer) == (1, "Hello")
