"""The streaming segmenter: token deltas in, what a speech engine says next out."""

from __future__ import annotations

import re
from bisect import bisect_right

import msgspec

from bridge.speech.characters import (
    PARAGRAPH,
    SPACED_CLAUSE,
    SPEAKABLE,
    STRONG,
    THAI,
    WEAK,
    WIDE,
    WIDE_CLAUSE,
    weight,
)
from bridge.speech.cuts import Cuts
from bridge.speech.marks import is_emoji
from bridge.speech.markup import Markup
from bridge.speech.options import SpeechOptions
from bridge.thoughts import Kind, Part, ThoughtSplitter

#: A delta without any of these decides nothing, and is not even looked at.
_TRIGGER = re.compile(rf"[{WEAK}{STRONG}\n\u0e01-\u0e5b\u0e81-\u0edf]")
_EARLY_TRIGGER = re.compile(rf"{_TRIGGER.pattern[:-1]}{SPACED_CLAUSE}{WIDE_CLAUSE}]")

#: At the end of a delta these decide nothing before the next one.
_LOOKS_AHEAD = frozenset(WEAK + SPACED_CLAUSE)

#: What belongs to the sentence before, and came after that had been cut off.
_LEFT_OVER = re.compile(rf"\s*[{STRONG}!?…”’」』）》]+")
_BREAKS = re.compile(rf"(?<![ \t\r])[ \t\r]*+[\n{PARAGRAPH}][\s{PARAGRAPH}]*")
_SPACES = re.compile(r"[^\S\n]+")
_DEVANAGARI = re.compile(r"[\u0900-\u097f]")


class Segment(msgspec.Struct, frozen=True):
    """A sentence or clause fit to be spoken.

    ``first`` and ``last`` are the `seq`s of the tokens it came from; ``start`` and
    ``end`` its range in the request's text, in code points.
    """

    text: str
    first: int
    last: int
    start: int
    end: int


