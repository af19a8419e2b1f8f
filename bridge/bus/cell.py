"""One prefix on one connection: its streams, its open logs, its control messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from nats.aio.msg import Msg

from bridge.bus import streams
from bridge.bus.api import JetStream, MessageQuestion, StoredMessage, raise_for_error
from bridge.bus.batch import Batches
from bridge.bus.connection import Connection
from bridge.bus.log import read_subject
from bridge.bus.stream_watch import StreamWatch
from bridge.bus.streams import Lane, Setup, StreamNames
from bridge.bus.writer import LogWriter, WriterState
from bridge.config import BusSettings
from bridge.errors import StreamUnavailable
from bridge.events import (
    AnyEvent,
    Control,
    JobIdentity,
    decode_control,
    decode_event,
    encode,
)
from bridge.subjects import ControlAddress, Subjects

#: One open log a second is asked whether its batch lives: when the stream broke
#: them all, every log learns it from that one.
CANARY_EVERY_S = 0.5

#: For so long after a reconnect every log is asked for itself, in seconds: a server
#: that was killed has forgotten renewals, and delivers jobs again whose owner is well.
#: Until that one finds out, it generates for nobody, and its renewals hold back others.
WATCH_S = 10.0

#: Stands for every lease message.
LEASE = Control("lease")


class KeptControl(NamedTuple):
    """A kept control message, and when the server stored it, in ns since 1970."""

    control: Control
    stored_ns: int
    stream_seq: int


class ControlQuestion(NamedTuple):
    """A kept control message that was asked for."""

    question: MessageQuestion

    async def answer(self) -> KeptControl | None:
        """Wait for it, once. Raises `BusError`."""
        stored = await self.question.answer()
        control = decode_control(stored.data) if stored is not None else None
        if stored is None or control is None:
            return None
        return KeptControl(control, stored.stored_ns, stored.seq)

    def forget(self) -> None:
        """Wait no longer."""
        self.question.forget()


ControlHandler = Callable[[ControlAddress, Control], None]


class Cell:
    """What the bridge and the SDK do with one prefix's streams."""

    def __init__(
        self,
        connection: Connection,
        settings: BusSettings,
        prefix: str,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection = connection
        self.settings = settings
        self.subjects = Subjects(prefix)
        self.names = StreamNames.of(settings, prefix)
        self.jetstream = JetStream(connection)
        self.batches = Batches(connection, self.subjects.batch)
        #: In the order in which they came; the values say nothing.
        self.writers: dict[LogWriter, None] = {}
        #: The work queue: whether it is still the same one, and its server's time.
        self.watch = StreamWatch(self.jetstream, self.names.jobs, now)
        self.repairs = 0
        self._repairs_seen = 0
        self.now = now
        self._canary_at = 0.0
        self._watch_until = 0.0

    def __repr__(self) -> str:
        return f"<Cell {self.subjects.prefix} logs={len(self.writers)}>"

    async def ensure(self, lanes: list[Lane], setup: Setup) -> None:
        """Make or check the streams, and learn what time it is there.

        Raises as `bridge.bus.streams.ensure`.
        """
        await streams.ensure(self.jetstream, self.settings, self.subjects, lanes, setup)
        await self.watch.look()

    async def missing_streams(self) -> list[str]:
        """Streams that are not there now. Raises `ConnectionLost`."""
        return await streams.missing(self.jetstream, self.names)

    async def open(self) -> None:
        """Get ready to write logs; the writers follow the connection from now on."""
        await self.batches.open()
        await self.watch.open()
        self.connection.on_disconnected.append(self._disconnected)
        self.connection.on_reconnected.append(self._reconnected)

    def _disconnected(self) -> None:
        self.batches.disconnected()
        for writer in self.writers:
            writer.detach()

    def _reconnected(self) -> None:
        self._watch_until = self.now() + WATCH_S
        for writer in list(self.writers):
            writer.attach()

    async def pause(self, seconds: float) -> None:
        """Wait a moment between two tries."""
        await asyncio.sleep(seconds)

    def sweep(self, now: float) -> None:
        """Called a few times a second: one log's batch stands for the stream's."""
        self.connection.sweep()
        watched = False
        if now - self._canary_at > CANARY_EVERY_S and self.writers:
            self._canary_at = now
            # Any will do, for all share the stream; one that is over says nothing.
            for writer in self.writers:
                if writer.state is WriterState.OPEN:
                    writer.ping()
                    break
            watched = now < self._watch_until
        if watched or self.repairs != self._repairs_seen:
            self._repairs_seen = self.repairs
            for writer in list(self.writers):
                writer.ping()

    # The log

    async def last_event(self, tenant: str, id: str) -> AnyEvent | None:
        """The last event of a request's log, asked of the leader."""
        stored = await self.last_stored(tenant, id)
        return decode_event(stored.data) if stored is not None else None

    async def last_stored(self, tenant: str, id: str) -> StoredMessage | None:
        """The last message of a request's log, asked of the leader."""
        return await self.ask_last_stored(tenant, id).answer()

    def ask_last_stored(self, tenant: str, id: str) -> MessageQuestion:
        """Ask for the last message of a request's log, to wait for it later."""
        subject = self.subjects.tokens(tenant, id)
        return self.jetstream.ask_last_message(self.names.tokens, subject)

    async def last_spoken(self, tenant: str, id: str) -> StoredMessage | None:
        """The last speech event of a request, asked of the leader."""
        subject = self.subjects.speech(tenant, id)
        return await self.jetstream.last_message(self.names.tokens, subject)

    def read_log(
        self, tenant: str, id: str, from_seq: int = 1
    ) -> AsyncIterator[StoredMessage]:
        """The stored events of a request from stream sequence ``from_seq`` on."""
        subject = self.subjects.tokens(tenant, id)
        return read_subject(self.jetstream, self.names.tokens, subject, from_seq)

    def read_speech(
        self, tenant: str, id: str, from_seq: int = 1
    ) -> AsyncIterator[StoredMessage]:
        """The stored speech events of a request."""
        subject = self.subjects.speech(tenant, id)
        return read_subject(self.jetstream, self.names.tokens, subject, from_seq)

    # Jobs

    async def job_is_stored(self, job: JobIdentity) -> bool:
        """Whether the work queue still has this job, and not another in its place.

        Asked of the leader. False where there is no such stream. Raises `BusError`.
        """
        try:
            found = await self.jetstream.message(self.names.jobs, job.stream_seq)
        except StreamUnavailable as error:
            if not error.gone:
                raise
            return False
        return found is not None and found.stored_ns == job.stored_ns

    async def first_undelivered(self, lane: str) -> StoredMessage | None:
        """The next job that a lane's consumer would deliver for the first time.

        Asked of the leaders. Raises `BusError`.
        """
        info = await self.jetstream.call(f"CONSUMER.INFO.{self.names.jobs}.{lane}")
        if not info.get("num_pending"):
            return None
        seq = int(info["delivered"]["stream_seq"]) + 1
        subject = self.subjects.lane(lane)
        return await self.jetstream.next_message(self.names.jobs, subject, seq)

    async def bury(self, tenant: str, data: bytes, headers: dict[str, str]) -> None:
        """Keep a job that could not be served, with the reason in the headers.

        Returns once it is stored. Raises `BusError`.
        """
        subject = self.subjects.dead(tenant)
        answer = await self.connection.request(subject, data, headers=headers)
        raise_for_error(answer.data, subject)

    # Control

    def publish_control(
        self, tenant: str, kind: str, name: str, control: Control
    ) -> None:
        """Publish a control message without waiting for its storage."""
        subject = self.subjects.control(tenant, kind, name)
        self.connection.publish(subject, encode(control))

    async def listen_control(self, handler: ControlHandler) -> None:
        """Call ``handler`` for every control message from now on.

        Raises `ConnectionLost`. The subscription lasts as long as the connection.
        """

        def received(message: Msg) -> None:
            address = self.subjects.parse_control(message.subject)
            control = decode_control(message.data)
            if address is not None and address.kind == "lease":
                handler(address, LEASE)  # whatever it carries: it was sent
            elif address is not None and control is not None:
                handler(address, control)

        await self.connection.subscribe(self.subjects.all_control, received)

    async def kept_control(
        self, tenant: str, kind: str, name: str
    ) -> KeptControl | None:
        """The control message that is kept for a request or session, if any."""
        return await self.ask_kept_control(tenant, kind, name).answer()

    def ask_kept_control(self, tenant: str, kind: str, name: str) -> ControlQuestion:
        """Ask for the control message that is kept, to wait for it later."""
        subject = self.subjects.control(tenant, kind, name)
        return ControlQuestion(
            self.jetstream.ask_last_message(self.names.control, subject)
        )

    async def store_control(
        self, tenant: str, kind: str, name: str, control: Control, expected: int
    ) -> None:
        """Keep a control message if the one that is kept has sequence ``expected``.

        Raises `ApiError` (``WRONG_LAST_SEQUENCE``) when another one came first.
        """
        subject = self.subjects.control(tenant, kind, name)
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        answer = await self.connection.request(
            subject, encode(control), headers=headers
        )
        raise_for_error(answer.data, subject)
