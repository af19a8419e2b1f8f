"""Logs on stderr: JSON where that is no terminal, and never a secret in them.

The package logs by the standard library, as do nats-py and httpx; structlog renders
their records, and every key of ``extra`` comes out as a field.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from bridge.cli.imports import lean
from bridge.config import NatsSettings, Secret, Settings, read_secret

if TYPE_CHECKING:
    from structlog.typing import Processor

#: A line per HTTP request, or per open socket, is noise where we log requests
#: ourselves: shown from ``debug`` on.
CHATTY = ("httpx", "httpcore", "aiohttp", "nats", "asyncio")

_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s,\"'\\]+@", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"(\b(?:Bearer|Basic)\s+)[\w.~+/=-]{4,}", re.IGNORECASE)

#: Shorter ones are left alone: a secret of three letters would blank half the log.
MIN_SECRET_CHARS = 4

HIDDEN = "***"


def set_up(level: str, format: str = "auto", secrets: Iterable[str] = ()) -> None:
    """Send all logs to stderr, from ``level`` on.

    ``format``: ``json``, ``console``, or ``auto`` for JSON where stderr is no
    terminal. Every text of ``secrets`` is blanked, and so are credentials in URLs.
    """
    colours = sys.stderr.isatty()
    as_json = format == "json" or (format == "auto" and not colours)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Redacted(_formatter(as_json, colours), secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    chatty = level if level == "debug" else "warning"
    for name in CHATTY:
        logging.getLogger(name).setLevel(
            max(logging.getLevelName(chatty.upper()), root.level)
        )
    logging.captureWarnings(True)


class Redacted(logging.Formatter):
    """Another formatter's lines, with what is secret blanked."""

    def __init__(self, inner: logging.Formatter, secrets: Iterable[str]) -> None:
        super().__init__()
        self._inner = inner
        known = {secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS}
        # As they stand, and as they look inside a JSON string.
        known |= {json.dumps(secret, ensure_ascii=False)[1:-1] for secret in known}
        longest_first = sorted(known, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def format(self, record: logging.LogRecord) -> str:
        """One line (or, with a traceback on a terminal, several)."""
        line = self._secrets.sub(HIDDEN, self._inner.format(record))
        line = _USERINFO.sub(rf"\1{HIDDEN}@", line)
        return _AUTHORIZATION.sub(rf"\1{HIDDEN}", line)


def secrets_of(settings: NatsSettings) -> set[str]:
    """Every secret text that the settings hold or whose file they name.

    Raises `ConfigurationError` where a file cannot be read.
    """
    secrets = [settings.nats_password, settings.nats_token]
    if isinstance(settings, Settings):
        for backend in settings.all_backends():
            path = backend.api_key_file
            stored = read_secret(Secret(), path, "backend_api_key_file")
            secrets += [backend.api_key, stored]
    return {secret.reveal() for secret in secrets if secret}


def _formatter(as_json: bool, colours: bool) -> logging.Formatter:
    with lean():
        import structlog

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor]
    if as_json:
        last = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ]
    else:
        plain = structlog.dev.plain_traceback
        last = [
            structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _to_json(event: dict[str, Any], **_: Any) -> str:
    first = {key: event[key] for key in ("timestamp", "level", "logger", "event")}
    return msgspec.json.encode({**first, **event}, enc_hook=repr).decode()
