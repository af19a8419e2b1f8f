"""After an interruption: what was heard, as a message for the history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bridge.speech.heard import Ranged, spoken


def spoken_message(
    text: str | Iterable[str], segments: Sequence[Ranged], k: int
) -> dict[str, str]:
    """The assistant's message of a request whose segment ``k`` was the last one heard.

    ``text`` is the request's text, or the deltas of its tokens in order; ``segments``
    are those of its speech subject, in order, at least the first ``k``. ``k`` counts
    from 1, 0 for nothing heard. Append the result to ``messages`` of the next request,
    so that the model knows what it said and not what it meant to say.

    Raises `ValueError` where ``k`` is no segment of these, or the text is too short.
    """
    return {"role": "assistant", "content": spoken(text, segments, k)}
