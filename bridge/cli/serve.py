"""``tokenbridge serve``: the bridge, until it is told to drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal

import click

from bridge.cli import exit_codes
from bridge.cli.event_loop import LOOPS, run
from bridge.cli.logging import secrets_of, set_up
from bridge.cli.options import config_option, nats_option, settings_of
from bridge.config import Settings
from bridge.service import Service

log = logging.getLogger(__name__)

EPILOG = """\b
Examples:
  TOKENBRIDGE_BACKEND_URL=http://127.0.0.1:11434/v1 tokenbridge serve
  tokenbridge serve --config bridge.toml

The first SIGTERM or Ctrl-C drains: running requests finish (for at most
TOKENBRIDGE_DRAIN_TIMEOUT_S), the rest is handed to another bridge, and the exit code
is 0. A second one stops at once."""


@click.command("serve", epilog=EPILOG)
@config_option
@nats_option
@click.option(
    "--backend-url",
    metavar="URL",
    help="The LLM's base, ending in /v1  [default: TOKENBRIDGE_BACKEND_URL]",
)
@click.option("--loop", type=click.Choice(LOOPS), default="auto", hidden=True)
def command(
    config: str | None, nats_url: str | None, backend_url: str | None, loop: str
) -> int:
    """Run the bridge.

    Takes jobs from NATS, has them answered by an LLM backend, and publishes each
    answer's deltas, numbered and logged.
    """
    settings = settings_of(Settings, config, nats_url=nats_url, backend_url=backend_url)
    set_up(settings.log_level, settings.log_format, secrets_of(settings))
    return run(serve(settings), loop)


async def serve(settings: Settings) -> int:
    """Serve until drained or stopped; the exit code.

    Raises what `Service.run` raises.
    """
    service = Service(settings)
    stopped = drain_on_signals(service)
    spare_the_collector()
    await service.run()
    return exit_codes.FAILED if stopped.is_set() else exit_codes.COMPLETED


def spare_the_collector() -> None:
    """Keep the garbage collector off what never becomes garbage.

    By default a process with thousands of streams is looked through, whole, every few
    seconds, and all their tokens wait for it. A request leaves few cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def drain_on_signals(service: Service) -> asyncio.Event:
    """Let the first SIGTERM or SIGINT drain ``service`` and the second one stop it.

    Returns an event that is set when it was the second.
    """
    draining, stopped = asyncio.Event(), asyncio.Event()

    def received(name: str) -> None:
        if draining.is_set():
            log.warning("%s again: stopping at once", name)
            stopped.set()
            service.stop()
            return
        log.info("%s: draining; the next one stops at once", name)
        draining.set()
        service.drain()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number.name)
    return stopped
