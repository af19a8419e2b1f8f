"""Thoughts told from the answer: by every mark, however the text is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.thoughts import MAX_MARK, MAX_SPACE, Kind, Part, ThoughtSplitter

A = "<|start|>assistant<|channel|>"


def split(deltas: list[str], *, inside: bool = False) -> list[Part]:
    """The parts of a stream, neighbours of a kind joined."""
    splitter = ThoughtSplitter(begins_in_thought=inside)
    parts: list[Part] = []
    for found in [*map(splitter.receive, deltas), splitter.receive_eof()]:
        for part in found:
            if parts and parts[-1].kind is part.kind:
                part = Part(part.kind, parts.pop().text + part.text)
            parts.append(part)
    return parts


def of(parts: list[Part], kind: Kind) -> str:
    return "".join(part.text for part in parts if part.kind is kind)


CASES = [
    ("Hello.", "", "Hello."),
    ("<think>Hm.</think>Hello.", "Hm.", "Hello."),
    ("\n <think>\nHm.\n</think>\n\nHello.", "\nHm.\n", "Hello."),
    ("<THINK>Hm</Think>Hi", "Hm", "Hi"),
    ("<thinking budget='5' x>Hm</thinking >Hi", "Hm", "Hi"),
    ("<thought>a</thought>Hi", "a", "Hi"),
    ("<reasoning effort=\"low\">a</reasoning>Hi", "a", "Hi"),
    ("<reflection>a</reflection>Hi", "a", "Hi"),
    ("<scratchpad>a</scratchpad>Hi", "a", "Hi"),
    ("<analysis>a</analysis>Hi", "a", "Hi"),
    ("<seed:think>a</seed:think>Hi", "a", "Hi"),
    ("<mm:think>a</mm:think>Hi", "a", "Hi"),
    ("<longcat_think>a</longcat_think>Hi", "a", "Hi"),
    ("<antThinking>a</antThinking>Hi", "a", "Hi"),
    ("<inner_monologue>a</inner_monologue>Hi", "a", "Hi"),
    ("<details type=\"reasoning\" done=\"true\">\n<summary>Thought</summary>\n> a\n"
     "</details>\nHi", "\n<summary>Thought</summary>\n> a\n", "Hi"),
    ("<details open>a</details>Hi", "", "<details open>a</details>Hi"),
    ("[THINK]a[/THINK]Hi", "a", "Hi"),
    ("◁think▷a◁/think▷Hi", "a", "Hi"),
    ("[unused16]a[unused17]Hi", "a", "Hi"),
    ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>Hi<|END_RESPONSE|>",
     "a", "Hi"),
    ("<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>Hi"
     "<|end_of_solution|>", "a", "Hi"),
    ("<|think:start|>a<|think:end|>Hi", "a", "Hi"),
    ("<|inner_prefix|>a<|inner_suffix|>Hi", "a", "Hi"),
    ("<|open|>think<|sep|>a<|close|>think<|sep|><|open|>response<|sep|>Hi"
     "<|close|>response<|sep|>", "a", "Hi"),
    ("<|message_model|><|content_thinking|>a<|end_message|><|message_model|>"
     "<|content_text|>Hi<|end_message|>", "a", "Hi"),
    ("<|channel>thought\na\n<channel|>Hi", "\na\n", "Hi"),
    ("<|channel>thought a<channel|>Hi", " a", "Hi"),
    ("<|channel>\na<channel|>Hi", "\na", "Hi"),
    ("<|channel>final\nHi<channel|>", "", "\nHi"),
    ("<|channel|>analysis<|message|>a<|end|>"
     + A + "final<|message|>Hi<|return|>", "a", "Hi"),
    (A + "analysis<|message|>a<|end|>\n" + A + "final<|message|>Hi", "a", "Hi"),
    (A + "analysis<|message|>a" + A + "final<|message|>Hi", "a", "Hi"),
    ("<|channel|>final<|message|>Hi<|return|>", "", "Hi"),
    ("<|channel|>commentary<|message|>Wait.<|end|>" + A + "analysis<|message|>a"
     "<|end|>" + A + "final<|message|>Hi", "a", "Wait.Hi"),
    ("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
     "{}", ""),
    ("analysis<|message|>a<|end|>" + A + "final<|message|>Hi", "a", "Hi"),
    ("analysisWe need a.assistantfinalHi", "We need a.", "Hi"),
    ("assistantanalysisWe need a.assistantfinalHi", "We need a.", "Hi"),
    ("<|channel|>analysis\na<|end|>\n<|channel|>final\nHi.", "a", "Hi."),
    ("<|start|>assistant\n<|channel|>analysis<|message|>a<|end|>Hi", "a", "Hi"),
    ("<|channel|>analysis<|foo|>a", "", "analysis<|foo|>a"),
    ("<|channel|>anal", "", ""),
    ("<reasoning_content>a</reasoning_content>Hi", "a", "Hi"),
    ("<|begin_of_thinking|>a<|end_of_thinking|>Hi", "a", "Hi"),
    ("<|reasoning_start|>a<|reasoning_end|>Hi", "a", "Hi"),
    ("[think] about it", "", "[think] about it"),
    ("<|im_start|>assistant\n<think>a</think>Hi", "a", "Hi"),
    ("<think>a</think> <think>b</think>\n<reflection>c</reflection>Hi", "abc", "Hi"),
    ("<think>\n\n</think>\n\nHi", "\n\n", "Hi"),
    ("<think></think>Hi", "", "Hi"),
    ("<think/>Hi", "", "Hi"),
    ("</think>\n\nHi", "", "Hi"),
    ("<think>a</think></think>Hi", "a", "Hi"),
    ("<think>a</think>\n```py\nx\n```", "a", "```py\nx\n```"),
    ("<think>a</think>\n<answer>\nHi\n</answer>", "a", "\nHi\n"),
    ("<think>a</thinking>Hi", "a", "Hi"),
    ("<thinking>a <think>b</think> c</thinking>Hi", "a <think>b</think> c", "Hi"),
    ("<think>the tag <think> opens</think>Hi", "the tag <think> opens", "Hi"),
    ("<think>a < b, 1 <2, </thin </b></think>Hi", "a < b, 1 <2, </thin </b>", "Hi"),
    ("<think>never closed", "never closed", ""),
    ("<think>cut </thi", "cut </thi", ""),
    ("Use <think> and </think>.", "", "Use <think> and </think>."),
    ("`<think>` is a tag. </think>", "", "`<think>` is a tag. </think>"),
    ("\"<think>\" is a tag.", "", "\"<think>\" is a tag."),
    ("```\n<think>a</think>\n```", "", "```\n<think>a</think>\n```"),
    ("<b>Hi</b> <thin>", "", "<b>Hi</b> <thin>"),
    ("<thinker>Hi", "", "<thinker>Hi"),
    ("<name>, hi", "", "<name>, hi"),
    ("[1] Hi", "", "[1] Hi"),
    ("analysis of it", "", "analysis of it"),
    ("final <|", "", "final <|"),
    ("<answer>Hi</answer>", "", "<answer>Hi</answer>"),
    ("Hi<think>a</think>", "", "Hi<think>a</think>"),
    (" " * 300 + "<think>a</think>Hi", "a", " " * 300 + "Hi"),
    ("  Hi", "", "  Hi"),
    ("<", "", "<"),
    ("<|channel|>" + "x" * 400, "", "x" * 400),
    ("", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "thought", "answer"), CASES, ids=ascii)
def test_what_is_a_thought(text: str, thought: str, answer: str) -> None:
    parts = split([text])
    assert (of(parts, Kind.THOUGHT), of(parts, Kind.TEXT)) == (thought, answer)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("Hm.</think>Hi", "Hm.", "Hi"),
        ("\nHm.\n</think>\n\nHi", "Hm.\n", "Hi"),
        ("<think>Hm.</think>Hi", "Hm.", "Hi"),
        ("</think>Hi", "", "Hi"),
        ("Use <analysis>x</analysis>.</think>Hi", "Use <analysis>x</analysis>.", "Hi"),
        ("Hm.</seed:think>Hi", "Hm.", "Hi"),
        ("Hm.[/THINK]Hi", "Hm.", "Hi"),
        ("Hm.<|END_THINKING|>Hi", "Hm.", "Hi"),
        ("Hm.<|end|>" + A + "final<|message|>Hi", "Hm.", "Hi"),
        ("Hm, never closed", "Hm, never closed", ""),
    ],
    ids=ascii,
)
def test_a_text_that_begins_in_a_thought(text: str, thought: str, answer: str) -> None:
    parts = split([text], inside=True)
    assert (of(parts, Kind.THOUGHT), of(parts, Kind.TEXT)) == (thought, answer)
    for at in range(1, len(text)):
        assert split([text[:at], text[at:]], inside=True) == parts
    assert split(list(text), inside=True) == parts


@pytest.mark.parametrize("text", [text for text, _, _ in CASES], ids=ascii)
def test_every_single_cut_and_every_character_give_the_same(text: str) -> None:
    whole = split([text])
    assert "".join(part.text for part in whole) == text
    assert split(list(text)) == whole
    for at in range(1, len(text)):
        assert split([text[:at], text[at:]]) == whole


FRAGMENTS = [
    "<think>", "</think>", "<thinking>", "</thinking>", "<reasoning x=1>", "<think/>",
    "</reasoning>", "[THINK]", "[/THINK]", "◁think▷", "◁/think▷", "<|channel|>",
    "<|start|>", "<|message|>", "<|end|>", "<|return|>", "analysis", "final",
    "assistant", "commentary to=f", "<|channel>", "<channel|>", "thought\n",
    "<|open|>", "think", "<|sep|>", "<|close|>", "<answer>", "</answer>", "<", ">",
    "</", "<|", "|>", "[", " ", "\n", "Hello", "`", "a", "<s>", "<|im_start|>",
    "<|START_THINKING|>", "<|END_THINKING|>", "<|content_text|>", "x" * 70, " " * 70,
]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join),
    st.booleans(),
    st.data(),
)
def test_how_a_text_is_cut_into_deltas_does_not_matter(
    text: str, inside: bool, data: st.DataObject
) -> None:
    whole = split([text], inside=inside)
    assert "".join(part.text for part in whole) == text
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=20)))
    deltas = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
    assert split(deltas, inside=inside) == whole
    assert split(list(text), inside=inside) == whole


@pytest.mark.parametrize(
    "unit", [*FRAGMENTS, "<think ", "<a ", "</think", "<|start|>a", "\u200b"], ids=ascii
)
@pytest.mark.parametrize("begin", ["", "<think>", "[THINK]", "<|channel|>analysis"])
def test_little_is_held_back(unit: str, begin: str) -> None:
    for inside in (False, True):
        splitter = ThoughtSplitter(begins_in_thought=inside)
        splitter.receive(begin)
        given = len(begin)
        back = 0
        for _ in range(1000):
            given += len(unit)
            back += sum(len(part.text) for part in splitter.receive(unit))
            assert given - back <= MAX_MARK + MAX_SPACE + len(unit) + len(begin)


def test_nothing_is_asked_of_a_text_without_thoughts() -> None:
    splitter = ThoughtSplitter()
    splitter.receive("Hello")
    assert splitter.passes
    assert splitter.receive(" <think>") == [Part(Kind.TEXT, " <think>")]
    assert splitter.receive_eof() == []


def test_repr_shows_its_state() -> None:
    splitter = ThoughtSplitter()
    splitter.receive("<think>a</th")
    assert repr(splitter) == "<ThoughtSplitter tagged held=4>"
