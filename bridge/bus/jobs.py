"""Jobs in: pulls, deliveries, and the one place that settles messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bridge.bus.connection import Connection
from bridge.errors import BusError
from bridge.events import JobIdentity
from bridge.job import Settlement

log = logging.getLogger(__name__)

#: A pull of a frozen worker swallows redeliveries until it expires.
PULL_EXPIRES_S = 1.0

#: After its expiry a pull without a word from the server counts as lost.
PULL_GRACE_S = 1.0

#: What the server is about to deliver when a pull is closed goes to nobody, and the job
#: waits for ``ack_wait``. So a pull is closed once it has brought nothing for so long,
#: in seconds, or after so many times as long.
SETTLE_S = 0.02
SETTLE_TRIES = 5

#: The most jobs that one pull asks for: a burst is then spread over the replicas.
PULL_BATCH = 16


class Delivery(NamedTuple):
    """One delivery of a job: ``attempt`` counts from 1.

    ``stored_ns`` is when the server stored the job, in nanoseconds since 1970.
    ``message_id`` is its header ``Nats-Msg-Id``, empty where it has none.
    """

    subject: str
    data: bytes
    reply: str
    lane: str
    stream_seq: int
    attempt: int
    stored_ns: int
    message_id: str = ""

    @property
    def identity(self) -> JobIdentity:
        """Which job it is, in every life of its stream."""
        return JobIdentity(self.stream_seq, self.stored_ns)

    @property
    def stored_at(self) -> float:
        """When the job was stored in Unix seconds: to be shown, not to be compared."""
        return self.stored_ns / 1e9


def parse_delivery(message: Msg, lane: str) -> Delivery | None:
    """Read a pulled message, or ``None`` where its reply subject is no job's.

    ``$JS.ACK[.<domain>.<account>].<stream>.<consumer>.<delivered>.<stream seq>.
    <consumer seq>.<timestamp>.<pending>[.<token>]``
    """
    tokens = message.reply.split(".")
    if len(tokens) < 9 or tokens[:2] != ["$JS", "ACK"]:
        return None
    base = 2 if len(tokens) == 9 else 4
    try:
        delivered, stream_seq = int(tokens[base + 2]), int(tokens[base + 3])
        stored_ns = int(tokens[base + 5])
    except (ValueError, IndexError):
        return None
    return Delivery(
        message.subject,
        message.data,
        message.reply,
        lane,
        stream_seq,
        delivered,
        stored_ns,
        (message.headers or {}).get("Nats-Msg-Id", ""),
    )


class _Pull:
    __slots__ = ("asked", "expires_at", "remaining")

    def __init__(self, asked: int, expires_at: float) -> None:
        self.asked = asked
        self.remaining = asked
        self.expires_at = expires_at


class LanePull:
    """The open pull requests of one lane.

    ``on_job`` gets each delivery, ``on_change`` is called when `reserved` fell: the
    caller may then `ask` for more. Not asking is all that it takes to stop.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        lane: str,
        *,
        ack_wait_s: float,
        on_job: Callable[[Delivery], None],
        on_change: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{lane}"
        self.lane = lane
        self._expires_s = min(PULL_EXPIRES_S, ack_wait_s / 2)
        self._on_job = on_job
        self._on_change = on_change
        self._now = now
        self._pulls: dict[str, _Pull] = {}
        self._next = 0
        self._inbox = ""
        self._subscription: Subscription | None = None
        #: Whether nobody serves the consumer: JetStream or the stream is away.
        self.missing = False
        #: Whether the last pull to end had brought nothing.
        self.empty_handed = False

    def __repr__(self) -> str:
        return f"<LanePull {self.lane} open={len(self._pulls)} asked={self.reserved}>"

    @property
    def reserved(self) -> int:
        """How many jobs the open pulls may still bring."""
        return sum(pull.remaining for pull in self._pulls.values())

    async def open(self) -> None:
        """Subscribe to where the jobs will come. Raises `ConnectionLost`."""
        self._inbox = self._connection.new_inbox()
        self._subscription = await self._connection.subscribe(
            f"{self._inbox}.*", self._received
        )

    def ask(self, jobs: int) -> None:
        """Ask for up to ``jobs`` jobs. Raises `ConnectionLost`."""
        jobs = min(jobs, PULL_BATCH)
        self._next += 1
        token = f"{self._next:x}"
        request = {"batch": jobs, "expires": int(self._expires_s * 1e9)}
        self._connection.publish(
            self._subject, msgspec.json.encode(request), f"{self._inbox}.{token}"
        )
        expires_at = self._now() + self._expires_s + PULL_GRACE_S
        self._pulls[token] = _Pull(jobs, expires_at)

    def sweep(self, now: float) -> None:
        """Forget pulls whose end the server never told (it restarted, say)."""
        lost = [t for t, pull in self._pulls.items() if now > pull.expires_at]
        for token in lost:
            del self._pulls[token]
        if lost:
            self._on_change()

    def reset(self) -> None:
        """Forget all pulls: the server that had them is gone."""
        self._pulls.clear()

    async def close(self) -> None:
        """Take no more jobs; those already on their way are still handed on."""
        if self._subscription is not None:
            await self._settled()
            await self._connection.drain(self._subscription)
            self._subscription = None
        self._pulls.clear()

    async def _settled(self) -> None:
        for _ in range(SETTLE_TRIES):
            before = self.reserved
            await asyncio.sleep(SETTLE_S)
            if self.reserved == before:
                return

    def _received(self, message: Msg) -> None:
        delivery = parse_delivery(message, self.lane) if message.reply else None
        if delivery is None:
            self._status(message)
            return
        self.missing = self.empty_handed = False
        exhausted = self._count(1)
        self._on_job(delivery)
        if exhausted:
            self._on_change()

    def _count(self, jobs: int) -> bool:
        """Take ``jobs`` off the open pulls; whether one of them is exhausted by it.

        A job comes under its own subject, so it does not tell which pull brought it:
        it is counted against the oldest, and `_status` puts that right.
        """
        exhausted = False
        for token, pull in list(self._pulls.items()):
            taken = min(jobs, pull.remaining)
            pull.remaining -= taken
            jobs -= taken
            if pull.remaining <= 0:
                del self._pulls[token]
                exhausted = True
            if jobs <= 0:
                break
        return exhausted

    def _status(self, message: Msg) -> None:
        """A pull is over before it was exhausted, or nobody serves it (503)."""
        headers = message.headers or {}
        self.missing = headers.get("Status") == "503"
        if self.missing:
            return  # forgotten when it expires: asking at once would only spin
        pull = self._pulls.pop(message.subject.rpartition(".")[2], None)
        left = headers.get("Nats-Pending-Messages", "")
        counted = pull.remaining if pull is not None else 0
        unserved = int(left) if left.isdigit() else counted
        # What it did not bring was counted as brought, so another pull brought it.
        self._count(unserved - counted)
        self.empty_handed = pull is not None and unserved >= pull.asked
        self._on_change()


def settle(connection: Connection, delivery: Delivery, how: Settlement) -> None:
    """Settle a delivery. Lost on the way, it is repeated by the next claim.

    An acknowledgement goes along with the next write: nobody waits for it, as others do
    for what is given back.

    Only for an attempt whose own commit, or whose request's end, was proven: a stale
    worker's ack would be accepted.
    """
    if how is Settlement.NOTHING:
        return
    try:
        if how is Settlement.ACK:
            connection.publish_along(delivery.reply, how.value)
        else:
            connection.publish(delivery.reply, how.value)
    except BusError as error:
        log.warning("job %d could not be settled: %s", delivery.stream_seq, error)
