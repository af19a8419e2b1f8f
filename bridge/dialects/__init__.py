"""What LLM APIs say, without I/O: records to deltas, jobs to request bodies."""

from __future__ import annotations

import msgspec


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer's text; never empty."""

    text: str


class FullText(msgspec.Struct, frozen=True, gc=False):
    """What was said so far, which some servers repeat beside or behind its deltas.

    What of it was not said yet is a delta, and mostly nothing is. Where it is not
    ``certain`` that it says all again, it is a delta unless it says exactly that.
    ``reasoning``: it is the reasoning so far, and not the text.
    """

    text: str
    certain: bool = True
    reasoning: bool = False


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's reasoning; never empty."""

    text: str


class ToolCallPart(msgspec.Struct, frozen=True, gc=False):
    """A piece of a tool call: what is ``None`` was not in this piece.

    ``index`` numbers the calls of an answer from 0 as they begin. The first piece of a
    call carries its whole id and name, the later ones arguments only.
    """

    index: int
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


Delta = TextDelta | FullText | ReasoningDelta | ToolCallPart
