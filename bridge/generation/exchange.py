"""A job's exchange with its backends: asked, read, asked again, to one answer."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bridge.backends.http import Backend, Backends
from bridge.backends.upstream import Upstream
from bridge.bus.leases import Lease
from bridge.bus.outbox import Outbox
from bridge.bus.tail import MAX_UNPROVEN_BYTES
from bridge.bus.writer import LogWriter
from bridge.config import Settings
from bridge.dialects import Delta
from bridge.dialects.openai_request import can_continue, request_body, token_limit
from bridge.errors import BackendTimeout, BusError, GenerationError, InternalError
from bridge.events import Job, ResumeMode
from bridge.generation.interrupt import Interrupt, Interruption, Kind
from bridge.metrics import Meters
from bridge.retry import Failure, Next, Plan, add_usage, plan
from bridge.transcript import Transcript

log = logging.getLogger(__name__)


class Around(NamedTuple):
    """What an exchange needs of its generation and worker.

    Reading is held back while the writer is full or the outbox congested.
    ``interrupt`` cuts everything off.
    """

    backends: Backends
    settings: Settings
    meters: Meters
    now: Callable[[], float]
    lease: Lease
    writer: LogWriter
    outbox: Outbox
    interrupt: Callable[[Interrupt], None]


class Exchange:
    """Backends are asked until the answer is complete: see `run`.

    ``deadline`` is on the monotonic clock, in seconds.
    """

    def __init__(
        self,
        around: Around,
        job: Job,
        transcript: Transcript,
        deadline: float,
        usage: dict[str, Any] | None,
    ) -> None:
        self._around = around
        # What every read needs, without a detour.
        self._now = around.now
        self._lease = around.lease
        self._write = transcript.write
        self._tail = around.writer.tail
        self._outbox = around.outbox
        self._interrupt = around.interrupt
        self._job = job
        self._transcript = transcript
        self._deadline = deadline
        self._model = job.model
        self._upstream: Upstream | None = None
        self._over: asyncio.Future[GenerationError | None] | None = None
        self._asked_at = 0.0
        self._answering = False
        self._deltas_seen = 0
        self._quiet_since = 0.0
        self._retries = 0
        #: How often each backend has failed this request: who has least is next.
        self._failed: Counter[str] = Counter()
        #: What the backends reported, added up over the calls.
        self.usage = usage
        #: The name of the backend that was asked last.
        self.backend: str | None = None
        self.first_token_s: float | None = None
        self.finish_reason = "stop"

    def __repr__(self) -> str:
        return f"<Exchange {self._model} retries={self._retries} {self._upstream!r}>"

    async def run(self, interruption: Interruption) -> None:
        """Ask until the answer is complete.

        Raises a `GenerationError` when that is not to be had, and `Interrupted`.
        """
        while not self._is_complete():
            backend = self._choose()
            try:
                await self._ask(backend, interruption)
                return
            except GenerationError as error:
                key = (backend.name, error.code)
                self._around.meters.failures[key] += 1
                self._failed[backend.name] += 1
                step = self._plan(error)
                log.info("backend %s: %s; %s", backend.name, error, step.next.value)
                if step.next is Next.FAIL:
                    raise
            self._retries += 1
            if step.delay_s:
                await interruption.race(asyncio.sleep(step.delay_s))
            if step.next is Next.CONTINUE:
                self._resume("continue")
            elif step.next is Next.RESTART:
                self._resume("restart")

    def _is_complete(self) -> bool:
        """Whether only the backend's last word was lost, with all deltas here.

        It could not be asked for the rest: of no token at least one would come.
        """
        limit = token_limit(self._job.request)
        spent = self._transcript.text_deltas
        if limit is None or not 0 < limit <= spent:
            return False
        self.finish_reason = "length"
        return True

    def _resume(self, mode: ResumeMode) -> None:
        self._transcript.resume(mode, "backend_failure")
        self._around.meters.resumed[(mode, "backend_failure")] += 1

    def _choose(self) -> Backend:
        """The next candidate: who can continue what stands comes first.

        Of those the one that has failed this request least, in the given order.
        """
        candidates = self._around.backends.candidates(self._model)
        if self._transcript.text_deltas:
            candidates = [c for c in candidates if c.can_continue] or candidates
        return min(candidates, key=lambda candidate: self._failed[candidate.name])

    async def _ask(self, backend: Backend, interruption: Interruption) -> None:
        """One call of a backend, read to its end. Raises what it failed with."""
        transcript = self._transcript
        prefix = transcript.text if transcript.text_deltas else None
        body = request_body(
            self._job.request, prefix=prefix, spent_tokens=transcript.text_deltas
        )
        self.backend = backend.name
        self._asked_at = self._quiet_since = self._around.now()
        upstream = await self._open(backend, body, interruption)
        over = self._over = asyncio.get_running_loop().create_future()
        self._upstream = upstream
        self._answering = False
        self._deltas_seen = transcript.deltas
        complete = False
        try:
            upstream.start(self)
            error = await interruption.race(over)
            complete = error is None
        finally:
            self._read(upstream, complete=complete)
        if error is not None:
            raise error

    async def _open(
        self, backend: Backend, body: bytes, interruption: Interruption
    ) -> Upstream:
        """Send the request, and wait for the head of the answer."""
        limit = self._around.settings.first_token_timeout_s
        try:
            async with asyncio.timeout(limit):
                return await interruption.race(backend.open(body))
        except TimeoutError:
            backend.failed()
            raise BackendTimeout(
                f"backend {backend.name} did not answer within {limit:g} s"
            ) from None

    def _read(self, upstream: Upstream, *, complete: bool) -> None:
        """Take what a call leaves behind, however it ended."""
        self._upstream = None
        if not complete:
            upstream.abort()
        answer = upstream.answer
        if upstream.usage is not None or not complete:
            self.usage = add_usage(self.usage, upstream.usage)
        self.finish_reason = answer.finish_reason or "stop"
        if answer.skipped:
            self._around.meters.malformed += answer.skipped
            log.warning(
                "backend %s sent %d malformed records to %s, skipped; the first: %s",
                upstream.backend,
                answer.skipped,
                self._job.id,
                answer.first_malformed,
            )

    def _plan(self, error: GenerationError) -> Plan:
        around, transcript = self._around, self._transcript
        candidates = around.backends.candidates(self._model)
        continuable = (
            transcript.continuable
            and any(c.can_continue for c in candidates)
            and can_continue(self._job.request)
        )
        return plan(
            Failure(
                error=error,
                begun=transcript.text_deltas > 0 or not transcript.continuable,
                continuable=continuable,
                may_restart=self._job.on_restart == "restart",
                retries=self._retries,
                budget=around.settings.retry_budget,
                other_candidates=any(not self._failed[c.name] for c in candidates),
                remaining_s=self._deadline - self._now(),
            )
        )

    # Called from the socket's callback: see `bridge.backends.upstream.Sink`

    def deltas(self, deltas: Sequence[Delta]) -> None:
        """Publish what one read brought."""
        if self._now() > self._lease.until:
            self._interrupt(Interrupt(Kind.LOST, "the lease ran out"))
            return
        if not self._answering:
            self._answered()
        try:
            self._write(deltas)
        except BusError as error:
            self._interrupt(Interrupt(Kind.LOST, f"publishing failed: {error}"))
            return
        if self._outbox.congested or self._tail.unproven_bytes > MAX_UNPROVEN_BYTES:
            self._pause()

    def _answered(self) -> None:
        self._answering = True
        if self.first_token_s is None:
            self.first_token_s = self._around.now() - self._asked_at
            self._around.meters.first_token.add(self.first_token_s)

    def ended(self, error: GenerationError | None) -> None:
        """The backend's answer is over."""
        if isinstance(error, InternalError) and error.__cause__ is not None:
            log.error("reading a backend failed", exc_info=error.__cause__)
        if self._over is not None and not self._over.done():
            self._over.set_result(error)

    # Called by the generation

    def sweep(self, now: float) -> None:
        """Called a few times a second: silence of the backend, and backpressure."""
        upstream = self._upstream
        if upstream is None:
            return
        deltas = self._transcript.deltas
        if upstream.paused:
            self._quiet_since = now
            self.go_on()
        elif deltas != self._deltas_seen:
            self._deltas_seen = deltas
            self._quiet_since = now
        else:
            self._time_out(upstream, now - self._quiet_since)

    def _time_out(self, upstream: Upstream, quiet_s: float) -> None:
        settings = self._around.settings
        limit, what = settings.first_token_timeout_s, "first"
        if self._answering:
            limit, what = settings.idle_timeout_s, "further"
        if quiet_s > limit:
            upstream.abort()
            self.ended(
                BackendTimeout(
                    f"backend {upstream.backend} sent no {what} delta within "
                    f"{limit:g} s"
                )
            )

    def _pause(self) -> None:
        if self._upstream is not None and not self._upstream.paused:
            self._around.meters.pauses += 1
            self._upstream.pause()

    def go_on(self) -> None:
        """Read on where reading was held back, if there is room again."""
        upstream = self._upstream
        if upstream is None or not upstream.paused or self._tail.full:
            return
        if self._outbox.relaxed:
            upstream.resume()

    def drop(self) -> None:
        """Close the backend's connection, at once."""
        if self._upstream is not None:
            self._upstream.abort()
