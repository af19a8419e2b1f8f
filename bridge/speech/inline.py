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
    HEADERS,
    HOST,
    INNER_MARKS,
    MAX_EMOJI,
    OPENING_TAG,
    RUN,
    TAG,
    TAG_BEGUN,
    TARGETS,
    TICKS,
    TOKEN,
    TOKEN_BEGUN,
    URL,
    URL_EMPTY,
    URL_TAIL,
)
from bridge.speech.options import SpeechOptions
from bridge.speech.source import Source
from bridge.speech.spoken_text import SpokenText

#: What a lexing step returns when it needs characters that are not there yet.
HOLD = -1

#: How much source a mark may have, and hold back: more than any bracket, address or
#: code line that is worth its form, and little enough to keep per request. What is
#: longer is text, whether it came at once or not.
MAX_BRACKET = 402
MAX_TARGET = 2100
MAX_URL = 2000
MAX_TAG = 300
MAX_RUN = 200
MAX_CJK = 66

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
        #: How often each mark of emphasis has been opened and not closed.
        self._open = {"*": 0, "_": 0, "~": 0}
        #: Whether this line is a table's row.
        self.row = False

    @property
    def emphasized(self) -> bool:
        """Whether emphasis has been opened and not closed."""
        return any(self._open.values())

    def close_all(self) -> None:
        """Emphasis ends with its block."""
        self._open = {"*": 0, "_": 0, "~": 0}

    def mark(self, at: int, final: bool) -> int:
        """Lex the mark at ``at``, neither a stop nor a line break."""
        char = self._source.text[at]
        if char == "【":
            return self._cjk_citation(at, final)
        if char in "hw":
            return self._address(at, final)
        if char == "<":
            return self._angle(at, final)
        if self._markdown:
            step = self._markdown_mark(char, at, final)
            if step is not None:
                return step
        return self._emoji(at, final)

    def _markdown_mark(self, char: str, at: int, final: bool) -> int | None:
        if char in "*_~":
            return self._emphasis(at, final)
        if char == "[":
            return self._bracket(at, at, final)
        if char == "!":
            return self._image(at, final)
        if char == "`":
            return self._code_span(at, final)
        if char == "&":
            return self._entity(at, final)
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
        source = self._source.text
        limit = at + MAX_RUN
        rest = at + 1
        while rest < min(len(source), limit) and source[rest] in " \t\r":
            rest += 1
        if rest == limit:
            return self.literal(at)
        if rest == len(source):
            return rest if final else HOLD
        if source[rest] != "\n":
            self._say_instead(", ", at, at + 1)
        return rest

    def _emphasis(self, at: int, final: bool) -> int:
        source = self._source.text
        found = RUN.match(source, at, at + MAX_RUN)
        end = found.end() if found else at + 1
        whole = end - at < MAX_RUN
        if whole and end == len(source) and not final:
            return HOLD
        char = source[at]
        before = self._source.before(at)
        after = source[end] if end < len(source) else "\n"
        if whole and self._closes(char, before, after):
            self._open[char] -= 1
            self._close_mark(at, end)
            return end
        if whole and self._opens(char, end - at, before, after):
            self._open[char] += 1
            return end
        if char != "*" or end - at == 1:
            return self.literal(at, end)
        self._spoken.leave_out(opens=True)
        return end

    def _closes(self, char: str, before: str, after: str) -> bool:
        inside_word = char == "_" and after.isalnum()
        return self._open[char] > 0 and not before.isspace() and not inside_word

    def _opens(self, char: str, length: int, before: str, after: str) -> bool:
        if after.isspace() or (char == "~" and length != 2):
            return False
        if not before.isalnum() or WIDE.match(before):
            return True
        return char == "*" and length > 1

    def _image(self, at: int, final: bool) -> int:
        """``!`` before a bracket: part of an image, unless it ends a word."""
        if not self._source.before(at).isspace():
            return self.literal(at)
        return self._bracket(at, at + 1, final)

    def _bracket(self, begin: int, at: int, final: bool) -> int:
        """``[text](target)``, ``[text][reference]``, ``[1]``, or a plain bracket.

        ``begin`` is where its mark begins: before ``at`` for an image.
        """
        source = self._source.text
        limit = at + MAX_BRACKET
        found = BRACKET.match(source, at, limit)
        if found is None:
            waits = not final and len(source) < limit
            if waits and source.find("\n", at) < 0:
                return HOLD
            return self.literal(begin)
        end = found.end()
        if end == len(source) and not final:
            return HOLD
        pattern, begun = TARGETS.get(source[end : end + 1], (None, None))
        limit = end + MAX_TARGET
        target = pattern.match(source, end, limit) if pattern else None
        if target is not None:
            return self._link(begin, found, target)
        waits = not final and len(source) < limit
        if begun and waits and begun.match(source, end):
            return HOLD
        if begin < at or not CITATION.fullmatch(found[1]):
            return self.literal(begin)
        if self._options.citations == "keep":
            return self.literal(at, end)
        self._spoken.leave_out()
        return end + 1 if source[end : end + 1] == ":" else end

    def _link(self, at: int, found: re.Match[str], target: re.Match[str]) -> int:
        end = target.end()
        if CITATION.fullmatch(found[1]) and self._options.citations == "skip":
            self._spoken.leave_out()
            return end
        said = INNER_MARKS.sub("", found[1]).replace("\\", "")
        if self._options.links == "url" and target[0][0] == "(":
            said = f"{said}, {target[1].strip('<>')}" if said else target[1].strip("<>")
        if not said.strip():
            self._spoken.leave_out()
        elif said == found[1] and len(said) > MAX_ATOM:
            self.literal(*found.span(1))
            self._close_mark(found.end(1), end)
        else:
            self._say_instead(said, at, end)
        return end

    def _cjk_citation(self, at: int, final: bool) -> int:
        source = self._source.text
        limit = at + MAX_CJK
        found = CJK_CITATION.match(source, at)
        if found is None:
            waits = not final and len(source) < limit
            if waits and not any(source.find(c, at, limit) >= 0 for c in "\n】"):
                return HOLD
            return self.literal(at)
        cites = found[1][:1].isdigit() or "†" in found[1]
        if cites and self._options.citations == "skip":
            self._spoken.leave_out()
            return found.end()
        return self.literal(at)

    def _code_span(self, at: int, final: bool) -> int:
        source = self._source.text
        limit = at + MAX_BRACKET
        found = CODE.match(source, at, limit)
        # At the limit it is not known whether more ticks follow.
        if found is not None and found.end() < limit:
            if found.end() == len(source) and not final:
                return HOLD
            self._spoken.say(found[2], self._source.base + at + len(found[1]))
            self._close_mark(found.end(2), found.end())
            return found.end()
        if not final and len(source) < limit and source.find("\n", at) < 0:
            return HOLD
        ticks = TICKS.match(source, at, limit)
        self._spoken.leave_out(opens=True)
        return ticks.end() if ticks else at + 1

    def _address(self, at: int, final: bool) -> int:
        if self._source.in_word(at):
            return self.literal(at)
        limit = at + MAX_URL
        found = URL.match(self._source.text, at, limit)
        if found is None:
            empty = not final and URL_EMPTY.match(self._source.text, at)
            return HOLD if empty else self.literal(at)
        end = found.end()
        if end == len(self._source.text) and end < limit and not final:
            return HOLD
        url = found[0].rstrip(URL_TAIL)
        return self._say_address(url, at, at + len(url))

    def _say_address(self, url: str, at: int, end: int) -> int:
        if self._options.links == "skip":
            self._spoken.leave_out()
        else:
            host = HOST.match(url)
            short = host[1] if host and self._options.links == "text" else ""
            self._say_instead(short or url, at, end)
        return end

    def _angle(self, at: int, final: bool) -> int:
        """A model's special token, a tag of HTML, an address; or just a bracket."""
        source = self._source.text
        waits = not final and len(source) < at + MAX_TAG
        token = TOKEN.match(source, at)
        if token is not None:
            return self._token(at, token, final)
        if waits and TOKEN_BEGUN.match(source, at):
            return HOLD
        if not self._markdown:
            return self.literal(at)
        link = AUTOLINK.match(source, at)
        if link is not None:
            return self._say_address(link[1], at, link.end())
        if not final and AUTOLINK_BEGUN.match(source, at):
            return HOLD
        found = TAG.match(source, at, at + MAX_TAG)
        if found is None:
            begun = waits and TAG_BEGUN.match(source, at)
            return HOLD if begun else self.literal(at)
        if BREAK_TAG.match(found[0]):
            self._spoken.break_line(self._source.base + at)
        else:
            self._spoken.leave_out(opens=OPENING_TAG.match(found[0]) is not None)
        return found.end()

    def _token(self, at: int, token: re.Match[str], final: bool) -> int:
        """Where a header of a turn begins, a block ends."""
        end = token.end()
        words, begun = HEADERS.get(token[0].lower(), (None, None))
        if words is not None and begun is not None:
            if not final and begun.match(token.string, end):
                return HOLD
            found = words.match(token.string, end)
            end = found.end() if found else end
            self._spoken.break_block(self._source.base + at)
        self._spoken.leave_out()
        return end

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
        limit = at + MAX_EMOJI
        found = EMOJI.match(self._source.text, at, limit)
        if found is None:
            return self.literal(at)
        end = found.end()
        if end == len(self._source.text) and end < limit and not final:
            return HOLD
        if found[0][0] not in EMOJI_MODIFIERS:
            self._spoken.leave_out(apart=True)
        return end
