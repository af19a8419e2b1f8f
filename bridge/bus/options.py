"""The settings of a connection in nats-py's terms."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bridge.bus.outbox import PENDING_BYTES
from bridge.config import NatsSettings
from bridge.errors import SetupError

#: nats-py pings are outstanding for at most this many intervals.
PINGS_OUTSTANDING = 2


def client_options(settings: NatsSettings, name: str) -> dict[str, Any]:
    """What nats-py's ``connect`` is given, but for the callbacks.

    Raises `SetupError` for a file that cannot be read.
    """
    options: dict[str, Any] = {
        "servers": server_urls(settings),
        "name": name,
        "allow_reconnect": True,
        "connect_timeout": settings.nats_connect_timeout_s,
        "reconnect_time_wait": settings.nats_reconnect_wait_s,
        "max_reconnect_attempts": -1,
        "ping_interval": settings.nats_ping_interval_s,
        "max_outstanding_pings": PINGS_OUTSTANDING,
        "pending_size": PENDING_BYTES,
        # `bridge.subjects` has checked every token already.
        "skip_subject_validation": True,
    }
    if settings.nats_user:
        options["user"] = settings.nats_user
        options["password"] = settings.nats_password.reveal()
    if settings.nats_token:
        options["token"] = settings.nats_token.reveal()
    if settings.nats_credentials_file:
        options["user_credentials"] = _credentials(settings.nats_credentials_file)
    context = tls_context(settings)
    if context is not None:
        options["tls"] = context
    return options


def server_urls(settings: NatsSettings) -> list[str]:
    """The configured servers, credentials and all."""
    return [url.strip() for url in settings.nats_url.split(",")]


def _credentials(path: str) -> str:
    """The path of a credentials file that can be read.

    Raises `SetupError`: nats-py would try to connect with it for ever.
    """
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise SetupError(
            f"nats_credentials_file: cannot read {path}: {error.strerror}"
        ) from error
    return path


def redact(url: str) -> str:
    """A NATS URL without user, password or token."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}:{parts.port or 4222}"


def tls_context(settings: NatsSettings) -> ssl.SSLContext | None:
    """The TLS context that the settings ask for, or ``None``.

    Raises `SetupError` when a file cannot be read.
    """
    wanted = settings.nats_ca_file or settings.nats_cert_file
    if not wanted and "tls://" not in settings.nats_url:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.nats_ca_file or None)
        if settings.nats_cert_file:
            context.load_cert_chain(settings.nats_cert_file, settings.nats_key_file)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"the TLS files of NATS cannot be used: {error}") from error
    return context
