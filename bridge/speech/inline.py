"""The marks inside a line: emphasis, links, code, addresses, citations, emoji.

Each step takes the mark at one position of the source and returns where it goes on, or
`HOLD` where the mark cannot be told yet.
"""

from __future__ import annotations

import html
import re

from bridge.speech.characters import WIDE
from bridge.speech.marks import (
    AUTOLINK,
    AUTOLINK_BEGUN,
    BRACKET,
    BREAK_TAG,
    CITATION,
    CJK_CITATION,
    CODE,
    EMOJI,
    EMOJI_MODIFIERS,
    ENTITY,
    ENTITY_BEGUN,
    HOST,
    INNER_MARKS,
    MAX_EMOJI,
    RUN,
    TAG,
    TARGETS,
    TICKS,
    URL,
    URL_EMPTY,
    URL_TAIL,
)
from bridge.speech.options import SpeechOptions
from bridge.speech.source import Source
from bridge.speech.spoken_text import SpokenText

#: What a lexing step returns when it needs characters that are not there yet.
HOLD = -1

#: How much source a mark may hold back: more than any bracket, address or code line
#: that is worth its form, and little enough to keep per request.
MAX_BRACKET = 400
MAX_TAG = 200

#: A link's text is one thing, and never cut, unless it is longer than this.
MAX_ATOM = 60


