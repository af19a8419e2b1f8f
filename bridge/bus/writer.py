"""One attempt's part of a request's log: appended, proven, repaired.

`LogWriter.append` is on every token's way: it publishes and returns. Whether the
stream stored it is found out beside that, by pings and in the end by the commit, and
what was not stored is sent again in order. Until then the events are kept: see
`bridge.bus.tail`, and `bridge.bus.repair` for what happens to a batch that broke.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from bridge.bus.batch import Answer, Op, Verdict
from bridge.bus.connection import Connection
from bridge.bus.refusals import Fenced, StartRefused, TooManyBatches
from bridge.bus.repair import Repair, RepairHome
from bridge.bus.tail import Tail
from bridge.errors import BridgeError, BusError
from bridge.events import JobIdentity
from bridge.subjects import Subjects

log = logging.getLogger(__name__)

#: Between two looks at what is stored while there is no room, in seconds.
READ_AGAIN_S = 0.01


class Home(RepairHome, Protocol):
    """What a writer needs of its cell, for itself and for its repairs."""

    connection: Connection
    subjects: Subjects
    writers: dict[LogWriter, None]
    now: Callable[[], float]


class WriterState(Enum):
    """Where a writer is: see `LogWriter`."""

    IDLE = "idle"  # no batch open; the next event starts one
    OPEN = "open"
    REPAIRING = "repairing"
    COMMITTED = "committed"
    FAILED = "failed"


class LogWriter:
    """The log of one request, as one attempt writes it.

    ``stored`` and ``stored_speech`` are the numbers of the events that stand already,
    ``last_seq`` is the stream sequence of the last of ``llm.tokens`` (0: none): the
    first batch starts only on exactly that. ``owned`` tells whether the attempt's
    lease still holds. One writer is used by one task; `append` may also be called from
    callbacks of the same loop.
    """

    def __init__(
        self,
        cell: Home,
        *,
        tenant: str,
        id: str,
        job: JobIdentity,
        attempt: int,
        stored: int,
        stored_speech: int,
        last_seq: int,
        owned: Callable[[], bool],
    ) -> None:
        self._cell = cell
        self.on_room: Callable[[], None] | None = None
        self.on_failed: Callable[[BridgeError], None] | None = None
        #: What is not proven yet: who asks per token asks here, without a detour.
        self.tail = Tail(
            cell.connection,
            cell.batches,
            subject=cell.subjects.tokens(tenant, id),
            speech=cell.subjects.speech(tenant, id),
            job=job,
            attempt=attempt,
            last_seq=last_seq,
            answered=self._answered,
            on_room=self._has_room,
            now=cell.now,
        )
        #: Publishes the request's next event; never waits, see `full`. Raises
        #: `ConnectionLost` when the client is closed. The tail's own method, because
        #: it is on every token's way.
        self.append = self.tail.append
        self._repair = Repair(
            cell,
            self.tail,
            stored=stored,
            stored_speech=stored_speech,
            owned=owned,
            on_open=self._repaired,
            on_committed=self._finish,
        )
        self._state = WriterState.OPEN
        self._waiters: list[asyncio.Future[None]] = []
        self._error: BridgeError | None = None
        self._repairing: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        cell.writers[self] = None

    def __repr__(self) -> str:
        tail = self.tail
        return (
            f"<LogWriter {tail.subject} attempt={tail.attempt} "
            f"{self.state.value} sent={tail.sent} "
            f"unproven={len(tail.unproven)} repairs={self.repairs}>"
        )

    @property
    def state(self) -> WriterState:
        """Where the writer is."""
        if self._state is WriterState.OPEN and self.tail.sent == 0:
            return WriterState.IDLE
        return self._state

    @property
    def repairs(self) -> int:
        """How many batches broke and were begun anew."""
        return self._repair.count

    @property
    def unproven_bytes(self) -> int:
        """What is kept until it is proven."""
        return self.tail.unproven_bytes

    @property
    def full(self) -> bool:
        """Whether the backend should not be read any further for now."""
        return self.tail.full

    def append_speech(self, payload: bytes) -> None:
        """Publish the request's next speech event, in the same batch."""
        self.tail.append_speech(payload)

    def ping(self) -> None:
        """Ask whether the batch lives; what it proves may be forgotten."""
        self.tail.ping()

    # Proving

    async def prove_start(self) -> None:
        """Wait until the first batch is known to have started.

        Raises `StartRefused`, `TooManyBatches`, `Fenced` or `LogGone`. May be
        cancelled; the writer is unusable then and is to be closed.
        """
        self.ping()
        await self._wait()

    async def commit(self, payload: bytes) -> None:
        """Publish the last event, and wait until all of them are proven stored.

        Raises `Fenced` or `LogGone`; until one of them, it tries. May be cancelled.
        """
        self.tail.end(payload)
        await self._wait()

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        if self._state is WriterState.COMMITTED:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                if self._error is not None:
                    waiter.set_exception(self._error)
                else:
                    waiter.set_result(None)

    def _fail(self, error: BridgeError) -> None:
        if self._state in (WriterState.COMMITTED, WriterState.FAILED):
            return
        self._state = WriterState.FAILED
        self._error = error
        self._release()
        if self.on_failed is not None:
            self.on_failed(error)

    def _answered(self, op: Op, answer: Answer) -> None:
        if self.state is not WriterState.OPEN:
            return  # a repair asks for itself
        verdict = answer.verdict
        if op is Op.START and verdict is Verdict.ALIVE:
            return  # comes before the start condition is checked
        if op is Op.PING and verdict is Verdict.ALIVE:
            self._alive(answer.number)
        elif op is Op.COMMIT and verdict is Verdict.COMMITTED:
            self._committed(answer.number)
        elif verdict is Verdict.OVERLOADED and self._first:
            self._fail(TooManyBatches(answer.detail))
        elif verdict is Verdict.REFUSED and self._first:
            self._fail(StartRefused(answer.detail))
        else:
            self._broke(f"{verdict.value} {answer.detail}".strip())

    @property
    def _first(self) -> bool:
        return self.repairs == 0 and self.tail.forgotten == 0

    def _alive(self, seq: int) -> None:
        self.tail.prove(seq)
        if not self.tail.terminal:
            self._release()
        if self.tail.full and (self._reading is None or self._reading.done()):
            reading = self._read_what_is_stored()
            self._reading = asyncio.get_running_loop().create_task(reading)

    async def _read_what_is_stored(self) -> None:
        """Make room by the log's last event, where the ping's answer made none.

        The answer names the last of the server's own acknowledgements, which come up to
        `FLOW` messages apart: of large ones, that is more than may be unproven at all.
        """
        tail = self.tail
        while tail.full and not tail.detached and not tail.terminal:
            batch = tail.batch
            try:
                last = await self._cell.jetstream.last_message(
                    self._cell.names.tokens, tail.subject
                )
            except BusError as error:
                log.debug("%r cannot be read: %s", self, error)
                last = None
            if self.state is not WriterState.OPEN:
                return  # what is stored is counted again
            if last is not None and tail.batch == batch:
                tail.prove_up_to(last.data)
            if tail.full:
                # With replicas, it is stored a moment after the ping was answered.
                await self._cell.pause(READ_AGAIN_S)

    def _committed(self, count: int) -> None:
        if count != self.tail.sent:
            self._broke(f"{count} of {self.tail.sent} events were stored")
            return
        self.tail.forget(len(self.tail.unproven))
        self._finish()

    def _finish(self) -> None:
        self._state = WriterState.COMMITTED
        self.tail.leave_batch()
        self._release()

    def _has_room(self) -> None:
        if self.on_room is not None:
            self.on_room()

    # Watching

    def sweep(self, now: float) -> None:
        """Called a few times a second: keeps a silent batch alive, misses answers."""
        if self.state is not WriterState.OPEN or self.tail.detached:
            return
        if self.tail.sweep(now):
            self._broke("no answer in time")

    def detach(self) -> None:
        """The connection is gone: keep events, publish nothing."""
        self.tail.detached = True
        self._repair.disconnected()

    def attach(self) -> None:
        """The connection is back: find out what is stored and go on from there."""
        if self._state in (WriterState.COMMITTED, WriterState.FAILED):
            return
        if self.state is WriterState.OPEN or self.tail.unproven:
            self._broke("reconnected")
        else:
            self.tail.detached = False

    # Repairing

    def _broke(self, reason: str) -> None:
        if self._state is not WriterState.OPEN:
            return
        log.debug("%r is repaired: %s", self, reason)
        self._state = WriterState.REPAIRING
        repairing = self._repair_or_fail()
        self._repairing = asyncio.get_running_loop().create_task(repairing)

    async def _repair_or_fail(self) -> None:
        try:
            await self._repair.run()
        except BridgeError as error:
            self._fail(error)
        except Exception as error:
            log.exception("repairing %r failed", self)
            self._fail(Fenced(f"repairing the log failed: {error!r}"))

    def _repaired(self, answer: Answer | None) -> None:
        self._state = WriterState.OPEN
        if answer is not None:
            self._alive(answer.number)
        else:
            self._release()

    def close(self) -> None:
        """Stop writing; nothing more is published. Safe to call twice."""
        self._cell.writers.pop(self, None)
        self.tail.leave_batch()
        self.tail.detached = True
        self.on_failed = self.on_room = None
        for task in (self._repairing, self._reading):
            if task is not None:
                task.cancel()
        self._fail(Fenced("the writer was closed"))