class Segmenter:
    """Cuts one request's text into segments; no clock, no I/O.

    The segments' ranges increase, do not overlap, and leave out only white space,
    thoughts and markup that are not spoken. They depend on the text and the options
    alone, not on how the text was split into deltas; only `flush` adds cuts, where the
    stream paused.

    ``start``: cut anew from this offset of the text, the ``end`` of the last segment
    that stands. The deltas before it are still to be fed, from the first on, for the
    markup that is open there; no segment comes of them.

    Buffers at most ``max_chars`` and one mark of markup, however long the text is. Not
    to be called concurrently.
    """

    def __init__(self, options: SpeechOptions, start: int = 0) -> None:
        self._options = options
        self._splitter = ThoughtSplitter(begins_in_thought=options.begins_in_thought)
        self._markup = Markup(options, start)
        self._spoken = self._markup.spoken
        self._cuts = Cuts(options, said=start)
        self._trigger = _EARLY_TRIGGER if self._cuts.early else _TRIGGER
        self._starts: list[int] = []
        self._seqs: list[int] = []
        self._end = 0
        self._fed: list[str] = []
        self._room = options.max_chars
        self._waiting = False

    def __repr__(self) -> str:
        return f"<Segmenter at={self._end} {self._markup!r} {self._cuts!r}>"

    def receive(self, seq: int, text: str) -> list[Segment]:
        """Take the token ``seq`` and its delta; return the segments that it ends."""
        self._starts.append(self._end)
        self._seqs.append(seq)
        size = len(text)
        self._end += size
        if not self._splitter.passes:
            return self._take(self._splitter.receive(text))
        self._room -= size if text.isascii() else 2 * size
        self._fed.append(text)
        if self._waiting or self._room < 0:
            return self._cut(final=False)
        found = self._trigger.search(text)
        if found is None:
            return []
        if found.end() == size and text[-1] in _LOOKS_AHEAD:
            self._waiting = True
            return []
        return self._cut(final=False)

    def _take(self, parts: list[Part]) -> list[Segment]:
        """The beginning of the text: what is a thought or its mark is left out."""
        segments: list[Segment] = []
        for kind, text in parts:
            if kind is Kind.TEXT or (
                kind is Kind.THOUGHT and self._options.thinking == "read"
            ):
                self._fed.append(text)
                segments += self._cut(final=False)
            else:
                segments += self._cut(final=False, skip=len(text))
        return segments

    def flush(self) -> list[Segment]:
        """The stream pauses: return what can be spoken without the rest.

        Whole sentences, else clauses, else whole words of at least ``first_min_chars``;
        an unfinished number, abbreviation, quotation or mark of markup is kept, and
        nothing of a thought comes out.
        """
        segments = self._cut(final=False)
        while end := self._cuts.release(self._spoken):
            segments += self._emit(end)
            segments += self._cut(final=False)
        return segments

    def receive_eof(self) -> list[Segment]:
        """The text has ended: return everything that is left of it."""
        segments = self._take(self._splitter.receive_eof())
        segments += self._cut(final=True)
        return segments + self._emit(len(self._spoken.text))

    def _cut(self, *, final: bool, skip: int = 0) -> list[Segment]:
        """Cut what there is.

        ``skip``: how many characters after it are left out; a block ends there.
        """
        segments: list[Segment] = []
        self._markup.feed("".join(self._fed))
        self._fed.clear()
        more = True
        while more:
            more = self._markup.advance(final=final or skip > 0)
            if skip and not more:
                self._markup.skip(skip)
            at_once = not self._markup.emphasized
            while end := self._cuts.find(
                self._spoken, at_once=at_once, final=final and not more
            ):
                segments += self._emit(end)
        self._after_cut()
        return segments

    def _after_cut(self) -> None:
        self._waiting = self._cuts.waiting
        text = self._spoken.text
        self._room = self._options.max_chars - self._markup.held
        most = len(text) if text.isascii() else 2 * len(text)
        self._room -= most if most < self._room else weight(text)
        if not text:
            self._forget(self._markup.position)

    def _emit(self, end: int) -> list[Segment]:
        """Cut off ``text[:end]``; nothing if there is nothing in it to be said."""
        spoken = self._spoken
        raw = spoken.text[:end]
        left_over = _LEFT_OVER.match(raw)
        begin = left_over.end() if left_over else 0
        begin = end - len(raw[begin:].lstrip())
        stop = len(raw.rstrip())
        said = _rendered(raw[begin:stop])
        if not self._speakable(said):
            self._drop(end, said=None)
            return []
        start, until = spoken.source_of(begin), spoken.source_after(stop - 1)
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, max(start, until - 1)) - 1
        segment = Segment(said, self._seqs[first], self._seqs[last], start, until)
        self._drop(end, said=until)
        return [segment]

    def _drop(self, end: int, *, said: int | None) -> None:
        self._spoken.cut(end)
        self._cuts.cut(said=said)
        self._trigger = _EARLY_TRIGGER if self._cuts.early else _TRIGGER
        if self._spoken.text:
            self._forget(self._spoken.source_of(0))

    def _forget(self, offset: int) -> None:
        """Drop the tokens that end before ``offset``: no segment will name them."""
        before = bisect_right(self._starts, offset) - 1
        if before > 0:
            del self._starts[:before]
            del self._seqs[:before]

    def _speakable(self, text: str) -> bool:
        if SPEAKABLE.search(text):
            return True
        return self._options.emoji == "keep" and any(map(is_emoji, text))


def _rendered(text: str) -> str:
    """The segment as it is said: breaks inside it become pauses, spaces single."""
    if "\n" in text or PARAGRAPH in text:
        text = _BREAKS.sub(_joint, text)
    return _SPACES.sub(" ", text).replace(" ,", ",")


def _joint(found: re.Match[str]) -> str:
    """What stands for a break between two blocks or lines: a pause where one is due."""
    text = found.string
    before = text[: found.start()].rstrip("'\"”’」』»)）")[-1:]
    goes_on = (
        PARAGRAPH not in found[0] and text[found.end() : found.end() + 1].islower()
    )
    if goes_on or not before.isalnum() or THAI.match(before):
        return " "
    if WIDE.match(before):
        return "。"
    return "। " if _DEVANAGARI.match(before) else ". "
