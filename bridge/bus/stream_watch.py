"""Watching one stream: whether it may be another by now, and what time it is there.

A stream that is deleted and made again counts its sequences from the start, on the
same connection: an acknowledgement of the old one's message removes the new one's. So
whoever holds a message compares `StreamWatch.epoch` with the one that it came in, and
looks again where they differ.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec
from nats.aio.msg import Msg

from bridge.bus.api import JetStream
from bridge.bus.server_time import ServerTime, parse_time
from bridge.errors import BusError, StreamUnavailable

log = logging.getLogger(__name__)

#: After these advisories of the server the stream may be another.
CHANGED = ("DELETED", "CREATED", "RESTORE_COMPLETE")

#: After this one it has another clock.
MOVED = "LEADER_ELECTED"

#: Questions of one look. The best of some is within a fraction of a millisecond, also
#: where the loop is busy now and then.
SAMPLES = 4

#: Between two looks while nothing happens, in seconds: clocks drift apart by 1 ms.
LOOK_EVERY_S = 10.0

#: How long to wait between two questions while NATS does not answer, in seconds.
RETRY_S = 0.5


class _Info(msgspec.Struct):
    """What of ``STREAM.INFO`` tells the stream, its server and its time."""

    ts: str
    created: str = ""
    leader: str = ""


class StreamWatch:
    """One stream, watched from `open` to `stop`."""

    def __init__(
        self, jetstream: JetStream, stream: str, now: Callable[[], float]
    ) -> None:
        self._jetstream = jetstream
        self._stream = stream
        self._now = now
        #: How often the stream may have become another: by a reconnect, an advisory,
        #: or because it says that it was made at another time.
        self.epoch = 0
        #: The time of the stream's server; known once it was looked at.
        self.time = ServerTime()
        self._created = ""
        self._leader = ""
        self._anew = False  # what is known of the time may be another server's
        self._look_at = 0.0
        self._looking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<StreamWatch {self._stream} epoch={self.epoch} {self.time!r}>"

    async def open(self) -> None:
        """Listen to what the server says of the stream. Raises `ConnectionLost`.

        A user without that permission hears nothing. That does no harm: renewals
        that no server answers and `look` tell it later.
        """
        connection = self._jetstream.connection
        for what in (*CHANGED, MOVED):
            await connection.subscribe(
                f"$JS.EVENT.ADVISORY.STREAM.{what}.{self._stream}", self._advised
            )
        # What is settled in between waits for the next connection.
        connection.on_disconnected.append(self.doubt)
        connection.on_reconnected.append(self.doubt)
        self._look_at = self._now() + LOOK_EVERY_S

    def _advised(self, message: Msg) -> None:
        if f".{MOVED}." in message.subject:
            self._anew = True
            self._look_at = self._now()
        else:
            self.doubt()

    def doubt(self) -> None:
        """The stream may be another one from now on, and so may its server."""
        self.epoch += 1
        self._anew = True
        self._look_at = self._now()

    # Looking

    async def look(self) -> None:
        """Ask the stream for its time, and whether it is still the same.

        Raises `BusError`. May be cancelled.
        """
        for _ in range(SAMPLES):
            sent = self._now()
            answer = await self._jetstream.call(f"STREAM.INFO.{self._stream}")
            self._take(sent, self._now(), answer)

    def _take(self, sent: float, received: float, answer: object) -> None:
        info = _read_info(answer)
        try:
            server_ns = parse_time(info.ts)
        except ValueError as error:
            raise BusError(f"stream {self._stream} has no time: {error}") from error
        if self._created and info.created != self._created:
            self.epoch += 1
            self._anew = True
        if info.leader != self._leader:
            self._anew = True
        self._created, self._leader = info.created, info.leader
        self.time.sample(sent, received, server_ns, anew=self._anew)
        self._anew = False

    def sweep(self, now: float) -> None:
        """Called a few times a second: looks when it is time to. Does not wait."""
        if now < self._look_at or not self._jetstream.connection.connected:
            return
        if self._looking is None or self._looking.done():
            self._look_at = now + LOOK_EVERY_S
            looking = self._look_beside()
            self._looking = asyncio.get_running_loop().create_task(looking)

    async def _look_beside(self) -> None:
        try:
            await self.look()
        except StreamUnavailable as error:
            if error.gone and self._created:
                self._created = ""
                self.epoch += 1
            self._look_at = self._now() + RETRY_S
        except BusError as error:
            log.debug("stream %s cannot be looked at: %s", self._stream, error)
            self._look_at = self._now() + RETRY_S

    async def stop(self) -> None:
        """Look no more. Safe to call twice."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
            self._looking = None


def _read_info(answer: object) -> _Info:
    try:
        found = answer if isinstance(answer, dict) else {}
        cluster = found.get("cluster") or {}
        return _Info(found["ts"], found.get("created", ""), cluster.get("leader", ""))
    except (KeyError, AttributeError) as error:
        raise BusError("an answer to STREAM.INFO cannot be read") from error
