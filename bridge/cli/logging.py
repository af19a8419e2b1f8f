"""Logs on stderr: JSON where that is no terminal, and never a secret in them.

The package logs by the standard library, as do nats-py and httpx, and every key of
``extra`` comes out as a field. For people, structlog renders the records; JSON is
written here, since every request leaves a line, and structlog's took a seventh of the
time that a request takes.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from bridge.cli.imports import lean
from bridge.config import NatsSettings, Settings, api_key_of
from bridge.config.urls import backend_address, secrets_in
from bridge.errors import HIDDEN, MIN_SECRET_CHARS

#: A line per HTTP request, or per open socket, is noise where we log requests
#: ourselves: shown from ``debug`` on.
CHATTY = ("httpx", "httpcore", "aiohttp", "nats", "asyncio")

_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s,\"'\\]+@", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"(\b(?:Bearer|Basic)\s+)[\w.~+/=-]{4,}", re.IGNORECASE)


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
    # Nothing shows where a record was logged, by which thread or process, so nothing
    # need find it out ("Optimization" in Python's Logging HOWTO).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class Redacted(logging.Formatter):
    """Another formatter's lines, with what is secret blanked."""

    def __init__(self, inner: logging.Formatter, secrets: Iterable[str]) -> None:
        super().__init__()
        self._inner = inner
        known = {secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS}
        # As they stand, and as they look inside a JSON string.
        known |= {json.dumps(secret, ensure_ascii=False)[1:-1] for secret in known}
        longest_first = sorted(known, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first)))

    def format(self, record: logging.LogRecord) -> str:
        """One line (or, with a traceback on a terminal, several)."""
        line = self._inner.format(record)
        if self._secrets.pattern:
            line = self._secrets.sub(HIDDEN, line)
        # Looking for a word first is a tenth of looking for the pattern.
        if "://" in line:
            line = _USERINFO.sub(rf"\1{HIDDEN}@", line)
        if _has_scheme(line.lower()):
            line = _AUTHORIZATION.sub(rf"\1{HIDDEN}", line)
        return line


def _has_scheme(line: str) -> bool:
    return "bearer" in line or "basic" in line


class JsonLines(logging.Formatter):
    """A record as one line of JSON: timestamp, level, logger, event, and the extra."""

    def format(self, record: logging.LogRecord) -> str:
        """What is no JSON is shown by its ``repr``."""
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        extra = record.__dict__.items()
        line.update({key: value for key, value in extra if key not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return _encode(line).decode()


#: What every record has; anything beyond came with ``extra``.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}

_encode = msgspec.json.Encoder(enc_hook=repr).encode


def secrets_of(settings: NatsSettings) -> set[str]:
    """Every secret text that the settings hold or whose file they name.

    Raises `ConfigurationError` where a file cannot be read or has no usable key.
    """
    secrets = [settings.nats_password, settings.nats_token]
    urls = [settings.nats_url]
    if isinstance(settings, Settings):
        urls.append(settings.backend_https_proxy)
        for backend in settings.all_backends():
            urls.append(backend.url)
            secrets += [
                backend.api_key,
                api_key_of(backend),
                backend_address(backend.url).authorization,
            ]
    revealed = {secret.reveal() for secret in secrets if secret}
    return revealed.union(*map(secrets_in, urls))


def _formatter(as_json: bool, colours: bool) -> logging.Formatter:
    if as_json:
        return JsonLines()
    with lean():
        import structlog
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.dev.ConsoleRenderer(
                colors=colours, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
    )
