"""One attempt's part of a request's log: appended, proven, repaired.

`LogWriter.append` is on every token's way: it publishes and returns. Whether the
stream stored it is found out beside that, by pings and in the end by the commit, and
what was not stored is sent again in order. Until then the events are kept here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from bridge.bus.api import JetStream, StoredMessage
from bridge.bus.batch import MAX_REPAIRS, Answer, Batches, Op, Verdict, batch_id
from bridge.bus.connection import Connection
from bridge.bus.streams import StreamNames
from bridge.errors import BridgeError, BusError, ConnectionLost, StreamUnavailable
from bridge.events import decode_event
from bridge.subjects import Subjects

log = logging.getLogger(__name__)

#: A ping goes out behind every so many events, so that what is stored may be
#: forgotten: at about 200 bytes an event, 256 kept events are 50 KiB a request.
PING_EVERY_EVENTS = 192

#: What one request may hold that is not proven yet. Above it the backend is not read
#: any further: 1 MiB is some 6,000 tokens, minutes of a model's output.
MAX_UNPROVEN_BYTES = 1024 * 1024

#: The server ends a batch that was silent for 10 s.
PING_WHEN_SILENT_S = 4.0

#: A ping or commit without an answer for so long is taken for a broken batch.
ANSWER_TIMEOUT_S = 1.5

#: Between two tries of a repair while the stream has no leader, in seconds.
RETRY_FIRST_S = 0.02
RETRY_LAST_S = 0.5

#: Without a leader nobody may answer at all: a repair waits no longer than this, in
#: seconds, to learn whether the stream is gone.
PROBE_S = 0.3


class Fenced(BridgeError):
    """The request belongs to another worker by now: publish and settle nothing."""


class StartRefused(BridgeError):
    """The log moved on between reading it and starting: claim again from the top."""


class TooManyBatches(BridgeError):
    """The server has as many open batches as it allows; try again in a moment."""


class LogGone(BridgeError):
    """The stream of the log does not exist any more."""


class Home(Protocol):
    """What a writer needs of its cell."""

    connection: Connection
    batches: Batches
    jetstream: JetStream
    subjects: Subjects
    names: StreamNames
    writers: set[LogWriter]
    repairs: int
    now: Callable[[], float]

    async def pause(self, seconds: float) -> None:
        """Wait a moment between two tries."""

    def speech_seq(self, stored: StoredMessage) -> int:
        """The ``seq`` of a speech event."""


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
        job_seq: int,
        attempt: int,
        stored: int,
        stored_speech: int,
        last_seq: int,
        owned: Callable[[], bool],
    ) -> None:
        self._cell = cell
        self._connection = cell.connection
        self._batches = cell.batches
        self._subject = cell.subjects.tokens(tenant, id)
        self._speech = cell.subjects.speech(tenant, id)
        self._job_seq = job_seq
        self._attempt = attempt
        self._base = stored + stored_speech
        self._base_tokens = stored
        self._last_seq = last_seq
        self._owned = owned
        self._state = WriterState.IDLE
        self._detached = not cell.connection.connected
        self._repairs = 0
        self._has_speech = False
        self._batch = ""
        self._head = ""
        self._pub = b""
        self._send = cell.connection.outbox.send
        self._sent = 0  # batch sequence of the last message of this batch
        self._proven = 0  # …up to which this batch is known to be stored
        self._forgotten = 0  # events of this attempt that are proven
        self._begun = False  # whether the log was ours once
        self._unproven: deque[tuple[str, bytes]] = deque()
        self.unproven_bytes = 0
        self._pinged = 0
        self._ping_at: float | None = None
        self._seen_sent = 0
        self._moved_at = cell.now()
        self._terminal = False
        self._waiters: list[asyncio.Future[None]] = []
        self._error: BridgeError | None = None
        self._repairing: asyncio.Task[None] | None = None
        self._proof: asyncio.Future[bool] | None = None
        self.on_room: Callable[[], None] | None = None
        self.on_failed: Callable[[BridgeError], None] | None = None
        self._use_batch(0)
        cell.writers.add(self)

    def __repr__(self) -> str:
        return (
            f"<LogWriter {self._subject} attempt={self._attempt} "
            f"{self._state.value} sent={self._sent} "
            f"unproven={len(self._unproven)} repairs={self._repairs}>"
        )

    @property
    def state(self) -> WriterState:
        """Where the writer is."""
        return self._state

    @property
    def repairs(self) -> int:
        """How many batches broke and were begun anew."""
        return self._repairs

    @property
    def full(self) -> bool:
        """Whether the backend should not be read any further for now."""
        return self.unproven_bytes > MAX_UNPROVEN_BYTES

    def _use_batch(self, repair: int) -> None:
        if self._batch:
            self._batches.forget(self._batch)
        self._batch = batch_id(self._job_seq, self._attempt, repair)
        self._head = self._batches.reply_head(self._batch)
        #: The constant part of the command that publishes an event.
        self._pub = f"PUB {self._subject} {self._head}".encode()
        self._sent = self._proven = self._pinged = self._seen_sent = 0
        self._ping_at = None
        self._batches.listen(self._batch, self._answered)

    # Appending

    def append(self, payload: bytes) -> None:
        """Publish the request's next event. Never waits; see `full`.

        Raises `ConnectionLost` when the client is closed.
        """
        self._unproven.append((self._subject, payload))
        self.unproven_bytes += len(payload)
        if self._detached:
            return
        sent = self._sent = self._sent + 1
        if sent == 1:
            self._publish(self._subject, payload, Op.START)
            return
        self._send(
            b"%b%d.1.$FI %d\r\n%b\r\n" % (self._pub, sent, len(payload), payload)
        )
        if sent - self._pinged >= PING_EVERY_EVENTS:
            self.ping()

    def append_speech(self, payload: bytes) -> None:
        """Publish the request's next speech event, in the same batch."""
        self._has_speech = True
        self._unproven.append((self._speech, payload))
        self.unproven_bytes += len(payload)
        if self._detached:
            return
        self._sent += 1
        self._publish(self._speech, payload, Op.APPEND)

    def _publish(self, subject: str, payload: bytes, op: Op) -> None:
        headers = None
        if self._sent == 1:
            # Whatever starts the batch carries the condition, a lone commit too.
            headers = {"Nats-Expected-Last-Subject-Sequence": str(self._last_seq)}
            if subject != self._subject:
                # A repair may begin with speech; the condition is on the tokens.
                headers["Nats-Expected-Last-Subject-Sequence-Subject"] = self._subject
            if op is Op.APPEND:
                op = Op.START
            if self._state is WriterState.IDLE:
                self._state = WriterState.OPEN
        reply = f"{self._head}{self._sent}.{op:d}.$FI"
        self._connection.publish(subject, payload, reply, headers)

    def ping(self) -> None:
        """Ask whether the batch lives; what it proves may be forgotten."""
        if self._detached or self._sent == 0:
            return
        self._pinged = self._sent
        if self._ping_at is None:
            self._ping_at = self._cell.now()
        self._batches.send(Op.PING, self._batch, self._sent)

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
        self._terminal = True
        self._unproven.append((self._subject, payload))
        self.unproven_bytes += len(payload)
        if not self._detached:
            self._sent += 1
            self._ping_at = self._cell.now()
            self._publish(self._subject, payload, Op.COMMIT)
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
        if self._state is not WriterState.OPEN:
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
        return self._repairs == 0 and self._forgotten == 0

    def _alive(self, seq: int) -> None:
        self._begun = True
        self._forget(seq - self._proven)
        self._proven = max(self._proven, seq)
        if not self._terminal:  # else it is the commit's answer that is waited for
            self._ping_at = None
            self._release()

    def _committed(self, count: int) -> None:
        if count != self._sent:
            self._broke(f"{count} of {self._sent} events were stored")
            return
        self._forget(len(self._unproven))
        self._finish()

    def _finish(self) -> None:
        self._state = WriterState.COMMITTED
        self._batches.forget(self._batch)
        self._release()

    def _forget(self, events: int) -> None:
        if events <= 0:
            return
        was_full = self.full
        for _ in range(min(events, len(self._unproven))):
            self.unproven_bytes -= len(self._unproven.popleft()[1])
            self._forgotten += 1
        if was_full and not self.full and self.on_room is not None:
            self.on_room()

    # Watching

    def sweep(self, now: float) -> None:
        """Called a few times a second: keeps a silent batch alive, misses answers."""
        if self._state is not WriterState.OPEN or self._detached:
            return
        if self._ping_at is not None and now - self._ping_at > ANSWER_TIMEOUT_S:
            self._broke("no answer in time")
        elif self._sent != self._seen_sent:
            self._seen_sent = self._sent
            self._moved_at = now
        elif now - self._moved_at > PING_WHEN_SILENT_S:
            self._moved_at = now
            self.ping()

    def detach(self) -> None:
        """The connection is gone: keep events, publish nothing."""
        self._detached = True
        if self._proof is not None and not self._proof.done():
            self._proof.set_exception(ConnectionLost("the connection to NATS was lost"))

    def attach(self) -> None:
        """The connection is back: find out what is stored and go on from there."""
        if self._state in (WriterState.COMMITTED, WriterState.FAILED):
            return
        if self._state is WriterState.OPEN or self._unproven:
            self._broke("reconnected")
        else:
            self._detached = False

    # Repairing

    def _broke(self, reason: str) -> None:
        if self._state not in (WriterState.OPEN, WriterState.IDLE):
            return
        log.debug("%r is repaired: %s", self, reason)
        self._state = WriterState.REPAIRING
        self._repairing = asyncio.get_running_loop().create_task(self._repair())

    async def _repair(self) -> None:
        try:
            await self._repair_until_proven()
        except BridgeError as error:
            self._fail(error)
        except Exception as error:
            log.exception("repairing %r failed", self)
            self._fail(Fenced(f"repairing the log failed: {error!r}"))

    async def _repair_until_proven(self) -> None:
        delay = RETRY_FIRST_S
        while True:
            if not self._owned():
                raise Fenced("the lease ran out while the log was repaired")
            try:
                if await self._repair_once():
                    return
            except StreamUnavailable as error:
                if error.gone or await self._stream_is_gone():
                    raise LogGone(str(error)) from error
            except ConnectionLost:
                pass  # NATS is on its way back; the lease bounds how long we wait
            await self._cell.pause(delay)
            delay = min(delay * 2, RETRY_LAST_S)

    async def _stream_is_gone(self) -> bool:
        """Tell a stream that is gone from one that has no leader for a moment."""
        try:
            async with asyncio.timeout(PROBE_S):
                await self._cell.jetstream.last_message(
                    self._cell.names.tokens, self._subject
                )
        except StreamUnavailable as error:
            return error.gone
        except (BusError, TimeoutError):
            pass
        return False

    async def _repair_once(self) -> bool:
        """One try: close, count, send the rest again. Whether all is well now."""
        await self._batches.close([self._batch])
        stored, last_seq, ended = await self._read_tip()
        # Behind this point nothing awaits until everything is sent again.
        missing = self._base + self._forgotten - stored
        if missing > 0:
            # Proven, forgotten and lost: the next attempt goes on from what stands.
            raise Fenced(f"the server has lost {missing} events that it had stored")
        self._forget(-missing)
        self._last_seq = last_seq
        if ended or (self._terminal and not self._unproven):
            self._finish()
            return True
        if self._repairs >= MAX_REPAIRS:
            raise Fenced(f"the log broke more than {MAX_REPAIRS} times")
        self._repairs += 1
        self._cell.repairs += 1
        self._use_batch(self._repairs)
        self._detached = False
        if not self._unproven:
            self._state = WriterState.IDLE
            self._release()
            return True
        return await self._send_again()

    async def _read_tip(self) -> tuple[int, int, bool]:
        """Events stored in all, stream sequence of the last, whether it is our end."""
        jetstream, stream = self._cell.jetstream, self._cell.names.tokens
        last = await jetstream.last_message(stream, self._subject)
        tokens = self._base_tokens
        last_seq = self._last_seq if self._base_tokens else 0
        ended = False
        if last is not None:
            event = decode_event(last.data)
            if event.attempt > self._attempt:
                raise Fenced(f"attempt {event.attempt} goes on with the request")
            if event.attempt < self._attempt and event.seq != self._base_tokens:
                reason = "an older attempt wrote after the log was read"
                raise Fenced(reason) if self._begun else StartRefused(reason)
            if event.attempt == self._attempt and not await self._is_ours():
                raise StartRefused("the log was begun for another job of that id")
            tokens, last_seq = event.seq, last.seq
            ended = event.terminal and event.attempt == self._attempt
        elif self._base or self._forgotten:
            raise StreamUnavailable("the request's log is empty now", gone=True)
        speech = self._base - self._base_tokens
        if self._has_speech:
            spoken = await jetstream.last_message(stream, self._speech)
            speech = self._cell.speech_seq(spoken) if spoken is not None else 0
        return tokens + speech, last_seq, ended

    async def _is_ours(self) -> bool:
        """Whether it is this attempt's first event that stands behind the base.

        A repeat of the job has attempts of its own, with the same numbers.
        """
        if not self._begun and self._unproven:
            first = await self._cell.jetstream.next_message(
                self._cell.names.tokens, self._subject, self._last_seq + 1
            )
            self._begun = first is not None and first.data == self._unproven[0][1]
        return self._begun

    async def _send_again(self) -> bool:
        proof: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._proof = proof

        def answered(op: Op, answer: Answer) -> None:
            if proof.done() or (op is Op.START and answer.verdict is Verdict.ALIVE):
                return
            # At once: an answer right behind this one must find the new state.
            proof.set_result(self._repaired(answer))

        self._batches.listen(self._batch, answered)
        rest = list(self._unproven)
        for index, (subject, payload) in enumerate(rest):
            self._sent += 1
            final = self._terminal and index == len(rest) - 1
            self._publish(subject, payload, Op.COMMIT if final else Op.APPEND)
        if not self._terminal:
            self._pinged = self._sent
            self._batches.send(Op.PING, self._batch, self._sent)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await proof
        except TimeoutError as error:
            raise ConnectionLost("no answer to a repair") from error

    def _repaired(self, answer: Answer) -> bool:
        """Take the answer to a repair; whether the log is well now."""
        if answer.verdict is Verdict.COMMITTED and self._terminal:
            if answer.number != self._sent:
                return False
            self._forget(len(self._unproven))
            self._finish()
            return True
        if answer.verdict is Verdict.OVERLOADED:
            # Nothing was opened: the same name will do.
            self._repairs -= 1
        if answer.verdict is not Verdict.ALIVE:
            return False
        self._batches.listen(self._batch, self._answered)
        self._state = WriterState.OPEN
        self._moved_at = self._cell.now()
        # If the end came meanwhile, it went out in this batch: its answer is next.
        self._ping_at = self._moved_at if self._terminal else None
        self._alive(answer.number)
        return True

    def close(self) -> None:
        """Stop writing; nothing more is published. Safe to call twice."""
        self._cell.writers.discard(self)
        self._batches.forget(self._batch)
        self._detached = True
        self.on_failed = self.on_room = None
        if self._repairing is not None:
            self._repairing.cancel()
        self._fail(Fenced("the writer was closed"))
