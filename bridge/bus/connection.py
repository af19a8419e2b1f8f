"""The connection to NATS: connect for ever, publish without waiting, ask and answer.

The one module that holds a nats-py client. Its exceptions stop here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bridge.bus.client import BusClient, check_fits, is_final
from bridge.bus.commands import TooLarge, command, headers_size
from bridge.bus.options import client_options, own_logins, server_urls
from bridge.bus.outbox import Outbox
from bridge.bus.questions import Question, Questions
from bridge.config import NatsSettings
from bridge.errors import BusError, ConnectionLost, NotPermitted, SetupError

log = logging.getLogger(__name__)

#: The oldest server with fast-ingest batches (ADR-50).
MINIMUM_SERVER = (2, 14)

#: While NATS is away, the log says so this often, in seconds.
SAY_EVERY_S = 5.0

Handler = Callable[[Msg], None]
Listener = Callable[[], None]
RefusalListener = Callable[[str, str], None]

#: What the server says of a subject that this user may not use. nats-py hands its
#: words on in lower case, the subject too.
REFUSAL = re.compile(r'permissions violation for (?:publish|subscription) to "([^"]+)"')


class Connection:
    """One connection to NATS that comes back by itself.

    Publishing is a plain call; whoever publishes much looks at ``outbox.congested``.
    A connection whose client ended up closed is useless for good: `closed` is set, and
    the process is expected to end or to build a new one. Making one raises
    `ConfigurationError` for a ``nats_url`` that is none.
    """

    def __init__(self, settings: NatsSettings, *, name: str) -> None:
        self._settings = settings
        self._servers = server_urls(settings)
        self._name = name
        self._client = BusClient()
        self._outbox = Outbox(self._client)
        self._subscriptions: list[Subscription] = []
        self._questions = Questions()
        self._inbox = ""
        self._deaf = ""
        self._closing = False
        self._last_error = ""
        self._failures: asyncio.Queue[Exception] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.on_disconnected: list[Listener] = []
        self.on_reconnected: list[Listener] = []
        #: Called with a subject that the server refused to this user, in lower case,
        #: and the server's words.
        self.on_refused: list[RefusalListener] = []
        #: How often the connection came back.
        self.reconnects = 0

    def __repr__(self) -> str:
        return f"<Connection {self._name} {self.state} {self.servers}>"

    @property
    def state(self) -> str:
        """``connected``, ``reconnecting``, ``closed`` or ``new``."""
        if self.closed.is_set():
            return "closed"
        if not self._inbox:
            return "new"
        return "connected" if self._client.is_connected else "reconnecting"

    @property
    def connected(self) -> bool:
        """Whether a publish goes to a server now."""
        return self._client.is_connected

    @property
    def servers(self) -> str:
        """The configured servers, without credentials."""
        return ", ".join(self._servers)

    @property
    def max_payload(self) -> int:
        """The server's limit for a message, headers included, in bytes."""
        return self._client.max_payload

    @property
    def server_version(self) -> str:
        """The version of the server that is connected."""
        version = self._client.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    @property
    def pending_bytes(self) -> int:
        """What is published and not yet taken by the socket, in bytes."""
        return self._outbox.pending_bytes

    @property
    def outbox(self) -> Outbox:
        """The way out for what is published most: see `Outbox.send`."""
        return self._outbox

    async def connect(self, *, wait: bool = True) -> None:
        """Connect; with ``wait`` try for ever and say so, else each server once.

        Raises `SetupError` for what retrying cannot mend (a server too old, refused
        credentials, a file that cannot be read) and, without ``wait``,
        `ConnectionLost`. May be cancelled.
        """
        options = client_options(self._settings, self._name)
        self._client = BusClient(own_logins(self._settings))
        self._outbox = Outbox(self._client)
        self._failures = asyncio.Queue()
        connecting = asyncio.ensure_future(self._connect(options))
        try:
            await self._watch(connecting, wait)
        except BaseException:
            # Again: before Python 3.12, a `wait_for` inside may swallow a cancel.
            while not connecting.done():
                connecting.cancel()
                await asyncio.wait([connecting], timeout=0.05)
            if not connecting.cancelled():
                connecting.exception()
            with contextlib.suppress(Exception):
                await self._client.close()
            raise
        self._check_version()
        self._outbox.open()
        self._inbox = self._client.new_inbox()
        answers = await self.subscribe(f"{self._inbox}.*", self._questions.answered)
        check_fits(self._client, answers)

    async def _connect(self, options: dict[str, Any]) -> None:
        await self._client.connect(
            **options,
            error_cb=self._error,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            closed_cb=self._closed,
        )

    async def _watch(self, connecting: asyncio.Future[None], wait: bool) -> None:
        """Wait for ``connecting``; nats-py itself never gives up nor says why."""
        servers = len(self._servers)
        failures = 0
        said_at = -SAY_EVERY_S
        while True:
            failure = asyncio.ensure_future(self._failures.get())
            both: set[asyncio.Future[Any]] = {connecting, failure}
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not failure.done():
                    failure.cancel()
            if connecting.done():
                connecting.result()
                return
            error = failure.result()
            failures += 1
            if is_final(error):
                raise SetupError(
                    f"NATS at {self.servers} refused the connection: {error}"
                ) from error
            reason = str(error) or type(error).__name__
            message = f"NATS at {self.servers} cannot be reached: {reason}"
            if not wait and failures >= servers:
                raise ConnectionLost(message) from error
            now = time.monotonic()
            if now - said_at >= SAY_EVERY_S:
                said_at = now
                log.warning("%s; trying again", message)

    def _check_version(self) -> None:
        version = self._client.connected_server_version
        if (version.major, version.minor) < MINIMUM_SERVER:
            raise SetupError(
                f"NATS at {self.servers} is nats-server {self.server_version}; "
                f"tokenbridge needs "
                f"{MINIMUM_SERVER[0]}.{MINIMUM_SERVER[1]} or newer (fast-ingest "
                "batches)"
            )

    def publish(
        self,
        subject: str,
        payload: bytes,
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Hand one message to the client; it is written when the loop turns.

        Nothing proves that it arrives. While the client reconnects it is pooled up to
        `PENDING_BYTES`. Raises `TooLarge` before anything is sent, and
        `ConnectionLost` when the client is closed or the pool is full.
        """
        self._outbox.send(self._command(subject, payload, reply, headers))

    def publish_along(self, subject: str, payload: bytes) -> None:
        """The same for what may wait: it goes with the next message, or by a sweep.

        It is lost with the connection: the next one may lead to another stream.
        """
        self._outbox.send_along(self._command(subject, payload, "", None))

    def sweep(self) -> None:
        """Called a few times a second: writes what went along with nothing."""
        self._outbox.flush()

    def _command(
        self, subject: str, payload: bytes, reply: str, headers: dict[str, str] | None
    ) -> bytes:
        if len(payload) + headers_size(headers) > self._client.max_payload:
            raise TooLarge(
                f"a message of {len(payload)} bytes on {subject} exceeds the server's "
                f"max_payload of {self._client.max_payload}"
            )
        self._outbox.make_room(len(payload))
        return command(subject, payload, reply, headers)

    async def request(
        self,
        subject: str,
        payload: bytes,
        *,
        timeout_s: float = 2.0,
        headers: dict[str, str] | None = None,
    ) -> Msg:
        """Publish and wait for one answer.

        Raises `ConnectionLost` when disconnected or when no answer came in time,
        `NotPermitted` when the server refuses the subject to this user, and
        `StreamUnavailable` when nobody listens there. May be cancelled.
        """
        question = self.ask(subject, payload, timeout_s=timeout_s, headers=headers)
        return await question.answer()

    def ask(
        self,
        subject: str,
        payload: bytes,
        *,
        timeout_s: float = 2.0,
        headers: dict[str, str] | None = None,
    ) -> Question:
        """Publish a request now, to wait for its answer later.

        Several that are asked in one turn of the loop share a write. Raises
        `ConnectionLost` when disconnected.
        """
        if not self.connected:
            raise ConnectionLost(f"not connected to NATS at {self.servers}")
        if self._deaf:
            raise NotPermitted(self._deaf)
        question = self._questions.expect(subject, timeout_s)
        try:
            self.publish(subject, payload, f"{self._inbox}.{question.token}", headers)
        except BusError:
            question.forget()
            raise
        return question

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Call ``handler`` for each message as it is read, one after the other."""

        async def received(message: Msg) -> None:
            handler(message)

        try:
            subscription = await self._client.subscribe(subject, cb=received)
        except nats.errors.Error as error:
            raise ConnectionLost(f"cannot subscribe to {subject}: {error}") from error
        self._subscriptions.append(subscription)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop a subscription; messages on their way are dropped."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        with contextlib.suppress(nats.errors.Error):
            await subscription.unsubscribe()

    async def drain(self, subscription: Subscription) -> None:
        """Stop a subscription after what the server has already sent is handled."""
        with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError):
            draining = subscription.drain()  # type: ignore[no-untyped-call]
            await asyncio.wait_for(draining, 2.0)
        await self.unsubscribe(subscription)

    def new_inbox(self) -> str:
        """A subject that only this connection listens to."""
        return self._client.new_inbox()

    async def flush(self, timeout_s: float = 2.0) -> None:
        """Wait until the server has read what was published before.

        nats-py's own flush overtakes pending publishes; a request does not. Raises
        `ConnectionLost`.
        """
        question = self._questions.expect("flush", timeout_s)
        try:
            self.publish(f"{self._inbox}.{question.token}", b"")
        except BusError:
            question.forget()
            raise
        await question.answer()

    async def close(self) -> None:
        """Write what is pending, then close. Safe to call twice."""
        self._closing = True
        self._outbox.flush()
        self._questions.close()
        with contextlib.suppress(Exception):
            await self._client.close()
        self.closed.set()

    async def _error(self, error: Exception) -> None:
        # Never raise here: nats-py's read loop would die with it.
        self._last_error = str(error) or type(error).__name__
        if not self._inbox:
            self._failures.put_nowait(error)
            return
        log.debug("NATS: %s", self._last_error)
        refusal = REFUSAL.search(self._last_error.lower())
        if refusal is not None:
            self._refused(refusal[1], self._last_error)

    def _refused(self, subject: str, words: str) -> None:
        if subject.startswith(self._inbox.lower()):
            # No answer to anything can be heard until the connection is another one.
            self._deaf = f"this NATS user may not subscribe to its inbox: {words}"
            self._questions.refuse(None, self._deaf)
        else:
            reason = f"this NATS user may not use {subject}: {words}"
            self._questions.refuse(subject, reason)
        _call(self.on_refused, subject, words)

    async def _disconnected(self) -> None:
        if not self._closing and self._inbox:
            log.warning("disconnected from NATS; reconnecting")
        self._outbox.forget_along()
        # The answers would come on this connection: whoever asked may ask again.
        self._questions.give_up("the connection to NATS was lost")
        _call(self.on_disconnected)

    async def _reconnected(self) -> None:
        self.reconnects += 1
        self._deaf = ""
        log.info("reconnected to NATS")
        _call(self.on_reconnected)

    async def _closed(self) -> None:
        if self._inbox:
            if not self._closing:
                log.error("the NATS client closed for good: %s", self._last_error)
            self.closed.set()


def _call(listeners: Sequence[Callable[..., None]], *arguments: str) -> None:
    for listener in list(listeners):
        try:
            listener(*arguments)
        except Exception:
            # nats-py's reconnect task must outlive a defect of ours.
            log.exception("a listener of the NATS connection failed")
