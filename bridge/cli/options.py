"""Options that several commands share, and the settings that they change."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from bridge.bus import options as nats_options
from bridge.cli.output import readable
from bridge.cli.printers import say_note
from bridge.config import ClientSettings, NatsSettings, Settings
from bridge.config.loading import ENVIRONMENT_PREFIX, load
from bridge.config.texts import trimmed, unquoted
from bridge.errors import ConfigurationError, SetupError
from bridge.subjects import InvalidToken, check_token

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", Settings, ClientSettings)


class TokenType(click.ParamType[str]):
    """A tenant, lane, id or session: one token of a subject."""

    name = "name"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """``value``, trimmed, where it fits into a subject."""
        try:
            return check_token(
                trimmed(str(value)), param.name or "name" if param else "name"
            )
        except InvalidToken as error:
            self.fail(str(error), param, ctx)


class TextType(click.ParamType[str]):
    """Any text. Bytes of the command line that are no UTF-8 are replaced, and noted."""

    name = "text"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """``value`` as a job can carry it."""
        text = readable(str(value))
        if text != value:
            note_unreadable(param.human_readable_name if param else "a text")
        return text


TOKEN = TokenType()
TEXT = TextType()


def note_unreadable(what: str) -> None:
    """Say that ``what`` was not read as it is."""
    say_note(f"{what} is not all UTF-8; U+FFFD stands for what cannot be read")


def config_option(command: F) -> F:
    """``--config FILE``."""
    return click.option(
        "--config",
        metavar="FILE",
        envvar=f"{ENVIRONMENT_PREFIX}CONFIG",
        help="A TOML file with settings; TOKENBRIDGE_* variables win over it.",
    )(command)


def nats_option(command: F) -> F:
    """``--nats-url URL``."""
    return click.option(
        "--nats-url",
        metavar="URL",
        help="Where NATS is  [default: nats://127.0.0.1:4222]",
    )(command)


def client_options(command: F) -> F:
    """What every command takes that talks to a running bridge."""
    for option in (
        click.option(
            "--tenant", type=TOKEN, help="Whose request it is  [default: default]"
        ),
        nats_option,
        config_option,
    ):
        command = option(command)
    return command


def settings_of(kind: type[S], config: str | None, **changes: object) -> S:
    """Load the settings; a ``change`` that is not ``None`` wins over all else.

    Raises `ConfigurationError`.
    """
    if config is not None:
        config = unquoted(config)
    environ = dict(os.environ)
    for name, value in changes.items():
        if value is not None:
            environ[f"{ENVIRONMENT_PREFIX}{name.upper()}"] = str(value)
    settings = load(kind, environ, config)
    check_files(settings)
    return settings


def check_files(settings: NatsSettings) -> None:
    """Read what the settings of NATS name, before anything is started.

    Raises `ConfigurationError`.
    """
    try:
        nats_options.client_options(settings, "tokenbridge")
    except SetupError as error:
        raise ConfigurationError(str(error)) from error
