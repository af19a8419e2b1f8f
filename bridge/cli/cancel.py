"""``tokenbridge cancel``: end a request, or all that a session has."""

from __future__ import annotations

import click

from bridge.cli import exit_codes
from bridge.cli.connecting import connected
from bridge.cli.event_loop import run
from bridge.cli.logging import secrets_of, set_up
from bridge.cli.options import TEXT, TOKEN, client_options, settings_of
from bridge.config import ClientSettings

EPILOG = """\b
Examples:
  tokenbridge cancel req-7f3a
  tokenbridge cancel --session call-42 --reason "caller hung up"

Cancelling what has ended does nothing. Exit code 0: the cancel is stored."""


@click.command("cancel", epilog=EPILOG)
@click.argument("id", type=TOKEN, required=False)
@click.option("--session", type=TOKEN, help="Cancel all that this session has.")
@click.option(
    "--reason",
    type=TEXT,
    default="cancelled by hand",
    show_default=True,
    metavar="TEXT",
    help="What the cancelled event says.",
)
@client_options
def command(
    id: str | None,
    session: str | None,
    reason: str,
    tenant: str | None,
    nats_url: str | None,
    config: str | None,
) -> int:
    """Cancel the request ID, or all that a session has."""
    if (id is None) == (session is None):
        raise click.UsageError("give an ID, or a --session")
    settings = settings_of(ClientSettings, config, nats_url=nats_url, tenant=tenant)
    set_up(settings.log_level, "auto", secrets_of(settings))
    return run(cancel(settings, id, session, reason))


async def cancel(
    settings: ClientSettings, id: str | None, session: str | None, reason: str
) -> int:
    """Publish the cancel; the exit code. Raises what `Client.cancel` raises."""
    async with connected(settings) as client:
        if id is not None:
            await client.cancel(id, reason=reason)
        elif session is not None:
            await client.cancel_session(session, reason=reason)
    return exit_codes.COMPLETED
