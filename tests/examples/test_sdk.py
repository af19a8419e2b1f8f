"""The examples of the SDK, as processes, as ``docs/sdk.md`` says they are run."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.simulator import Behaviour, Simulator
from tests.servers import NatsServer, running_service

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "sdk"
DOCUMENTATION = EXAMPLES.parent.parent / "docs" / "sdk.md"
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> NatsServer:
    return NatsServer(tmp_path_factory.mktemp("nats"))


@pytest.fixture
async def environment(own_server: NatsServer) -> AsyncIterator[dict[str, str]]:
    # The examples use the default prefix, so a server of their own.
    own_server.start()
    behaviour = Behaviour(first_token_ms=5, tokens_per_second=300)
    try:
        async with (
            Simulator(behaviour=behaviour) as simulator,
            running_service(own_server.url, simulator.url),
        ):
            yield {**os.environ, "NATS_URL": own_server.url, "MODEL": "simulator"}
    finally:
        own_server.stop()


async def run(name: str, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        cwd=EXAMPLES.parent.parent,
        env={**environment, "PYTHONPATH": "."},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_ask(environment: dict[str, str]) -> None:
    assert "completion_tokens" in await run("ask.py", environment)


async def test_stream(environment: dict[str, str]) -> None:
    assert (await run("stream.py", environment)).rstrip().endswith(")")


async def test_resume(environment: dict[str, str]) -> None:
    said = await run("resume.py", environment)
    assert "gone after event 10" in said
    assert "Completed(" in said
    assert "'never-submitted'" in said


async def test_conversation(environment: dict[str, str]) -> None:
    said = await run("conversation.py", environment)
    assert "assistant: " in said
    assert "the first answer ended as cancelled: superseded" in said


def test_every_example_is_documented() -> None:
    text = DOCUMENTATION.read_text("utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"examples/sdk/{path.name}" in text
