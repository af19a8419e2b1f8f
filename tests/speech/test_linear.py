"""The work is linear in the text, whatever the text: characters visited, no time."""

from __future__ import annotations

import pytest

from bridge import thoughts
from bridge.speech import (
    Segmenter,
    SpeechOptions,
    characters,
    cuts,
    fallbacks,
    inline,
    markup,
    places,
    segmenter,
    sentences,
)
from tests.speech.visited import Counted, Meter, counting

MODULES = (
    characters, cuts, fallbacks, inline, markup, places, segmenter, sentences, thoughts,
)  # fmt: skip

HOSTILE = [
    "|", "| ", "[", "![", "[a](", "[a](<", "[a]( ", "[[[a]", "`", "``a`", "*_", "*a ",
    "~~a", "<", "<a ", "<!--", "<|", "&", "\\[", "(", "“", '"', "a.", "1.", "I. ", "?!",
    "a, ", "🏽", "😀", "\ufe0f", "【", "。", "你。", " ", "\n", "a\n", "#", "> ", "- ",
    "---", "ก ", "http://", "ahttp://", "<think>", "<|start|>", "```\n", "a", "word. ",
]  # fmt: skip


def visited(text: str, size: int) -> int:
    """How many characters are looked at to cut ``text``, as deltas of ``size``."""
    with counting(*MODULES):
        one = Segmenter(SpeechOptions())
        one._markup._source.text = Counted("")
        one._spoken.text = Counted("")
        Meter.visited = 0
        for seq, at in enumerate(range(0, len(text), size), 1):
            one.receive(seq, Counted(text[at : at + size]))
        one.receive_eof()
        return Meter.visited


@pytest.mark.parametrize("unit", HOSTILE, ids=ascii)
def test_four_times_the_text_is_about_four_times_the_work(unit: str) -> None:
    text = (unit * 60_000)[:60_000]
    for size in (len(text), 4):
        short = visited(text[:15_000], size)
        assert short >= 15_000
        assert visited(text, size) <= 5 * short


@pytest.mark.parametrize("begin", ["```\n", "<think>", "| ", "[a](http://", "a <b x="])
def test_a_long_line_behind_an_open_mark_is_linear_too(begin: str) -> None:
    for size in (60_000, 4):
        short = visited(begin + "a b" * 5_000, size)
        assert visited(begin + "a b" * 20_000, size) <= 5 * short
