"""The next cut: found once, waited for, forced by a limit, let go by a pause."""

from __future__ import annotations

import pytest

from bridge.speech.characters import PARAGRAPH
from bridge.speech.cuts import Cuts
from bridge.speech.options import SpeechOptions
from bridge.speech.spoken_text import SpokenText

SMALL = SpeechOptions(first_min_chars=10, min_chars=5, max_chars=40)


def text_of(text: str) -> SpokenText:
    spoken = SpokenText()
    spoken.text = text
    return spoken


def first(text: str, *, early: bool = False, options: SpeechOptions = SMALL) -> str:
    cuts = Cuts(options, said=0 if early else 100)
    return text[: cuts.find(text_of(text), at_once=True, final=False)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is late. We go", "It is late."),
        ("It is late.", ""),
        ("No. We go now. B", "No. We go now."),
        ("你好吗？", "你好吗？"),
        ("क्या है।", "क्या है।"),
        ("He said “Stop. Go.” I", "He said “Stop. Go.”"),
        ("He said “Stop. Go", ""),
        ("one (two. Three) four. F", "one (two. Three) four."),
        ("We go (soon). Then", "We go (soon)."),
        (f"Tea and{PARAGRAPH}", f"Tea and{PARAGRAPH}"),
        ("Tea and milk\nAnd more", "Tea and milk\n"),
        ("Tea and milk\nand more", ""),
        ("Tea and milk,\nAnd more", ""),
        ("well then, we", ""),
        ("“你好。”他说。我", "“你好。”他说。"),
        ("“你好。”我们走。我", "“你好。”"),
        ("「来る。」と言った。", "「来る。」と言った。"),
    ],
)
def test_the_next_cut(text: str, said: str) -> None:
    assert first(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Go. We", "Go."),
        ("well then, we", "well then,"),
        ("well, then we", ""),
        ("well (then, we", ""),
        ("今天天气，我", "今天天气，"),
        ("in 1,000,000 days", ""),
    ],
)
def test_early_a_clause_or_a_short_sentence_is_enough(text: str, said: str) -> None:
    assert first(text, early=True, options=SMALL) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("word " * 20, "word word word word word word word word"),
        ("word word, word word " * 3, "word word, word word word word,"),
        ("Go. We " + "word " * 20, "Go."),
        ("x" * 60, "x" * 40),
        ("天" * 60, "天" * 20),
        ("e\u0301" * 60, "e\u0301" * 20),
        ("the total is 1 000 000 000 000 000 000 000 000 000", "the total is"),
        (
            "He said “Stop it now, all. Go home. And then we saw",
            "He said “Stop it now, all.",
        ),
    ],
)
def test_the_limit_forces_a_cut(text: str, said: str) -> None:
    assert first(text) == said


def test_waiting_and_repr() -> None:
    cuts = Cuts(SMALL, said=100)
    assert cuts.find(text_of("It is late."), at_once=True, final=False) == 0
    assert cuts.waiting
    assert "waiting" in repr(cuts)
    cuts.cut(said=None)
    assert not cuts.early
    assert not cuts.waiting


def test_at_the_end_nothing_is_waited_for() -> None:
    cuts = Cuts(SMALL, said=100)
    assert cuts.find(text_of("It is late."), at_once=True, final=True) == 11


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is late.", "It is late."),
        ("Yes. ", "Yes. "),
        ("We ask Dr.", ""),
        ("It costs about 3.", "It costs about"),
        ("It costs about 3.1", "It costs about"),
        ("well then, we g", "well then,"),
        ("this is a half word", "this is a half"),
        ("short wor", ""),
        ("And he said “Stop", "And he said"),
        ("And he said “Stop.", "And he said"),
        ("see www.ex", ""),
        ("...", ""),
    ],
)
def test_a_pause_lets_go_what_is_whole(text: str, said: str) -> None:
    cuts = Cuts(SMALL, said=100)
    spoken = text_of(text)
    assert cuts.find(spoken, at_once=True, final=False) == 0
    assert text[: cuts.release(spoken)] == said
