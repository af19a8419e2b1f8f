"""Streams of deltas, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.speech import Segment, Segmenter, SpeechOptions
from bridge.speech.markup import Markup


def said(deltas: list[str], options: SpeechOptions) -> str:
    """What the lexer says of a stream."""
    markup = Markup(options)
    for delta in deltas:
        markup.feed(delta)
        while markup.advance(final=False):
            pass
    while markup.advance(final=True):
        pass
    assert markup.held == 0
    assert markup.position == sum(map(len, deltas))
    return markup.spoken.text


def cut(
    deltas: Sequence[str], options: SpeechOptions | None = None, start: int = 0
) -> list[Segment]:
    """The segments of a stream whose tokens are numbered from 1."""
    segmenter = Segmenter(options or SpeechOptions(), start)
    found: list[Segment] = []
    for seq, delta in enumerate(deltas, 1):
        found += segmenter.receive(seq, delta)
    return found + segmenter.receive_eof()


def texts(segments: list[Segment]) -> list[str]:
    """What the segments say."""
    return [segment.text for segment in segments]
