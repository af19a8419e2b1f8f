"""The speech side of a request: segments beside the tokens, in the same batch.

``docs/protocol.md``, section 6. The cutting itself is `bridge.speech`'s.
"""

from __future__ import annotations

from collections.abc import Callable

from bridge.bus.api import StoredMessage
from bridge.events import (
    Resumed,
    ResumeMode,
    ResumeReason,
    SpeechCancelled,
    SpeechEnd,
    SpeechEvent,
    SpeechFailed,
    SpeechSegment,
    decode_speech,
    encode,
)
from bridge.history import History
from bridge.speech.options import SpeechOptions
from bridge.speech.segmenter import Segment, Segmenter

Append = Callable[[bytes], None]


class Spoken:
    """What the speech log says so far: its last number, and where the text stands."""

    def __init__(self) -> None:
        self.seq = 0
        self.end = 0

    def receive(self, stored: StoredMessage) -> None:
        """Take the next stored speech event."""
        event = decode_speech(stored.data)
        self.seq = event.seq
        if isinstance(event, SpeechSegment):
            self.end = event.end
        elif isinstance(event, Resumed) and event.mode == "restart":
            self.end = 0


class Voice:
    """Cuts a request's tokens into numbered segments, and says how it ended."""

    def __init__(
        self,
        options: SpeechOptions,
        append: Append,
        id: str,
        attempt: int,
        spoken: Spoken,
        now: Callable[[], float],
    ) -> None:
        self._options = options
        self._append = append
        self._id = id
        self._attempt = attempt
        self._seq = spoken.seq
        self._end = spoken.end
        self._now = now
        self._segmenter = Segmenter(options, start=spoken.end)
        self._tokens = 0
        self._seen = 0
        self._moved_at = now()
        self._flushed = True

    def __repr__(self) -> str:
        return f"<Voice {self._id} segments={self._seq} {self._segmenter!r}>"

    @property
    def seq(self) -> int:
        """The number of the last speech event."""
        return self._seq

    def replay(self, history: History) -> None:
        """Hear what was said before, so that the cutting goes on inside it."""
        for seq, text in history.tokens:
            self.hear(seq, text)

    def hear(self, seq: int, text: str) -> None:
        """Take a token; on every token's way where speech is asked for."""
        self._tokens += 1
        segments = self._segmenter.receive(seq, text)
        if segments:
            self._publish(segments)

    def sweep(self, now: float) -> None:
        """Let go what is speakable when the stream pauses."""
        if self._tokens != self._seen:
            self._seen = self._tokens
            self._moved_at = now
            self._flushed = False
        elif (
            not self._flushed
            and now - self._moved_at > self._options.flush_after_ms / 1000
        ):
            self._flushed = True
            self._publish(self._segmenter.flush())

    def resume(self, mode: ResumeMode, reason: ResumeReason) -> None:
        """Publish ``resumed``; with `restart` the text begins anew."""
        after = self._seq
        if mode == "restart":
            self._segmenter = Segmenter(self._options)
            self._end = 0
        self._send(
            Resumed(*self._next(), after=after, mode=mode, reason=reason),
        )

    def end(self) -> None:
        """The text is complete: publish what is left, and the end."""
        self._publish(self._segmenter.receive_eof())
        self._send(SpeechEnd(*self._next()))

    def cancelled(self, reason: str) -> None:
        """The request was cancelled: whoever speaks empties its buffer."""
        self._send(SpeechCancelled(*self._next(), reason=reason))

    def failed(self, code: str) -> None:
        """The request failed: what was published so far is all there is."""
        self._send(SpeechFailed(*self._next(), code=code))

    def _publish(self, segments: list[Segment]) -> None:
        for segment in segments:
            self._end = segment.end
            self._send(
                SpeechSegment(
                    *self._next(),
                    text=segment.text,
                    first=segment.first,
                    last=segment.last,
                    start=segment.start,
                    end=segment.end,
                )
            )

    def _next(self) -> tuple[str, int, int]:
        self._seq += 1
        return self._id, self._seq, self._attempt

    def _send(self, event: SpeechEvent) -> None:
        self._append(encode(event))
