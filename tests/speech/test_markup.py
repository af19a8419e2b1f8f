"""Markdown to spoken text: what is said, wherever the stream is cut."""

from __future__ import annotations

import pytest

from bridge.speech.characters import PARAGRAPH
from bridge.speech.markup import Markup
from bridge.speech.options import SpeechOptions
from tests.speech.streams import said

CASES = [
    ("# Head\ntext", f"Head{PARAGRAPH}text"),
    ("a\n\nb\nc", f"a{chr(10)}{PARAGRAPH}b\nc"),
    ("- a\n* b\n+ [x] c\n• d", f"a\n{PARAGRAPH}b\n{PARAGRAPH}c\n{PARAGRAPH}d"),
    ("1. a\n2) b", f"1. a\n{PARAGRAPH}2) b"),
    ("3.5 a\n2024. b", "3.5 a\n2024. b"),
    ("> a\n> b", "a\nb"),
    ("a\n---\nb\n***\nc", f"a\n{PARAGRAPH}b\n{PARAGRAPH}c"),
    ("| a | b |\n|--:|---|\n| 1 | |\n\nz", f"a , b {PARAGRAPH}1 , {PARAGRAPH}z"),
    ("a\n```py\nx = 1. Y\n```\nb", f"a\n{PARAGRAPH}b"),
    ("~~~\n```\n~~~\nb", "b"),
    ("Look: ```py\nx = 1. Y\n```\nb", f"Look: {PARAGRAPH}b"),
    ("- item ```\nx\n```\nb", f"item {PARAGRAPH}b"),
    ("> ```\n> x\n> ```\nb", "b"),
    ("Run ```a b``` now.\nb", "Run a b now.\nb"),
    ("a | b", "a | b"),
]


@pytest.mark.parametrize(("source", "expected"), CASES, ids=ascii)
def test_what_is_said(source: str, expected: str) -> None:
    assert said([source], SpeechOptions()).rstrip("\n") == expected


@pytest.mark.parametrize("source", [source for source, _ in CASES], ids=ascii)
def test_every_single_cut_and_every_character_say_the_same(source: str) -> None:
    whole = said([source], SpeechOptions())
    assert said(list(source), SpeechOptions()) == whole
    for at in range(1, len(source)):
        assert said([source[:at], source[at:]], SpeechOptions()) == whole


@pytest.mark.parametrize(
    ("setting", "source", "expected"),
    [
        (
            {"code": "announce"},
            "a\n```\nx\n```\nb",
            f"a\n{PARAGRAPH}Code block.{PARAGRAPH}b",
        ),
        ({"code": "read"}, "```\nx = 1\ny\n```\nb", f"x = 1{PARAGRAPH}y{PARAGRAPH}b"),
        ({"tables": "skip"}, "a\n| b | c |\n|---|\n| d |\ne", f"a\n{PARAGRAPH}e"),
        ({"links": "url"}, "[a](http://b.c/d)", "a, http://b.c/d"),
        ({"links": "url"}, "http://b.c/d.", "http://b.c/d."),
        ({"links": "skip"}, "[a](http://b.c) x http://b.c y", "a x y"),
        ({"emoji": "keep"}, "so 👍🏽 good", "so 👍🏽 good"),
        ({"citations": "keep"}, "so [1] and【1】", "so [1] and【1】"),
        ({"markdown": "keep"}, "# **a** `b`\n- c", "# **a** `b`\n- c"),
        ({"markdown": "keep"}, "a 👍 【1】", "a"),
    ],
    ids=ascii,
)
def test_options(setting: dict[str, str], source: str, expected: str) -> None:
    options = SpeechOptions(**setting)  # type: ignore[arg-type]
    for deltas in ([source], list(source)):
        assert said(deltas, options) == expected


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        " ",
        "\n",
        "*",
        "_",
        "`",
        "[",
        "[a](",
        "<b",
        "&a",
        "|",
        "- ",
        "http://",
        "1",
        "😀",
        "\u200d",
        "\\",
        "```\n",
        "| a",
        "【",
        "!",
        "#",
        "=",
        "。",
        "> ",
    ],
    ids=ascii,
)
def test_little_is_held_of_what_never_ends(unit: str) -> None:
    markup = Markup(SpeechOptions())
    for _ in range(4000):
        markup.feed(unit)
        while markup.advance(final=False):
            pass
        markup.spoken.cut(len(markup.spoken.text))
        assert markup.held <= 2100


def test_repr_shows_where_it_stands() -> None:
    markup = Markup(SpeechOptions())
    markup.feed("a *")
    markup.advance(final=False)
    assert "held=1" in repr(markup)
