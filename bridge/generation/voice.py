"""The speech side of a request: segments beside the tokens, in the same batch.

``docs/protocol.md``, section 6. The cutting itself is `bridge.speech`'s. It is called
from the socket's callback, so that it may take no longer than a turn of the loop can
wait: what is over that is put off to the next turns, in its order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

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

#: How many characters are cut in one turn of the loop; each token counts one more, for
#: its own cost. Ordinary text takes about half a microsecond a character, the worst
#: ten or twenty: that is one millisecond, and 40 at the most.
MAX_TURN_CHARS = 2048

#: With more than this put off, the backend should not be read any further: at worst it
#: is a second of work, and a speech engine takes an hour to say it.
MAX_BACKLOG_CHARS = 65_536


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


class _Resumption(NamedTuple):
    """A ``resumed`` that waits behind the tokens that were heard before it."""

    mode: ResumeMode
    reason: ResumeReason


class Voice:
    """Cuts a request's tokens into numbered segments, and says how it ended.

    ``append`` publishes an event; what it raises, `hear` raises, or `drained`, or the
    next `hear` where the work had been put off. ``owned`` tells whether the attempt's
    lease still holds: without it nothing that was put off is published.
    """

    def __init__(
        self,
        options: SpeechOptions,
        append: Append,
        id: str,
        attempt: int,
        spoken: Spoken,
        now: Callable[[], float],
        owned: Callable[[], bool],
    ) -> None:
        self._options = options
        self._append = append
        self._id = id
        self._attempt = attempt
        self._seq = spoken.seq
        self._end = spoken.end
        self._now = now
        self._owned = owned
        self._segmenter = Segmenter(options, start=spoken.end)
        self._tokens = 0
        self._seen = 0
        self._moved_at = now()
        self._flushed = True
        #: What was heard and is not cut yet, and how many characters of it.
        self._backlog: deque[tuple[int, str] | _Resumption] = deque()
        self._put_off = 0
        #: How much of the backlog's first token is cut.
        self._begun = 0
        #: What was cut since the loop's turn was last known to have ended.
        self._spent = 0
        self._next_turn: asyncio.Handle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        #: Called when half of `MAX_BACKLOG_CHARS` has become free.
        self.on_room: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return (
            f"<Voice {self._id} segments={self._seq} put_off={self._put_off} "
            f"{self._segmenter!r}>"
        )

    @property
    def busy(self) -> bool:
        """Whether something that was heard is not cut yet: see `drained`."""
        return bool(self._backlog) or self._error is not None

    @property
    def full(self) -> bool:
        """Whether the backend should not be read any further, until `on_room`."""
        return self._put_off > MAX_BACKLOG_CHARS

    @property
    def seq(self) -> int:
        """The number of the last speech event."""
        return self._seq

    def replay(self, history: History) -> None:
        """Hear what was said before, so that the cutting continues inside it.

        A long history is put off like anything else: what is heard next waits behind.
        """
        tokens = iter(history.tokens)
        rest = len(history.text)
        for seq, text in tokens:
            self.hear(seq, text)
            rest -= len(text)
            if self._backlog:
                break
        self._backlog.extend(tokens)
        self._put_off += rest

    def hear(self, seq: int, text: str) -> None:
        """Take a token; on every token's way where speech is asked for."""
        self._tokens += 1
        self._spent += len(text) + 1
        if self._spent > MAX_TURN_CHARS or self._backlog:
            self._put(seq, text)
            return
        segments = self._segmenter.receive(seq, text)
        if segments:
            self._publish(segments)

    async def drained(self) -> None:
        """Wait until all that was heard is cut and published.

        Raises what publishing it raised. May be cancelled.
        """
        while self._backlog and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Cut and publish nothing more of what was put off. Safe to call twice."""
        self._backlog.clear()
        self._put_off = self._begun = 0
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._wake()

    def _put(self, seq: int, text: str) -> None:
        if self._error is not None:
            raise self._error
        self._backlog.append((seq, text))
        self._put_off += len(text)
        self._schedule()

    def _schedule(self) -> None:
        if self._next_turn is None:
            self._next_turn = asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """A turn of the loop has ended: cut on, up to what one may take."""
        self._next_turn = None
        self._spent = 0
        if not self._owned():
            self.close()
            return
        before = self._put_off
        try:
            while self._backlog and self._spent < MAX_TURN_CHARS:
                self._take_next()
        except Exception as error:
            self._error = error
            self._spent = MAX_TURN_CHARS
            self.close()
            return
        if self._backlog:
            self._schedule()
        else:
            self._wake()
        if self._put_off <= MAX_BACKLOG_CHARS // 2 < before and self.on_room:
            self.on_room()

    def _take_next(self) -> None:
        item = self._backlog[0]
        if isinstance(item, _Resumption):
            self._backlog.popleft()
            self._send_resumed(*item)
            return
        seq, text = item
        begin, end = self._begun, self._begun + MAX_TURN_CHARS - self._spent
        if end < len(text):
            self._begun = end
        else:
            self._begun = 0
            self._backlog.popleft()
        part = text[begin:end]
        self._put_off -= len(part)
        self._spent += len(part) + 1
        self._publish(self._segmenter.receive(seq, part))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def sweep(self, now: float) -> None:
        """Let go what is speakable when the stream pauses."""
        if self._tokens != self._seen or self._backlog:
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
        if mode == "restart":
            self.close()
            self._segmenter = Segmenter(self._options)
            self._end = 0
        if self._backlog:
            self._backlog.append(_Resumption(mode, reason))
        else:
            self._send_resumed(mode, reason)

    def _send_resumed(self, mode: ResumeMode, reason: ResumeReason) -> None:
        after = self._seq
        self._send(
            Resumed(*self._next(), after=after, mode=mode, reason=reason),
        )

    def end(self) -> None:
        """The text is complete: publish what is left, and the end.

        Not before `drained`, unless nothing is put off (`busy`).
        """
        assert not self._backlog
        self._publish(self._segmenter.receive_eof())
        self._send(SpeechEnd(*self._next()))

    def cancelled(self, reason: str) -> None:
        """The request was cancelled: whoever speaks empties its buffer."""
        self.close()
        self._send(SpeechCancelled(*self._next(), reason=reason))

    def failed(self, code: str) -> None:
        """The request failed: what was published so far is all there is."""
        self.close()
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
