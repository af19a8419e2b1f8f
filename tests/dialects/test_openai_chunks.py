from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bridge.dialects import ToolCallPart
from bridge.dialects.openai_chunks import Message, ToolCallIndex, deltas_of


def message(*calls: Any) -> Message:
    return msgspec.convert({"tool_calls": list(calls)}, Message)


def call(id: str | None = None, arguments: Any = "", **fields: Any) -> dict[str, Any]:
    return {"id": id, "function": {"name": "f", "arguments": arguments}, **fields}


def test_without_an_index_the_position_counts() -> None:
    tools = ToolCallIndex()
    assert deltas_of(message(call("a"), call("b")), tools) == [
        ToolCallPart(0, "a", "f", ""),
        ToolCallPart(1, "b", "f", ""),
    ]
    assert deltas_of(message(call(), call()), tools) == [
        ToolCallPart(0, None, "f", ""),
        ToolCallPart(1, None, "f", ""),
    ]


def test_calls_of_their_own_chunks_without_an_index_are_told_apart_by_id() -> None:
    tools = ToolCallIndex()
    assert deltas_of(message(call("a", "1")), tools) == [ToolCallPart(0, "a", "f", "1")]
    assert deltas_of(message(call("b", "2")), tools) == [ToolCallPart(1, "b", "f", "2")]
    assert deltas_of(message(call("a", "3")), tools) == [ToolCallPart(0, "a", "f", "3")]


def test_the_backends_index_stands() -> None:
    tools = ToolCallIndex()
    assert deltas_of(message(call("a", index=3), call("b", index=1)), tools) == [
        ToolCallPart(3, "a", "f", ""),
        ToolCallPart(1, "b", "f", ""),
    ]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [({"a": [1, "é"]}, '{"a":[1,"é"]}'), ({}, "{}"), (None, None)],
)
def test_arguments_that_are_no_string(arguments: Any, sent: str | None) -> None:
    assert deltas_of(message(call("a", arguments)), ToolCallIndex()) == [
        ToolCallPart(0, "a", "f", sent)
    ]


def test_a_call_with_nothing_in_it_gives_nothing() -> None:
    empty = [{"index": 0}, {"index": 0, "function": {"name": "", "arguments": ""}}]
    assert deltas_of(message(*empty), ToolCallIndex()) == []
