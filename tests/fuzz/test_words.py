"""Three properties of reading a backend's answer, over any value and any byte.

- However a body is cut into reads, the same events are published.
- Whatever JSON value stands in a neighbour of the words, they are there.
- Whichever byte outside of the words is another one, in a field's name too, the words
  are there, or the request says that they are not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.events import Completed, Reasoning, Skipped, Token, ToolCallDelta, encode
from tests.fuzz.served import Request, Script, Served, Server
from tests.fuzz.streams import stream_of

WORDS = ("It is ", "not ", "safe.")
THOUGHT = "Hm, is it?"
ARGUMENTS = '{"city": "Paris"}'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def chunk(delta: Any, **choice: Any) -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [
            {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
            | choice
        ],
        "usage": None,
    }


def records() -> list[dict[str, Any]]:
    call = {"name": "weather", "arguments": ARGUMENTS}
    part = {"index": 0, "id": "call_1", "type": "function", "function": call}
    return [
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": THOUGHT}),
        *(chunk({"content": word, "refusal": None}) for word in WORDS),
        chunk({"tool_calls": [part]}),
        chunk({}, finish_reason="stop"),
    ]


def stream(values: list[Any]) -> bytes:
    lines = [json.dumps(value).encode() for value in values]
    return b"".join(b"data: %b\n\n" % line for line in [*lines, b"[DONE]"])


def said(served: Served) -> tuple[str, str, str]:
    """Text, reasoning and arguments of a log."""
    text = reasoning = arguments = ""
    for event in served.events:
        if isinstance(event, Token):
            text += event.text
        elif isinstance(event, Reasoning):
            reasoning += event.text
        elif isinstance(event, ToolCallDelta):
            arguments += event.arguments or ""
    return text, reasoning, arguments


def end_of(served: Served) -> dict[str, Any]:
    """The terminal event's fields, whatever its number."""
    end: dict[str, Any] = json.loads(encode(cast(Any, served.terminal)))
    return end | {"seq": 0}


def said_by_event(served: Served) -> list[tuple[Any, ...]]:
    """What each delta says, whatever its number, and where records were skipped."""
    said: list[tuple[Any, ...]] = []
    for event in served.events:
        if isinstance(event, Skipped):
            said += [("skipped",)] * event.count
        elif isinstance(event, Token | Reasoning | ToolCallDelta):
            fields = event.__struct_fields__[3:]
            said.append((event.type, *(getattr(event, name) for name in fields)))
    return said


