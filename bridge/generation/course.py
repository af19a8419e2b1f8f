"""One job, from claim to settlement.

Read from the top: `Generation.run` is the story of a job, `bridge.generation.serving`
its middle, `bridge.generation.ending` its end. The table in `bridge.job` says what may
follow what; everything that cuts a job off (a cancel, its deadline, a drain, a lost
lease) comes in by `Generation.interrupt`, which closes the backend's connection there
and then.
"""

from __future__ import annotations

import asyncio
import logging

from bridge.bus.commands import TooLarge
from bridge.bus.jobs import Delivery
from bridge.bus.leases import Lease
from bridge.bus.refusals import Fenced, LogGone, StartRefused, TooManyBatches
from bridge.errors import BridgeError, BusError, InternalError, InvalidJob
from bridge.events import Failed, Job, Terminal
from bridge.generation.account import Account
from bridge.generation.case import Case
from bridge.generation.claim import Claim, Found, begun_for, claim, close_to_end
from bridge.generation.dead import DeadLetters
from bridge.generation.deadline import effective_deadline_ms
from bridge.generation.ending import Ending
from bridge.generation.interrupt import Interrupt, Interrupted, Interruption, Kind
from bridge.generation.ownership import RETRY_S, Ownership
from bridge.generation.record import Record, Writing, read_spoken
from bridge.generation.refusal import refuse
from bridge.generation.serving import Serving
from bridge.generation.superseding import Superseding
from bridge.generation.surroundings import CROWDED_S, Surroundings
from bridge.generation.voice import Spoken
from bridge.history import History
from bridge.intake import decode_job, read_job_id
from bridge.job import Progress, Settlement, State, Step
from bridge.speech.options import SpeechOptions, speech_options
from bridge.subjects import RESERVED_TENANT

log = logging.getLogger(__name__)

