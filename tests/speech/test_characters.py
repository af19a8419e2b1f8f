"""Weights, and cuts that leave graphemes whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.speech.characters import grapheme_floor, weight, within_weight


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("abc", 3),
        ("über", 4),
        ("你好", 4),
        ("한국", 4),
        ("カナ", 4),
        ("ไทย", 3),
    ],
)
def test_wide_characters_weigh_two(text: str, expected: int) -> None:
    assert weight(text) == expected


@given(st.text(alphabet="aé你好か한 "), st.integers(0, 40))
def test_within_weight_is_the_longest_prefix(text: str, limit: int) -> None:
    size = within_weight(text, limit)
    assert weight(text[:size]) <= limit
    assert size == len(text) or weight(text[: size + 1]) > limit


@pytest.mark.parametrize(
    "cluster",
    [
        "e\u0301",
        "👩‍💻",
        "👍🏽",
        "🇩🇪",
        "\r\n",
        "क्षि",
        "ที่",
        "แม",
        "각",
        "☝️",
    ],
    ids=ascii,
)
def test_a_cut_is_never_inside_a_grapheme(cluster: str) -> None:
    text = "x" + cluster + "y"
    whole = {1, 1 + len(cluster)}
    for at in range(1, 1 + len(cluster)):
        assert grapheme_floor(text, at) in whole


def test_an_endless_cluster_is_cut_all_the_same() -> None:
    assert grapheme_floor("a" + "\u0301" * 500, 400) == 400
