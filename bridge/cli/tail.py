"""``tokenbridge tail``: read a running or ended request from its log."""

from __future__ import annotations

import click

from bridge.cli import exit_codes
from bridge.cli.connecting import connected
from bridge.cli.event_loop import run
from bridge.cli.figures import Figures
from bridge.cli.logging import secrets_of, set_up
from bridge.cli.options import TOKEN, client_options, settings_of
from bridge.cli.printers import make_printer, say_end
from bridge.cli.reading import noting_outages, read
from bridge.config import ClientSettings

EPILOG = """\b
Examples:
  tokenbridge tail req-7f3a
  tokenbridge tail req-7f3a --from-seq 120 --json

Ctrl-C ends the reading, not the request. Exit code 0: completed, 1: failed or not
found, 3: cancelled, 141: the output is not read any more."""


@click.command("tail", epilog=EPILOG)
@click.argument("id", type=TOKEN)
@click.option(
    "--from-seq",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="The first event to print.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for an unknown id, in seconds.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the events, one a line.")
@client_options
def command(
    id: str,
    from_seq: int,
    wait: float,
    as_json: bool,
    tenant: str | None,
    nats_url: str | None,
    config: str | None,
) -> int:
    """Read the running or ended request ID.

    From its log, and live where it still runs.
    """
    settings = settings_of(ClientSettings, config, nats_url=nats_url, tenant=tenant)
    set_up(settings.log_level, "auto", secrets_of(settings))
    return run(tail(settings, id, from_seq, wait_s=wait, as_json=as_json))


async def tail(
    settings: ClientSettings, id: str, from_seq: int, *, wait_s: float, as_json: bool
) -> int:
    """Print the events of a request from ``from_seq`` on; the exit code.

    Raises `NothingInLog` where nothing of it came within ``wait_s``.
    """
    figures = Figures()
    async with connected(settings) as client:
        async with client.join(id, from_seq=from_seq, wait_s=wait_s) as stream:
            printer = make_printer(as_json)
            with noting_outages(client, printer):
                await read(stream, printer, figures)
        if not as_json:
            click.echo(click.style(figures.logged_line(), dim=True), err=True)
        return say_end(stream.end) if stream.end else exit_codes.FAILED
