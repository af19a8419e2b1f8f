"""What belongs into the history when a listener interrupts."""

from __future__ import annotations

import pytest

from bridge.speech import Segmenter, SpeechOptions, spoken

DELTAS = [
    "**Sure",
    "!** ",
    "Here",
    " is",
    " one",
    ".",
    "\n\n```\ncode\n```\n",
    "Bye",
    ".",
]
TEXT = "".join(DELTAS)


def segments() -> list[object]:
    segmenter = Segmenter(SpeechOptions(min_chars=1))
    found: list[object] = []
    for seq, delta in enumerate(DELTAS, 2):
        found += segmenter.receive(seq, delta)
    return found + list(segmenter.receive_eof())


@pytest.mark.parametrize("text", [TEXT, DELTAS], ids=["text", "deltas"])
def test_up_to_segment_k(text: str | list[str]) -> None:
    found = segments()
    assert [spoken(text, found, k) for k in range(4)] == [  # type: ignore[arg-type]
        "",
        "**Sure!**",
        "**Sure!** Here is one.",
        TEXT,
    ]


@pytest.mark.parametrize("k", [-1, 4])
def test_no_such_segment(k: int) -> None:
    with pytest.raises(ValueError, match="none of the 3 segments"):
        spoken(TEXT, segments(), k)  # type: ignore[arg-type]


def test_a_text_that_is_too_short() -> None:
    with pytest.raises(ValueError, match="pass the deltas of all its tokens"):
        spoken("**Su", segments(), 1)  # type: ignore[arg-type]
