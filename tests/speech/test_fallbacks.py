"""Cuts for want of a better one."""

from __future__ import annotations

import pytest

from bridge.speech.fallbacks import anywhere, clause_before, space_before, stop_at_end
from bridge.speech.spoken_text import SpokenText


def text_of(text: str) -> SpokenText:
    spoken = SpokenText()
    spoken.say(text, 0)
    return spoken


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is late.", "It is late."),
        ("It is late. ", "It is late. "),
        ("Dr.", ""),
        ("It costs 3.", ""),
        ("It is", ""),
        ("Well...", "Well..."),
        ("...", ""),
        ("to me@ex.", ""),
        ("to me@ex.com. ", "to me@ex.com. "),
    ],
)
def test_a_stop_at_the_end(text: str, said: str) -> None:
    assert text[: stop_at_end(text, "en")] == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one, two, three", "one, two,"),
        ("in 1,000 ways", ""),
        ("1, 2", ""),
        ("一，二，三", "一，二，"),
        ("so – we go", "so –"),
    ],
)
def test_the_last_clause(text: str, said: str) -> None:
    assert text[: clause_before(text_of(text), len(text), 1)] == said
    assert clause_before(text_of(text), len(text), 1000) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one two three", "one two"),
        ("with 1 000 000", "with"),
        ("3.14 3.14 1", "3.14 3.14"),
        ("in 1999 20 of us", "in 1999 20 of"),
        ("says Dr. S", "says"),
        ("costs 3", "costs"),
        ("costs 3 ", "costs"),
        ("word", ""),
        ("word ", "word"),
    ],
)
def test_the_last_space(text: str, said: str) -> None:
    assert text[: space_before(text_of(text), len(text), "en")] == said


def test_nothing_goes_through_an_atom() -> None:
    spoken = text_of("see ")
    spoken.say_instead("a, b c", 4, 20)
    assert clause_before(spoken, 10, 1) == 0
    assert space_before(spoken, 10, "en") == 3
    assert anywhere(spoken, 8) == 4
    spoken.cut(4)
    assert anywhere(spoken, 3) == 6
