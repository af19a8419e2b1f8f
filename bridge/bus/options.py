"""The settings of a connection in nats-py's terms."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections import UserString
from typing import Any

from bridge.bus.outbox import PENDING_BYTES
from bridge.config import NatsSettings
from bridge.config.texts import read_text, shown
from bridge.config.urls import Login, nats_servers
from bridge.errors import ConfigurationError, SetupError

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
        path = settings.nats_credentials_file
        options["user_credentials"] = CredentialsFile(path)
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


class CredentialsFile(UserString):
    """A ``.creds`` file, read again for each login, since its JWT may be renewed.

    nats-py takes such a text in place of a path. Reading the file itself it would keep
    the line ends of Windows, and never come to the end of one without a JWT. Making one
    raises `SetupError`; later a file that is not whole is not used.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._last = _credentials(path)

    @property
    def data(self) -> str:  # type: ignore[override]
        """The file's JWT and seed, in the form that nats-py reads."""
        with contextlib.suppress(SetupError):
            self._last = _credentials(self._path)
        return self._last

    def __repr__(self) -> str:
        return f"<CredentialsFile {self._path}>"

    __str__ = __repr__


_CREDENTIALS = re.compile(
    r"-BEGIN NATS USER JWT-+\s+(?P<jwt>[\w.-]+)\s+-+END NATS USER JWT-"
    r".*-BEGIN USER NKEY SEED-+\s+(?P<seed>\w+)\s+-+END USER NKEY SEED-",
    re.DOTALL | re.ASCII,
)


def _credentials(path: str) -> str:
    """What the file at ``path`` holds. Raises `SetupError`."""
    try:
        text = read_text(path)
    except ConfigurationError as error:
        raise SetupError(f"nats_credentials_file: {error}") from error
    found = _CREDENTIALS.search(text)
    if found is None or not _is_seed(found["seed"]):
        raise SetupError(
            f"nats_credentials_file: {shown(path)} has no user's JWT and NKey seed, as "
            "nsc writes them"
        )
    return (
        f"-----BEGIN NATS USER JWT-----\n{found['jwt']}\n"
        "------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{found['seed']}\n"
        "------END USER NKEY SEED------\n"
    )


def _is_seed(text: str) -> bool:
    # Loaded here: few have such a file, and it takes its time.
    import nkeys  # type: ignore[import-untyped]

    try:
        nkeys.from_seed(bytearray(text.encode()))
    except Exception:
        # It raises what its decoders do: binascii's, its own, an IndexError.
        return False
    return True


def tls_context(settings: NatsSettings) -> ssl.SSLContext | None:
    """The TLS context that the settings ask for, or ``None``.

    Raises `SetupError` when a file cannot be used.
    """
    ca_file, cert_file = settings.nats_ca_file, settings.nats_cert_file
    servers = nats_servers(settings.nats_url)
    tls = any(server.url.startswith("tls://") for server in servers)
    if not (ca_file or cert_file or tls):
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError) as error:
        raise _unusable(f"nats_ca_file ({shown(ca_file)})", error) from error
    if cert_file:
        try:
            # A password, or OpenSSL would ask the terminal for one.
            context.load_cert_chain(cert_file, settings.nats_key_file, password="")
        except (OSError, ValueError) as error:
            both = f"{shown(cert_file)}, {shown(settings.nats_key_file)}"
            raise _unusable(
                f"nats_cert_file or nats_key_file ({both})", error
            ) from error
    return context


def _unusable(what: str, error: Exception) -> SetupError:
    return SetupError(f"the TLS files of NATS cannot be used: {what}: {error}")
