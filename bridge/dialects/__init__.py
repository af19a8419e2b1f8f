"""What LLM APIs say, without I/O: records to deltas, jobs to request bodies."""

from __future__ import annotations

import msgspec


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer's text; never empty."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's reasoning; never empty."""

    text: str


class ToolCallPart(msgspec.Struct, frozen=True, gc=False):
    """A piece of a tool call: what is ``None`` was not in this piece."""

    index: int
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


Delta = TextDelta | ReasoningDelta | ToolCallPart
