"""Cuts for want of a better one: what a limit forces, and what a pause lets go."""

from __future__ import annotations

import re

from bridge.speech.characters import (
    SPACED_CLAUSE,
    SPEAKABLE,
    WEAK,
    WIDE_CLAUSE,
    grapheme_floor,
    weight,
)
from bridge.speech.sentences import abbreviates
from bridge.speech.spoken_text import SpokenText

_CLAUSE = re.compile(rf"[{SPACED_CLAUSE}](?=\s)|[{WIDE_CLAUSE}](?!\d)|[–](?=\s)")
#: A number whose thousands are set apart by spaces, as far as it is there.
_NUMBER = re.compile(r"(?<![\d.,])\d{1,3}\Z")
_GROUP = re.compile(r"\d{3}(?!\d)|\d{0,2}\Z")

#: An address, a file, or dotted letters that may not be whole: "me@ex.", "a.b.".
_GROWS = re.compile(r"[@/.:_][^\s@/.:_]+\.\Z")
_SPACE = re.compile(r"\s+")
_DIGIT = re.compile(r"\s*+\d")


def stop_at_end(text: str, language: str) -> int:
    """The end of ``text``, if it ends with a stop that is no abbreviation's; or 0."""
    end = len(text.rstrip())
    if text[end - 1 : end] not in WEAK or not SPEAKABLE.search(text, 0, end):
        return 0
    single = text[end - 2 : end - 1] not in WEAK
    if single and (abbreviates(text, end, language) or _GROWS.search(text)):
        return 0
    return len(text)


def clause_before(spoken: SpokenText, most: int, least: int) -> int:
    """The last clause up to ``most`` that weighs at least ``least``, or 0."""
    text = spoken.text
    for found in reversed(list(_CLAUSE.finditer(text, 0, most))):
        end = found.end()
        numbers = text[end - 2 : end - 1].isdigit() and _DIGIT.match(text, end)
        if not numbers and spoken.atom_start(end) == end:
            return end if weight(text[:end]) >= least else 0
    return 0


def space_before(spoken: SpokenText, most: int, language: str) -> int:
    """The last space up to ``most`` in no number and behind no abbreviation, or 0."""
    text = spoken.text
    ends = [
        (found.start(), found.end()) for found in _SPACE.finditer(text, 0, most + 1)
    ]
    if spoken.blank and len(text) <= most:
        ends.append((len(text), len(text)))
    for end, behind in reversed(ends):
        if not 0 < end <= most or spoken.atom_start(end) != end:
            continue
        if _NUMBER.search(text, max(0, end - 5), end) and _GROUP.match(text, behind):
            continue
        if not abbreviates(text, end, language):
            return end
    return 0


def anywhere(spoken: SpokenText, most: int) -> int:
    """A cut between graphemes, and never through an atom."""
    end = spoken.atom_start(grapheme_floor(spoken.text, most))
    return end or spoken.atom_end(0) or most
