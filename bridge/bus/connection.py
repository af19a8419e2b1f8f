"""The connection to NATS: connect for ever, publish without waiting, ask and answer.

The one module that holds a nats-py client. Its exceptions stop here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bridge.bus.outbox import PENDING_BYTES, Outbox
from bridge.config import NatsSettings
from bridge.errors import BusError, ConnectionLost, SetupError, StreamUnavailable

log = logging.getLogger(__name__)

#: The longest a message may wait in a subscription's queue, in messages: a control
#: storm of that size is dropped and reported, never kept without bound.
SUBSCRIPTION_MESSAGES = 512 * 1024

#: Of a message with headers nats-py checks the payload only, and a server cuts the
#: connection of a client that exceeds ``max_payload``: the status line and blank line.
HEADER_BASE_BYTES = len(b"NATS/1.0\r\n\r\n")

#: The oldest server with fast-ingest batches (ADR-50).
MINIMUM_SERVER = (2, 14)

#: While NATS is away, the log says so this often, in seconds.
SAY_EVERY_S = 5.0

#: Answers that stay away are noticed with this grain, in seconds.
EXPIRE_EVERY_S = 0.1

#: nats-py pings are outstanding for at most this many intervals.
PINGS_OUTSTANDING = 2


def command(
    subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None
) -> bytes:
    """One PUB or HPUB command of the NATS client protocol."""
    if not headers:
        head = f"PUB {subject} {reply} {len(payload)}\r\n"
        return b"%b%b\r\n" % (head.encode(), payload)
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    block = f"NATS/1.0\r\n{lines}\r\n".encode()
    total = len(block) + len(payload)
    head = f"HPUB {subject} {reply} {len(block)} {total}\r\n"
    return b"%b%b%b\r\n" % (head.encode(), block, payload)


Handler = Callable[[Msg], Awaitable[None]]
Listener = Callable[[], None]


class TooLarge(BusError):
    """A message exceeds the server's ``max_payload``."""


def headers_size(headers: Mapping[str, str] | None) -> int:
    """The bytes that ``headers`` add to a message."""
    if not headers:
        return 0
    lines = sum(len(k.encode()) + len(v.encode()) + 4 for k, v in headers.items())
    return HEADER_BASE_BYTES + lines


class _Client(Client):
    """nats-py's client, but for subjects that are no UTF-8.

    Any bytes make a subject; nats-py's read loop dies of them, and a job published
    on such a one would be delivered again and again to take every worker down.
    """

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


def _readable(subject: bytes) -> bytes:
    return subject.decode(errors="replace").encode()


