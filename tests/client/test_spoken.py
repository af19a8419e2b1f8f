"""What was heard before an interruption, as a message."""

from __future__ import annotations

import pytest

from bridge import spoken_message
from bridge.speech import Segment, Segmenter, SpeechOptions

TEXT = "It rains. Take **an umbrella** with you! Or stay in."


def segments() -> list[Segment]:
    segmenter = Segmenter(SpeechOptions(language="en", first_min_chars=4, min_chars=4))
    return [*segmenter.receive(2, TEXT), *segmenter.receive_eof()]


@pytest.mark.parametrize(
    ("k", "content"),
    [
        (0, ""),
        (1, "It rains."),
        (2, "It rains. Take **an umbrella** with you!"),
        (3, TEXT),
    ],
)
def test_the_message_ends_with_the_last_segment_that_was_heard(
    k: int, content: str
) -> None:
    message = spoken_message(TEXT, segments(), k)
    assert message == {"role": "assistant", "content": content}


def test_a_segment_that_was_never_there() -> None:
    with pytest.raises(ValueError, match="segment 4 is none of the 3"):
        spoken_message(TEXT, segments(), 4)