#: The reason of a cancel when nobody renewed the lease of a request.
ABANDONED = "abandoned"


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
        self._defect: Exception | None = None
        try:
            if tenant is None:
                raise InvalidJob(f"subject {delivery.subject[:200]!r} is no job's")
            self.job = job = decode_job(delivery.data)
            if job.speech is not False:
                self._speech = speech_options(job.speech)
        except InvalidJob as error:
            self._invalid = error
        except Exception as defect:
            self._defect = defect  # for `run` to raise: the delivery of jobs continues
        self._interruption = Interruption()
        self._ownership = self._owned_until(self._interruption)
        self._account = Account(
            self.tenant,
            delivery.stored_ns,
            self._cell.watch.time.at(around.now()),
            around.meters,
            around.now,
        )
        self._letters = DeadLetters(
            self._cell,
            self.tenant,
            delivery,
            around.meters,
            check_lease=self._ownership.check,
            gone=around.gone,
        )
        self._case = Case(
            around=around,
            tenant=self.tenant,
            delivery=delivery,
            job=self.job,
            progress=self.progress,
            ownership=self._ownership,
            account=self._account,
            letters=self._letters,
            superseding=Superseding(
                self._cell, self.tenant, delivery, self._ownership.holds
            ),
        )
        self._ending = Ending(self._case)
        self._serving = Serving(self._case, self._ending, self.interrupt)
        self._deadline = float("inf")  # on the monotonic clock
        self._record: Record | None = None
        self._heard_at = around.now()

    def __repr__(self) -> str:
        return (
            f"<Generation {self.tenant}/{self.id or '?'} {self.progress.state.value} "
            f"attempt={self.delivery.attempt} {self._record!r}>"
        )

    @property
    def id(self) -> str | None:
        """The request's id, where the job is valid."""
        return self.job.id if self.job is not None else None

    def _owned_until(self, interruption: Interruption) -> Ownership:
        name = f"{self.tenant}/{self.id or '?'}"
        return Ownership(self._around, name, self.lease, interruption)

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
        except Exception as error:
            if isinstance(error, BusError) and not isinstance(error, TooLarge):
                self._leave(f"NATS is away: {error}")
            else:
                log.exception("%r failed", self)
                await self._survive(error)
        finally:
            self._drop()
            self._account.close()
            await self._case.superseding.close()

    async def _survive(self, defect: Exception) -> None:
        """End the request with an error of the bridge, or leave it to another try.

        At once where it was begun here, since readers wait for it; else on the last
        delivery, since another worker may be without the defect.
        """
        attempt = self.delivery.attempt
        if self.progress.state in (State.RUNNING, State.ENDING):
            message = f"a defect of the bridge: {type(defect).__name__}"
        elif attempt >= self._around.settings.max_deliveries:
            message = (
                f"the job failed with an internal error on all {attempt} deliveries"
            )
        else:
            self._leave("a defect")
            return
        try:
            await self._end_broken(InternalError(message))
        except (Fenced, Interrupted) as reason:
            log.debug("%r: %s", self, reason)
        except Exception:
            log.exception("%r could not be ended", self)
        self._leave("a defect")

    async def _end_broken(self, error: InternalError) -> None:
        """Put the error behind what the log has, whatever that says.

        Nothing of the try that had the defect is used. Raises `Fenced`.
        """
        self._drop()
        # What has cut the try off cuts nothing off any more.
        ownership = self._ownership = self._owned_until(Interruption())
        cell, tenant, delivery = self._cell, self.tenant, self.delivery
        id = self.id or read_job_id(delivery.data, delivery.message_id, tenant)
        while id is not None and tenant != RESERVED_TENANT:
            end = await ownership.retried(
                lambda: close_to_end(cell, tenant, id, delivery)
            )
            if end is None:
                raise Fenced("the log was begun for another job")
            self.progress.take(Step.DEFECT)
            if isinstance(end.last, Terminal):
                await self._ending.settle(end.last)
                return
            if await self._put_behind(end, id, error):
                return
            self._drop()
            await ownership.pause(RETRY_S)
        await self._letters.keep(error.code, error.message)
        self.progress.take(Step.BURY)

    async def _put_behind(self, end: History, id: str, error: InternalError) -> bool:
        """Publish a terminal event behind the log; False where it is to be read again.

        Raises `Fenced`.
        """
        try:
            record = await self._open_plain(id, end)
            event = record.failed(
                error, usage=None, backend=None, timings=self._account.timings()
            )
            event.text, event.text_omitted = None, True
            self._ownership.check()
            await record.commit(event)
        except (StartRefused, TooManyBatches) as reason:
            log.debug("%r: %s", self, reason)
            return False
        except LogGone:
            await self._ownership.remake_streams()
            return False
        self._account.ended(event)
        await self._ending.settle(event)
        return True

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
        if self._defect is not None:
            raise self._defect
        job = self.job
        if job is None or self._invalid is not None:
            await refuse(
                self._case,
                self._invalid or InvalidJob("the job is not valid"),
                open_record=self._open_record,
                close_record=self._drop,
            )
            return
        stored_at = self._cell.watch.time.monotonic(self.delivery.stored_ns)
        deadline_ms = effective_deadline_ms(job.deadline_ms, self._around.settings)
        self._deadline = stored_at + deadline_ms / 1000
        while not await self._try(job):
            self._drop()

    async def _try(self, job: Job) -> bool:
        """Claim the job and serve it; False when the claim is to be made again."""
        found = await self._ownership.retried(
            lambda: claim(self._cell, self.tenant, self.delivery, job)
        )
        self._around.meters.claims[found.found.value] += 1
        if found.found is Found.STANDS:
            if isinstance(found.history.last, Failed):
                # Whoever ended it may have died before it wrote the dead letter.
                await self._letters.keep_if_due(found.history.last)
            await self._supersede_again(job, found.history)
            return True
        if found.found is Found.NEWER:
            raise Fenced("a newer attempt goes on with the request")
        pause_s = await self._serve_claimed(job, found)
        if pause_s is None:
            return True
        if self.progress.state is not State.DELIVERED:
            self.progress.take(Step.AGAIN)
        await self._ownership.pause(pause_s)
        return False

    async def _serve_claimed(self, job: Job, found: Claim) -> float | None:
        """Serve a job that is ours; else the pause before it is claimed again, in s."""
        history = found.history
        if found.found is Found.LOST:
            history = history.end_only()
        try:
            record = await self._open_record(job.id, history)
            self._check_drain()
            await self._serving.run(job, found, record, self._deadline)
        except StartRefused as reason:
            log.debug("%r claims again: %s", self, reason)
        except TooManyBatches:
            self._around.crowded()
            return CROWDED_S
        except LogGone:
            await self._ownership.remake_streams()
        else:
            return None
        return 0.0

    def _check_drain(self) -> None:
        """Raises `Interrupted` where a job that nothing was published of is drained."""
        self._interruption.check()
        held = self._serving.held
        if held is not None and held.kind is Kind.DRAIN:
            raise Interrupted(held)

    async def _supersede_again(self, job: Job, history: History) -> None:
        """Acknowledge a request that has ended, once what it supersedes is stored.

        The worker that ended it may have died in between.
        """
        superseding = self._case.superseding
        if job.supersede and history.over and history.seq > 1:
            begun = await self._ownership.retried(
                lambda: begun_for(self._cell, self.tenant, job.id)
            )
            if begun == self.delivery.identity:
                superseding.begin(job, on_newer=lambda: None)
        if await superseding.stored():
            self.progress.take(Step.STANDS)
        else:
            self._ownership.check()
            self.progress.take(Step.HAND_OVER)

    # The record of a try

    async def _open_plain(self, id: str, end: History) -> Record:
        """The record of a last event alone; without speech where that has a defect."""
        try:
            return await self._open_record(id, end)
        except (BridgeError, Interrupted):
            raise
        except Exception:
            log.exception("%r: its speech is not ended", self)
            self._speech = None
        return await self._open_record(id, end)

    async def _open_record(self, id: str, history: History) -> Record:
        cell = self._cell
        spoken = Spoken()
        if self._speech is not None and history.last is not None:
            spoken = await self._ownership.retried(
                lambda: read_spoken(cell, self.tenant, id)
            )
        record = self._record = Record(
            Writing(
                cell=cell,
                tenant=self.tenant,
                id=id,
                delivery=self.delivery,
                metadata=self.job.metadata if self.job is not None else {},
                max_text_bytes=self._around.settings.max_text_bytes,
                now=self._around.now,
                owned=self._ownership.holds,
            ),
            history,
            spoken,
            self._speech,
        )
        record.writer.on_failed = self._log_failed
        record.writer.on_room = self._room
        if record.voice is not None:
            record.voice.on_room = self._room
        return record

    def _log_failed(self, error: Exception) -> None:
        if isinstance(error, LogGone):
            self.interrupt(Interrupt(Kind.LOG_GONE, str(error)))
        elif isinstance(error, Fenced):
            self.interrupt(Interrupt(Kind.LOST, str(error)))

    def _room(self) -> None:
        if self._serving.exchange is not None:
            self._serving.exchange.go_on()

    def _drop(self) -> None:
        self._serving.drop()
        if self._record is not None:
            self._around.meters.deltas += self._record.transcript.deltas
            self._record.close()
            self._record = None

    # Leaving

    async def _end_orphan(self) -> bool:
        """End a request of ours that nobody else can end any more."""
        record, job = self._record, self.job
        if record is None or job is None:
            return False
        if not await self._ending.end_orphan(record, job.id):
            return False
        self._leave("its job is in no stream any more")
        return True

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

    # Interrupting

    def interrupt(self, stop: Interrupt) -> None:
        """Cut the generation off. The first interrupt counts; too late is harmless.

        Closes the backend's connection before it returns. Before the start is proven
        only the loss of the job counts at once; anything else waits for the proof,
        where a cancel replaces a drain.
        """
        state, serving = self.progress.state, self._serving
        if stop.kind is Kind.LOST or state is State.RUNNING:
            if self._interruption.fire(stop) and serving.exchange is not None:
                serving.exchange.drop()
        elif state in (State.DELIVERED, State.CLAIMED):
            serving.hold(stop)

    def give_back(self) -> None:
        """The drain time is over: hand the request over, or back if not begun."""
        state = self.progress.state
        if state in (State.DELIVERED, State.ENDING):
            # Its log has its end, perhaps; the next worker sees to the rest.
            self._case.superseding.give_up()
        if state is State.DELIVERED and self._serving.held is None:
            self._interruption.fire(Interrupt(Kind.DRAIN, "drain"))
        else:
            self.interrupt(Interrupt(Kind.DRAIN, "drain"))

    def heard(self) -> None:
        """A reader said that it is still listening."""
        self._heard_at = self._around.now()

    def _abandoned(self, now: float) -> bool:
        keepalive_ms = self.job.keepalive_ms if self.job is not None else None
        return keepalive_ms is not None and (
            (now - self._heard_at) * 1000 > keepalive_ms
        )

    def sweep(self, now: float) -> None:
        """Called a few times a second: lease, deadline, silence, backpressure."""
        if self.progress.over:
            return
        running = self.progress.state is State.RUNNING
        lost = now > self.lease.until
        if self._record is not None:
            self._record.sweep(now, speaking=running and not lost)
        if lost:
            self.interrupt(Interrupt(Kind.LOST, "the lease ran out"))
        elif running and now >= self._deadline:
            self.interrupt(Interrupt(Kind.DEADLINE, "deadline"))
        elif self._abandoned(now):
            self.interrupt(Interrupt(Kind.CANCELLED, ABANDONED))
        elif self._serving.exchange is not None:
            self._serving.exchange.sweep(now)
