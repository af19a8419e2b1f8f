"""Options that several commands share, and the settings that they change."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from bridge.config import ClientSettings, Settings
from bridge.config.loading import ENVIRONMENT_PREFIX, load
from bridge.subjects import InvalidToken, check_token

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", Settings, ClientSettings)


class TokenType(click.ParamType[str]):
    """A tenant, lane, id or session: one token of a subject."""

    name = "name"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """``value`` itself where it fits into a subject."""
        try:
            return check_token(str(value), param.name or "name" if param else "name")
        except InvalidToken as error:
            self.fail(str(error), param, ctx)


TOKEN = TokenType()


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
    environ = dict(os.environ)
    for name, value in changes.items():
        if value is not None:
            environ[f"{ENVIRONMENT_PREFIX}{name.upper()}"] = str(value)
    return load(kind, environ, config)
