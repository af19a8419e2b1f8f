"""Keeping jobs claimed: in-progress signs, and whether the server heard them.

A renewal counts from when it was *sent*, and only once it was answered: what the
consumer believes is never later than what the worker believes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from nats.aio.msg import Msg

from bridge.bus.connection import Connection
from bridge.bus.jobs import Delivery
from bridge.errors import BusError

#: JetStream's word for "still at it".
IN_PROGRESS = b"+WPI"

#: A lease is renewed when this part of ``ack_wait`` is over.
RENEW_AFTER = 1 / 3

#: An unanswered renewal is repeated after this part of ``ack_wait``.
REPEAT_AFTER = 1 / 10


class Lease:
    """Until when a job is ours, on the monotonic clock in seconds."""

    __slots__ = ("ack_wait_s", "until")

    def __init__(self, now: float, ack_wait_s: float) -> None:
        self.ack_wait_s = ack_wait_s
        self.until = now + ack_wait_s

    def __repr__(self) -> str:
        return f"<Lease until {self.until:.3f}>"

    def extend(self, from_: float) -> None:
        """A renewal that was sent at ``from_`` was answered."""
        self.until = max(self.until, from_ + self.ack_wait_s)

    def keep(self) -> None:
        """The job is in no stream any more, so no other worker will get it."""
        self.until = math.inf


class _Sent(NamedTuple):
    at: float
    extend: Callable[[float], None]
    unheard: Callable[[], None]


class Leases:
    """Renewals on one connection."""

    def __init__(self, connection: Connection, now: Callable[[], float]) -> None:
        self._connection = connection
        #: The clock of the leases.
        self.now = now
        self._inbox = ""
        self._sent: dict[str, _Sent] = {}
        self._next = 0

    def __repr__(self) -> str:
        return f"<Leases unanswered={len(self._sent)}>"

    async def open(self) -> None:
        """Subscribe to the answers. Raises `ConnectionLost`."""
        self._inbox = self._connection.new_inbox()
        await self._connection.subscribe(f"{self._inbox}.*", self._answered)

    def _answered(self, message: Msg) -> None:
        sent = self._sent.pop(message.subject.rpartition(".")[2], None)
        if sent is None:
            return
        if (message.headers or {}).get("Status") == "503":
            sent.unheard()
        else:
            sent.extend(sent.at)

    def renew(
        self,
        delivery: Delivery,
        extend: Callable[[float], None],
        unheard: Callable[[], None],
    ) -> None:
        """Ask for another ``ack_wait``.

        ``extend`` gets the time of asking, in s; ``unheard`` is called where no
        server serves the job's consumer any more.
        """
        if not self._connection.connected:
            return  # pooled, it would only be heard too late
        self._next += 1
        token = f"{self._next:x}"
        try:
            self._connection.publish(
                delivery.reply, IN_PROGRESS, f"{self._inbox}.{token}"
            )
        except BusError:
            return
        self._sent[token] = _Sent(self.now(), extend, unheard)

    def sweep(self, now: float, older_than_s: float) -> None:
        """Forget what was never answered."""
        lost = [t for t, sent in self._sent.items() if now - sent.at > older_than_s]
        for token in lost:
            del self._sent[token]
