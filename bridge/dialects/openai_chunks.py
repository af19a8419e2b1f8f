"""What a chat completion looks like on the wire, as far as the bridge reads it.

OpenAI API reference, "The chat completion chunk object" and "The chat completion
object", with what vLLM, SGLang, llama.cpp, Ollama, Mistral and OpenRouter add. Fields
that are not named here are skipped without being built.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from bridge.dialects import Delta, ReasoningDelta, TextDelta, ToolCallPart

#: A tool call's index is a small number; one that is none makes its record malformed
#: instead of an integer that no consumer can hold.
ToolIndex = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class TextPart(msgspec.Struct, gc=False):
    """An element of Mistral's ``thinking``."""

    text: str | None = None


class ContentPart(msgspec.Struct, gc=False):
    """An element of a ``content`` that is an array; other types than these two pass."""

    type: str = ""
    text: str | None = None
    thinking: str | list[TextPart] | None = None


class ToolFunction(msgspec.Struct, gc=False):
    """``function`` of a tool call; some servers send ``arguments`` as an object."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCallChunk(msgspec.Struct, gc=False):
    """An element of ``tool_calls``."""

    index: ToolIndex | None = None
    id: str | None = None
    function: ToolFunction | None = None


class Message(msgspec.Struct, gc=False):
    """A ``delta``, or the ``message`` of an answer that was not streamed."""

    content: str | list[ContentPart | str] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallChunk] | None = None


class ChunkChoice(msgspec.Struct, gc=False):
    """An element of a chunk's ``choices``."""

    delta: Message | None = None
    finish_reason: str | None = None
    index: int | None = 0


class Chunk(msgspec.Struct, gc=False):
    """``chat.completion.chunk``."""

    choices: list[ChunkChoice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class BodyChoice(msgspec.Struct, gc=False):
    """An element of a body's ``choices``."""

    message: Message | None = None
    finish_reason: str | None = None
    index: int | None = 0


class Body(msgspec.Struct, gc=False):
    """``chat.completion``."""

    choices: list[BodyChoice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class ToolCallIndex:
    """Numbers the tool calls of one answer where the backend does not.

    Gemini's compatible API sends every call whole, each in its own chunk and without
    an index: there the ids tell the calls apart.
    """

    __slots__ = ("_by_id", "_next")

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._next = 0

    def of(self, call: ToolCallChunk, position: int) -> int:
        """The index of ``call``, which is at ``position`` of its array."""
        index = call.index
        if index is None:
            index = position
            if call.id:
                index = self._by_id.get(call.id, max(position, self._next))
        if call.id:
            self._by_id[call.id] = index
        self._next = max(self._next, index + 1)
        return index


def deltas_of(message: Message, tools: ToolCallIndex | None) -> list[Delta]:
    """Everything in a message, in the order reasoning, text, tool calls.

    ``tools`` is the answer's; it may be ``None`` where there are no tool calls.
    """
    deltas: list[Delta] = []
    # vLLM sends both names of the same reasoning for the sake of older clients.
    reasoning = message.reasoning_content or message.reasoning
    if reasoning:
        deltas.append(ReasoningDelta(reasoning))
    if isinstance(message.content, list):
        _add_parts(deltas, message.content)
    elif message.content:
        deltas.append(TextDelta(message.content))
    if tools is None:
        return deltas
    for position, call in enumerate(message.tool_calls or ()):
        part = _tool_call_part(call, tools.of(call, position))
        if part is not None:
            deltas.append(part)
    return deltas


def _add_parts(deltas: list[Delta], parts: list[ContentPart | str]) -> None:
    thinking = "".join(_thinking_of(part) for part in parts)
    text = "".join(_text_of(part) for part in parts)
    if thinking:
        deltas.append(ReasoningDelta(thinking))
    if text:
        deltas.append(TextDelta(text))


def _thinking_of(part: ContentPart | str) -> str:
    if isinstance(part, str) or not part.thinking:
        return ""
    if isinstance(part.thinking, str):
        return part.thinking
    return "".join(piece.text or "" for piece in part.thinking)


def _text_of(part: ContentPart | str) -> str:
    if isinstance(part, str):
        return part
    return (part.text or "") if part.type in ("text", "output_text") else ""


def _tool_call_part(call: ToolCallChunk, index: int) -> ToolCallPart | None:
    function = call.function or ToolFunction()
    call_id, name = call.id or None, function.name or None
    arguments = function.arguments
    if isinstance(arguments, dict):
        arguments = msgspec.json.encode(arguments).decode()
    if not (call_id or name or arguments):
        return None
    return ToolCallPart(index, call_id, name, arguments)
