"""``tokenbridge ask``: submit a prompt, print the answer as it streams."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from bridge.cli import exit_codes
from bridge.cli.connecting import connected
from bridge.cli.event_loop import run
from bridge.cli.figures import Figures
from bridge.cli.logging import secrets_of, set_up
from bridge.cli.options import (
    TEXT,
    TOKEN,
    client_options,
    note_unreadable,
    settings_of,
)
from bridge.cli.output import OutputLost, discard_stdout, read_stdin
from bridge.cli.printers import make_printer, say_end, say_note
from bridge.cli.reading import (
    Patience,
    noting_outages,
    on_abandoned_output,
    on_signals,
    read,
)
from bridge.client import Client, Stream
from bridge.config import ClientSettings
from bridge.errors import BridgeError, BusError, ClientError

#: The model that is asked for where nobody names one: a backend without a list of
#: models takes any, and most that serve one model ignore the name.
DEFAULT_MODEL = "default"

#: As much as a NATS message can ever carry (the server's upper limit of max_payload).
MAX_PROMPT_BYTES = 64 * 1024 * 1024

#: So long without any event, and a note says what that may mean, in seconds.
SAY_QUEUED_AFTER_S = 3.0

EPILOG = """\b
Examples:
  tokenbridge ask "Why is the sky blue?"
  tokenbridge ask --model llama3.2 --system "One sentence." "Why is the sky blue?"
  tokenbridge ask --json "Why?" | jq -r 'select(.type == "token").text'
  git diff | tokenbridge ask --system "Review this change." -

