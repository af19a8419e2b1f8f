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
from bridge.bus.leases import Lease
from bridge.bus.writer import (
    Fenced,
    LogGone,
    StartRefused,
    TooManyBatches,
)
from bridge.config import Settings
from bridge.errors import (
    BridgeError,
    BusError,
    DeadlineExceeded,
    GenerationError,
    InternalError,
    InvalidJob,
    LogLost,
    StreamUnavailable,
)
from bridge.events import (
    Failed,
    Job,
    Terminal,
    Timings,
    decode_job,
    read_job_id,
)
from bridge.generation.claim import Claim, Found, claim
from bridge.generation.dead import DeadLetters
from bridge.generation.exchange import Around, Exchange
from bridge.generation.interrupt import Interrupt, Interrupted, Interruption, Kind
from bridge.generation.orphan import is_orphaned
from bridge.generation.record import Record, Writing, read_spoken
from bridge.generation.session import SUPERSEDED, supersede_until_done
from bridge.generation.takeover import not_restarted, resume_mode, too_late
from bridge.generation.voice import Spoken
from bridge.history import History
from bridge.job import Progress, Settlement, State, Step, resume_reason
from bridge.metrics import Meters
from bridge.retry import add_usage
from bridge.speech.options import SpeechOptions, speech_options
from bridge.subjects import RESERVED_TENANT

log = logging.getLogger(__name__)

#: While the server has as many open batches as it allows, a claim waits so long, in
#: seconds, and tries again. It keeps its message: a nak would count as a delivery.
CROWDED_S = 0.5

#: Between two tries while NATS does not answer, in seconds.
RETRY_S = 0.25

