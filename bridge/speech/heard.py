"""What was said, as the text that belongs into the conversation's history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class Ranged(Protocol):
    """A segment, as far as its place in the text goes."""

    @property
    def end(self) -> int:
        """The end of its range in the request's text, in code points."""


def spoken(text: str | Iterable[str], segments: Sequence[Ranged], k: int) -> str:
    """The part of ``text`` that was heard when segment ``k`` was the last one spoken.

    ``text``: the request's text, or the deltas of its tokens in order. ``segments``:
    the segments in order, at least the first ``k``. ``k`` counts from 1, as the ``seq``
    of the speech subject does; 0 gives the empty text. Markdown is kept as the model
    wrote it: this is what it should find as its own message.

    Raises `ValueError` where ``k`` is no segment of these, or the text is shorter than
    its range.
    """
    if not 0 <= k <= len(segments):
        raise ValueError(f"segment {k} is none of the {len(segments)} segments")
    if k == 0:
        return ""
    whole = text if isinstance(text, str) else "".join(text)
    end = segments[k - 1].end
    if len(whole) < end:
        raise ValueError(
            f"segment {k} ends at {end}, but the text has {len(whole)} characters: "
            "pass the deltas of all its tokens"
        )
    return whole[:end]
