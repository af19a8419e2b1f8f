"""``tokenbridge``: the table of its commands, and how their errors end."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

import click

from bridge.cli import exit_codes
from bridge.cli.imports import lean
from bridge.cli.output import (
    CONTROL,
    OutputLost,
    discard_stdout,
    open_standard_streams,
)
from bridge.errors import BridgeError, ConfigurationError

#: What `--help` lists, in the order of a first visit. The modules are imported when
#: their command is called: `serve` shall not wait for what only `demo` needs.
COMMANDS = {
    "demo": "Show requests streaming over NATS, all on this machine.",
    "dev": "Keep NATS, a bridge and a backend up for development.",
    "ask": "Submit a prompt and print the answer as it streams.",
    "tail": "Read a running or ended request.",
    "cancel": "Cancel a request, or all that a session has.",
    "serve": "Run the bridge.",
    "check": "See whether NATS and the backends are fit for the bridge.",
    "simulate": "Run an HTTP server that stands in for an LLM.",
}

#: The commands that draw on the terminal.
WITH_RICH = {"demo"}

EPILOG = """\b
Examples:
  tokenbridge demo
  tokenbridge dev                        # in one terminal, and in another:
  tokenbridge ask "Why is the sky blue?"
  TOKENBRIDGE_BACKEND_URL=http://127.0.0.1:11434/v1 tokenbridge serve

Settings come from TOKENBRIDGE_* variables and from the file of --config."""


class Program(click.Group):
    """A group that knows its commands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported; ``None`` where there is no such one."""
        if cmd_name not in COMMANDS:
            return None
        name = f"bridge.cli.{cmd_name}"
        with contextlib.nullcontext() if cmd_name in WITH_RICH else lean():
            module = importlib.import_module(name)
        command: click.Command = module.command
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Program,
    name="tokenbridge",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
@click.version_option(package_name="tokenbridge", prog_name="tokenbridge")
def program() -> None:
    """LLM token streams on NATS: numbered, logged, resumable, cancellable."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: the entry point of ``tokenbridge``.

    Every error that tokenbridge knows is one line on stderr: exit code 2 for a wrong
    setting or usage, 1 for the rest.
    """
    open_standard_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except OutputLost as error:
        discard_stdout()
        code = exit_codes.READER_GONE
        if not error.reader_gone:
            say_error(str(error))
            code = exit_codes.FAILED
    sys.exit(code)


def _run(arguments: list[str] | None) -> int:
    try:
        code: Any = program.main(
            arguments, prog_name="tokenbridge", standalone_mode=False
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return exit_codes.WRONG_USAGE
    except click.UsageError as error:
        say_error(error.format_message() + _see(error))
        return exit_codes.WRONG_USAGE
    except click.ClickException as error:
        say_error(error.format_message())
        return exit_codes.FAILED
    except ConfigurationError as error:
        say_error(str(error))
        return exit_codes.WRONG_USAGE
    except OutputLost:
        raise
    except BridgeError as error:
        say_error(str(error))
        return exit_codes.FAILED
    except (click.Abort, KeyboardInterrupt):
        return exit_codes.INTERRUPTED
    return code if isinstance(code, int) else exit_codes.COMPLETED


def _see(error: click.UsageError) -> str:
    return f" (see: {error.ctx.command_path} --help)" if error.ctx is not None else ""


def say_error(message: str) -> None:
    """Print ``message`` as the one line that an error is."""
    line = CONTROL.sub("", " ".join(message.split()))
    click.echo(f"{click.style('error:', fg='red', bold=True)} {line}", err=True)
