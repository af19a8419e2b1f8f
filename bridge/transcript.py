"""What a request has said so far: deltas to numbered events, and the whole of them.

`Transcript.write` is on every token's way. Sans-IO: the events' bytes go to a callable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import SEEK_END, StringIO
from typing import Any

from bridge.dialects import (
    Delta,
    FullText,
    ReasoningDelta,
    TextDelta,
    ToolCallPart,
)
from bridge.errors import GenerationError, LimitExceeded, shorten
from bridge.events import (
    Cancelled,
    Completed,
    ErrorInfo,
    Event,
    Failed,
    Handover,
    Resumed,
    ResumeMode,
    ResumeReason,
    Skipped,
    Timings,
    ToolCall,
    ToolCallDelta,
    encode,
)
from bridge.sequence import Numbering, split_text

#: Beside its text an event has at most so many bytes: two ids, two numbers, names.
EVENT_HEAD_BYTES = 1024

#: JSON takes at most so many bytes for a character.
BYTES_PER_CHARACTER = 6

#: How many first characters a text must have in common with what was said to count as
#: saying it again, although not to the letter.
ALIKE_CHARS = 3

#: White space that a repeated text may lack.
MAX_SPACE = 200

Append = Callable[[bytes], None]


class Transcript:
    """The events of one attempt, and the answer they add up to.

    ``max_payload`` is the limit of one message, ``max_text_bytes`` that of the
    assembled answer (text, reasoning and tool calls together, in characters, each at
    least a byte).
    """

    def __init__(
        self,
        numbering: Numbering,
        append: Append,
        *,
        max_payload: int,
        max_text_bytes: int,
    ) -> None:
        self._numbering = numbering
        self._append = append
        self._room = max_payload - EVENT_HEAD_BYTES
        #: A shorter text fits for sure; only a longer one has to be measured.
        self._fits = self._room // BYTES_PER_CHARACTER
        self._max_text = max_text_bytes
        self._size = 0
        self._text = StringIO()
        self._reasoning: StringIO | None = None
        self._tools: dict[int, ToolCall] = {}
        self._arguments: dict[int, StringIO] = {}
        #: Text deltas of the current text.
        self.text_deltas = 0
        #: Records that could not be read, of the current text.
        self.skipped = 0
        #: Where the answer that is being read begins in the text and in the reasoning,
        #: and how many deltas of the text are from before.
        self._answer_at = self._thoughts_at = self._deltas_before = 0
        #: All deltas that were written by this attempt.
        self.deltas = 0
        #: Told of every token's seq and text.
        self.on_token: Callable[[int, str], None] | None = None
        #: Told of every resumption.
        self.on_resume: Callable[[ResumeMode, ResumeReason], None] | None = None

    def __repr__(self) -> str:
        return f"<Transcript {self._numbering!r} deltas={self.deltas}>"

    @property
    def seq(self) -> int:
        """The number of the last event."""
        return self._numbering.seq

    @property
    def text(self) -> str:
        """The text that stands."""
        return self._text.getvalue()

    @property
    def continuable(self) -> bool:
        """Whether what stands is plain text that a backend could go on with."""
        return not self._tools and self._reasoning is None

    def go_on(self, text: str, deltas: int, skipped: int) -> None:
        """Start from the text that an earlier attempt has left."""
        self._text.write(text)
        self._size += len(text)
        self.text_deltas = deltas
        self.skipped = skipped

    def begin_answer(self) -> None:
        """A backend is asked: its answer is added after the current text."""
        self._answer_at = self._text.tell()
        self._thoughts_at = self._reasoning.tell() if self._reasoning else 0
        self._deltas_before = self.text_deltas

    def write(self, deltas: Sequence[Delta]) -> None:
        """Number, publish and add up the deltas of one read.

        Raises `LimitExceeded` when the answer grows over its limit.
        """
        self.deltas += len(deltas)
        for delta in deltas:
            if type(delta) is TextDelta:
                text = delta.text
                self._text.write(text)
                self._size += len(text)
                self.text_deltas += 1
                if self.on_token is None and len(text) <= self._fits:
                    self._append(self._numbering.token(text))
                else:
                    self._publish_token(text)
            elif type(delta) is ReasoningDelta:
                self._reason(delta.text)
            elif type(delta) is ToolCallPart:
                self._tool(delta)
            elif type(delta) is FullText:
                self._repeat(delta)
        if self._size > self._max_text:
            raise LimitExceeded(
                f"the answer is longer than {self._max_text} characters"
            )

    def _repeat(self, full: FullText) -> None:
        """Take what is new of what says again what was said."""
        if full.reasoning:
            new = self._new_in(full, self._reasoning or StringIO(), self._thoughts_at)
        else:
            new = self._new_in(full, self._text, self._answer_at)
        if new is None:
            self.skip(1)
        elif new and full.reasoning:
            self._reason(new)
        elif new:
            self._text.write(new)
            self._size += len(new)
            self.text_deltas += 1
            self._publish_token(new)

    def _new_in(self, full: FullText, texts: StringIO, start: int) -> str | None:
        """What of ``full`` was not said in ``texts`` from ``start`` on.

        ``None`` where that cannot be told.
        """
        text = full.text
        size = texts.tell() - start
        # No more of what was said is looked at than ``full`` itself has.
        said = _read(texts, start, len(text) + MAX_SPACE)
        is_all = size <= len(said)
        if is_all and said.strip() == text.strip() != "":
            several = full.reasoning or self.text_deltas - self._deltas_before > 1
            return "" if full.certain or several else text
        if not full.certain:
            return text
        if len(text) < size and _read(texts, start + size - len(text)) == text:
            return ""
        for begun in (said, said.strip()):
            if is_all and text.startswith(begun):
                return text[len(begun) :]
        if self.skipped:
            return None  # the beginning of what was said may be what is missing
        text_begins, said_begins = text.lstrip(), said.lstrip()
        alike = min(ALIKE_CHARS, len(text_begins), len(said_begins))
        return None if text_begins[:alike] == said_begins[:alike] else text

    def _publish_token(self, text: str) -> None:
        for piece in self._split(text):
            self._append(self._numbering.token(piece))
            if self.on_token is not None:
                self.on_token(self._numbering.seq, piece)

    def _reason(self, text: str) -> None:
        for piece in self._split(text):
            self._append(self._numbering.reasoning(piece))
        if self._reasoning is None:
            self._reasoning = StringIO()
        self._reasoning.write(text)
        self._size += len(text)

    def _split(self, text: str) -> list[str]:
        return [text] if len(text) <= self._fits else split_text(text, self._room)

    def _tool(self, part: ToolCallPart) -> None:
        call = self._tools.get(part.index)
        if call is None:
            call = self._tools[part.index] = ToolCall(part.index)
            self._arguments[part.index] = StringIO()
        call.call_id = part.call_id or call.call_id
        call.name = part.name or call.name
        pieces: list[str | None] = []
        head = self._head_size(part)
        if part.arguments is None or head * BYTES_PER_CHARACTER > EVENT_HEAD_BYTES // 2:
            pieces.append(None)  # the id and name fill an event of their own
        if part.arguments is not None:
            pieces += self._split(part.arguments)
            self._arguments[part.index].write(part.arguments)
            self._size += len(part.arguments)
        for index, piece in enumerate(pieces):
            first = index == 0
            id, seq, attempt = self._numbering.next()
            event = ToolCallDelta(
                id,
                seq,
                attempt,
                index=part.index,
                call_id=part.call_id if first else None,
                name=part.name if first else None,
                arguments=piece,
            )
            self._append(encode(event))

    def _head_size(self, part: ToolCallPart) -> int:
        """The characters of a call's id and name, which are never split.

        Raises `LimitExceeded` where one event could not hold them.
        """
        size = len(part.call_id or "") + len(part.name or "")
        if size * BYTES_PER_CHARACTER > self._room:
            raise LimitExceeded(
                f"a tool call's id and name have {size} characters, more than one "
                "event can hold"
            )
        self._size += size
        return size

    def _assembled(self) -> list[ToolCall] | None:
        """The tool calls, whole."""
        for index, call in self._tools.items():
            call.arguments = self._arguments[index].getvalue()
        return [self._tools[index] for index in sorted(self._tools)] or None

    def skip(self, count: int) -> None:
        """Publish that ``count`` records of the backend could not be read."""
        self.skipped += count
        id, seq, attempt = self._numbering.next()
        self._append(encode(Skipped(id, seq, attempt, count)))

    # Events that are rare

    def next(self) -> tuple[str, int, int]:
        """``id``, ``seq`` and ``attempt`` of an event that is built elsewhere."""
        return self._numbering.next()

    def resume(self, mode: ResumeMode, reason: ResumeReason) -> None:
        """Publish ``resumed``: it goes on after what stands; `restart` voids it."""
        after = self._numbering.seq
        if mode == "restart":
            self._restart()
        id, seq, attempt = self._numbering.next()
        event = Resumed(id, seq, attempt, after=after, mode=mode, reason=reason)
        self._append(encode(event))
        if self.on_resume is not None:
            self.on_resume(mode, reason)

    def _restart(self) -> None:
        self._text = StringIO()
        self._reasoning = None
        self._tools.clear()
        self._arguments.clear()
        self._size = 0
        self.text_deltas = self.skipped = 0
        self._answer_at = self._thoughts_at = self._deltas_before = 0

    def handover(self) -> Handover:
        """The event that gives the request back."""
        return Handover(*self._numbering.next())

    def completed(
        self,
        *,
        finish_reason: str,
        usage: dict[str, Any],
        timings: Timings,
        backend: str,
        metadata: dict[str, str],
    ) -> Completed:
        """The event of a regular end."""
        id, seq, attempt = self._numbering.next()
        return Completed(
            id,
            seq,
            attempt,
            finish_reason=finish_reason,
            text=self.text,
            skipped_records=self.skipped,
            reasoning=self._reasoning.getvalue() if self._reasoning else None,
            tool_calls=self._assembled(),
            usage=usage,
            timings=timings,
            backend=backend,
            metadata=metadata,
        )

    def failed(
        self,
        error: GenerationError,
        *,
        usage: dict[str, Any] | None,
        timings: Timings,
        backend: str | None,
        metadata: dict[str, str],
    ) -> Failed:
        """The event of an end by an error."""
        id, seq, attempt = self._numbering.next()
        return Failed(
            id,
            seq,
            attempt,
            error=ErrorInfo.of(error),
            text=self.text,
            skipped_records=self.skipped,
            usage=usage,
            timings=timings,
            backend=backend,
            metadata=metadata,
        )

    def cancelled(
        self,
        reason: str,
        *,
        timings: Timings,
        metadata: dict[str, str],
    ) -> Cancelled:
        """The event of an end by a control message."""
        id, seq, attempt = self._numbering.next()
        return Cancelled(
            id,
            seq,
            attempt,
            reason=shorten(reason),
            text=self.text,
            skipped_records=self.skipped,
            timings=timings,
            metadata=metadata,
        )


def _read(texts: StringIO, start: int, length: int = -1) -> str:
    """A part of what was written; writing continues at the end."""
    texts.seek(start)
    part = texts.read(length)
    texts.seek(0, SEEK_END)
    return part


def encode_terminal(event: Event, max_payload: int) -> bytes:
    """The bytes of a terminal event; without its texts where they would not fit.

    No text that is longer than ``max_payload`` is encoded to find that out: in JSON a
    character takes a byte at least.
    """
    if _text_chars(event) <= max_payload:
        payload = encode(event)
        if len(payload) <= max_payload:
            return payload
    if isinstance(event, Completed | Failed | Cancelled):
        event.text = None
        event.text_omitted = True
    if isinstance(event, Completed):
        event.reasoning = None
        event.tool_calls = None
    return encode(event)


def _text_chars(event: Event) -> int:
    """The characters of a terminal event's texts."""
    if not isinstance(event, Completed | Failed | Cancelled):
        return 0
    chars = len(event.text or "")
    if isinstance(event, Completed):
        chars += len(event.reasoning or "")
        chars += sum(len(call.arguments) for call in event.tool_calls or ())
    return chars
