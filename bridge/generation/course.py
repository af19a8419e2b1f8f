"""One job, from claim to settlement.

Read from the top: `Generation.run` is the story of a job. The table in `bridge.job`
says what may follow what; everything that cuts a job off (a cancel, its deadline, a
drain, a lost lease) comes in by `Generation.interrupt`, which closes the backend's
connection there and then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from bridge.backends.http import Backends
from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery
from bridge.bus.writer import (
    Fenced,
    LogGone,
    LogWriter,
    StartRefused,
    TooManyBatches,
)
from bridge.config import Settings
from bridge.dialects.openai_request import can_continue
from bridge.errors import (
    AttemptsExhausted,
    BusError,
    DeadlineExceeded,
    GenerationError,
    InternalError,
    InvalidJob,
    LogLost,
    StreamUnavailable,
)
from bridge.events import (
    PROTOCOL_VERSION,
    Failed,
    Job,
    ResumeMode,
    Started,
    Terminal,
    Timings,
    decode_job,
    encode,
    read_job_id,
)
from bridge.generation.claim import Claim, Found, claim
from bridge.generation.dead import dead_letter_headers
from bridge.generation.exchange import Around, Exchange
from bridge.generation.interrupt import Interrupt, Interrupted, Interruption, Kind
from bridge.history import History
from bridge.job import Progress, Settlement, State, Step, deliveries, resume_reason
from bridge.metrics import Meters
from bridge.retry import add_usage
from bridge.sequence import Numbering
from bridge.subjects import RESERVED_TENANT
from bridge.transcript import Transcript, encode_terminal

log = logging.getLogger(__name__)

#: While the server has as many open batches as it allows, a claim waits so long, in
#: seconds, and tries again. It keeps its message: a nak would count as a delivery.
CROWDED_S = 0.5

#: Between two tries while NATS does not answer, in seconds.
RETRY_S = 0.25

#: Room for the subject and the reply of a terminal event beside its payload.
SUBJECT_BYTES = 256

#: Failures whose job is kept as a dead letter (section 3).
BURIED = frozenset({"invalid_job", "attempts_exhausted", "internal"})

T = TypeVar("T")


class Surroundings(NamedTuple):
    """What a generation needs of its worker.

    ``crowded`` is called when the server has too many open batches, ``gone`` when a
    stream is missing: it makes the streams again.
    """

    cell: Cell
    backends: Backends
    settings: Settings
    meters: Meters
    now: Callable[[], float]
    crowded: Callable[[], None]
    gone: Callable[[], Awaitable[None]]


class Generation:
    """One delivered job.

    ``lease_until`` is moved by the worker as long as its renewals are answered; past
    it, the generation publishes and settles nothing more. `run` never raises but for
    its cancellation, which leaves the job to others.
    """

    def __init__(
        self,
        around: Surroundings,
        tenant: str | None,
        delivery: Delivery,
        lease_until: float,
    ) -> None:
        self._around = around
        self._cell = around.cell
        self.tenant = tenant or RESERVED_TENANT
        self.delivery = delivery
        self.lease_until = lease_until
        self.progress = Progress()
        self.job: Job | None = None
        self._invalid: InvalidJob | None = None
        try:
            if tenant is None:
                raise InvalidJob(f"subject {delivery.subject[:200]!r} is no job's")
            self.job = decode_job(delivery.data)
        except InvalidJob as error:
            self._invalid = error
        self._claimed_at = time.time()
        self._begun_at = around.now()
        self._deadline_at = float("inf")
        self._interruption = Interruption()
        self._held: Interrupt | None = None
        self._writer: LogWriter | None = None
        self._transcript: Transcript | None = None
        self._exchange: Exchange | None = None

    def __repr__(self) -> str:
        return (
            f"<Generation {self.tenant}/{self.id or '?'} {self.progress.state.value} "
            f"attempt={self.delivery.attempt} {self._writer!r}>"
        )

    @property
    def id(self) -> str | None:
        """The request's id, where the job is valid."""
        return self.job.id if self.job is not None else None

    @property
    def settlement(self) -> Settlement:
        """How the message is to be settled now."""
        return self.progress.settlement

    # The story

    async def run(self) -> None:
        """Serve the job as far as this worker can."""
        try:
            await self._serve()
        except Fenced as reason:
            self._leave(str(reason))
        except Interrupted as stop:
            self._cut_off(stop.interrupt)
        except asyncio.CancelledError:
            self._leave("the worker stops")
            raise
        except Exception:
            log.exception("%r failed; the job is left to be delivered again", self)
            self._leave("a defect")
        finally:
            self._drop()
            self._count()

    async def _serve(self) -> None:
        job = self.job
        if job is None or self._invalid is not None:
            await self._refuse(self._invalid or InvalidJob("the job is not valid"))
            return
        settings = self._around.settings
        wanted = (job.deadline_ms or 0) / 1000 or settings.deadline_s
        self._deadline_at = self.delivery.stored_at + min(
            wanted, settings.tokens_max_age_s / 2
        )
        while not await self._try(job):
            self._drop()

    async def _try(self, job: Job) -> bool:
        """Claim the job and serve it; False when the claim is to be made again."""
        found = await self._retried(
            lambda: claim(self._cell, self.tenant, self.delivery, job)
        )
        self._around.meters.claims[found.found.value] += 1
        if found.found is Found.STANDS:
            if isinstance(found.history.last, Failed):
                # Whoever ended it may have died before it wrote the dead letter.
                await self._bury_if_due(found.history.last)
            self.progress.take(Step.STANDS)
            return True
        if found.found is Found.NEWER:
            raise Fenced("a newer attempt goes on with the request")
        try:
            await self._own(job, found)
        except StartRefused as reason:
            log.debug("%r claims again: %s", self, reason)
        except TooManyBatches:
            self._around.crowded()
            await self._pause(CROWDED_S)
        except LogGone:
            await self._around.gone()
        else:
            return True
        self.progress.take(Step.AGAIN)
        return False

    async def _own(self, job: Job, found: Claim) -> None:
        """Serve a job whose log is ours to write."""
        history = found.history
        self._begin_writing(job.id, history)
        cancelled = found.cancelled or self._held_cancel
        error = self._too_late(history)
        if error is not None or cancelled is not None:
            await (self._fail(error) if error else self._cancelled(cancelled or ""))
            return
        self.progress.take(Step.START)
        stopped = self._announce(job, history)
        await self._the_writer.prove_start()
        self.progress.take(Step.PROVEN)
        try:
            if stopped is not None:
                raise stopped
            self._fire_held()
            await self._run_exchange(job, history)
        except GenerationError as failure:
            await self._fail(failure)
        except Interrupted as stop:
            await self._stop(stop.interrupt)
        except Exception as defect:
            log.exception("%r failed", self)
            await self._fail(InternalError(f"a defect: {type(defect).__name__}"))

    def _begin_writing(self, id: str, history: History) -> None:
        cell, delivery = self._cell, self.delivery
        writer = self._writer = LogWriter(
            cell,
            tenant=self.tenant,
            id=id,
            job_seq=delivery.stream_seq,
            attempt=delivery.attempt,
            stored=history.seq,
            stored_speech=0,
            last_seq=history.last_stream_seq,
            owned=self._owned,
        )
        writer.on_failed = self._log_failed
        writer.on_room = self._room
        transcript = self._transcript = Transcript(
            Numbering(id, delivery.attempt, history.seq),
            writer.append,
            max_payload=cell.connection.max_payload - SUBJECT_BYTES,
            max_text_bytes=self._around.settings.max_text_bytes,
        )
        transcript.go_on(history.text, history.deltas)

    def _too_late(self, history: History) -> GenerationError | None:
        """Why the job is not to be run (any more), if it is not."""
        delivered = deliveries(self.delivery.attempt, history.handovers)
        if delivered > self._around.settings.max_deliveries:
            return AttemptsExhausted(
                f"the job was delivered {delivered} times and came to no end"
            )
        if time.time() >= self._deadline_at:
            return DeadlineExceeded("the deadline passed before the job was served")
        return None

    def _announce(self, job: Job, history: History) -> GenerationError | None:
        """Publish the attempt's first event; an error where it must end there."""
        transcript, writer = self._the_transcript, self._the_writer
        if history.last is None:
            writer.append(encode(self._started(job)))
            return None
        nothing_said = history.continuable and not history.deltas
        mode: ResumeMode = "restart"
        if nothing_said or (history.continuable and self._can_continue(job)):
            mode = "continue"
        reason = resume_reason(history.last)
        writer.append(encode(transcript.resumed(mode, reason)))
        self._around.meters.resumed[(mode, reason)] += 1
        if mode == "restart" and job.on_restart == "fail":
            return InternalError(
                "the request's worker is gone, its text cannot be continued, and the "
                "job asks not to restart it"
            )
        return None

    def _started(self, job: Job) -> Started:
        return Started(
            *self._the_transcript.next(),
            v=PROTOCOL_VERSION,
            model=job.model,
            created=int(self._claimed_at * 1000),
            queue_ms=self._queue_ms,
            job=self.delivery.stream_seq,
            session=job.session,
            metadata=job.metadata,
        )

    def _can_continue(self, job: Job) -> bool:
        try:
            candidates = self._around.backends.candidates(job.model)
        except GenerationError:
            return False
        return any(c.can_continue for c in candidates) and can_continue(job.request)

    async def _run_exchange(self, job: Job, history: History) -> None:
        around, connection = self._around, self._cell.connection
        writer = self._the_writer
        begun = history.deltas > 0 or not history.continuable
        exchange = self._exchange = Exchange(
            Around(
                backends=around.backends,
                settings=around.settings,
                meters=around.meters,
                now=around.now,
                owned=self._owned,
                held_back=lambda: writer.full or connection.congested,
                may_go_on=lambda: not writer.full and connection.relaxed,
                interrupt=self.interrupt,
            ),
            job,
            self._the_transcript,
            self._deadline_at,
            # What the attempts before were billed for, they did not live to report.
            add_usage(None, None) if begun else None,
        )
        await exchange.run(self._interruption)
        await self._end(
            self._the_transcript.completed(
                finish_reason=exchange.finish_reason,
                usage=exchange.usage or {},
                timings=self._timings(),
                backend=exchange.backend or "",
                metadata=job.metadata,
            )
        )

    # Ends

    async def _stop(self, stop: Interrupt) -> None:
        """End, or give up, what an interrupt has cut off."""
        if stop.kind is Kind.CANCELLED:
            await self._cancelled(stop.reason)
        elif stop.kind is Kind.DEADLINE:
            await self._fail(DeadlineExceeded("the deadline passed"))
        elif stop.kind is Kind.DRAIN:
            self.progress.take(Step.HAND_OVER)
            await self._the_writer.commit(encode(self._the_transcript.handover()))
            self.progress.take(Step.PROVEN)
        elif stop.kind is Kind.LOG_GONE:
            await self._log_lost(stop.reason)
        else:
            raise Interrupted(stop)

    async def _cancelled(self, reason: str) -> None:
        metadata = self.job.metadata if self.job is not None else {}
        await self._end(
            self._the_transcript.cancelled(
                reason, timings=self._timings(), metadata=metadata
            )
        )

    async def _fail(self, error: GenerationError) -> None:
        await self._end(self._failed(error))

    def _failed(self, error: GenerationError) -> Failed:
        exchange = self._exchange
        return self._the_transcript.failed(
            error,
            usage=exchange.usage if exchange is not None else None,
            timings=self._timings(),
            backend=exchange.backend if exchange is not None else None,
            metadata=self.job.metadata if self.job is not None else {},
        )

    async def _end(self, event: Terminal) -> None:
        """Publish the terminal event and prove the whole log."""
        self.progress.take(Step.END)
        self._check_lease()
        try:
            await self._commit(event)
        except LogGone as gone:
            await self._log_lost(str(gone))
            return
        await self._bury_if_due(event)
        self.progress.take(Step.PROVEN)
        self._ended(event)

    async def _commit(self, event: Terminal) -> None:
        limit = self._cell.connection.max_payload - SUBJECT_BYTES
        await self._the_writer.commit(encode_terminal(event, limit))

    async def _log_lost(self, reason: str) -> None:
        """The log's stream was gone: a new one gets the end, numbered as it stood.

        Whoever listens live has seen all events so far and takes it for the next.
        """
        job = self.job
        if job is None:
            raise Fenced(reason)
        self.progress.take(Step.LOSE_LOG)
        event = self._failed(LogLost(f"the stream of the log is gone: {reason}"))
        while True:
            self._check_lease()
            await self._retried(self._around.gone)
            if self._writer is not None:
                self._writer.close()
            self._writer = LogWriter(
                self._cell,
                tenant=self.tenant,
                id=job.id,
                job_seq=self.delivery.stream_seq,
                attempt=self.delivery.attempt,
                stored=0,
                stored_speech=0,
                last_seq=0,
                owned=self._owned,
            )
            try:
                await self._commit(event)
                break
            except LogGone:
                await self._pause(RETRY_S)
        self.progress.take(Step.PROVEN)
        self._ended(event)

    def _ended(self, event: Terminal) -> None:
        code = event.error.code if isinstance(event, Failed) else ""
        self._around.meters.ended[(event.type, code)] += 1
        log.info(
            "request %s",
            event.type,
            extra={
                "tenant": self.tenant,
                "id": event.id,
                "attempt": event.attempt,
                "events": event.seq,
                "queue_ms": self._queue_ms,
                "total_ms": self._total_ms,
                **({"code": code} if code else {}),
            },
        )

    # Jobs that cannot be served

    async def _refuse(self, error: InvalidJob) -> None:
        """Tell the reader of a job that is not valid, keep it, terminate it."""
        id = read_job_id(self.delivery.data)
        if id is not None and self.tenant != RESERVED_TENANT:
            stored = await self._retried(
                lambda: self._cell.last_stored(self.tenant, id)
            )
            if stored is None:
                await self._tell_refused(id, error)
        await self._bury(error.code, error.message)
        self.progress.take(Step.BURY)

    async def _tell_refused(self, id: str, error: InvalidJob) -> None:
        self._begin_writing(id, History())
        event = self._failed(error)
        try:
            await self._commit(event)
        except (StartRefused, TooManyBatches, LogGone) as reason:
            log.debug("%r: %s", self, reason)
        else:
            self._ended(event)

    async def _bury_if_due(self, event: Terminal) -> None:
        if isinstance(event, Failed) and event.error.code in BURIED:
            await self._bury(event.error.code, event.error.message)

    async def _bury(self, code: str, message: str) -> None:
        delivery, tenant = self.delivery, self.tenant
        headers = dead_letter_headers(code, message, delivery)
        await self._retried(lambda: self._cell.bury(tenant, delivery.data, headers))
        self._around.meters.dead_letters += 1
        log.warning(
            "dead letter: %s: %s",
            code,
            message,
            extra={
                "tenant": tenant,
                "subject": delivery.subject,
                "job": delivery.stream_seq,
            },
        )

    # Interrupting

    def interrupt(self, stop: Interrupt) -> None:
        """Cut the generation off. The first interrupt counts; too late is harmless.

        Closes the backend's connection before it returns. Before the start is proven
        only the loss of the job counts at once; anything else waits for the proof.
        """
        state = self.progress.state
        if stop.kind is Kind.LOST or state is State.RUNNING:
            if self._interruption.fire(stop) and self._exchange is not None:
                self._exchange.drop()
        elif state in (State.DELIVERED, State.CLAIMED) and self._held is None:
            self._held = stop

    def give_back(self) -> None:
        """The drain time is over: hand the request over, or back if not begun."""
        if self.progress.state is State.DELIVERED and self._held is None:
            self._interruption.fire(Interrupt(Kind.DRAIN, "drain"))
        else:
            self.interrupt(Interrupt(Kind.DRAIN, "drain"))

    @property
    def _held_cancel(self) -> str | None:
        held = self._held
        return held.reason if held and held.kind is Kind.CANCELLED else None

    def _fire_held(self) -> None:
        if self._held is not None:
            raise Interrupted(self._held)

    def _cut_off(self, stop: Interrupt) -> None:
        if stop.kind is Kind.DRAIN and self.progress.state is State.DELIVERED:
            self.progress.take(Step.HAND_OVER)
            return
        self._leave(stop.reason)

    def _leave(self, reason: str) -> None:
        if not self.progress.over:
            log.info("%r is left: %s", self, reason)
            self.progress.take(Step.LEAVE)
            self._around.meters.left += 1

    def _log_failed(self, error: Exception) -> None:
        if isinstance(error, LogGone):
            self.interrupt(Interrupt(Kind.LOG_GONE, str(error)))
        elif isinstance(error, Fenced):
            self.interrupt(Interrupt(Kind.LOST, str(error)))

    def _room(self) -> None:
        if self._exchange is not None:
            self._exchange.go_on()

    def sweep(self, now: float) -> None:
        """Called a few times a second: lease, deadline, silence, backpressure."""
        if self.progress.over:
            return
        if now > self.lease_until:
            self.interrupt(Interrupt(Kind.LOST, "the lease ran out"))
        elif self.progress.state is State.RUNNING and time.time() >= self._deadline_at:
            self.interrupt(Interrupt(Kind.DEADLINE, "deadline"))
        elif self._exchange is not None:
            self._exchange.sweep(now)

    # Small things

    async def _retried(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until NATS answers or the lease is over. Raises `Interrupted`."""

        async def once() -> T:
            return await call()

        while True:
            self._check_lease()
            try:
                return await self._interruption.race(once())
            except StreamUnavailable as error:
                if error.gone:
                    await self._around.gone()
            except BusError as error:
                log.debug("%r tries again: %s", self, error)
            await self._pause(RETRY_S)

    async def _pause(self, seconds: float) -> None:
        work: Coroutine[Any, Any, None] = self._cell.pause(seconds)
        await self._interruption.race(work)

    @property
    def _the_writer(self) -> LogWriter:
        assert self._writer is not None
        return self._writer

    @property
    def _the_transcript(self) -> Transcript:
        assert self._transcript is not None
        return self._transcript

    @property
    def _queue_ms(self) -> int:
        return max(0, round((self._claimed_at - self.delivery.stored_at) * 1000))

    @property
    def _total_ms(self) -> int:
        return max(0, round((self._around.now() - self._begun_at) * 1000))

    def _timings(self) -> Timings:
        first = self._exchange.first_token_s if self._exchange is not None else None
        return Timings(
            queue_ms=self._queue_ms,
            first_token_ms=round(first * 1000) if first is not None else None,
            total_ms=self._total_ms,
        )

    def _owned(self) -> bool:
        return self._around.now() <= self.lease_until

    def _check_lease(self) -> None:
        if not self._owned():
            raise Fenced("the lease ran out")

    def _drop(self) -> None:
        if self._exchange is not None:
            self._exchange.drop()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _count(self) -> None:
        meters = self._around.meters
        if self._transcript is not None:
            meters.deltas += self._transcript.deltas
        meters.queue.add(self._queue_ms / 1000)
        meters.total.add(self._total_ms / 1000)
