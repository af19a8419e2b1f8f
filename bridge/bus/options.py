"""The settings of a connection in nats-py's terms."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from bridge.bus.outbox import PENDING_BYTES
from bridge.config import NatsSettings
from bridge.config.urls import Login, nats_servers
from bridge.errors import SetupError

#: nats-py pings are outstanding for at most this many intervals.
PINGS_OUTSTANDING = 2


def client_options(settings: NatsSettings, name: str) -> dict[str, Any]:
    """What nats-py's ``connect`` is given, but for the callbacks.

    Raises `SetupError` for a file that cannot be read, and `ConfigurationError` for a
    URL that is none.
    """
    servers = nats_servers(settings.nats_url)
    options: dict[str, Any] = {
        "servers": [server.url for server in servers],
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
    if not (settings.nats_user or settings.nats_token):
        # The first server's login is also that of servers that the cluster tells of.
        logins = (server.login for server in servers if server.login is not None)
        options |= login_options(next(logins, None))
    if settings.nats_credentials_file:
        options["user_credentials"] = _credentials(settings.nats_credentials_file)
    context = tls_context(settings)
    if context is not None:
        options["tls"] = context
    return options


def login_options(login: Login | None) -> dict[str, Any]:
    """A server's login in nats-py's terms; a user without a password is a token."""
    if login is None:
        return {}
    if login.password is None:
        return {"user": None, "password": None, "token": login.user}
    return {"user": login.user, "password": login.password, "token": None}


def own_logins(settings: NatsSettings) -> dict[str, Login]:
    """The logins of the servers that have one in their URL, by host and port.

    None where ``nats_user`` or ``nats_token`` is set, which win. Raises
    `ConfigurationError` for a URL that is none.
    """
    if settings.nats_user or settings.nats_token:
        return {}
    servers = nats_servers(settings.nats_url)
    return {
        server.url.partition("://")[2]: server.login
        for server in servers
        if server.login is not None
    }


def server_urls(settings: NatsSettings) -> list[str]:
    """The configured servers, without their logins."""
    return [server.url for server in nats_servers(settings.nats_url)]


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


def tls_context(settings: NatsSettings) -> ssl.SSLContext | None:
    """The TLS context that the settings ask for, or ``None``.

    Raises `SetupError` when a file cannot be read.
    """
    wanted = settings.nats_ca_file or settings.nats_cert_file
    servers = nats_servers(settings.nats_url)
    if not wanted and not any(server.url.startswith("tls://") for server in servers):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.nats_ca_file or None)
        if settings.nats_cert_file:
            context.load_cert_chain(settings.nats_cert_file, settings.nats_key_file)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"the TLS files of NATS cannot be used: {error}") from error
    return context
