"""Marks inside a line: what is said of them, wherever the stream is cut."""

from __future__ import annotations

import pytest

from bridge.speech.options import SpeechOptions
from tests.speech.streams import said

CASES = [
    ("plain text", "plain text"),
    ("**bold** and *it* and __u__ and _v_", "bold and it and u and v"),
    ("***both*** ~~gone~~ ~5", "both gone ~5"),
    ("2 * 3 = 6 and 2*3*4", "2 * 3 = 6 and 2*3*4"),
    ("snake_case_name and 5* hotel", "snake_case_name and 5* hotel"),
    ("这是**重点**内容", "这是重点内容"),
    ("use `a.b(*c)` now", "use a.b(*c) now"),
    ("``a`b`` c", "a`b c"),
    ('see [the *docs*](https://x.y/z_(a)?b=c "T") now', "see the docs now"),
    ("see [docs][1] now", "see docs now"),
    ("an ![old map](m.png) here", "an old map here"),
    ("Wow! [x](y)", "Wow! x"),
    ("[sic] [a b", "[sic] [a b"),
    ("so.[1] And[2, 3] also[^4] yes[1](http://a.b)", "so. And also yes"),
    ("so【4:0†source】 and 【注意】", "so and 【注意】"),
    ("at https://www.ex.com/a/b.html?c=1, then", "at ex.com, then"),
    ("<https://ex.com/a> www.ex.org.", "ex.com ex.org."),
    ("a<br>b <b>c</b> 1 < 2 <3 <!-- x -->d", "a\nb c 1 < 2 <3 d"),
    ("AT&T &amp; R&D &nope", "AT&T & R&D &nope"),
    (r"1\. a\*b\_ \x", r"1. a*b_ \x"),
    ("so 👩‍💻 good 👍🏽! 🇩🇪", "so good!"),
    ("1️⃣ one", "1 one"),
]


@pytest.mark.parametrize(("source", "expected"), CASES, ids=ascii)
def test_what_is_said(source: str, expected: str) -> None:
    assert said([source], SpeechOptions()) == expected


@pytest.mark.parametrize("source", [source for source, _ in CASES], ids=ascii)
def test_every_single_cut_and_every_character_say_the_same(source: str) -> None:
    whole = said([source], SpeechOptions())
    assert said(list(source), SpeechOptions()) == whole
    for at in range(1, len(source)):
        assert said([source[:at], source[at:]], SpeechOptions()) == whole


def test_a_long_bracket_is_text() -> None:
    source = "[" + "a" * 1000 + "](x) b"
    assert said(list(source), SpeechOptions()) == source
