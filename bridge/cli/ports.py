"""Ports on this machine: are they free, and what is there if not."""

from __future__ import annotations

import contextlib
import errno
import socket

from bridge.config.texts import without_brackets
from bridge.errors import ConfigurationError

#: A NATS server greets at once; whatever else is there may say nothing at all.
GREETING_TIMEOUT_S = 0.5


def check_free(port: int, what: str, advice: str, host: str = "127.0.0.1") -> None:
    """Make sure that ``what`` can listen on ``port``; 0 always can.

    Raises `ConfigurationError`: who has the port, and ``advice``.
    """
    try:
        _try(without_brackets(host), port)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            owner = "a NATS server listens there" if greets_as_nats(port) else ""
            reason = f"the port is taken{f' ({owner})' if owner else ''}"
        else:
            reason = getattr(error, "strerror", None) or "that is no address"
        raise ConfigurationError(
            f"{what} cannot listen on {host}:{port}: {reason}; {advice}"
        ) from error


def _try(host: str, port: int) -> None:
    """Bind to the first address of ``host``. Raises `OSError` and `ValueError`."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


def greets_as_nats(port: int) -> bool:
    """Whether what listens on loopback's ``port`` begins as a NATS server does."""
    with contextlib.suppress(OSError):
        address = ("127.0.0.1", port)
        with socket.create_connection(address, GREETING_TIMEOUT_S) as connection:
            connection.settimeout(GREETING_TIMEOUT_S)
            return connection.recv(5) == b"INFO "
    return False