class Connection:
    """One connection to NATS that comes back by itself.

    Publishing is a plain call; whoever publishes much looks at ``outbox.congested``.
    A connection whose client ended up closed is useless for good: `closed` is set, and
    the process is expected to end or to build a new one.
    """

    def __init__(self, settings: NatsSettings, *, name: str) -> None:
        self._settings = settings
        self._name = name
        self._client: Client = _Client()
        self._outbox = Outbox(self._client)
        self._subscriptions: list[Subscription] = []
        self._waiting: dict[str, Question] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self._next = 0
        self._inbox = ""
        self._closing = False
        self._last_error = ""
        self._failures: asyncio.Queue[Exception] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.on_disconnected: list[Listener] = []
        self.on_reconnected: list[Listener] = []
        self.slow_consumers = 0
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
        return ", ".join(
            redact(url.strip()) for url in self._settings.nats_url.split(",")
        )

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
        options = self._options()
        self._client = _Client()
        self._outbox = Outbox(self._client)
        self._failures = asyncio.Queue()
        connecting = asyncio.ensure_future(self._client.connect(**options))
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
        await self.subscribe(f"{self._inbox}.*", self._answer)

    async def _watch(self, connecting: asyncio.Future[None], wait: bool) -> None:
        """Wait for ``connecting``; nats-py itself never gives up nor says why."""
        servers = len(self._settings.nats_url.split(","))
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
            if _is_final(error):
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
                "batches): please upgrade it"
            )

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "servers": [url.strip() for url in settings.nats_url.split(",")],
            "name": self._name,
            "allow_reconnect": True,
            "connect_timeout": settings.nats_connect_timeout_s,
            "reconnect_time_wait": settings.nats_reconnect_wait_s,
            "max_reconnect_attempts": -1,
            "ping_interval": settings.nats_ping_interval_s,
            "max_outstanding_pings": PINGS_OUTSTANDING,
            "pending_size": PENDING_BYTES,
            # `bridge.subjects` has checked every token already.
            "skip_subject_validation": True,
            "error_cb": self._error,
            "disconnected_cb": self._disconnected,
            "reconnected_cb": self._reconnected,
            "closed_cb": self._closed,
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
        if len(payload) + headers_size(headers) > self._client.max_payload:
            raise TooLarge(
                f"a message of {len(payload)} bytes on {subject} exceeds the server's "
                f"max_payload of {self._client.max_payload}"
            )
        self._outbox.make_room(len(payload))
        self._outbox.send(command(subject, payload, reply, headers))

    async def request(
        self,
        subject: str,
        payload: bytes,
        *,
        timeout_s: float = 2.0,
        headers: dict[str, str] | None = None,
    ) -> Msg:
        """Publish and wait for one answer.

        Raises `ConnectionLost` when disconnected or when no answer came in time, and
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
        question = self._expect(subject, timeout_s)
        try:
            self.publish(subject, payload, f"{self._inbox}.{question.token}", headers)
        except BusError:
            question.forget()
            raise
        return question

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Call ``handler`` for each message, one after the other; it must not raise."""
        try:
            subscription = await self._client.subscribe(
                subject,
                cb=handler,
                pending_msgs_limit=SUBSCRIPTION_MESSAGES,
            )
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
        question = self._expect("flush", timeout_s)
        try:
            self.publish(f"{self._inbox}.{question.token}", b"")
        except BusError:
            question.forget()
            raise
        await question.answer()

    def _expect(self, subject: str, timeout_s: float) -> Question:
        """An answer to come; one timer for all of them, for a timer each is dear."""
        loop = asyncio.get_running_loop()
        self._next += 1
        token = f"{self._next:x}"
        until = loop.time() + timeout_s
        question = Question(
            self._waiting, token, loop.create_future(), until, subject, timeout_s
        )
        self._waiting[token] = question
        if self._expiry is None:
            self._expiry = loop.call_later(EXPIRE_EVERY_S, self._expire)
        return question

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._expiry = None
        now = loop.time()
        for waiting in list(self._waiting.values()):
            if now >= waiting.until:
                waiting.give_up()
        if self._waiting:
            self._expiry = loop.call_later(EXPIRE_EVERY_S, self._expire)

    async def close(self) -> None:
        """Write what is pending, then close. Safe to call twice."""
        self._closing = True
        self._outbox.flush()
        if self._expiry is not None:
            self._expiry.cancel()
        for waiting in list(self._waiting.values()):
            waiting.give_up()
        with contextlib.suppress(Exception):
            await self._client.close()
        self.closed.set()

    async def _answer(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject.rpartition(".")[2])
        if waiting is not None and not waiting.future.done():
            waiting.future.set_result(message)

    async def _error(self, error: Exception) -> None:
        # Never raise here: nats-py's read loop would die with it.
        self._last_error = str(error) or type(error).__name__
        if isinstance(error, nats.errors.SlowConsumerError):
            self.slow_consumers += 1
            if self.slow_consumers % 1000 == 1:
                log.error("messages dropped: the subscription is too slow")
        elif not self._inbox:
            self._failures.put_nowait(error)
        else:
            log.debug("NATS: %s", self._last_error)

    async def _disconnected(self) -> None:
        if not self._closing and self._inbox:
            log.warning("disconnected from NATS; reconnecting")
        for waiting in list(self._waiting.values()):
            # Its answer would come on this connection: whoever asked may ask again.
            waiting.give_up("the connection to NATS was lost")
        _call(self.on_disconnected)

    async def _reconnected(self) -> None:
        self.reconnects += 1
        log.info("reconnected to NATS")
        _call(self.on_reconnected)

    async def _closed(self) -> None:
        if self._inbox:
            if not self._closing:
                log.error("the NATS client closed for good: %s", self._last_error)
            self.closed.set()


_RETRYABLE = (
    OSError,
    asyncio.TimeoutError,
    nats.errors.NoServersError,
    nats.errors.TimeoutError,
    nats.errors.ConnectionClosedError,
    nats.errors.UnexpectedEOF,
    nats.errors.StaleConnectionError,
)


def _is_final(error: Exception) -> bool:
    return isinstance(error, nats.errors.Error) and not isinstance(error, _RETRYABLE)


def _call(listeners: list[Listener]) -> None:
    for listener in list(listeners):
        try:
            listener()
        except Exception:
            # nats-py's reconnect task must outlive a defect of ours.
            log.exception("a listener of the NATS connection failed")


class Question(NamedTuple):
    """A request on its way; ``until`` is in seconds of the loop's clock."""

    waiting: dict[str, Question]
    token: str
    future: asyncio.Future[Msg]
    until: float
    subject: str
    timeout_s: float

    async def answer(self) -> Msg:
        """Wait for the answer, once. Raises as `Connection.request` does."""
        try:
            message = await self.future
        finally:
            self.forget()
        if not message.data and (message.headers or {}).get("Status") == "503":
            raise StreamUnavailable(f"nobody answers on {self.subject}")
        return message

    def forget(self) -> None:
        """Wait no longer; an answer that still comes is dropped."""
        self.waiting.pop(self.token, None)
        self.future.cancel()

    def give_up(self, reason: str = "") -> None:
        """The time is over, or there is a ``reason`` why no answer will come."""
        if not self.future.done():
            reason = (
                reason or f"no answer on {self.subject} within {self.timeout_s:g} s"
            )
            self.future.set_exception(ConnectionLost(reason))


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
