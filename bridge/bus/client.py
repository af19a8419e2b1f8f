"""nats-py's client with what this project needs otherwise: see `BusClient`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from bridge.bus.options import login_options
from bridge.config.urls import Login
from bridge.errors import SetupError

log = logging.getLogger(__name__)


#: What `BusClient` overrides and uses of nats-py beyond its public interface.
METHODS = ("_process_msg", "_process_headers", "_build_message", "_connect_command")
OF_A_CLIENT = ("_subs", "_current_server")
OF_A_SUBSCRIPTION = ("_cb", "_received")


class BusClient(Client):
    """Hands a message to its callback as soon as it is read.

    nats-py puts it into a queue of its subscription, whose task the loop wakes some
    turns later; an answer to a request costs that detour several times. Callbacks are
    called by the read loop instead, in the order of the wire, and so must not wait.

    A subject that is no UTF-8 does not end the read loop either, as it would nats-py's:
    any bytes make a subject, and a job published on such a one would be delivered again
    and again to take every worker down.

    ``logins``, by host and port, are those of servers that have one of their own.
    nats-py sends the login in a URL as it is, without percent-decoding it.
    """

    def __init__(self, logins: Mapping[str, Login] = MappingProxyType({})) -> None:
        super().__init__()
        self._logins = logins

    def _connect_command(self) -> bytes:
        server = self._current_server
        login = self._logins.get(server.uri.netloc) if server is not None else None
        self.options.update(login_options(login))
        return super()._connect_command()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        subscription = self._subs.get(sid)
        if subscription is None or subscription._cb is None:
            return
        subscription._received += 1
        parsed = await self._process_headers(headers) if headers else None
        try:
            message = self._build_message(sid, subject, reply, data, parsed)
            await subscription._cb(message)
        except Exception:
            # The read loop must outlive a defect of ours.
            log.exception("handling a message on %r failed", subject)

    def _build_message(
        self,
        sid: int,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: dict[str, str] | None,
    ) -> Any:
        try:
            return super()._build_message(sid, subject, reply, data, headers)
        except UnicodeDecodeError:
            subject, reply = _readable(subject), _readable(reply)
            return super()._build_message(sid, subject, reply, data, headers)


def check_fits(client: Client, subscription: Subscription) -> None:
    """Raises `SetupError` when nats-py is not built as `BusClient` expects."""
    missing = [name for name in METHODS if not hasattr(Client, name)]
    missing += [name for name in OF_A_CLIENT if not hasattr(client, name)]
    missing += [name for name in OF_A_SUBSCRIPTION if not hasattr(subscription, name)]
    if missing:
        raise SetupError(
            f"this version of nats-py does not fit: it has no {', '.join(missing)}; "
            "tokenbridge needs the version that it pins"
        )


#: What passes when the network or the server is back.
_RETRYABLE = (
    OSError,
    asyncio.TimeoutError,
    nats.errors.NoServersError,
    nats.errors.TimeoutError,
    nats.errors.ConnectionClosedError,
    nats.errors.UnexpectedEOF,
    nats.errors.StaleConnectionError,
)


def is_final(error: Exception) -> bool:
    """Whether a failure to connect is one that trying again cannot mend."""
    return isinstance(error, nats.errors.Error) and not isinstance(error, _RETRYABLE)


def _readable(subject: bytes) -> bytes:
    return subject.decode(errors="replace").encode()