#: The reason of a cancel when nobody renewed the lease of a request.
ABANDONED = "abandoned"

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

    ``lease`` is moved by the worker as long as its renewals are answered; past it, the
    generation publishes and settles nothing more. `run` never raises but for its
    cancellation, which leaves the job to others.
    """

    def __init__(
        self,
        around: Surroundings,
        tenant: str | None,
        delivery: Delivery,
        lease: Lease,
    ) -> None:
        self._around = around
        self._cell = around.cell
        self.tenant = tenant or RESERVED_TENANT
        self.delivery = delivery
        self.lease = lease
        self.progress = Progress()
        self.job: Job | None = None
        self._speech: SpeechOptions | None = None
        self._invalid: InvalidJob | None = None
        try:
            if tenant is None:
                raise InvalidJob(f"subject {delivery.subject[:200]!r} is no job's")
            self.job = job = decode_job(delivery.data)
            if job.speech is not False:
                self._speech = speech_options(job.speech)
        except InvalidJob as error:
            self._invalid = error
        self._letters = DeadLetters(
            self._cell,
            self.tenant,
            delivery,
            around.meters,
            check_lease=self._check_lease,
            gone=around.gone,
        )
        self._claimed_at = time.time()
        self._begun_at = around.now()
        self._deadline_at = float("inf")  # Unix time
        self._deadline = float("inf")  # the same on the monotonic clock
        self._interruption = Interruption()
        self._held: Interrupt | None = None
        self._record: Record | None = None
        self._exchange: Exchange | None = None
        self._superseding: asyncio.Task[None] | None = None
        self._heard_at = around.now()
        self._epoch = self._cell.connection.reconnects

    def __repr__(self) -> str:
        return (
            f"<Generation {self.tenant}/{self.id or '?'} {self.progress.state.value} "
            f"attempt={self.delivery.attempt} {self._record!r}>"
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
            await self._serve_or_leave()
        except asyncio.CancelledError:
            self._leave("the worker stops")
            raise
        except Exception:
            log.exception("%r failed", self)
            await self._survive_a_defect()
        finally:
            self._drop()
            self._count()

    async def _survive_a_defect(self) -> None:
        """Leave the job to another try, or keep it once it had its tries."""
        tried = self.delivery.attempt >= self._around.settings.max_deliveries
        if tried and self.progress.state is State.DELIVERED:
            message = "the job, or what its log says, takes every worker down"
            try:
                await self._letters.keep("internal", message)
            except Fenced as fenced:
                log.debug("%r: %s", self, fenced)
            else:
                self.progress.take(Step.BURY)
        self._leave("a defect")

    async def _serve_or_leave(self) -> None:
        try:
            await self._serve()
            return
        except Fenced as fenced:
            stop = Interrupt(Kind.LOST, str(fenced))
        except Interrupted as interrupted:
            stop = interrupted.interrupt
        if stop.kind is not Kind.LOST or not await self._end_orphan():
            self._cut_off(stop)

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
        self._deadline = self._around.now() + self._deadline_at - time.time()
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
                await self._letters.keep_if_due(found.history.last)
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
        record = await self._open_record(job.id, history)
        cancelled = found.cancelled or self._held_cancel
        error = too_late(
            self.delivery,
            history,
            self._around.settings.max_deliveries,
            self._deadline_at,
        )
        if error is not None:
            await self._fail(record, error)
            return
        if cancelled is not None:
            await self._end(record, record.cancelled(cancelled, self._timings()))
            return
        self.progress.take(Step.START)
        refusal = self._announce(record, job, history)
        await record.writer.prove_start()
        self.progress.take(Step.PROVEN)
        self._supersede(job)
        try:
            if refusal is not None:
                raise refusal
            self._fire_held()
            answered = await self._exchange_with_backends(record, job, history)
        except GenerationError as failure:
            await self._fail(record, failure)
        except Interrupted as stop:
            await self._stop(record, stop.interrupt)
        else:
            await self._end(record, answered)

    async def _open_record(self, id: str, history: History) -> Record:
        cell = self._cell
        spoken = Spoken()
        if self._speech is not None and history.last is not None:
            spoken = await self._retried(lambda: read_spoken(cell, self.tenant, id))
        record = self._record = Record(
            Writing(
                cell=cell,
                tenant=self.tenant,
                id=id,
                delivery=self.delivery,
                metadata=self.job.metadata if self.job is not None else {},
                max_text_bytes=self._around.settings.max_text_bytes,
                now=self._around.now,
                owned=self._owned,
            ),
            history,
            spoken,
            self._speech,
        )
        record.writer.on_failed = self._log_failed
        record.writer.on_room = self._room
        return record

    def _announce(
        self, record: Record, job: Job, history: History
    ) -> GenerationError | None:
        """Publish the attempt's first event; an error where it must end there."""
        if history.last is None:
            record.start(job, self._claimed_at, self._queue_ms)
            return None
        mode = resume_mode(history, job, self._around.backends)
        reason = resume_reason(history.last)
        record.resume(mode, reason, history)
        self._around.meters.resumed[(mode, reason)] += 1
        return not_restarted(mode, job)

    async def _exchange_with_backends(
        self, record: Record, job: Job, history: History
    ) -> Terminal:
        """Ask until the answer is complete; the event that says so."""
        around = self._around
        begun = history.deltas > 0 or not history.continuable
        exchange = self._exchange = Exchange(
            Around(
                backends=around.backends,
                settings=around.settings,
                meters=around.meters,
                now=around.now,
                lease=self.lease,
                writer=record.writer,
                outbox=self._cell.connection.outbox,
                interrupt=self.interrupt,
            ),
            job,
            record.transcript,
            self._deadline_at,
            # What the attempts before were billed for, they did not live to report.
            add_usage(None, None) if begun else None,
        )
        try:
            await exchange.run(self._interruption)
        except (BridgeError, Interrupted):
            raise
        except Exception as defect:
            log.exception("%r failed", self)
            name = type(defect).__name__
            raise InternalError(f"a defect of the bridge: {name}") from defect
        return record.completed(
            finish_reason=exchange.finish_reason,
            usage=exchange.usage or {},
            backend=exchange.backend or "",
            timings=self._timings(),
        )

    # Sessions

    def _supersede(self, job: Job) -> None:
        """Cancel what the session has of older jobs; beside the generation."""
        if job.supersede and job.session is not None:
            self._superseding = asyncio.get_running_loop().create_task(
                supersede_until_done(
                    self._cell,
                    self.tenant,
                    job.session,
                    self.delivery.stream_seq,
                    owned=self._owned,
                    on_newer=self._superseded,
                )
            )

    def _superseded(self) -> None:
        self.interrupt(Interrupt(Kind.CANCELLED, SUPERSEDED))

    def heard(self) -> None:
        """A reader said that it is still listening."""
        self._heard_at = self._around.now()

    def _abandoned(self, now: float) -> bool:
        keepalive_ms = self.job.keepalive_ms if self.job is not None else None
        return keepalive_ms is not None and (
            (now - self._heard_at) * 1000 > keepalive_ms
        )

    # Ends

    async def _stop(self, record: Record, stop: Interrupt) -> None:
        """End, or give up, what an interrupt has cut off."""
        if stop.kind is Kind.CANCELLED:
            await self._end(record, record.cancelled(stop.reason, self._timings()))
        elif stop.kind is Kind.DEADLINE:
            await self._fail(record, DeadlineExceeded("the deadline passed"))
        elif stop.kind is Kind.DRAIN:
            self.progress.take(Step.HAND_OVER)
            try:
                await record.hand_over()
            except LogGone as gone:
                await self._log_lost(record, str(gone))
                return
            self.progress.take(Step.PROVEN)
        elif stop.kind is Kind.LOG_GONE:
            await self._log_lost(record, stop.reason)
        else:
            raise Interrupted(stop)

    async def _fail(self, record: Record, error: GenerationError) -> None:
        await self._end(record, self._failed(record, error))

    def _failed(self, record: Record, error: GenerationError) -> Failed:
        exchange = self._exchange
        return record.failed(
            error,
            usage=exchange.usage if exchange is not None else None,
            backend=exchange.backend if exchange is not None else None,
            timings=self._timings(),
        )

    async def _end(self, record: Record, event: Terminal) -> None:
        """Publish the terminal event and prove the whole log."""
        self.progress.take(Step.END)
        self._check_lease()
        try:
            await record.commit(event)
        except LogGone as gone:
            await self._log_lost(record, str(gone))
            return
        await self._letters.keep_if_due(event)
        self.progress.take(Step.PROVEN)
        self._ended(event)

    async def _log_lost(self, record: Record, reason: str) -> None:
        """The log's stream was gone: the one that is made again gets the end."""
        self.progress.take(Step.LOSE_LOG)
        error = LogLost(f"the stream of the log is gone: {reason}")
        event = self._failed(record, error)
        while True:
            self._check_lease()
            try:
                await self._around.gone()
                await record.commit_anew(event)
                break
            except (LogGone, BusError) as again:
                log.debug("%r: %s", self, again)
            await self._cell.pause(RETRY_S)
        self.progress.take(Step.PROVEN)
        self._ended(event)

    async def _end_orphan(self) -> bool:
        """End a request that an outage has cut off from its job and its log.

        Its job is in no stream, so that nothing of it is to be settled.
        """
        record, job = self._record, self.job
        begun = self.progress.state in (State.RUNNING, State.ENDING)
        if record is None or job is None or not begun:
            return False
        if self._cell.connection.connected and not self._outlived:
            return False
        record.close()
        if not await is_orphaned(self._cell, self.tenant, job.id, self.delivery):
            return False
        self.progress.take(Step.LOSE_LOG)
        lost = LogLost("the server came back without the streams of job and log")
        event = self._failed(record, lost)
        try:
            await self._around.gone()
            await record.commit_anew(event)
        except BridgeError as reason:
            log.warning("%r could not be ended: %s", self, reason)
            return False
        self._ended(event)
        self._leave("its job is in no stream any more")
        return True

    @property
    def _outlived(self) -> bool:
        """Whether the connection that had brought the job is gone."""
        return self._cell.connection.reconnects != self._epoch

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
                while not await self._tell_refused(id, error):
                    self._drop()
                    await self._pause(CROWDED_S)
        await self._letters.keep(error.code, error.message)
        self.progress.take(Step.BURY)

    async def _tell_refused(self, id: str, error: InvalidJob) -> bool:
        """Publish a log of that one event; False when there was no room for it."""
        record = await self._open_record(id, History())
        event = self._failed(record, error)
        try:
            await record.commit(event)
        except TooManyBatches:
            self._around.crowded()
            return False
        except LogGone:
            await self._around.gone()
            return False
        except StartRefused as reason:
            log.debug("%r: %s", self, reason)
        else:
            self._ended(event)
        return True

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
        running = self.progress.state is State.RUNNING
        if self._record is not None:
            self._record.sweep(now, speaking=running)
        if now > self.lease.until:
            self.interrupt(Interrupt(Kind.LOST, "the lease ran out"))
        elif running and now >= self._deadline:
            self.interrupt(Interrupt(Kind.DEADLINE, "deadline"))
        elif self._abandoned(now):
            self.interrupt(Interrupt(Kind.CANCELLED, ABANDONED))
        elif self._exchange is not None:
            self._exchange.sweep(now)

    # Small things

    async def _retried(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until NATS answers or the lease is over. Raises `Interrupted`."""
        while True:
            self._check_lease()
            self._interruption.check()
            try:
                return await call()
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
        return self._around.now() <= self.lease.until

    def _check_lease(self) -> None:
        if not self._owned():
            raise Fenced("the lease ran out")

    def _drop(self) -> None:
        if self._superseding is not None and self.progress.state is State.LEFT:
            self._superseding.cancel()
        if self._exchange is not None:
            self._exchange.drop()
        if self._record is not None:
            self._around.meters.deltas += self._record.transcript.deltas
            self._record.close()
            self._record = None

    def _count(self) -> None:
        meters = self._around.meters
        meters.queue.add(self._queue_ms / 1000)
        meters.total.add(self._total_ms / 1000)
