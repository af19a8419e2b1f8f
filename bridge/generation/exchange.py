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
from bridge.dialects import Delta, FullText, TextDelta
from bridge.dialects.openai import UNKNOWN
from bridge.dialects.openai_request import can_continue, request_body, token_limit
from bridge.errors import (
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    BusError,
    GenerationError,
    InternalError,
    LimitExceeded,
)
from bridge.events import Job, ResumeMode
from bridge.generation.interrupt import Interrupt, Interruption, Kind
from bridge.generation.voice import Voice
from bridge.metrics import Meters
from bridge.retry import Failure, Next, Plan, add_usage, plan
from bridge.transcript import Transcript

log = logging.getLogger(__name__)

#: How many characters of the text's beginning, or all of a shorter text, a continuation
#: must repeat to count as an answer from the start: the backend did not continue it.
REPEATED_CHARS = 64

#: How many deltas may be held back until that is decided.
MAX_HELD_DELTAS = 256


class Around(NamedTuple):
    """What an exchange needs of its generation and worker.

    Reading is held back while the writer or the voice is full or the outbox congested.
    ``interrupt`` cuts everything off.
    """

    backends: Backends
    settings: Settings
    meters: Meters
    now: Callable[[], float]
    lease: Lease
    writer: LogWriter
    voice: Voice | None
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
        self._voice = around.voice
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
        self._deltas_seen = self._deltas_before = 0
        self._notes_seen = 0
        self._quiet_since = 0.0
        #: What a continuation has said while it may still be the text's repetition.
        self._held: list[Delta] = []
        self._prefix = ""
        #: Completion tokens that the backends reported for the current text.
        self._spent_tokens = 0
        self._warned = False
        self._retries = 0
        #: How often each backend has failed this request: who has least is next.
        self._failed: Counter[str] = Counter()
        #: What the backends reported, added up over the calls.
        self.usage = usage
        #: The name of the backend that was asked last.
        self.backend: str | None = None
        self.first_token_s: float | None = None
        self.finish_reason = UNKNOWN

    def __repr__(self) -> str:
        return f"<Exchange {self._model} retries={self._retries} {self._upstream!r}>"

    async def run(self, interruption: Interruption) -> None:
        """Ask until the answer is complete.

        Raises a `GenerationError` when that is not to be had, and `Interrupted`.
        """
        while True:
            backend = self._choose()
            try:
                await self._ask(backend, interruption)
                return
            except GenerationError as error:
                backend.hide_secrets(error)
                key = (backend.name, error.code)
                self._around.meters.failures[key] += 1
                self._failed[backend.name] += 1
                if self._is_complete(error):
                    return
                step = self._plan(error)
                log.info("backend %s: %s; %s", backend.name, error, step.next.value)
                if step.next is Next.FAIL:
                    raise
            self._retries += 1
            if step.delay_s:
                await interruption.race(asyncio.sleep(step.delay_s))
            if step.next is Next.CONTINUE:
                self._resume("continue")
            elif step.next is Next.RESTART or self._transcript.skipped:
                # What could not be read of a call that left nothing else is void.
                self._resume("restart")

    def _is_complete(self, error: GenerationError) -> bool:
        """Whether only the backend's last word was lost, with all deltas here.

        It could not be asked for the rest: of no token at least one would come.
        """
        limit = token_limit(self._job.request)
        if limit is None or not 0 < limit <= self._spent_tokens:
            return False
        lost = BackendUnavailable | BackendProtocolError | BackendTimeout
        if not isinstance(error, lost) or isinstance(error, LimitExceeded):
            return False
        self.finish_reason = "length"
        return True

    def _resume(self, mode: ResumeMode) -> None:
        if mode == "restart":
            self._spent_tokens = 0
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
        self._prefix = transcript.text
        body = request_body(
            self._job.request,
            prefix=self._prefix or None,
            spent_tokens=self._spent_tokens,
        )
        self.backend = backend.name
        self._asked_at = self._quiet_since = self._around.now()
        upstream = await self._open(backend, body, interruption)
        over = self._over = asyncio.get_running_loop().create_future()
        self._upstream = upstream
        self._answering = False
        self._deltas_seen = self._deltas_before = transcript.deltas
        self._notes_seen = 0
        transcript.begin_answer()
        self._held.clear()
        self._write = self._compare if self._prefix.strip() else transcript.write
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
                opening = backend.open(body, continued=bool(self._prefix))
                return await interruption.race(opening)
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
        spent = (upstream.usage or {}).get("completion_tokens")
        said = self._transcript.deltas > self._deltas_before
        if said and isinstance(spent, int) and not isinstance(spent, bool):
            self._spent_tokens += max(spent, 0)
        self.finish_reason = answer.finish_reason or UNKNOWN
        if answer.skipped:
            self._warn_of_skipped(upstream)

    def _warn_of_skipped(self, upstream: Upstream) -> None:
        answer = upstream.answer
        self._around.meters.malformed += answer.skipped
        if not self._warned:
            self._warned = True
            log.warning(
                "backend %s sent %d records to %s that cannot be read, skipped; the "
                "first: %s",
                upstream.backend,
                answer.skipped,
                self._job.id,
                answer.first_skipped,
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
        voice = self._voice
        if (
            self._outbox.congested
            or self._tail.unproven_bytes > MAX_UNPROVEN_BYTES
            or (voice is not None and voice.full)
        ):
            self._pause()

    def _compare(self, deltas: Sequence[Delta]) -> None:
        """Hold a continuation back until it is none of the text's own beginning."""
        self._held += deltas
        said = ""
        for delta in self._held:
            if isinstance(delta, TextDelta):
                said += delta.text
            elif isinstance(delta, FullText) and not delta.reasoning:
                # It repeats what was said, and counts as what it adds.
                begins = delta.text.strip().startswith(said.strip())
                said = delta.text if begins and len(delta.text) > len(said) else said
        said, prefix = said.lstrip(), self._prefix.strip()
        wanted = min(REPEATED_CHARS, len(prefix))
        if said[:wanted] == prefix[:wanted] and len(said) >= wanted:
            self._begin_anew()
        elif not prefix.startswith(said) or len(self._held) > MAX_HELD_DELTAS:
            self._release()

    def _begin_anew(self) -> None:
        if self._job.on_restart != "restart":
            raise BackendProtocolError(
                "the backend began its answer again instead of continuing it, and the "
                "job asks not to be restarted"
            )
        self._resume("restart")
        self._release()

    def _release(self) -> None:
        """Write what was held back, and from now on at once."""
        held, self._held = self._held, []
        self._write = self._transcript.write
        if held:
            self.deltas(held)

    def skipped(self, count: int) -> None:
        """Publish that records could not be read."""
        if self._now() > self._lease.until:
            return
        try:
            self._transcript.skip(count)
        except BusError as error:
            self._interrupt(Interrupt(Kind.LOST, f"publishing failed: {error}"))

    def _answered(self) -> None:
        self._answering = True
        if self.first_token_s is None:
            self.first_token_s = self._around.now() - self._asked_at
            self._around.meters.first_token.add(self.first_token_s)

    def ended(self, error: GenerationError | None) -> None:
        """The backend's answer is over."""
        if error is None:
            try:
                self._release()
            except GenerationError as failure:
                error = failure
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
        deltas = self._transcript.deltas + len(self._held)
        notes = upstream.answer.notes
        if upstream.paused:
            self._quiet_since = now
            self.go_on()
        elif deltas != self._deltas_seen or notes != self._notes_seen:
            self._deltas_seen, self._notes_seen = deltas, notes
            self._quiet_since = now
        else:
            quiet_s = now - self._quiet_since
            if upstream.silent(quiet_s):
                self._quiet_since = now
            else:
                self._time_out(upstream, quiet_s)

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
        if self._voice is not None and self._voice.full:
            return
        if self._outbox.relaxed:
            upstream.resume()

    def drop(self) -> None:
        """Close the backend's connection, at once."""
        if self._upstream is not None:
            self._upstream.abort()
