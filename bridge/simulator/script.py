"""What one answer consists of, before anything of it is delivered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from bridge.simulator.behaviour import Behaviour
from bridge.simulator.chunks import Chunks, usage_object
from bridge.simulator.completion import ChatRequest, answer
from bridge.simulator.story import Story, tokenize

Fault = Literal["malformed", "huge", "stall", "error", "end", "reset"]

#: In the order in which faults at the same token happen: those that end the answer
#: come last.
_FAULTS: tuple[tuple[str, Fault], ...] = (
    ("malformed_after", "malformed"),
    ("huge_line_after", "huge"),
    ("stall_after", "stall"),
    ("error_after", "error"),
    ("end_after", "end"),
    ("reset_after", "reset"),
)

_CALL_ID = "call_simulated_0"


def faults_of(behaviour: Behaviour, length: int) -> list[tuple[int, Fault]]:
    """The faults of an answer of ``length`` tokens: after how many, and which."""
    places = [(getattr(behaviour, name), fault) for name, fault in _FAULTS]
    reached = [
        (after, fault)
        for after, fault in places
        if after is not None and after <= length
    ]
    return sorted(reached, key=lambda place: place[0])


class Script:
    """What an answer consists of: its tokens, its end, its usage."""

    def __init__(self, chat: ChatRequest, key: str, behaviour: Behaviour) -> None:
        self.chat = chat
        self.tool_call = behaviour.tool_call
        found = answer(chat, key)
        self.reasoning = Story(key + "/reasoning").tokens(0, behaviour.reasoning)
        self.tokens = found.tokens
        self.finish_reason = found.finish_reason
        if behaviour.tool_call:
            query = {"query": "".join(found.tokens[:8]).strip()}
            # The chunk that opens the call counts as a token without text.
            self.tokens = ["", *tokenize(msgspec.json.encode(query).decode())]
            self.finish_reason = "tool_calls"
        self.length = len(self.reasoning) + len(self.tokens)
        self.usage = (
            usage_object(chat.prompt_tokens, self.length, len(self.reasoning))
            if behaviour.usage
            else None
        )

    def frames(self, chunks: Chunks) -> Iterator[bytes]:
        """A frame per token."""
        yield from map(chunks.reasoning, self.reasoning)
        if self.tool_call:
            yield chunks.tool_call(_CALL_ID, self.chat.tool)
            yield from map(chunks.arguments, self.tokens[1:])
        else:
            yield from map(chunks.content, self.tokens)

    def message(self, count: int) -> dict[str, Any]:
        """The first ``count`` tokens as one message."""
        message: dict[str, Any] = {}
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning[:count])
        rest = self.tokens[: max(0, count - len(self.reasoning))]
        if not self.tool_call:
            return message | {"content": "".join(rest)}
        function = {"name": self.chat.tool, "arguments": "".join(rest)}
        call = {"id": _CALL_ID, "type": "function", "function": function}
        return message | {"tool_calls": [call]}