@settings(max_examples=150)
@given(st.integers(0, 100_000), st.lists(st.integers(0), max_size=12))
def test_the_same_is_published_however_reads_are_cut(
    server: Server, seed: int, cuts: list[int]
) -> None:
    script = stream_of(seed).request.scripts[0]
    body = b"".join(data for _, data in script.reads)
    logs = []
    for places in ((), tuple(cuts), tuple(range(0, len(body), 1 + seed % 7))):
        ends = sorted({place % (len(body) + 1) for place in places} | {len(body)})
        pieces = [body[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        served = server.serve(
            Request(
                [
                    Script(
                        script.content_type,
                        [(0.0, piece) for piece in pieces if piece],
                        script.end,
                        fail_unreadable=script.fail_unreadable,
                    )
                ]
            )
        )
        assert served.defects == []
        logs.append((said_by_event(served), end_of(served)))
    assert logs[0] == logs[1] == logs[2]


#: Fields beside the words, by where they stand; below them are no words.
NEIGHBOURS = [
    *((level, name) for level in ("delta",) for name in (
        "role", "name", "type", "id", "annotations", "signature", "model")),
    *((level, name) for level in ("choice",) for name in (
        "logprobs", "stop_reason", "matched_stop", "token_ids", "seed",
        "content_filter_results")),
    *((level, name) for level in ("record",) for name in (
        "id", "created", "model", "system_fingerprint", "service_tier", "provider",
        "usage", "citations", "timings")),
]  # fmt: skip

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8)
    | st.sampled_from(["stop", "[DONE]", "data: x", '"}', "assistant", "error"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6), inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["content", "delta", "choices", "text", "index", "error"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    st.sampled_from(NEIGHBOURS),
    values,
    st.integers(0, len(WORDS) - 1),
    st.booleans(),
)
@example(("choice", "logprobs"), {"content": [{"logprob": float("-inf")}]}, 1, False)
@example(("delta", "role"), {"content": "assistant"}, 1, True)
@example(("record", "id"), "cut \ud83d", 1, False)
def test_a_neighbour_may_be_any_value(
    server: Server, neighbour: tuple[str, str], value: Any, word: int, first: bool
) -> None:
    level, name = neighbour
    made = records()
    record = made[2 + word]
    choice = record["choices"][0]
    target = {"record": record, "choice": choice, "delta": choice["delta"]}[level]
    target.pop(name, None)
    items = list(target.items())
    items.insert(0 if first else len(items), (name, value))
    target.clear()
    target.update(items)
    script = Script("text/event-stream", [(0.0, stream(made))], "eof")
    served = server.serve(Request([script]))
    assert served.defects == []
    assert said(served) == ("".join(WORDS), THOUGHT, ARGUMENTS)
    assert isinstance(served.terminal, Completed)
    assert served.terminal.finish_reason == "stop"
    assert served.terminal.skipped_records == 0


def bodies() -> dict[str, tuple[str, bytes]]:
    """The same answer as servers frame it, each with its content type."""
    events, values = "text/event-stream", records()
    lines = [json.dumps(value).encode() for value in values]
    calls = values[-2]["choices"][0]["delta"]["tool_calls"]
    message = {"content": "".join(WORDS), "reasoning": THOUGHT, "tool_calls": calls}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    plain = stream(values)
    return {
        "events": (events, plain),
        "CR LF": (events, plain.replace(b"\n", b"\r\n")),
        "one line end": (events, plain.replace(b"\n\n", b"\n")),
        "named events": (
            events,
            plain.replace(b"data: ", b"event: message\nid: 1\ndata: "),
        ),
        "lines": ("application/x-ndjson", b"\n".join([*lines, b"[DONE]\n"])),
        "pretty": (
            "application/json",
            b"\n".join(json.dumps(value, indent=1).encode() for value in values),
        ),
        "whole": ("application/json", json.dumps({"choices": [choice]}).encode()),
    }


def outside(body: bytes) -> list[int]:
    """Where no word stands."""
    kept = [
        range(*found.span())
        for word in (*WORDS, THOUGHT, json.dumps(ARGUMENTS)[1:-1])
        for found in re.finditer(re.escape(word.encode()), body)
    ]
    return [at for at in range(len(body)) if not any(at in where for where in kept)]


BODIES = bodies()
OUTSIDE = {name: outside(body) for name, (_, body) in BODIES.items()}

places = st.sampled_from(sorted(BODIES)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(OUTSIDE[name]))
)
other_bytes = st.sampled_from(b'"\\{}[],:\n\r \0\xff') | st.integers(0, 255)


@settings(max_examples=1500)
@given(places, other_bytes)
def test_a_byte_outside_of_the_words_may_be_any(
    server: Server, place: tuple[str, int], byte: int
) -> None:
    name, at = place
    label, whole = BODIES[name]
    body = bytearray(whole)
    body[at] = byte
    script = Script(label, [(0.0, bytes(body))], "eof")
    served = server.serve(Request([script]))
    assert served.defects == []
    terminal = served.terminal
    assert terminal is not None
    if terminal.type == "failed" or terminal.skipped_records:
        return  # it says so
    everything = "\n".join(said(served))
    for word in (*WORDS, THOUGHT, ARGUMENTS):
        assert everything.count(word) == 1, (word, everything)
