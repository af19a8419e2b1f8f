"""What is an emoji, and that patterns of marks stay quick on what never ends."""

from __future__ import annotations

import pytest

from bridge.speech import marks
from bridge.speech.marks import is_emoji


@pytest.mark.parametrize("char", ["😀", "👍", "🇩", "☀", "✅", "🤖", "⭐"])
def test_emoji(char: str) -> None:
    assert is_emoji(char)


@pytest.mark.parametrize("char", ["a", "1", "#", "你", "€", "…", "\ufe0f", "\u200d"])
def test_no_emoji(char: str) -> None:
    assert not is_emoji(char)


@pytest.mark.parametrize("emoji", ["👩‍💻", "👨‍👩‍👧‍👦", "👍🏽", "🇩🇪", "☝️", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"])
def test_a_sequence_is_one_mark(emoji: str) -> None:
    found = marks.EMOJI.match(emoji + "x")
    assert found is not None
    assert found[0] == emoji


@pytest.mark.parametrize(
    "unit", ["[", "(", "`", "*", "<", "&", "|-", "1.", "a(", "\\["]
)
def test_no_pattern_explodes(unit: str) -> None:
    text = (unit * 4000)[:4000]
    for pattern in (
        marks.BRACKET,
        marks.CODE,
        marks.TARGET,
        marks.TARGET_BEGUN,
        marks.BLOCK,
        marks.BLOCK_BEGUN,
        marks.TAG,
        marks.URL,
    ):
        pattern.match("[" + text)
        pattern.match("(" + text)
        pattern.match(text)