Ctrl-C cancels the request, and so does closing the output. Exit code 0: completed,
1: failed, 2: wrong usage, 3: cancelled."""


@click.command("ask", epilog=EPILOG)
@click.argument("prompt", type=TEXT)
@click.option(
    "--system", type=TEXT, metavar="TEXT", help="A system message before the prompt."
)
@click.option("--model", metavar="NAME", help="The model  [default: default]")
@click.option("--lane", type=TOKEN, help="The lane that takes it  [default: default]")
@click.option("--id", type=TOKEN, help="The request's id  [default: a random one]")
@click.option("--session", type=TOKEN, help="The conversation that it belongs to.")
@click.option(
    "--supersede", is_flag=True, help="Cancel what the session has from before."
)
@click.option("--max-tokens", type=click.IntRange(1), help="At most so many tokens.")
@click.option("--temperature", type=click.FloatRange(0), help="For sampling.")
@click.option(
    "--deadline-ms",
    type=click.IntRange(1),
    help="Fail after so many milliseconds, queued or running.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Give up when no bridge has taken it after so long.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the events, one a line.")
@client_options
def command(
    prompt: str,
    model: str | None,
    lane: str | None,
    tenant: str | None,
    nats_url: str | None,
    config: str | None,
    as_json: bool,
    wait: float | None,
    **job: Any,
) -> int:
    """Submit PROMPT and print the answer as it streams.

    PROMPT of "-" is read from stdin. The text goes to stdout, everything else,
    a line of figures at the end included, to stderr.
    """
    if job["supersede"] and job["session"] is None:
        raise click.UsageError("--supersede needs a --session")
    settings = settings_of(
        ClientSettings,
        config,
        nats_url=nats_url,
        tenant=tenant,
        lane=lane,
        model=model,
    )
    set_up(settings.log_level, "auto", secrets_of(settings))
    text = _read_stdin() if prompt == "-" else prompt
    given = {name: value for name, value in job.items() if value is not None}
    return run(ask(settings, text, given, as_json=as_json, wait_s=wait))


async def ask(
    settings: ClientSettings,
    prompt: str,
    job: dict[str, Any],
    *,
    as_json: bool,
    wait_s: float | None,
) -> int:
    """Submit the job and print its events; the exit code.

    Raises `BridgeError` where nothing could be submitted, where no bridge has taken it
    within ``wait_s``, and where the connection is lost for good.
    """
    figures = Figures()
    async with connected(settings) as client:
        try:
            stream = client.stream(prompt, model=settings.model or DEFAULT_MODEL, **job)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        ran_before = "id" in job and await _has_log(client, stream.id)
        if ran_before:
            say_note(
                f"{stream.id} was asked before: this is its log, nothing was generated"
            )
        patience = Patience(wait_s)
        try:
            with on_signals(patience.interrupt):
                async with patience.limit, stream:
                    await _follow(client, stream, patience, figures, as_json)
        except TimeoutError as error:
            if not patience.limit.expired():
                raise
            if patience.abandoned:
                return _abandoned(stream)
            return _left_early(stream, patience, wait_s, error)
        except OutputLost as error:
            if not error.reader_gone:
                raise
            return _abandoned(stream)
    if not as_json:
        line = figures.logged_line() if ran_before else figures.line()
        click.echo(click.style(line, dim=True), err=True)
    return say_end(stream.end)


def _read_stdin() -> str:
    """The prompt on stdin. Raises `click.UsageError` where there is none."""
    try:
        data = read_stdin(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise click.UsageError(
            f"the prompt cannot be read from stdin: {error.strerror}"
        ) from error
    if len(data) > MAX_PROMPT_BYTES:
        raise click.UsageError(
            f"the prompt on stdin is larger than {MAX_PROMPT_BYTES} bytes"
        )
    if not data:
        raise click.UsageError("the prompt on stdin is empty, or stdin is closed")
    encoding = getattr(sys.stdin, "encoding", None) or "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        note_unreadable("the prompt on stdin")
        text = data.decode(encoding, "replace")
    return text.removeprefix("\ufeff")


async def _has_log(client: Client, id: str) -> bool:
    """Whether the request has begun, or ended, already."""
    async with client.join(id, wait_s=0) as stream:
        try:
            await anext(stream)
        except (ClientError, BusError):
            # Nothing of it; whatever else is wrong, submitting it will say.
            return False
    return True


async def _follow(
    client: Client,
    stream: Stream,
    patience: Patience,
    figures: Figures,
    as_json: bool,
) -> None:
    cancelling: list[asyncio.Task[None]] = []

    def cancel() -> None:
        cancelling.append(asyncio.create_task(_cancel(stream)))

    patience.begun(cancel)
    printer = make_printer(as_json)
    with (
        _note_when_queued(stream) as on_event,
        noting_outages(client, printer),
        on_abandoned_output(patience.abandon),
    ):
        await read(stream, printer, figures, lambda: _first(patience, on_event))
    for task in cancelling:
        await task


def _first(patience: Patience, timer: asyncio.TimerHandle) -> None:
    patience.started()
    timer.cancel()


@contextmanager
def _note_when_queued(stream: Stream) -> Iterator[asyncio.TimerHandle]:
    def note() -> None:
        say_note(
            f"{stream.id} is queued; is a bridge running that serves its lane? "
            "Try: tokenbridge check"
        )

    timer = asyncio.get_running_loop().call_later(SAY_QUEUED_AFTER_S, note)
    try:
        yield timer
    finally:
        timer.cancel()


async def _cancel(stream: Stream) -> None:
    try:
        await stream.cancel("interrupted")
    except BridgeError as error:
        click.echo(f"the cancel could not be stored: {error}", err=True)


def _abandoned(stream: Stream) -> int:
    """Say that leaving the stream has cancelled the request; the exit code."""
    discard_stdout()
    if stream.end is None:
        click.echo("cancelled: the output is not read any more", err=True)
    return exit_codes.CANCELLED


def _left_early(
    stream: Stream, patience: Patience, wait_s: float | None, error: TimeoutError
) -> int:
    if not patience.interrupted:
        raise ClientError(
            f"no bridge took {stream.id} within {wait_s:g} s, so it was cancelled; is "
            "one running that serves its lane? (tokenbridge serve, tokenbridge check)"
        ) from error
    click.echo(f"cancelled: left {stream.id} before its end was confirmed", err=True)
    return exit_codes.CANCELLED
