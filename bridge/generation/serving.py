"""A claimed job, served: its first event, its exchange with backends, its end."""

from __future__ import annotations

import logging
from collections.abc import Callable

from bridge.errors import BridgeError, GenerationError, InternalError, LogLost
from bridge.events import Job, Terminal
from bridge.generation.case import Case
from bridge.generation.claim import Claim, Found
from bridge.generation.deadline import effective_deadline_ms
from bridge.generation.ending import Ending
from bridge.generation.exchange import Around, Exchange
from bridge.generation.interrupt import Interrupt, Interrupted, Kind
from bridge.generation.record import Record
from bridge.generation.session import SUPERSEDED
from bridge.generation.takeover import not_restarted, resume_mode, too_late
from bridge.history import History
from bridge.job import Step, resume_reason
from bridge.retry import add_usage

log = logging.getLogger(__name__)


class Serving:
    """Serves one delivered job, each time its log is ours to write: see `run`.

    ``interrupt`` cuts the generation off.
    """

    def __init__(
        self,
        case: Case,
        ending: Ending,
        interrupt: Callable[[Interrupt], None],
    ) -> None:
        self._case = case
        self._ending = ending
        self._interrupt = interrupt
        #: Who asks the backends, once the start is proven.
        self.exchange: Exchange | None = None
        #: A cancel, deadline or drain that came before the start was proven, and waits
        #: for that, also over a start that is made again.
        self.held: Interrupt | None = None
        #: The loss of the log that this start has begun, and of no other.
        self._log_gone: Interrupt | None = None

    def __repr__(self) -> str:
        return f"<Serving {self._case!r} {self.exchange!r}>"

    async def run(
        self, job: Job, found: Claim, record: Record, deadline: float
    ) -> None:
        """Serve a job whose log is ours to write, until ``deadline`` on our clock.

        Raises `StartRefused`, `TooManyBatches` or `LogGone` where the job is to be
        claimed again, `Fenced` and `Interrupted`. May be cancelled.
        """
        case, ending, history = self._case, self._ending, found.history
        self._log_gone = None
        if found.found is Found.LOST:
            await self._end_lost(record, history)
            return
        cancelled = found.cancelled or self._held_cancel
        settings = case.around.settings
        remaining_s = deadline - case.around.now()
        error = too_late(case.delivery, history, settings.max_deliveries, remaining_s)
        if error is not None:
            await ending.fail(record, error)
            return
        if cancelled is not None:
            await ending.end(
                record, record.cancelled(cancelled, case.account.timings())
            )
            return
        case.ownership.check()
        case.progress.take(Step.START)
        refusal = self._announce(record, job, history)
        await record.writer.prove_start()
        case.progress.take(Step.PROVEN)
        case.superseding.begin(job, self._superseded)
        try:
            if refusal is not None:
                raise refusal
            self._fire_held()
            answered = await self._ask_backends(record, job, history, deadline)
        except GenerationError as failure:
            await ending.fail(record, failure)
        except Interrupted as stop:
            await ending.stop(record, stop.interrupt)
        else:
            await ending.end(record, answered)

    async def _end_lost(self, record: Record, history: History) -> None:
        """End a request whose log is not whole behind what is left of it."""
        case = self._case
        lost = LogLost(f"a part of the log is missing: {history.fault}")
        event = case.account.failed(record, lost)
        event.text, event.text_omitted = None, True  # the text is not known
        await self._ending.end(record, event)

    def _announce(
        self, record: Record, job: Job, history: History
    ) -> GenerationError | None:
        """Publish the attempt's first event; an error where it must end there."""
        around, account = self._case.around, self._case.account
        if history.last is None:
            deadline_ms = effective_deadline_ms(job.deadline_ms, around.settings)
            record.start(job, account.claimed_ns, account.queue_ms, deadline_ms)
            return None
        mode = resume_mode(history, job, around.backends)
        reason = resume_reason(history.last)
        record.resume(mode, reason, history)
        around.meters.resumed[(mode, reason)] += 1
        return not_restarted(mode, job)

    async def _ask_backends(
        self, record: Record, job: Job, history: History, deadline: float
    ) -> Terminal:
        """Ask until the answer is complete; the event that says so."""
        case = self._case
        around, account, ownership = case.around, case.account, case.ownership
        begun = history.deltas > 0 or not history.continuable
        exchange = self.exchange = account.exchange = Exchange(
            Around(
                backends=around.backends,
                settings=around.settings,
                meters=around.meters,
                now=around.now,
                lease=ownership.lease,
                writer=record.writer,
                voice=record.voice,
                outbox=around.cell.connection.outbox,
                interrupt=self._interrupt,
            ),
            job,
            record.transcript,
            deadline,
            # What the attempts before were billed for, they did not live to report.
            add_usage(None, None) if begun else None,
        )
        try:
            await exchange.run(ownership.interruption)
            if record.voice is not None and record.voice.busy:
                await ownership.interruption.race(record.voice.drained())
        except (BridgeError, Interrupted):
            raise
        except Exception as defect:
            log.exception("%r failed", case)
            name = type(defect).__name__
            raise InternalError(f"a defect of the bridge: {name}") from defect
        return record.completed(
            finish_reason=exchange.finish_reason,
            usage=exchange.usage or {},
            backend=exchange.backend or "",
            timings=account.timings(),
        )

    # Held until the start is proven

    def hold(self, stop: Interrupt) -> None:
        """Keep an interrupt; the first counts, but a cancel replaces a drain."""
        if stop.kind is Kind.LOG_GONE:
            self._log_gone = stop
        elif self.held is None or self.held.kind is Kind.DRAIN:
            self.held = stop

    @property
    def _held_cancel(self) -> str | None:
        held = self.held
        return held.reason if held and held.kind is Kind.CANCELLED else None

    def _fire_held(self) -> None:
        stop = self._log_gone or self.held
        if stop is not None:
            raise Interrupted(stop)

    def _superseded(self) -> None:
        self._interrupt(Interrupt(Kind.CANCELLED, SUPERSEDED))

    def drop(self) -> None:
        """Close the backend's connection. Safe to call twice."""
        if self.exchange is not None:
            self.exchange.drop()
