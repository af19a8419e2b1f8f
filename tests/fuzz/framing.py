"""Records to the bytes of a body: event streams, JSON documents, and what is between.

A `Frame` is a record's bytes and where its JSON begins and ends in them. Between a
record's last bracket and the end of its line or event nothing can be lost any more.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.answers import Record
from tests.fuzz.words import Bits, Look, Part, encode

Rng = random.Random

BOM = b"\xef\xbb\xbf"
DONE = b"[DONE]"

EVENT_LABELS = (
    "text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream", "",
    "text/plain", "application/json", "text/event-stream, text/event-stream",
    "application/octet-stream", "application/stream+json",
)  # fmt: skip
JSON_LABELS = (
    "application/json", "application/x-ndjson", "application/jsonl", "text/plain", "",
    "text/event-stream", "application/json; charset=utf-8",
)  # fmt: skip


@dataclass
class Frame:
    """A record's bytes, in parts."""

    record: Record | None
    parts: list[Part]
    begin: int = 0  # of its JSON
    end: int = 0

    @property
    def size(self) -> int:
        return sum(len(data) for data, _ in self.parts)


@dataclass
class Framing:
    """How a server separates its records."""

    kind: str  # "events", "documents" or "whole"
    label: str
    look: Look
    prefixes: list[bytes] = field(default_factory=lambda: [b"data: "])
    line: bytes = b"\n"
    blank: bytes = b"\n"
    bom: bool = False
    boms: bool = False
    #: Comments, ids, event names between the records.
    chatty: bool = False
    #: How often two records are put into one.
    glued: float = 0.0
    #: What stands behind a record's JSON, on its line.
    padding: bytes = b""
    #: How a document over several lines continues in an event stream.
    continued: bytes = b"data: "

    @classmethod
    def any(cls, rng: Rng, *, whole: bool) -> Framing:
        look = Look.any(rng)
        if whole:
            look.indent = rng.choice([None, None, 2])
            return cls("whole", rng.choice(JSON_LABELS), look, bom=rng.random() < 0.1)
        if rng.random() < 0.2:
            look.indent = rng.choice([None, None, None, 1, 2])
            line = rng.choice([b"\n", b"\n", b"\r\n", b"\n\n"])
            label = rng.choice(JSON_LABELS)
            return cls("documents", label, look, line=line, bom=rng.random() < 0.1)
        framing = cls("events", rng.choice(EVENT_LABELS[:3] * 3 + EVENT_LABELS), look)
        framing.line = rng.choice([b"\n"] * 6 + [b"\r\n", b"\r\n", b"\r"])
        framing.blank = framing.line
        framing.bom = rng.random() < 0.1
        if rng.random() < 0.4:
            framing._oddly(rng)
        return framing

    def _oddly(self, rng: Rng) -> None:
        roll = rng.randrange(6)
        if roll == 0:
            self.prefixes = [b"data:", b"data: ", b"data:  ", b"data:\t"]
            self.padding = rng.choice([b"", b" ", b"\t ", b"\0"])
        elif roll == 1:
            self.prefixes = [b"Data:", b" data:", b"DATA: ", b"data : ", b"data: "]
        elif roll == 2:
            self.prefixes = [b"data: ", b"data: data: ", b"data:data:", b""]
            self.label = rng.choice(EVENT_LABELS[:3])
        elif roll == 3:
            self.blank = b""  # one line end instead of a blank line
        elif roll == 4:
            self.boms = True
        else:
            self.look.indent = rng.choice([1, 2])
            self.continued = rng.choice([b"data: ", b"data:", b"", b"  "])
        self.chatty = self.blank != b"" and rng.random() < 0.5
        self.glued = rng.choice([0.0, 0.0, 0.3]) if self.blank and roll != 5 else 0.0

    def frames(self, rng: Rng, records: Sequence[Record]) -> list[Frame]:
        """The frames of a body, whole."""
        frames: list[Frame] = []
        if self.bom:
            frames.append(Frame(None, [(BOM, False)]))
        for record in records:
            if self.kind == "events":
                self._event(rng, record, frames)
            else:
                self._document(rng, record, frames)
        return frames

    def _payload(self, record: Record, look: Look) -> list[Part]:
        if record.done:
            return [(DONE, False)]
        return encode(record.value, look)

    def _document(self, rng: Rng, record: Record, frames: list[Frame]) -> None:
        parts = self._payload(record, self.look)
        before = b"data: " if record.done and rng.random() < 0.5 else b""
        end = b"" if self.kind == "whole" and rng.random() < 0.5 else self.line
        frames.append(_frame(record, before, parts, end))

    def _event(self, rng: Rng, record: Record, frames: list[Frame]) -> None:
        if self.chatty and rng.random() < 0.3:
            self._chat(rng, frames)
        prefix = rng.choice(self.prefixes)
        if record.plain or (record.done and not prefix):
            prefix = b"data: "
        before = prefix
        if self.boms and rng.random() < 0.5:
            before = rng.choice([BOM + prefix, prefix + BOM])
        if record.event:
            before = b"event: " + record.event.encode() + self.line + before
        parts = self._payload(record, self.look)
        if self.look.indent is not None:
            parts = self._over_lines(parts)
        glued = frames and self._can_glue(frames[-1], record)
        if glued and rng.random() < self.glued:
            last = frames[-1]
            cut = len(self.padding + self.line + self.blank)
            last.parts[-1] = (last.parts[-1][0][:-cut] or b" ", False)
            before = rng.choice([b"", b" ", self.line + b"data: "])
        end = self.padding + self.line + self.blank
        frames.append(_frame(record, before, parts, end))

    def _can_glue(self, last: Frame, record: Record) -> bool:
        """Whether two records may stand in one event."""
        if last.record is None or last.record.event or record.event:
            return False
        pair = (last.record, record)
        return all(not (r.done or r.plain or r.unreadable) for r in pair)

    def _over_lines(self, parts: list[Part]) -> list[Part]:
        line = self.line + self.continued
        return [
            (data if word else data.replace(b"\n", line), word) for data, word in parts
        ]

    def _chat(self, rng: Rng, frames: list[Frame]) -> None:
        lines = [
            b": ping", b":", b": OPENROUTER PROCESSING", b"id: 7", b"retry: 100",
            b"event: message", b": keep-alive 12", b"id", b"foo: bar",
        ]  # fmt: skip
        line = rng.choice(lines)
        blank = self.blank if line.startswith(b":") and rng.random() < 0.7 else b""
        frames.append(Frame(None, [(line + self.line + blank, False)]))


def _frame(record: Record, before: bytes, parts: Sequence[Part], after: bytes) -> Frame:
    size = sum(len(data) for data, _ in parts)
    whole = [(before, False), *parts, (after, False)]
    return Frame(record, whole, len(before), len(before) + size)


def unreadable(rng: Rng) -> Any:
    """A value that no reader can read, and that has no words of the answer."""
    return Bits(
        rng.choice(
            [
                b'{"choices":[{"delta":{"content":"',
                b'{"choices":[{"delta":{"content":"lost',
                b'{"choices":[{"delta":{"content": lost}}]}',
                b'{"choices":[{"delta":{content:"lost"}}]}',
                b"{'choices':[{'delta':{'content':'lost'}}]}",
                b'{"choices":[{"delta":{"content":"lost"}]}',
                b'{"choices":[{"delta":{"content":"lost"]}}',
                b'{"choices"',
                b"{broken",
                b'{"a" "b"}',
                b'{"choices":[{"delta":{"content":"lost\\"}}]}',
                b'{"choices":[{"delta":{"content":"lost\\x"}}]}',
            ]
        )
    )
