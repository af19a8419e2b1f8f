"""Places in spoken text where it might be cut, as far as a few characters tell.

Clause marks, spaces between Thai words, quotation marks that open, brackets that stand
inside a sentence. A place that needs characters which are not there yet is undecided.
"""

from __future__ import annotations

import re
from enum import Enum

from bridge.speech.characters import (
    CLOSERS,
    SPACED_CLAUSE,
    STRONG,
    THAI,
    WEAK,
    WIDE,
)

_SPACE = re.compile(r"\s+")

#: Words that end a Thai sentence, which has no full stop: polite particles.
_THAI_ENDINGS = ("ครับ", "ค่ะ", "คะ", "จ้ะ", "จ้า", "ฮะ")

#: Words that a Thai clause goes on with behind a space.
_THAI_JOINS = ("และ", "หรือ", "ซึ่ง", "ที่", "เป็น", "โดย", "เพื่อ")

#: Thai signs that belong to both of their neighbours: "ต่าง ๆ", "ฯลฯ".
_THAI_SIGNS = frozenset("ๆฯ")


class Place(Enum):
    """What a place in the text is."""

    NOTHING = 0
    SENTENCE = 1
    PARAGRAPH = 2
    CLAUSE = 3
    #: A space between Thai words: the only mark that Thai sentences and clauses have.
    SPACE = 4
    #: The characters behind it decide, and are not there yet.
    UNDECIDED = 5


#: The answer that asks to come again with more text.
UNDECIDED = (Place.UNDECIDED, 0)


def is_inside(text: str, opened: int) -> bool:
    """Whether a bracket was opened within a sentence, not before one."""
    before = text[:opened].rstrip()
    return (
        bool(before) and before[-1] not in WEAK + STRONG and before[-1] not in CLOSERS
    )


def opens(text: str, at: int) -> bool:
    """Whether a straight quotation mark opens: inches and strays do not."""
    before = text[at - 1 : at]
    return (
        not before
        or before.isspace()
        or before in "([“‘—–-/:"
        or bool(WIDE.match(before))
    )


def clause(text: str, at: int, *, final: bool) -> tuple[Place, int]:
    """What the clause mark at ``at`` is, and where it ends."""
    follow = text[at + 1 : at + 2]
    if not follow:
        return (Place.NOTHING, at + 1) if final else UNDECIDED
    if text[at] in SPACED_CLAUSE:
        return _spaced_clause(text, at, follow, final=final)
    number = follow.isdigit() and text[at - 1 : at].isdigit()
    return (Place.NOTHING if number else Place.CLAUSE), at + 1


def _spaced_clause(
    text: str, at: int, follow: str, *, final: bool
) -> tuple[Place, int]:
    """Not inside a number, a time or an address; and not between two numbers."""
    if not follow.isspace() or not text[at - 1 : at].isdigit():
        return (Place.CLAUSE if follow.isspace() else Place.NOTHING), at + 1
    found = _SPACE.match(text, at + 1)
    if found is None or found.end() == len(text):
        return (Place.NOTHING, at + 1) if final else UNDECIDED
    number = text[found.end()].isdigit()
    return (Place.NOTHING if number else Place.CLAUSE), at + 1


def thai_space(text: str, at: int, *, final: bool) -> tuple[Place, int]:
    """What the space at ``at``, behind a Thai word, is, and where it ends."""
    end = at
    while end < len(text) and text[end] == " ":
        end += 1
    if end == len(text):
        return (Place.NOTHING, end) if final else UNDECIDED
    if text[at - 1] in _THAI_SIGNS or text[end] in _THAI_SIGNS:
        return Place.NOTHING, end
    if text[:at].endswith(_THAI_ENDINGS):
        return Place.SENTENCE, end
    follow = text[end : end + 5]
    if not final and any(join.startswith(follow) for join in _THAI_JOINS):
        return UNDECIDED
    joins = follow.startswith(_THAI_JOINS) or not THAI.match(follow)
    return (Place.NOTHING if joins else Place.SPACE), end
