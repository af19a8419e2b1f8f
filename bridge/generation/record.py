"""A request's record as one attempt writes it: its log, its text, its speech."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from bridge.bus.batch import older_batches
from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery
from bridge.bus.refusals import StartRefused
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
    speech_in,
)
from bridge.generation.claim import find_end
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

    The terminal events are built here, and nothing is published by that; `commit` puts
    one at the end of the log, speech's own before it, and proves the whole.
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
        #: Publishes speech's own end, once there is an event that ends the request.
        self._end_speech: Callable[[], None] | None = None
        self._last_spoken = b""
        if speech is not None:
            self.voice = Voice(
                speech,
                self._append_speech,
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

    def _append_speech(self, payload: bytes) -> None:
        self._last_spoken = payload
        self.writer.append_speech(payload)

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
            self._end_speech = self.voice.end
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
            self._end_speech = partial(self.voice.failed, error.code)
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
            self._end_speech = partial(self.voice.cancelled, reason)
        return self.transcript.cancelled(
            reason, timings=timings, metadata=self._writing.metadata
        )

    async def commit(self, event: Terminal) -> None:
        """Publish the terminal event, prove the whole log: see `LogWriter.commit`."""
        payload = encode_terminal(event, self._limit)
        end_speech, self._end_speech = self._end_speech, None
        if end_speech is not None:
            end_speech()
        await self.writer.commit(payload)

    async def hand_over(self) -> None:
        """Publish ``handover`` as this attempt's last event, and prove it."""
        if self.voice is not None:
            self.voice.close()
        await self.writer.commit(encode(self.transcript.handover()))

    async def begin_anew(self, event: Terminal) -> None:
        """Get ready to commit into a stream that was made again, whose log is empty.

        The event keeps its number, and so does speech's own: whoever listens live takes
        it for the next one. Raises `StartRefused` where the log has an event, and
        `BusError` where NATS does not answer.
        """
        writing = self._writing
        delivery, cell = writing.delivery, writing.cell
        self.writer.close()
        last_seq, last = await find_end(cell, writing.tenant, writing.id)
        if last is not None:
            raise StartRefused("the log that was made again has been begun")
        # A batch of this attempt may be open in that stream; its name is used again.
        own = older_batches([delivery.identity], delivery.attempt + 1)
        await cell.batches.close(own)
        spoken = self.voice.seq if self.voice is not None else 0
        if self.voice is not None and self._end_speech is None:
            # It has its number already, from a try before.
            spoken -= 1
            self._end_speech = partial(self._append_speech, self._last_spoken)
        self.writer = self._new_writer(event.seq - 1, spoken, last_seq)

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
    """What a request's speech log says, up to its last message.

    What is no event of it is passed over. Raises `BusError`; `ConnectionLost` where it
    cannot be read to its end yet.
    """
    spoken = Spoken()
    last = await cell.last_spoken(tenant, id)
    if last is None:
        return spoken
    read = 0
    async for stored in cell.read_speech(tenant, id):
        read = stored.seq
        if speech_in(id, stored.data) is not None:
            spoken.receive(stored)
    if read < last.seq:
        raise ConnectionLost("the speech log cannot be read to its end yet")
    return spoken
