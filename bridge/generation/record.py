"""A request's record as one attempt writes it: its log, its text, its speech."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery
from bridge.bus.writer import LogWriter
from bridge.errors import ConnectionLost, GenerationError
from bridge.events import (
    PROTOCOL_VERSION,
    Cancelled,
    Completed,
    Failed,
    Job,
    ResumeMode,
    ResumeReason,
    Started,
    Terminal,
    Timings,
    encode,
)
from bridge.generation.voice import Spoken, Voice
from bridge.history import History
from bridge.sequence import Numbering
from bridge.speech.options import SpeechOptions
from bridge.transcript import Transcript, encode_terminal

#: Room for the subject and the reply of a terminal event beside its payload.
SUBJECT_BYTES = 256


class Writing(NamedTuple):
    """Who writes: the cell and delivery, the limits, and whether the lease holds."""

    cell: Cell
    tenant: str
    id: str
    delivery: Delivery
    metadata: dict[str, str]
    max_text_bytes: int
    now: Callable[[], float]
    owned: Callable[[], bool]


class Record:
    """The writer, the transcript and, where it is asked for, the voice of a request.

    The terminal events are built here, speech's own before the tokens'; `commit` puts
    one at the end of the log and proves the whole.
    """

    def __init__(
        self,
        writing: Writing,
        history: History,
        spoken: Spoken,
        speech: SpeechOptions | None,
    ) -> None:
        self._writing = writing
        self.writer = self._new_writer(history.seq, spoken.seq, history.last_stream_seq)
        self._limit = writing.cell.connection.max_payload - SUBJECT_BYTES
        attempt = writing.delivery.attempt
        self.transcript = Transcript(
            Numbering(writing.id, attempt, history.seq),
            self.writer.append,
            max_payload=self._limit,
            max_text_bytes=writing.max_text_bytes,
        )
        self.transcript.go_on(history.text, history.deltas, history.skipped)
        self.voice: Voice | None = None
        if speech is not None:
            self.voice = Voice(
                speech,
                self.writer.append_speech,
                writing.id,
                attempt,
                spoken,
                writing.now,
                writing.owned,
            )
            self.transcript.on_token = self.voice.hear
            self.transcript.on_resume = self.voice.resume

    def __repr__(self) -> str:
        return f"<Record {self.transcript!r} {self.writer!r}>"

    def _new_writer(self, stored: int, spoken: int, last_seq: int) -> LogWriter:
        writing = self._writing
        return LogWriter(
            writing.cell,
            tenant=writing.tenant,
            id=writing.id,
            job=writing.delivery.identity,
            attempt=writing.delivery.attempt,
            stored=stored,
            stored_speech=spoken,
            last_seq=last_seq,
            owned=writing.owned,
        )

    # The beginning

    def start(self, job: Job, created_ns: int, queue_ms: int, deadline_ms: int) -> None:
        """Publish ``started``; ``created_ns`` is when the job came, since 1970."""
        stream_seq, stored_ns = self._writing.delivery.identity
        event = Started(
            *self.transcript.next(),
            v=PROTOCOL_VERSION,
            model=job.model,
            created=created_ns // 1_000_000,
            queue_ms=queue_ms,
            job=stream_seq,
            job_time=str(stored_ns),
            deadline_ms=deadline_ms,
            session=job.session,
            metadata=job.metadata,
        )
        self.writer.append(encode(event))

    def resume(self, mode: ResumeMode, reason: ResumeReason, history: History) -> None:
        """Publish ``resumed`` as the first event of an attempt that takes over."""
        self.transcript.resume(mode, reason)
        if self.voice is not None and mode == "continue":
            self.voice.replay(history)

    # The end

    def completed(
        self,
        *,
        finish_reason: str,
        usage: dict[str, Any],
        backend: str,
        timings: Timings,
    ) -> Completed:
        """The event of a regular end; not before the voice is `Voice.drained`."""
        if self.voice is not None:
            self.voice.end()
        return self.transcript.completed(
            finish_reason=finish_reason,
            usage=usage,
            timings=timings,
            backend=backend,
            metadata=self._writing.metadata,
        )

    def failed(
        self,
        error: GenerationError,
        *,
        usage: dict[str, Any] | None,
        backend: str | None,
        timings: Timings,
    ) -> Failed:
        """The event of an end by an error."""
        if self.voice is not None:
            self.voice.failed(error.code)
        return self.transcript.failed(
            error,
            usage=usage,
            timings=timings,
            backend=backend,
            metadata=self._writing.metadata,
        )

    def cancelled(self, reason: str, timings: Timings) -> Cancelled:
        """The event of an end by a control message."""
        if self.voice is not None:
            self.voice.cancelled(reason)
        return self.transcript.cancelled(
            reason, timings=timings, metadata=self._writing.metadata
        )

    async def commit(self, event: Terminal) -> None:
        """Publish the terminal event, prove the whole log: see `LogWriter.commit`."""
        await self.writer.commit(encode_terminal(event, self._limit))

    async def hand_over(self) -> None:
        """Publish ``handover`` as this attempt's last event, and prove it."""
        if self.voice is not None:
            self.voice.close()
        await self.writer.commit(encode(self.transcript.handover()))

    async def commit_anew(self, event: Terminal) -> None:
        """Commit into a stream that was made again, whose log is empty.

        The event keeps its number: whoever listens live takes it for the next one.
        """
        self.writer.close()
        self.writer = self._new_writer(0, 0, 0)
        await self.commit(event)

    def sweep(self, now: float, *, speaking: bool) -> None:
        """Called a few times a second: the batch's life, and pauses in the speech."""
        self.writer.sweep(now)
        if speaking and self.voice is not None:
            self.voice.sweep(now)

    def close(self) -> None:
        """Publish nothing more. Safe to call twice."""
        if self.voice is not None:
            self.voice.close()
        self.writer.close()


async def read_spoken(cell: Cell, tenant: str, id: str) -> Spoken:
    """What a request's speech log says, up to its last event.

    Raises `BusError`; `ConnectionLost` where it cannot be read to its end yet.
    """
    spoken = Spoken()
    async for stored in cell.read_speech(tenant, id):
        spoken.receive(stored)
    last = await cell.last_spoken(tenant, id)
    if last is not None and cell.speech_seq(last) != spoken.seq:
        raise ConnectionLost("the speech log cannot be read to its end yet")
    return spoken