class Inline:
    """Lexes one mark at a time out of ``source`` into ``spoken``."""

    def __init__(
        self, options: SpeechOptions, source: Source, spoken: SpokenText
    ) -> None:
        self._options = options
        self._markdown = options.markdown == "strip"
        self._source = source
        self._spoken = spoken
        #: Emphasis that has been opened and not closed.
        self.open: list[str] = []
        #: Whether this line is a table's row.
        self.row = False

    def mark(self, at: int, final: bool) -> int:
        """Lex the mark at ``at``, neither a stop nor a line break."""
        char = self._source.text[at]
        if char == "【":
            return self._cjk_citation(at, final)
        if char in "hw":
            return self._address(at, final)
        if self._markdown:
            step = self._markdown_mark(char, at, final)
            if step is not None:
                return step
        return self._emoji(at, final)

    def _markdown_mark(self, char: str, at: int, final: bool) -> int | None:
        if char in "*_~":
            return self._emphasis(at, final)
        if char == "[":
            return self._bracket(at, final)
        if char == "`":
            return self._code_span(at, final)
        if char in "<&":
            return self._tag(at, final) if char == "<" else self._entity(at, final)
        if char == "\\":
            return self._escape(at, final)
        return self._cell(at, final) if char == "|" else None

    def literal(self, at: int, end: int | None = None) -> int:
        """Say the source as it is, a character unless ``end`` is given."""
        end = at + 1 if end is None else end
        self._spoken.say(self._source.text[at:end], self._source.base + at)
        return end

    def _say_instead(self, text: str, at: int, end: int) -> None:
        base = self._source.base
        self._spoken.say_instead(text, base + at, base + end)

    def _close_mark(self, at: int, end: int) -> None:
        base = self._source.base
        self._spoken.close_mark(base + at, base + end)

    def _cell(self, at: int, final: bool) -> int:
        if not self.row:
            return self.literal(at)
        rest = at + 1
        while rest < len(self._source.text) and self._source.text[rest] in " \t\r":
            rest += 1
        if rest == len(self._source.text) and not final:
            return HOLD if rest - at < MAX_TAG else self.literal(at)
        if rest < len(self._source.text) and self._source.text[rest] != "\n":
            self._say_instead(", ", at, at + 1)
        return rest

    def _emphasis(self, at: int, final: bool) -> int:
        source = self._source.text
        found = RUN.match(source, at)
        end = found.end() if found else at + 1
        if end == len(source) and not final and end - at < MAX_TAG:
            return HOLD
        char = source[at]
        before = self._source.before(at)
        after = source[end] if end < len(source) else "\n"
        if self._closes(char, before, after):
            self.open.remove(char)
            self._close_mark(at, end)
            return end
        if self._opens(char, end - at, before, after):
            self.open.append(char)
            return end
        return end if char == "*" and end - at > 1 else self.literal(at, end)

    def _closes(self, char: str, before: str, after: str) -> bool:
        inside_word = char == "_" and after.isalnum()
        return char in self.open and not before.isspace() and not inside_word

    def _opens(self, char: str, length: int, before: str, after: str) -> bool:
        if after.isspace() or (char == "~" and length != 2):
            return False
        if not before.isalnum() or WIDE.match(before):
            return True
        return char == "*" and length > 1

    def _bracket(self, at: int, final: bool) -> int:
        """``[text](target)``, ``[text][reference]``, ``[1]``, or a plain bracket."""
        source = self._source.text
        found = BRACKET.match(source, at)
        if found is None:
            waits = not final and len(source) - at <= MAX_BRACKET
            return HOLD if waits and "\n" not in source[at:] else self.literal(at)
        end = found.end()
        if end == len(source) and not final:
            return HOLD
        pattern, begun = TARGETS.get(source[end : end + 1], (None, None))
        target = pattern.match(source, end) if pattern else None
        if begun and target is None and not final and begun.match(source, end):
            return HOLD
        if target is not None:
            return self._link(at, found, target)
        if not CITATION.fullmatch(found[1]):
            return self.literal(at)
        if self._options.citations == "keep":
            return self.literal(at, end)
        return end + 1 if source[end : end + 1] == ":" else end

    def _link(self, at: int, found: re.Match[str], target: re.Match[str]) -> int:
        end = target.end()
        if self._source.before(at) == "!" and self._source.before(at - 1).isspace():
            self._spoken.drop_last("!")
        if CITATION.fullmatch(found[1]) and self._options.citations == "skip":
            return end
        said = INNER_MARKS.sub("", found[1]).replace("\\", "")
        if self._options.links == "url" and target[0][0] == "(":
            said = f"{said}, {target[1].strip('<>')}" if said else target[1].strip("<>")
        if said == found[1] and len(said) > MAX_ATOM:
            self.literal(*found.span(1))
            self._close_mark(found.end(1), end)
        else:
            self._say_instead(said, at, end)
        return end

    def _cjk_citation(self, at: int, final: bool) -> int:
        found = CJK_CITATION.match(self._source.text, at)
        if found is None:
            rest = self._source.text[at:]
            waits = not final and len(rest) <= 66 and "\n" not in rest
            return HOLD if waits and "】" not in rest else self.literal(at)
        cites = found[1][:1].isdigit() or "†" in found[1]
        if cites and self._options.citations == "skip":
            return found.end()
        return self.literal(at)

    def _code_span(self, at: int, final: bool) -> int:
        source = self._source.text
        found = CODE.match(source, at)
        if found is not None and (found.end() < len(source) or final):
            self._spoken.say(found[2], self._source.base + at + len(found[1]))
            self._spoken.close_mark(
                self._source.base + found.end(2), self._source.base + found.end()
            )
            return found.end()
        rest = source[at:]
        if not final and "\n" not in rest and len(rest) <= MAX_BRACKET:
            return HOLD
        ticks = TICKS.match(source, at)
        return ticks.end() if ticks else at + 1

    def _address(self, at: int, final: bool) -> int:
        found = URL.match(self._source.text, at)
        if found is None or self._source.in_word(at):
            empty = not final and URL_EMPTY.match(self._source.text, at)
            return HOLD if empty else self.literal(at)
        if found.end() == len(self._source.text) and not final and len(found[0]) < 2000:
            return HOLD
        tail = URL_TAIL.search(found[0])
        url = found[0][: tail.start()] if tail else found[0]
        return self._say_address(url, at, at + len(url))

    def _say_address(self, url: str, at: int, end: int) -> int:
        if self._options.links != "skip":
            host = HOST.match(url)
            short = host[1] if host and self._options.links == "text" else ""
            self._say_instead(short or url, at, end)
        return end

    def _tag(self, at: int, final: bool) -> int:
        source = self._source.text
        after = source[at + 1 : at + 2]
        if not after and not final:
            return HOLD
        link = AUTOLINK.match(source, at)
        if link is not None:
            return self._say_address(link[1], at, link.end())
        if not final and AUTOLINK_BEGUN.match(source, at):
            return HOLD
        found = TAG.match(source, at)
        if found is None:
            grows = after.isalpha() or after in ("/", "!")
            rest = source[at:]
            waits = grows and not final and len(rest) <= MAX_TAG and "\n" not in rest
            return HOLD if waits and "<" not in rest[1:] else self.literal(at)
        if BREAK_TAG.match(found[0]):
            self._spoken.break_line(self._source.base + at)
        return found.end()

    def _entity(self, at: int, final: bool) -> int:
        found = ENTITY.match(self._source.text, at)
        if found is None:
            begun = not final and ENTITY_BEGUN.match(self._source.text, at)
            return HOLD if begun else self.literal(at)
        said = html.unescape(found[0])
        self._say_instead(said, at, found.end())
        return found.end()

    def _escape(self, at: int, final: bool) -> int:
        if at + 1 == len(self._source.text):
            return self.literal(at) if final else HOLD
        char = self._source.text[at + 1]
        if char.isascii() and not char.isalnum() and not char.isspace():
            return self.literal(at + 1, at + 2)
        return self.literal(at)

    def _emoji(self, at: int, final: bool) -> int:
        found = EMOJI.match(self._source.text, at)
        if found is None:
            return self.literal(at)
        end = found.end()
        if end == len(self._source.text) and not final and end - at < MAX_EMOJI:
            return HOLD
        if found[0][0] not in EMOJI_MODIFIERS:
            self._say_instead(" ", at, end)
        return end
