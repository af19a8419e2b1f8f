"""How long a request is read: interrupts, and giving up."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from bridge.cli.printers import JsonPrinter
from bridge.cli.reading import (
    CANCELLED_WITHIN_S,
    Patience,
    noting_outages,
    on_signals,
)
from bridge.client import Client
from bridge.embedded import EmbeddedServer


@asynccontextmanager
async def forever(patience: Patience) -> AsyncIterator[None]:
    """A request that never ends: at the end of the block, only patience does."""
    try:
        async with patience.limit:
            yield
            await asyncio.get_running_loop().create_future()
    except TimeoutError:
        assert patience.limit.expired()


async def test_without_an_interrupt_there_is_no_limit() -> None:
    patience = Patience()
    async with patience.limit:
        patience.started()
        assert patience.limit.when() is None
    assert not patience.limit.expired()


async def test_giving_up_ends_with_the_first_event() -> None:
    patience = Patience(0.01)
    async with forever(patience):
        pass
    assert patience.gave_up
    assert not patience.interrupted
    other = Patience(100.0)
    async with other.limit:
        assert other.limit.when() is not None
        other.started()
        assert other.limit.when() is None


async def test_an_output_that_is_abandoned_ends_it_at_once() -> None:
    patience = Patience()
    async with forever(patience):
        patience.started()
        patience.abandon()
    assert patience.abandoned
    assert not patience.interrupted


async def test_before_the_request_is_submitted_an_interrupt_just_leaves() -> None:
    patience = Patience()
    async with forever(patience):
        patience.interrupt()
    assert patience.interrupted


async def test_the_first_interrupt_cancels_and_the_second_leaves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    patience = Patience(100.0)
    cancels: list[None] = []
    async with forever(patience):
        patience.begun(lambda: cancels.append(None))
        patience.interrupt()
        now = asyncio.get_running_loop().time()
        when = patience.limit.when()
        assert when is not None
        assert now < when <= now + CANCELLED_WITHIN_S
        # What comes while the cancel is on its way does not lift the limit.
        patience.started()
        assert patience.limit.when() == when
        patience.interrupt()
    assert cancels == [None]
    assert "Ctrl-C again leaves at once" in capsys.readouterr().err
    patience.interrupt()
    assert cancels == [None]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_call_inside_the_block_only(number: signal.Signals) -> None:
    received = asyncio.Event()
    with on_signals(received.set):
        os.kill(os.getpid(), number)
        async with asyncio.timeout(30):
            await received.wait()
    loop = asyncio.get_running_loop()
    assert not loop.remove_signal_handler(number)


class Notes(JsonPrinter):
    """A printer whose notes can be waited for."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.said: asyncio.Queue[str] = asyncio.Queue()

    def note(self, text: str) -> None:
        self.said.put_nowait(text)


async def test_an_outage_is_noted_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    notes = Notes()
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        server = await stack.enter_async_context(EmbeddedServer())
        port = int(server.url.rpartition(":")[2])
        again = EmbeddedServer(port)
        # It outlives the client, whose end would be another outage otherwise.
        stack.push_async_callback(again.stop)
        async with Client(server.url) as client:
            with noting_outages(client, notes):
                await server.stop()
                assert await notes.said.get() == "NATS is away; waiting"
                await again.start()
                assert await notes.said.get() == "NATS is back"
    assert notes.said.empty()
    assert "disconnected" not in caplog.text
