"""Thoughts, special tokens and angle brackets: what of them is said."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.speech import Segmenter, SpeechOptions
from tests.speech.streams import cut, texts

FINAL = "<|start|>assistant<|channel|>final<|message|>"

THOUGHTS = [
    "<think>The user greets me. I say hello.</think>",
    "\n<think>\nThe user greets me.\n\n1. Say hello.\n```\nx\n```\n</think>\n\n",
    "<Thinking mode='deep'>Hm.</Thinking>",
    "<reasoning>Hm.</reasoning> <reflection>Ok.</reflection>",
    "[THINK]Hm.[/THINK]",
    "◁think▷Hm.◁/think▷",
    "<|channel>thought\nHm.<channel|>",
    f"<|channel|>analysis<|message|>Hm.<|end|>{FINAL}",
    "<think></think>\n\n",
    "<think/>",
    "</think>\n",
]


def every_way(text: str) -> list[list[str]]:
    return [[text], list(text), [text[:9], text[9:]]]


@pytest.mark.parametrize("thought", THOUGHTS, ids=ascii)
def test_a_thought_is_not_spoken(thought: str) -> None:
    for deltas in every_way(f"{thought}Hello there! How are you?"):
        segments = cut(deltas)
        assert " ".join(texts(segments)) == "Hello there! How are you?"
        assert segments[0].start == len(thought)


def test_it_is_read_without_its_marks_where_that_is_asked_for() -> None:
    text = "<think>The user greets me. I greet back</think>Hello there! How are you?"
    for deltas in every_way(text):
        said = texts(cut(deltas, SpeechOptions(thinking="read")))
        assert said == [
            "The user greets me. I greet back",
            "Hello there!",
            "How are you?",
        ]


def test_a_text_may_begin_inside_a_thought() -> None:
    text = "The user greets me. Hm.\n</think>\n\nHello there! How are you?"
    for deltas in every_way(text):
        said = texts(cut(deltas, SpeechOptions(begins_in_thought=True)))
        assert " ".join(said) == "Hello there! How are you?"


@pytest.mark.parametrize("text", ["<think>Never closed. Really", "<think>a</thi", "<t"])
def test_a_thought_that_is_never_closed_is_silent_in_a_pause_and_at_the_end(
    text: str,
) -> None:
    segmenter = Segmenter(SpeechOptions(first_min_chars=1))
    found = segmenter.receive(1, text)
    found += segmenter.flush()
    if text == "<t":
        text = "<think>"
        found += segmenter.receive(2, "hink>")
    assert found + segmenter.receive_eof() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Use the <think> tag.", "Use the <think> tag."),
        ("`<think>` is a tag. It ends with `</think>`.",
         "<think> is a tag. It ends with </think>."),
        ("\"<think>\" is a tag.", "\"<think>\" is a tag."),
        ("Hello. <think>Hm.</think> Yes.", "Hello. <think>Hm.</think> Yes."),
        # Special tokens
        ("Hello there.<|im_end|>", "Hello there."),
        ("Hello there. <|eot_id|>", "Hello there."),
        ("Hello there.</s>", "Hello there."),
        ("Hello there.<end_of_turn>\n", "Hello there."),
        ("Hello there.<｜end▁of▁sentence｜>", "Hello there."),
        (f"Hello there.<|end|>{FINAL}Bye now.<|return|>", "Hello there. Bye now."),
        ("Hello <|endoftext|>.", "Hello."),
        ("The token `<|im_end|>` ends it.", "The token <|im_end|> ends it."),
        # Angle brackets
        ("Write to <bob@example.com> today.", "Write to <bob@example.com> today."),
        ("Run git clone <your-project> now.", "Run git clone <your-project> now."),
        ("A List<String> of <name>.", "A List<String> of <name>."),
        ("If a < b and b <c then <3.", "If a < b and b <c then <3."),
        ("If i <b and c> d.", "If i <b and c> d."),
        ("Call <sip:bob@example.com>.", "Call <sip:bob@example.com>."),
        ("See <https://ex.com/a> there.", "See ex.com there."),
        ("So <B class=\"x\">bold</B> <img src=x alt='y'/>and <br/> new.",
         "So bold and new."),
        ("So <!-- a <b>note</b> --> it is.", "So it is."),
        # What is left out
        ("Good job 🎉.", "Good job."),
        ("Good job 🎉 ! Yes 👍, no 👎; (so 🎉) 🎉…", "Good job! Yes, no; (so)…"),
        ("He said \"Good job 🎉\".", "He said \"Good job\"."),
        ("Er sagt „Gut 🎉“, »Na 🎉«. Sie: “Yes 🎉”, « Oui 🎉 ».",
         "Er sagt „Gut“, »Na«. Sie: “Yes”, « Oui»."),
        ("Gut 🎉 „ja“ 🎉 »nein« 🎉 \"so\" 🎉 “no”.", "Gut „ja“ »nein« \"so\" “no”."),
        ("A claim [1]. Another [2, 3], too.", "A claim. Another, too."),
        ("A claim 【4:0†source】.", "A claim."),
        ("Hi 🎉 there 🎉 you.", "Hi there you."),
        ("Hi🎉there.", "Hi there."),
        ("See ![](m.png). It is ![a map](m.png).", "See. It is a map."),
        ("🎉. Done.", "Done."),
        ("It is <b>.NET</b>.", "It is .NET."),
        ("<b>.NET</b> is it.", ".NET is it."),
    ],
    ids=ascii,
)  # fmt: skip
def test_what_is_said(text: str, said: str) -> None:
    cuts = [[text[:at], text[at:]] for at in range(len(text))]
    for deltas in [*every_way(text), *cuts]:
        assert " ".join(texts(cut(deltas))) == said


def test_links_that_are_skipped_leave_no_space() -> None:
    options = SpeechOptions(links="skip")
    assert texts(cut(["See https://x.y/z . Yes."], options)) == ["See.", "Yes."]


def test_special_tokens_are_not_read_where_markdown_is() -> None:
    options = SpeechOptions(markdown="keep")
    assert texts(cut(list("Hi <b>you</b>.<|im_end|>"), options)) == ["Hi <b>you</b>."]


FRAGMENTS = [
    "<think>", "</think>", "<thinking>", "</thinking>", "[THINK]", "[/THINK]",
    "<|channel|>", "analysis", "final", "<|message|>", "<|end|>", "<|start|>",
    "assistant", "<|im_end|>", "</s>", "<br>", "<b>", "</b>", "<name>", "<", ">",
    "a < b", "<3", "<!-- x -->", "😀", "[1]", "【1】", "Hello", "there", "Dr.", "3",
    ". ", "! ", "? ", ", ", ".", "。", " ", " ", " ", "\n", "\n\n", "- ", "`", "```\n",
    "[a](b)", "![](x)", "**", "\"", "(", ")", "https://x.y", "x" * 60, " " * 40,
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)
OPTIONS = st.sampled_from(
    [
        SpeechOptions(),
        SpeechOptions(max_chars=30, min_chars=5, first_min_chars=8),
        SpeechOptions(thinking="read", links="skip", code="read"),
        SpeechOptions(begins_in_thought=True, markdown="keep"),
    ]
)


def ranges(deltas: list[str], options: SpeechOptions, start: int = 0) -> list[Any]:
    return [(s.text, s.start, s.end) for s in cut(deltas, options, start)]


@settings(max_examples=300, deadline=None)
@given(TEXTS, OPTIONS, st.data())
def test_neither_deltas_nor_a_takeover_matter(
    text: str, options: SpeechOptions, data: st.DataObject
) -> None:
    whole = ranges([text], options)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    deltas = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
    assert ranges(deltas, options) == whole
    assert ranges(list(text), options) == whole
    at = 0
    for said, (_, start, end) in enumerate(whole, 1):
        assert at <= start < end <= len(text)
        assert ranges(deltas, options, end) == whole[said:]
        at = end


WORDS = ["one", "two3", "drei,", "vier.", "5", "(six)", "“seven”", "eight!", "neuf"]
NOISE = [" 🎉", " [1]", "<b>", "</b>", " <|im_end|>", "\n\n", " ", " **", "** ",
         "【1】", "<br>", "\n- ", " <!-- - -->", " 👍🏽 "]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(NOISE)), max_size=40),
    st.sampled_from(["", *THOUGHTS]),
    st.integers(1, 20),
)
def test_every_word_is_said_once(
    pairs: list[tuple[str, str]], thought: str, size: int
) -> None:
    text = thought + " ".join(word + noise for word, noise in pairs)
    segments = cut(
        [text[at : at + size] for at in range(0, len(text), size)],
        SpeechOptions(max_chars=60),
    )
    said = "".join(c for segment in segments for c in segment.text if c.isalnum())
    assert said == "".join(c for word, _ in pairs for c in word if c.isalnum())
    for segment in segments:
        assert "  " not in segment.text
        assert " ." not in segment.text
        assert " ," not in segment.text
