"""The chunks of a streamed chat completion, as nearly all of them look.

OpenAI API reference, "The chat completion chunk object", with what vLLM, SGLang,
llama.cpp, Azure and OpenRouter add. `Chunk` is strict: what it accepts has its words
in the three fields that are read here and nowhere else, since fields that may hold
words elsewhere must be empty, and unknown ones are refused. Whatever it refuses is
read by `bridge.dialects.openai_words`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

#: ``null`` or an empty array: vLLM sends both where there is no tool call.
Nothing = Annotated[list[None], msgspec.Meta(max_length=0)] | None


class ChunkDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """``delta`` of a choice."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    role: Any = None
    tool_calls: Nothing = None
    function_call: None = None
    refusal: None = None
    audio: None = None
    annotations: Nothing = None
    reasoning_details: Nothing = None
    provider_specific_fields: None = None


class ChunkChoice(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """An element of ``choices``."""

    delta: ChunkDelta
    index: int | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    logprobs: Any = None
    stop_reason: Any = None
    matched_stop: Any = None
    token_ids: Any = None
    content_filter_results: Any = None
    content_filter_offsets: Any = None


class Chunk(msgspec.Struct, gc=False):
    """``chat.completion.chunk``."""

    choices: list[ChunkChoice]
    usage: dict[str, Any] | None = None
    error: None = None


decode_chunk = msgspec.json.Decoder(Chunk).decode
