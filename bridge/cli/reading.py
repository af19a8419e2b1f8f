"""Reading one request to its end, with Ctrl-C, for ``ask`` and ``tail``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator

import click

from bridge.cli.figures import Figures
from bridge.cli.output import stdout_is_abandoned
from bridge.cli.printers import Printer
from bridge.client import Client, Stream

#: After a cancel, its `cancelled` event is waited for so long, in seconds: the bridge
#: answers in milliseconds where the request runs, and not at all where it waits in a
#: queue that nobody serves.
CANCELLED_WITHIN_S = 5.0

#: How often the connection and the output are looked at while a request is read, in s.
LOOK_S = 0.1

#: What logs that the connection is lost, as a note says it here.
CONNECTION_LOG = "bridge.bus.connection"


@contextlib.contextmanager
def noting_outages(client: Client, printer: Printer) -> Iterator[None]:
    """Say inside the block when NATS is away, and when it is back."""
    log = logging.getLogger(CONNECTION_LOG)
    level = log.level
    if log.getEffectiveLevel() == logging.WARNING:
        log.setLevel(logging.ERROR)
    watching = asyncio.create_task(_note_outages(client, printer))
    try:
        yield
    finally:
        watching.cancel()
        log.setLevel(level)


async def _note_outages(client: Client, printer: Printer) -> None:
    away = False
    while True:
        await asyncio.sleep(LOOK_S)
        if client.connected == away:
            away = not away
            printer.note("NATS is away; waiting" if away else "NATS is back")


@contextlib.contextmanager
def on_abandoned_output(call: Callable[[], None]) -> Iterator[None]:
    """Call ``call`` inside the block when whoever read stdout has gone."""
    watching = asyncio.create_task(_watch_output(call))
    try:
        yield
    finally:
        watching.cancel()


async def _watch_output(call: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        if stdout_is_abandoned():
            call()
            return


@contextlib.contextmanager
def on_signals(call: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM be ``call`` inside the block."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, call)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


class Patience:
    """How long a request is read: to its end, unless somebody interrupts.

    Leaving the ``limit`` as `TimeoutError` means that `interrupted`, `gave_up` or
    `abandoned` is set.
    """

    def __init__(self, wait_s: float | None = None) -> None:
        now = asyncio.get_running_loop().time()
        self.limit = asyncio.timeout_at(None if wait_s is None else now + wait_s)
        self.gave_up = wait_s is not None
        self.interrupted = False
        self.abandoned = False
        self._cancel: Callable[[], object] | None = None

    def begun(self, cancel: Callable[[], object]) -> None:
        """The request is submitted: the first interrupt shall ``cancel`` it."""
        self._cancel = cancel

    def started(self) -> None:
        """The first event is here: no more giving up."""
        if self.gave_up:
            self.gave_up = False
            if not self.interrupted:
                self.limit.reschedule(None)

    def abandon(self) -> None:
        """The output has no reader any more: leave at once."""
        self.abandoned = True
        if not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time())

    def interrupt(self) -> None:
        """Cancel the request and wait a moment for its end; again, do not wait."""
        if self.limit.expired():  # Leaving already.
            return
        now = asyncio.get_running_loop().time()
        again, self.interrupted = self.interrupted, True
        if again or self._cancel is None:
            self.limit.reschedule(now)
            return
        self.limit.reschedule(now + CANCELLED_WITHIN_S)
        note = "[cancelling; Ctrl-C again leaves at once]"
        click.echo(click.style(f"\n{note}", dim=True), err=True)
        self._cancel()


async def read(
    stream: Stream,
    printer: Printer,
    figures: Figures,
    on_first: Callable[[], None] = lambda: None,
) -> None:
    """Print the events as they come.

    Raises what iterating ``stream`` does, and `OutputLost` when the output is not
    taken.
    """
    first = True
    try:
        async for event in stream:
            if first:
                on_first()
                first = False
            if stream.truncated_to is not None:
                printer.truncate(stream.truncated_to)
            figures.take(event)
            printer.show(event)
    finally:
        printer.close()
