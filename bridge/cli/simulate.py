"""``tokenbridge simulate``: the LLM stand-in as an HTTP server."""

from __future__ import annotations

import contextlib
from typing import Any

import click
import msgspec

from bridge.cli import exit_codes
from bridge.cli.event_loop import run
from bridge.cli.logging import set_up
from bridge.config.texts import read_text, shown
from bridge.errors import ConfigurationError
from bridge.simulator import Behaviour, InvalidBehaviour, Simulator
from bridge.simulator import run as run_simulator

DEFAULT_PORT = 8089

EPILOG = """\b
Examples:
  tokenbridge simulate --first-token-ms 200 --tokens-per-second 40
  tokenbridge simulate --faults '{"reset_after": 20, "times": 1}'
  TOKENBRIDGE_BACKEND_URL=http://127.0.0.1:8089/v1 tokenbridge serve"""


@click.command("simulate", epilog=EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="The port; 0 takes a free one.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Serve this model (several times for several)  [default: any]",
)
@click.option(
    "--first-token-ms",
    type=click.FloatRange(0),
    metavar="MS",
    help="Time to the first token  [default: 0]",
)
@click.option(
    "--tokens-per-second",
    type=click.FloatRange(0),
    metavar="N",
    help="The pace of each answer; 0: as fast as possible  [default: 0]",
)
@click.option(
    "--jitter",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="By which share of its interval a token may be off  [default: 0]",
)
@click.option(
    "--behaviour",
    "behaviour_file",
    metavar="FILE",
    help="A JSON object with any field of the simulator's Behaviour.",
)
@click.option(
    "--faults",
    metavar="JSON",
    help="The same as a text; wins over the file, and the other options over both.",
)
def command(
    host: str,
    port: int,
    models: tuple[str, ...],
    behaviour_file: str | None,
    faults: str | None,
    **pace: float | None,
) -> int:
    """Run an HTTP server that stands in for an LLM.

    It answers OpenAI's /v1/chat/completions and /v1/models with a text that depends
    on the request alone, at the pace and with the faults that it is told to have.
    """
    behaviour = behaviour_of(behaviour_file, faults, pace)
    set_up("warning")
    # Ctrl-C is how it ends.
    with contextlib.suppress(KeyboardInterrupt):
        run(
            run_simulator(host, port, behaviour, models=models or ("*",), on_ready=_say)
        )
    return exit_codes.COMPLETED


def behaviour_of(
    file: str | None, faults: str | None, pace: dict[str, float | None]
) -> Behaviour:
    """The behaviour that the options ask for.

    Raises `ConfigurationError` naming the option, and the field where one is wrong.
    """
    behaviour = Behaviour()
    for option, text in (("--behaviour", _read(file)), ("--faults", faults)):
        if text is not None:
            behaviour = _override(behaviour, option, _object(option, text))
    given = {name: value for name, value in pace.items() if value is not None}
    return _override(behaviour, "the pace", given)


def _override(behaviour: Behaviour, what: str, fields: dict[str, Any]) -> Behaviour:
    try:
        return behaviour.override(fields)
    except InvalidBehaviour as error:
        raise ConfigurationError(f"{what}: {error}") from error


def _read(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        return read_text(file)
    except ConfigurationError as error:
        raise ConfigurationError(f"--behaviour: {error}") from error


def _object(option: str, text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConfigurationError(
            f'{option} must be a JSON object, such as {{"stall_after": 10}} '
            f"({shown(str(error))})"
        ) from error


def _say(simulator: Simulator) -> None:
    click.echo(f"The simulator listens on {simulator.url} (Ctrl-C ends it).")
    click.echo(f"Try:  curl {simulator.url}/models")
    click.echo(f"      TOKENBRIDGE_BACKEND_URL={simulator.url} tokenbridge serve")
