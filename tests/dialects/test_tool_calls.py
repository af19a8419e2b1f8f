from __future__ import annotations

from typing import Any

import pytest

from bridge.dialects import ToolCallPart
from bridge.dialects.tool_calls import ToolCalls, calls_in, unknown_fields


def call(id: Any = None, name: Any = None, arguments: Any = None, **rest: Any) -> Any:
    return {"id": id, "function": {"name": name, "arguments": arguments}, **rest}


def assembled(*arrays: list[Any]) -> list[tuple[str | None, str | None, str]]:
    """What the pieces add up to, checked to be in the contract's form."""
    calls = ToolCalls()
    parts: list[ToolCallPart] = []
    for array in arrays:
        for position, piece in enumerate(array):
            parts += calls.receive(piece, position)
    parts += calls.flush()
    found: list[tuple[str | None, str | None, str]] = []
    for part in parts:
        if part.index == len(found):
            found.append((part.call_id, part.name, part.arguments or ""))
            continue
        assert (part.call_id, part.name) == (None, None)
        id, name, arguments = found[part.index]
        found[part.index] = (id, name, arguments + (part.arguments or ""))
    return found


@pytest.mark.parametrize(
    ("arrays", "calls"),
    [
        # As the API's reference says.
        (
            [
                [call("c1", "f", "", index=0)],
                [call(None, None, '{"a":', index=0)],
                [call(None, None, "1}", index=0)],
                [call("c2", "g", "", index=1)],
                [call(None, None, "{}", index=1)],
            ],
            [("c1", "f", '{"a":1}'), ("c2", "g", "{}")],
        ),
        # Interleaved by index.
        (
            [
                [call("c1", "f", "{", index=0), call("c2", "g", "[", index=1)],
                [call(None, None, "}", index=0), call(None, None, "]", index=1)],
            ],
            [("c1", "f", "{}"), ("c2", "g", "[]")],
        ),
        # The same index for every call: a new id is a new call (LMDeploy, Agno).
        (
            [
                [call("c1", "f", '{"a":1}', index=0)],
                [call("c2", "g", '{"b":', index=0)],
                [call(None, None, "2}", index=0)],
            ],
            [("c1", "f", '{"a":1}'), ("c2", "g", '{"b":2}')],
        ),
        # The same id for every call.
        (
            [[call("x", "f", "{}", index=0)], [call("x", "g", "[]", index=1)]],
            [("x", "f", "{}"), ("x", "g", "[]")],
        ),
        (
            [[call("x", "f", "{}"), call("x", "g", "[]")]],
            [("x", "f", "{}"), ("x", "g", "[]")],
        ),
        # The id with every piece, the name whole with every piece.
        (
            [[call("c1", "f", p, index=0)] for p in ("", "{", "}")],
            [("c1", "f", "{}")],
        ),
        # The name in pieces.
        (
            [
                [call("c1", "get_", None, index=0)],
                [call(None, "time", None, index=0)],
                [call(None, None, "{}", index=0)],
            ],
            [("c1", "get_time", "{}")],
        ),
        # The name as it grows.
        (
            [[call("c1", "get_")], [call("c1", "get_time")], [call("c1", None, "{}")]],
            [("c1", "get_time", "{}")],
        ),
        # Whole calls without an index (Gemini), each in a record or all in one.
        (
            [[call("a", "f", "{}")], [call("b", "f", "{}")]],
            [("a", "f", "{}"), ("b", "f", "{}")],
        ),
        (
            [[call("a", "f", {}), call("b", "f", {})]],
            [("a", "f", "{}"), ("b", "f", "{}")],
        ),
        # Whole calls without an id.
        (
            [[call(None, "f", "{}"), call(None, "g", "{}")]],
            [(None, "f", "{}"), (None, "g", "{}")],
        ),
        (
            [[call(None, "f", "{}", index=0)], [call(None, "g", "{}", index=0)]],
            [(None, "f", "{}"), (None, "g", "{}")],
        ),
        (
            [[call(None, "f", "{}")], [call(None, "f", "{}")]],
            [(None, "f", "{}"), (None, "f", "{}")],
        ),
        # Tails without an index, or with one that began nothing.
        (
            [[call("a", "f", "{", index=3)], [call(None, None, "}")]],
            [("a", "f", "{}")],
        ),
        (
            [[call("a", "f", "{", index=0)], [call(None, None, "}", index=1)]],
            [("a", "f", "{}")],
        ),
        # An id that comes late.
        (
            [[call(None, "f", None, index=0)], [call("a", None, "{}", index=0)]],
            [("a", "f", "{}")],
        ),
        # Indices of other types, and out of order.
        (
            [[call("a", "f", "{", index="5")], [call(None, None, "}", index=5)]],
            [("a", "f", "{}")],
        ),
        (
            [[call("a", "f", "1", index=2**40), call("b", "g", "2", index=-1)]],
            [("a", "f", "1"), ("b", "g", "2")],
        ),
        # Without arguments.
        (
            [[call("a", "f", "", index=0)], [call("b", "g", "", index=1)]],
            [("a", "f", ""), ("b", "g", "")],
        ),
        # Other shapes.
        (
            [[{"id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}]],
            [("a", "f", "x")],
        ),
        (
            [[{"id": 7, "name": "f", "input": {"a": [1, "é"]}}]],
            [("7", "f", '{"a":[1,"é"]}')],
        ),
        ([[{"call_id": "a", "name": "f", "parameters": {}}]], [("a", "f", "{}")]),
        # Nothing.
        ([[{}, {"index": 0}, call("", "", "", index=0)]], []),
    ],
)
def test_calls_are_put_together(arrays: list[list[Any]], calls: list[Any]) -> None:
    assert assembled(*arrays) == calls


@pytest.mark.parametrize(
    ("value", "calls"),
    [
        ([{"id": "a"}, "x", None], [{"id": "a"}, {"": "x"}]),
        ({"id": "a"}, [{"id": "a"}]),
        ({"name": "f", "arguments": "{}"}, [{"name": "f", "arguments": "{}"}]),
        ({"0": {"id": "a"}, "1": {"id": "b"}}, [{"id": "a"}, {"id": "b"}]),
        ("x", [{"": "x"}]),
        (None, []),
    ],
)
def test_what_should_be_an_array_of_calls(value: Any, calls: list[Any]) -> None:
    assert calls_in(value) == calls


def test_an_id_is_known_once_its_call_has_begun() -> None:
    calls = ToolCalls()
    calls.receive(call("a", "f", "{}"), 0)
    assert calls.begun
    assert [calls.knows(id) for id in ("a", "b", None)] == [True, False, False]


@pytest.mark.parametrize(
    ("piece", "unknown"),
    [
        (call("a", "f", "{}", index=0), []),
        ({"id": "a", "name": "f", "input": {"x": "y"}}, []),
        ({"id": "a", "functioo": {"name": "f"}}, [("functioo", {"name": "f"})]),
        ({"function": {"name": "f", "argumentz": "{}"}}, [("argumentz", "{}")]),
        ({"": "words"}, [("", "words")]),
    ],
)
def test_fields_that_are_not_read_are_told(piece: Any, unknown: list[Any]) -> None:
    assert unknown_fields(piece) == unknown
