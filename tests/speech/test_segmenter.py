"""A stream in, segments out: by example per language, and by what always holds."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.speech import corpus
from bridge.speech import Segment, Segmenter, SpeechOptions
from bridge.speech.characters import weight
from tests.speech.streams import cut, texts

SENTENCES: dict[str, Any] = {"first_min_chars": 240, "min_chars": 1}

EXAMPLES = {
    "en": ["Sure!", "Dr. Lee paid $3.50, e.g. at 5 p.m. on Jan. 3.",
           'He asked, "Why? Now?"',
           "Then... silence.", "See ex.com."],
    "de": ["Gern.", "Am 3. Mai kommt Dr. Weiß, d. h. bald, für 1.299,50 € an.",
           "Er fragte: „Wer? Ich?“", "Nein."],
    "fr": ["Oui !", "M. Dupont paie 3,50 € vers 16 h.", "Il dit : « Quoi ? Moi ? »",
           "Non."],
    "es": ["¡Sí!", "El Sr. Gil llega a las 5 p. m. del lunes.", "¿Y usted?", "No."],
    "it": ["Certo!", "Il Dott. Rossi paga 1.299,50 € a pag. 5.", "Davvero?", "No."],
    "pt": ["Sim!", "O Sr. Silva paga R$ 3,50 na pág. 5.", "Mesmo?", "Não."],
    "ru": ["Да!", "А. С. Пушкин родился в г. Москве, см. рис. 3.",
           "Он спросил: «Кто? Я?»", "Нет."],
    "zh": ["好的！", "价格是3.50元。", "他问：“为什么？”", "谢谢。"],
    "ja": ["はい。", "価格は3.50ドルです。", "彼は「なぜ？」と聞いた。", "どうも。"],
    "hi": ["हाँ।", "डॉ. शर्मा 3.50 रुपये देते हैं।", "क्या यह ठीक है?", "नहीं।"],
    "ar": ["نعم.", "السعر 3.50 دولار تقريبًا.", "هل هذا مناسب؟", "لا."],
    "th": ["ได้ครับ", "คุณหมอจะมาถึงตอนห้าโมงครับ", "ราคา 3.50 บาทค่ะ"],
}  # fmt: skip


@pytest.mark.parametrize("language", EXAMPLES)
def test_sentences_by_language(language: str) -> None:
    sentences = EXAMPLES[language]
    text = ("" if language in ("zh", "ja") else " ").join(sentences)
    text = text.replace("ex.com", "https://www.ex.com/a.b?c=d")
    options = SpeechOptions(language=language, **SENTENCES)
    assert texts(cut(list(text), options)) == sentences
    assert texts(cut(corpus.deltas(text), options)) == sentences


@pytest.mark.parametrize(
    ("deltas", "after"),
    [
        (["It is late.", " We"], 2),
        (["Is it?", " ", "Yes"], 3),
        (["你好", "。"], 2),
        (["हाँ", "।"], 2),
        (["هل", "؟"], 2),
        (["Wow!", "\n"], 2),
        (["Tea", "\n\n"], 2),
        (["# Tea", "\n"], 2),
        (["Really?!", " I"], 2),
    ],
)
def test_what_is_surely_over_is_not_held(deltas: list[str], after: int) -> None:
    segmenter = Segmenter(SpeechOptions())
    for number, delta in enumerate(deltas, 1):
        assert bool(segmenter.receive(number, delta)) is (number == after)


@pytest.mark.parametrize(
    "deltas",
    [
        ["It costs 3.", "50 in all"],
        ["We saw Dr.", " Smith there"],
        ["See www.", "example.", "com for it"],
        ["Go to https://a.b/c?", "d=e! now"],
        ["Well.", ".", ". maybe so"],
        ["He said “Stop.", "” and left"],
        ["at 10:", "30, or 1,", "000 days and"],
        ["J", ".", " R", ".", " R", ".", " Tolkien wrote"],
    ],
)
def test_nothing_is_cut_because_the_next_delta_is_not_there(deltas: list[str]) -> None:
    segmenter = Segmenter(SpeechOptions())
    for number, delta in enumerate(deltas, 1):
        assert segmenter.receive(number, delta) == []
    assert len(segmenter.receive_eof()) == 1


def test_the_first_segment_is_early_and_the_next_are_whole() -> None:
    text = "As far as I can tell, it is late. As far as I can tell, we should go. Bye."
    options = SpeechOptions(first_min_chars=20, min_chars=4)
    assert texts(cut(corpus.deltas(text), options)) == [
        "As far as I can tell,",
        "it is late.",
        "As far as I can tell, we should go.",
        "Bye.",
    ]


def test_segments_name_their_tokens_and_their_range() -> None:
    deltas = ["**Hel", "lo", "!** ", " ", "See", " [it](http://x.y)", ".", "\n"]
    segmenter = Segmenter(SpeechOptions(min_chars=1))
    found: list[Segment] = []
    for seq, delta in zip([2, 3, 5, 6, 7, 9, 10, 11], deltas, strict=True):
        found += segmenter.receive(seq, delta)
    found += segmenter.receive_eof()
    assert found == [
        Segment("Hello!", first=2, last=5, start=2, end=10),
        Segment("See it.", first=7, last=10, start=12, end=33),
    ]
    assert "".join(deltas)[12:33] == "See [it](http://x.y)."


def test_lists_headings_and_lines_are_said_with_pauses() -> None:
    text = "## Tea\n\nYou need:\n- milk\n- tea\n\n1. Boil it.\n2. Drink it\n\nBye"
    options = SpeechOptions(min_chars=40)
    assert texts(cut([text], options)) == [
        "Tea",
        "You need: milk. tea. 1. Boil it. 2. Drink it",
        "Bye",
    ]
    assert texts(cut(["好的。\n\n一\n二\n\n三"], SpeechOptions(min_chars=30))) == [
        "好的。",
        "一。二。三",
    ]


def test_code_is_skipped_announced_or_read() -> None:
    text = "Look here:\n```py\nx = foo(1.5)\n```\nThat is all."
    for code, said in [
        ("skip", ["Look here:", "That is all."]),
        ("announce", ["Look here:", "Code block.", "That is all."]),
        ("read", ["Look here:", "x = foo(1.5)", "That is all."]),
    ]:
        options = SpeechOptions(code=code)  # type: ignore[arg-type]
        assert texts(cut(corpus.deltas(text), options)) == said


def test_emoji_and_marks_alone_are_not_said() -> None:
    assert texts(cut(["🎉", "👍🏽", "\n\n", "---", "\n", "**", "!", "**"])) == []
    assert texts(cut(["Yes 🎉", "\n\n", "👍🏽"], SpeechOptions(emoji="keep"))) == [
        "Yes 🎉",
        "👍🏽",
    ]


def test_the_language_of_the_script_helps_where_the_tag_is_wrong() -> None:
    text = "Он живёт в г. Москве. Он пишет."
    assert len(cut([text], SpeechOptions(language="en", **SENTENCES))) == 2


def test_a_long_link_is_cut_like_other_text_and_a_short_one_is_not() -> None:
    text = "So [" + "word " * 40 + "end](http://x.y) it is."
    assert texts(cut([text], SpeechOptions(max_chars=100)))[-1].endswith("end it is.")
    assert (
        max(len(said) for said in texts(cut([text], SpeechOptions(max_chars=100))))
        <= 100
    )
    whole = "Hello there [Read this. Now please](http://x.y) and go. Bye"
    assert texts(cut([whole]))[0] == "Hello there Read this. Now please and go."


# Pauses


def test_a_pause_lets_go_and_what_follows_goes_on() -> None:
    segmenter = Segmenter(SpeechOptions())
    assert segmenter.receive(1, "Yes.") == []
    assert texts(segmenter.flush()) == ["Yes."]
    assert segmenter.flush() == []
    assert segmenter.receive(2, " And then we will see what hap") == []
    assert texts(segmenter.flush()) == ["And then we will see what"]
    assert segmenter.receive(3, "pens. So") == []
    assert texts(segmenter.receive_eof()) == ["happens. So"]


@pytest.mark.parametrize(
    "text",
    ["It costs 3", "It costs 3.", "It is Dr.", "It is Dr. ", "At https://a.b/c.",
     "He said “No.", "See [the d", "It is **bo", "```\nx. Y\n", "1", "1.", ""],
)  # fmt: skip
def test_a_pause_keeps_what_is_not_whole(text: str) -> None:
    segmenter = Segmenter(SpeechOptions())
    assert segmenter.receive(1, text) == []
    assert segmenter.flush() == []


# What always holds

FRAGMENTS = [
    "Hello", "world", "the", "Dr.", "Smith", "3", ".", "14", "1,000", "?", "!", "...",
    " ", " ", " ", "\n", "\n\n", "- ", "1. ", "# ", "**", "*", "_", "`", "```\n",
    "```py\n", "[", "](", "http://x.y/a.b?c", "https://", "www.", ")", "(", '"', "“",
    "”", "「", "」", "。", "！", "你好", "是", "と", "।", "नमस्ते", "؟", "مرحبا",
    "สวัสดี", "ครับ", "ๆ", "😀", "👩‍💻", "\u200d", "\ufe0f", "|",
    "| a | b |\n", "|---|\n", "[1]", "【1】", "【", "】",
    "<br>", "<", "b>", "&amp;", "&", "\\", "!", "~~",
    "z. B.", "e.g.", "«", "»", ", ", "; ", ": ", "—", "e\u0301", "A", "J. R. Smith",
    "No. 5", "![",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=50).map("".join)
OPTIONS = st.sampled_from(
    [
        SpeechOptions(),
        SpeechOptions(max_chars=30, min_chars=5, first_min_chars=8),
        SpeechOptions(markdown="keep", emoji="keep", citations="keep"),
        SpeechOptions(code="read", tables="skip", links="url", max_chars=40),
        SpeechOptions(code="announce", language="de", links="skip"),
    ]
)
SPEAKABLE = re.compile(r"[^\W_]")
MARKED = re.compile(r"[`*_\[<|【&#]|http|www|^- ")
PLAIN = [f for f in FRAGMENTS if SPEAKABLE.search(f) and not MARKED.search(f)]
PLAIN += list("  .?!\n,。")


def split(text: str, data: st.DataObject) -> list[str]:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=30)))
    return [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]


def ranges(segments: list[Segment]) -> list[tuple[str, int, int]]:
    return [(segment.text, segment.start, segment.end) for segment in segments]


@settings(max_examples=300, deadline=None)
@given(TEXTS, OPTIONS, st.data())
def test_how_a_text_is_split_into_deltas_does_not_matter(
    text: str, options: SpeechOptions, data: st.DataObject
) -> None:
    whole = ranges(cut([text], options))
    assert ranges(cut(list(text), options)) == whole
    assert ranges(cut(split(text, data), options)) == whole


@settings(max_examples=300, deadline=None)
@given(TEXTS, OPTIONS, st.data())
def test_ranges_increase_and_tokens_are_those_of_the_range(
    text: str, options: SpeechOptions, data: st.DataObject
) -> None:
    deltas = split(text, data)
    owner = [seq for seq, delta in enumerate(deltas, 1) for _ in delta]
    at = 0
    for segment in cut(deltas, options):
        assert at <= segment.start < segment.end <= len(text)
        assert segment.first == owner[segment.start]
        assert segment.last == owner[segment.end - 1]
        assert segment.text == segment.text.strip() != ""
        at = segment.end


@settings(max_examples=300, deadline=None)
@given(TEXTS, OPTIONS)
def test_cutting_anew_from_the_end_of_a_segment_gives_the_rest(
    text: str, options: SpeechOptions
) -> None:
    whole = ranges(cut(list(text), options))
    for said, (_, _, end) in enumerate(whole, 1):
        assert ranges(cut(list(text), options, start=end)) == whole[said:]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PLAIN), max_size=50).map("".join), st.data())
def test_nothing_speakable_is_lost_even_with_pauses(
    text: str, data: st.DataObject
) -> None:
    segmenter = Segmenter(SpeechOptions(max_chars=40))
    found: list[Segment] = []
    for seq, delta in enumerate(split(text, data), 1):
        found += segmenter.receive(seq, delta)
        if data.draw(st.booleans()):
            found += segmenter.flush()
    found += segmenter.receive_eof()
    at = 0
    for segment in found:
        assert at <= segment.start
        assert not SPEAKABLE.search(text[at : segment.start])
        spoken = [c for c in text[segment.start : segment.end] if c.isalnum()]
        assert [c for c in segment.text if c.isalnum()] == spoken
        at = segment.end
    assert not SPEAKABLE.search(text[at:])


ATOMS = ["3.14", "1,299.99", "$5.00", "10:30", "Dr. Smith", "e.g. this", "U.S.A.",
         "https://a.b/c.d?e=f", "www.x.org/y.z", "me@x.co.uk", "v2.0.1", "J. R. Lee",
         "St. James", "p. 14"]  # fmt: skip
WORDS = [*ATOMS, "we", "go", "Then", "so,", "late.", "Really?", "He"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30), st.data())
def test_no_cut_is_inside_a_number_an_address_or_an_abbreviation(
    words: list[str], data: st.DataObject
) -> None:
    text = " ".join(words)
    segmenter = Segmenter(SpeechOptions(max_chars=60, links="url"))
    found: list[Segment] = []
    for seq, delta in enumerate(split(text, data), 1):
        found += segmenter.receive(seq, delta)
        if data.draw(st.booleans()):
            found += segmenter.flush()
    found += segmenter.receive_eof()
    inside: set[int] = set()
    at = 0
    for word in words:
        if word in ATOMS:
            inside.update(range(at + 1, at + len(word)))
        at += len(word) + 1
    for segment in found[:-1]:
        assert segment.end not in inside, text[: segment.end]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PLAIN), max_size=50).map("".join), st.integers(20, 60))
def test_no_segment_is_longer_than_the_limit(text: str, limit: int) -> None:
    options = SpeechOptions(
        max_chars=limit, min_chars=5, first_min_chars=10, code="read"
    )
    for segment in cut(list(text), options):
        # Joints between blocks are written as a full stop and a space.
        assert weight(segment.text.replace(". ", "").replace("。", "")) <= limit


@pytest.mark.parametrize(
    "unit",
    ["a", " ", "\n", ".", "?", "!", "*", "_", "`", "[", "(", '"', "“", "<b", "|", "- ",
     "1", "😀", "你", "。", "ก", "ก ", "e\u0301", "```\n", "http://x", "a ", "a. ",
     "A. B", "\u200b"],
    ids=ascii,
)  # fmt: skip
def test_little_is_kept_of_a_text_without_end(unit: str) -> None:
    segmenter = Segmenter(SpeechOptions())
    for seq in range(6000):
        segmenter.receive(seq, unit)
    kept = vars(segmenter)
    held = sum(len(kept[name]) for name in ("_starts", "_seqs", "_fed"))
    assert held <= 3 * 2600
    assert len(kept["_spoken"].text) + kept["_markup"].held <= 2600


@pytest.mark.parametrize("language", corpus.languages())
def test_the_marked_texts_are_cut_as_marked(language: str) -> None:
    for marked in corpus.texts(language):
        options = SpeechOptions(language=marked.language, **SENTENCES)
        segments = cut(corpus.deltas(marked.text), options)
        right = 0
        for one, two in pairwise(segments):
            gap = range(one.end, two.start + 1)
            right += any(end in gap or end - 1 in gap for end in marked.ends)
        assert right >= len(segments) - 2
        assert len(segments) >= len(marked.ends) - 1


def test_the_work_per_token_is_small() -> None:
    """Calls of Python functions, which do not depend on how busy the machine is."""
    deltas = [
        delta for text in corpus.texts("answer") for delta in corpus.deltas(text.text)
    ]
    segmenter = Segmenter(SpeechOptions())
    calls = 0

    def count(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event == "call"

    profiler = sys.getprofile()
    sys.setprofile(count)
    try:
        for seq, delta in enumerate(deltas, 1):
            segmenter.receive(seq, delta)
    finally:
        sys.setprofile(profiler)
    assert calls <= 5 * len(deltas)


def test_repr_shows_where_it_stands() -> None:
    segmenter = Segmenter(SpeechOptions())
    segmenter.receive(1, "It is late.")
    segmenter.flush()
    assert "at=11" in repr(segmenter)
