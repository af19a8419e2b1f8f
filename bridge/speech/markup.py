"""Markdown to spoken text, as it streams: what is not for the ear is left out.

The source is lexed once. Where the next characters decide what a mark is (``*`` before
a word or a list's bullet, ``[`` before a link), the lexer waits for them, within named
limits; past those, and at the end, the mark is plain text. What comes out is the same
however the source was cut into deltas.
"""

from __future__ import annotations

import re

from bridge.speech.characters import STRONG
from bridge.speech.inline import HOLD, Inline
from bridge.speech.marks import (
    BLOCK,
    BLOCK_BEGUN,
    LATE_FENCE,
    LATE_FENCE_BEGUN,
    URL_BEGUN,
    URL_BEGUN_END,
    special,
)
from bridge.speech.options import SpeechOptions
from bridge.speech.source import Source
from bridge.speech.spoken_text import SpokenText

#: How many characters of a line inside a code block are waited for; of a longer line,
#: as many are taken at a time.
MAX_LINE = 2048

#: About how many spoken characters are lexed before cuts are looked for: what is cut
#: off is copied away from what follows it, so that this must not be a whole long delta.
STRIDE = 256


class Markup:
    """The lexer of one request's text. Not to be called concurrently.

    ``start``: what stands before this offset is lexed for its effect only, not spoken.
    """

    def __init__(self, options: SpeechOptions, start: int = 0) -> None:
        self.spoken = SpokenText(start)
        self._options = options
        self._markdown = options.markdown == "strip"
        self._special = special(markdown=self._markdown, emoji=options.emoji == "skip")
        self._source = Source()
        self._inline = Inline(options, self._source, self.spoken)
        #: What of the source's text has been lexed.
        self._at = 0
        self._line_start = True
        self._line = ""
        self._fence = ""
        #: Whether a long line of code was begun, so that what follows begins none.
        self._in_line = False
        self._stopped = False

    def __repr__(self) -> str:
        return f"<Markup at={self.position} held={self.held} {self.spoken!r}>"

    @property
    def position(self) -> int:
        """Up to where the source has been lexed."""
        return self._source.base + self._at

    @property
    def held(self) -> int:
        """How many characters of the source have not been lexed."""
        return len(self._source.text) - self._at

    @property
    def emphasized(self) -> bool:
        """Whether a closing mark may follow here that belongs to what came before."""
        return self._inline.emphasized

    def feed(self, text: str) -> None:
        """Take the next part of the source."""
        self._take()
        self._source.text += text

    def _take(self) -> None:
        if self._at:
            self._source.take(self._at)
            self._at = 0

    def skip(self, size: int) -> None:
        """Leave out the next ``size`` characters; what follows begins a block.

        What was fed before has been lexed to its end (``final``).
        """
        self._take()
        self._source.skip(size)
        self._end_block(self._source.base)
        self._line_start = True
        self._line = self._fence = ""
        self._in_line = self._inline.row = False

    def advance(self, *, final: bool) -> bool:
        """Lex on: up to behind the next strong stop, or as far as is certain.

        Returns whether there may be more to lex right away: it goes no further than
        about `STRIDE` spoken characters. ``final`` says that the source has ended:
        nothing is held back then.
        """
        at = self._at
        size = len(self._source.text)
        most = len(self.spoken.text) + STRIDE
        self._stopped = False
        while at < size and not self._stopped:
            step = self._step(at, final)
            if step == HOLD:
                break
            at = step
            self._stopped = self._stopped or len(self.spoken.text) > most
        self._at = at
        if at == size:
            self._take()
        return self._stopped and at < size

    def _step(self, at: int, final: bool) -> int:
        if self._fence:
            return self._code_line(at, final)
        if self._line_start:
            return self._block(at, final)
        source = self._source.text
        end = min(at + STRIDE, len(source))
        found = self._special.search(source, at, end)
        if found is None:
            return self._plain(at, end, final)
        if found.start() > at:
            return self._inline.literal(at, found.start())
        char = found[0]
        if char == "\n":
            return self._newline(at)
        if char in STRONG:
            self._stopped = True
            return self._inline.literal(at)
        if char == "`" and self._markdown:
            late = LATE_FENCE.match(source, at)
            if late is not None:
                self._line = ""
                self._inline.row = False
                self._end_block(self._source.base + at)
                self._begin_code(late)
                return late.end()
            if not final and LATE_FENCE_BEGUN.match(source, at):
                return HOLD
        return self._inline.mark(at, final)

    def _plain(self, at: int, end: int, final: bool) -> int:
        """There is no mark up to ``end``, but an address or image may begin there."""
        source = self._source.text
        if not final or end < len(source):
            if source[end - 1] in URL_BEGUN_END:
                begun = URL_BEGUN.search(source, max(at, end - 8), end)
                if begun and not self._source.in_word(begun.start()):
                    end = begun.start()
            elif source[end - 1] == "!" and self._source.before(end - 1).isspace():
                end -= 1
        if end == at:
            return HOLD
        self.spoken.say(source[at:end], self._source.base + at)
        return end

    def _newline(self, at: int) -> int:
        if self._line:
            self.spoken.break_block(self._source.base + at)
        else:
            self.spoken.break_line(self._source.base + at)
        self._line = ""
        self._inline.row = False
        self._line_start = True
        return at + 1

    def _block(self, at: int, final: bool) -> int:
        source = self._source.text
        if not self._markdown:
            return self._blank(at)
        if not final and BLOCK_BEGUN.match(source, at):
            return HOLD
        found = BLOCK.match(source, at)
        if found is None:
            self._line_start = False
            return at
        kind = found.lastgroup or ""
        if kind == "quote":
            return found.end()
        self._end_block(self._source.base + at)
        if kind == "fence":
            self._begin_code(found)
        elif kind not in ("rule", "ruler", "blank"):
            self._begin_line(kind, found)
        return found.end()

    def _blank(self, at: int) -> int:
        if self._source.text[at] == "\n":
            self._end_block(self._source.base + at)
            return at + 1
        self._line_start = False
        return at

    def _end_block(self, source: int) -> None:
        self.spoken.break_block(source)
        self._inline.close_all()

    def _begin_line(self, kind: str, found: re.Match[str]) -> None:
        self._line_start = False
        self._line = kind if kind in ("heading", "row") else ""
        self._inline.row = kind == "row"
        if kind == "number":
            start, end = found.span("number")
            self.spoken.say_instead(
                found["number"] + " ",
                self._source.base + start,
                self._source.base + end,
            )
        elif kind == "row" and self._options.tables == "skip":
            self._line_start = True
            self._fence = "|"

    def _begin_code(self, found: re.Match[str]) -> None:
        self._fence = found["fence"]
        if self._options.code == "announce":
            start, end = found.span()
            said = self._options.code_announcement
            self.spoken.say_instead(
                said, self._source.base + start, self._source.base + end
            )
            self.spoken.break_block(self._source.base + end)

    def _code_line(self, at: int, final: bool) -> int:
        """A line inside a code block, or the rest of a table's row that is skipped."""
        source = self._source.text
        end = source.find("\n", at, at + MAX_LINE) + 1
        whole = end > 0
        if not whole:
            if not final and len(source) - at < MAX_LINE:
                return HOLD
            end = min(len(source), at + MAX_LINE)
        begun, self._in_line = self._in_line, not whole
        if self._fence == "|":
            self._fence = "" if whole else "|"
            self._in_line = False
            return end
        if not begun and self._closes_fence(source[at:end].strip()):
            self._fence = ""
            self._line_start = True
            self._in_line = False
        elif self._options.code == "read":
            self._inline.literal(at, end - 1 if whole else end)
            if whole:
                self.spoken.break_block(self._source.base + end)
        return end

    def _closes_fence(self, line: str) -> bool:
        line = line.lstrip("> \t")  # in a quote
        return line.startswith(self._fence) and not line.strip(self._fence[0])
