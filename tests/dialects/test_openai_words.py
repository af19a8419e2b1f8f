"""Words at the places where servers put them, through the whole dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.decoders import Record
from bridge.decoders.sse import SSEDecoder
from bridge.dialects import FullText, ReasoningDelta, TextDelta, ToolCallPart
from bridge.dialects.openai import OpenAIResponse
from bridge.dialects.openai_words import DONE, Unreadable, has_words, read_values
from tests.work import Work


def choice(value: Any, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **value}], **fields}


def delta(**fields: Any) -> dict[str, Any]:
    return choice({"delta": fields})


STOP = choice({"delta": {}, "finish_reason": "stop"})


class Said:
    """What a stream of records says."""

    def __init__(self, *records: Any, think_tags: bool = False) -> None:
        self.response = OpenAIResponse(think_tags=think_tags)
        self.text = self.reasoning = ""
        self.calls: list[ToolCallPart] = []
        for record in records:
            data = record if isinstance(record, bytes) else json.dumps(record).encode()
            for piece in self.response.receive(Record(data)):
                self._take(piece)
        for piece in self.response.receive_eof():
            self._take(piece)

    def _take(self, piece: Any) -> None:
        if isinstance(piece, TextDelta):
            self.text += piece.text
        elif isinstance(piece, FullText):
            said = self.reasoning if piece.reasoning else self.text
            new = "" if said.endswith(piece.text) else piece.text.removeprefix(said)
            if piece.reasoning:
                self.reasoning += new
            else:
                self.text += new
        elif isinstance(piece, ReasoningDelta):
            self.reasoning += piece.text
        else:
            self.calls.append(piece)


@pytest.mark.parametrize(
    "record",
    [
        choice({"text": "not "}),
        choice({"delta": {}, "text": "not "}),
        choice({"delta": None, "text": "not "}),
        choice({"delta": "not "}),
        choice({"delta": ["not "]}),
        choice({"message": {"content": "not "}}),
        choice({"message": "not "}),
        choice({"delta": {"content": "not "}, "text": "not "}),
        choice({"delta": {"content": "not "}, "message": {"content": "not "}}),
        choice({"delta": {"content": "not "}, "message": {"content": "It is not "}}),
        delta(content=None, refusal="not "),
        delta(content="", refusal="not "),
        delta(content={"type": "text", "text": "not "}),
        delta(content=[{"type": "text", "text": "no"}, "t", {"text": {"value": " "}}]),
        delta(content=[{"type": "refusal", "refusal": "not "}]),
        delta(content={"value": "not "}),
        delta(content=[["no"], ["t "]]),
        delta(parts=[{"text": "not "}]),
        delta(audio={"id": "a", "data": "AAAA", "transcript": "not "}),
        delta(content="not ", role=["assistant"], unknown={"a": [1, {}]}),
        delta(content="not ", tool_calls=[], function_call=None, annotations=[]),
        delta(content="not ", annotations=[{"type": "url", "url": "x", "title": "y"}]),
        {"choices": {"index": 0, "delta": {"content": "not "}}},
        {"choices": {"0": {"delta": {"content": "not "}}}},
        {"delta": {"content": "not "}},
        {"message": {"role": "assistant", "content": "not "}},
        {"text": "not "},
        *[
            {name: delta(content="not "), "id": "x"}
            for name in ("data", "result", "event", "usage", "meta", "x_groq")
        ],
        [delta(content="not ")],
        [[delta(content="not ")]],
        [delta(content="no"), delta(content="t ")],
        choice({"index": "0", "delta": {"content": "not "}}),
        choice({"index": None, "delta": {"content": "not "}}),
        choice({"index": {}, "delta": {"content": "not "}}),
        choice({"index": 0.5, "delta": {"content": "not "}}),
        choice({"delta": {"content": "not "}, "finish_reason": 3}),
        choice({"delta": {"content": "not "}, "finish_reason": {"type": "stop"}}),
        choice({"delta": {"content": "not "}, "finish_reason": "null"}),
        choice({"delta": {"content": "not "}, "logprobs": "x", "stop_reason": {}}),
        choice({"delta": {"content": "not "}}, usage="x", error={"code": 0}),
        choice({"delta": {"content": "not "}}, error={"code": "0", "message": ""}),
        json.dumps(delta(content="no")).encode()
        + json.dumps(delta(content="t ")).encode(),
        b"\xef\xbb\xbf" + json.dumps(delta(content="not ")).encode() + b"\0",
        b"data: data: " + json.dumps(delta(content="not ")).encode(),
        b"x" + json.dumps(delta(content="not ")).encode() + b"y",
        b'{"choices":[{"index":0,"delta":{"content":"not "},"logprob":-Infinity}]}',
        b'{"choices":[{"index":0,"delta":{"content":"not "},"x":1e999,"y":NaN}]}',
        b'{"choices":[{"index":0,"delta":{"content":"not "},"x":"\xff\x00\n"}]}',
        b'{"choices":[{"index":0,"delta":{"content":"not "},"x":"\\ud83d"}]}',
        b'{"choices":[{"index":0,"delta":{"content":"not "},"x":'
        + b"9" * 5000
        + b"}]}",
    ],
)
def test_words_at_unexpected_places_are_taken_once(record: Any) -> None:
    said = Said(delta(content="It is "), record, delta(content="safe."), STOP)
    assert said.text == "It is not safe."
    assert said.response.failure is None
    assert said.reasoning == ""
    assert said.calls == []


@pytest.mark.parametrize(
    "thought",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm", "reasoning": "hm"},
        {"reasoning": {"text": "hm"}},
        {"reasoning": ["h", {"content": "m"}]},
        {"reasoning": "hm", "reasoning_details": [{"type": "x", "text": "hm"}]},
        {"thinking": "hm"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
        {"thought": "hm"},
    ],
)
def test_thoughts_do_not_take_the_words_with_them(thought: dict[str, Any]) -> None:
    said = Said(delta(content="a", **thought), STOP)
    assert (said.text, said.reasoning) == ("a", "hm")
    assert Said(delta(**thought), delta(content="a"), STOP).reasoning == "hm"


def test_different_thoughts_beside_each_other_are_all_taken() -> None:
    assert Said(delta(reasoning="a", reasoning_content="b"), STOP).reasoning in (
        "ab",
        "ba",
    )


@pytest.mark.parametrize(
    "destroyed",
    [
        b'{"choices":[{"index":0,"delta":{"content":"not ',
        b'{"choices":[{"index":0,"delta":{"content":"not "}}',
        b'{"choices":[{"index":0,"delta":{"content"."not "}}]}',
        b'{"choices":[{"index":0,"dexta":{"content":"not "}}]}',
        b'{"choicex":[{"index":0,"delta":{"content":"not "}}]}',
        b'{"choices":[{"index":1,"delta":{"content":"not "}}]}',
        b'{"object":[{"delta":{"content":"not "}}]}',
        b'{"data":[{"choices":[{"delta":{"content":"not "}}]}]}',
        b'{"a":{"data":{"choices":[{"delta":{"content":"not "}}]}}}',
        b'{"data":"not "}',
        b'{"choices":[{"index":0,"delta":{"data":"not "}}]}',
        b'{"choices":[{"delta":{"content":[{"type":"text","data":"not "}]}}]}',
        b': {"choices":[{"delta":{"content":"not "}}',
        b'{"choices":["not "]}',
        b'"not "',
        b"not ",
    ],
)
def test_words_that_are_lost_are_told(destroyed: bytes) -> None:
    said = Said(delta(content="It is "), destroyed, delta(content="safe."), STOP)
    assert said.text == "It is safe."
    assert said.response.skipped == 1
    assert said.response.failure is None


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["Hi \\ud83d", "\\ude00!"], "Hi 😀!"),
        (["Hi \\ud83d", "", "\\ude00!"], "Hi 😀!"),
        (["Hi \\ud83d", "x"], "Hi \ufffdx"),
        (["\\ud83d", "\\ud83d", "\\ude00"], "\ufffd😀"),
        (["\\ude00", "a"], "\ufffda"),
        (["Hi \\ud83d"], "Hi \ufffd"),
        (["\\ud83d\\ude00"], "😀"),
    ],
)
def test_halves_of_a_surrogate_pair(pieces: list[str], text: str) -> None:
    for name in ("content", "reasoning_content", "refusal"):
        records = [
            b'{"choices":[{"index":0,"delta":{"%b":"%b"}}]}'
            % (name.encode(), piece.encode())
            for piece in pieces
        ]
        said = Said(*records, STOP)
        assert (said.reasoning if "reason" in name else said.text) == text
        assert said.response.skipped == 0
    call = '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a",%s}]}}]}'
    records = [
        (call % f'"function":{{"name":"f","arguments":"{piece}"}}').encode()
        for piece in pieces
        if piece
    ]
    assert "".join(c.arguments or "" for c in Said(*records, STOP).calls) == text


def test_a_cumulative_message_beside_its_deltas_is_not_said_twice() -> None:
    def record(piece: str, whole: str, reason: Any = None) -> dict[str, Any]:
        message = {"role": "assistant", "content": whole}
        value = {"delta": {"role": "assistant", "content": piece}, "message": message}
        return choice(value | {"finish_reason": reason})

    said = Said(
        record("ha ", "ha "),
        record("ha ", "ha ha "),
        record("", "ha ha ha."),
        record("", "ha ha ha.", "stop"),
    )
    assert said.text == "ha ha ha."


def test_halves_beside_repetitions() -> None:
    def record(**value: str) -> bytes:
        fields = ",".join(f'"{n}":{{"content":"{v}"}}' for n, v in value.items())
        return f'{{"choices":[{{"index":0,{fields}}}]}}'.encode()

    half, rest = "x\\ud83d", "\\ude00!"
    assert (
        Said(record(delta=half, message=half), record(delta=rest), STOP).text == "x😀!"
    )
    assert Said(record(delta=half), record(message=rest), STOP).text == "x😀!"


def test_thoughts_of_a_message_behind_deltas_are_not_lost() -> None:
    message = choice({"delta": None, "message": {"reasoning": "b"}})
    assert Said(delta(reasoning="a"), message, STOP).reasoning == "ab"


def test_what_a_failure_repeats_can_be_shown() -> None:
    said = Said(b'{"note":"\\ude00 half\\u0007"}', b"[DONE]")
    assert said.response.failure is not None
    assert said.response.failure.message.isprintable()


def test_messages_instead_of_deltas_are_said_as_they_come() -> None:
    pieces = ["ha ", "ha ", "ha."]
    records = [choice({"message": {"content": piece}}) for piece in pieces]
    assert Said(*records, STOP).text == "ha ha ha."


THINKING = "<think>The user greets me.</think>\n\nHello <think> there!"


@pytest.mark.parametrize("step", [1, 2, 5, 9, 100])
def test_thoughts_in_the_text_are_reasoning_where_that_is_asked_for(step: int) -> None:
    pieces = [THINKING[i : i + step] for i in range(0, len(THINKING), step)]
    records = [delta(content=piece) for piece in pieces]
    said = Said(*records, STOP, think_tags=True)
    assert (said.text, said.reasoning) == (
        "Hello <think> there!",
        "The user greets me.",
    )
    assert Said(*records, STOP).text == THINKING
    whole = choice({"delta": {}, "message": {"content": THINKING}})
    assert Said(*records, whole, STOP, think_tags=True).text == said.text
    held = Said(delta(content="<thin"), STOP, think_tags=True)
    assert held.text == "<thin"


@pytest.mark.parametrize(
    "call",
    [
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f"}}]},
        {"tool_calls": {"id": "a", "function": {"name": "f", "arguments": ""}}},
        {"tool_calls": {"0": {"id": "a", "function": {"name": "f"}}}},
        {"tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "f"}}]},
        {"function_Call": [{"id": "a", "name": "f", "arguments": ""}]},
        {"content": [{"type": "tool_use", "id": "a", "name": "f", "input": None}]},
    ],
)
def test_tool_calls_in_other_shapes(call: dict[str, Any]) -> None:
    said = Said(delta(content="a"), delta(**call), STOP)
    assert said.text == "a"
    assert said.calls == [ToolCallPart(0, "a", "f")]
    assert said.response.skipped == 0


def test_a_legacy_function_call_is_a_tool_call() -> None:
    said = Said(
        delta(function_call={"name": "f", "arguments": ""}),
        delta(function_call={"arguments": '{"a":'}),
        delta(function_call={"arguments": "1}"}),
        choice({"delta": {}, "finish_reason": "function_call"}),
    )
    assert said.calls == [
        ToolCallPart(0, None, "f", '{"a":'),
        ToolCallPart(0, arguments="1}"),
    ]


@pytest.mark.parametrize(
    "record",
    [
        {"choices": None, "error_type": "BadRequest", "error_message": "too long"},
        {"error": {"message": "too long"}},
        {"error": True, "message": "too long"},
        {"errors": [{"message": "too long"}]},
        {"object": "error", "message": "too long"},
        {"type": "error", "error": {"type": "x", "message": "too long"}},
        {"choices": [{"index": 0, "error": {"code": 500, "message": "too long"}}]},
        {"choices": [{"index": 0, "delta": {"error": "too long"}}]},
        {"choices": [], "code": 400, "msg": "too long"},
        {"detail": "too long"},
        {"success": False, "message": "too long"},
        {"Error": {"Message": "too long"}},
        {"base_resp": {"status_code": 1008, "status_msg": "too long"}},
        {"event": "error", "data": {"message": "too long"}},
        {"event": "error", "data": "too long"},
        {"data": {"error": "too long"}},
        {"response": {"error": {"code": 7, "message": "too long"}}},
        {"err": "too long"},
        {"ERROR": {"x": "too long"}},
        {"error_description": "too long"},
        {"errcode": 1, "errmsg": "too long"},
        b"Error: too long",
        b"[ERROR] too long",
        b'"error: too long"',
        [{"error": {"message": "too long"}}],
    ],
)
def test_an_error_anywhere_is_one_with_its_words(record: Any) -> None:
    said = Said(delta(content="It is "), record, delta(content="not safe."), STOP)
    assert said.text == "It is "
    assert said.response.failure is not None
    assert said.response.failure.code == "backend_error"
    assert "too long" in said.response.failure.message


@pytest.mark.parametrize(
    "record",
    [
        {"error": {"code": 0, "message": ""}},
        {"error": {"code": "0", "message": None}},
        {"error": {}},
        {"error_code": 0, "error_msg": ""},
        {"code": 0, "message": "success"},
        {"code": 200, "msg": "ok"},
        {"base_resp": {"status_code": 0, "status_msg": ""}},
    ],
)
def test_an_error_without_words_or_a_code_is_none(record: dict[str, Any]) -> None:
    said = Said({**delta(content="safe."), **record}, STOP)
    assert (said.text, said.response.failure) == ("safe.", None)


def test_words_beside_an_error_come_before_it() -> None:
    said = Said({**delta(content="It is"), "error": {"message": "gone"}})
    assert said.text == "It is"
    assert said.response.failure is not None


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"[DONE]", [DONE]),
        (b" data: data:[done] ", [DONE]),
        (b'{"a":1}\n[DONE]', [{"a": 1}, DONE]),
        (b'{"a":1},{"b":2}', [{"a": 1}, {"b": 2}]),
        (b"\xef\xbb\xbf\0", []),
        (b"null", [None]),
    ],
)
def test_values(data: bytes, values: list[Any]) -> None:
    assert list(read_values(data)) == values


def test_a_value_that_cannot_be_read_ends_where_a_line_begins_another() -> None:
    first, second = read_values(b'{"a":\n{"b":2}')
    assert isinstance(first, Unreadable)
    assert second == {"b": 2}
    hostile = b'{"a":"' + b'\n{"a":"' * 100_000
    assert len(list(read_values(hostile))) < 20


@pytest.mark.parametrize(
    "huge",
    [
        b"{}" * 500_000,
        b"[" + b"{}," * 300_000 + b"{}]",
        b'{"choices":[' + b"{}," * 300_000 + b"{}]}",
        b'{"choices":[{"delta":{"content":[' + b'"a",' * 250_000 + b'"a"]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[' + b'{"id":"a"},' * 90_000 + b"{}]}}]}",
        b'{"error":[' + b'["",[]],' * 130_000 + b"0]}",
        b"\n" * 500_000 + b"{" + b"\n" * 500_000,
        b"data:" * 200_000 + b"{",
        b'{"said":[' + b'"a",' * 250_000 + b'"a"]}',
        b'{"choices":[' + b"{}," * 1500 + b"{}]}",
        b'{"choices":[{"delta":{"tool_calls":[' + b'{"id":"a"},' * 1500 + b"{}]}}]}",
    ],
)
def test_a_huge_record_is_not_searched_through_for_ever(huge: bytes) -> None:
    response = OpenAIResponse()
    deltas: list[Any] = []
    work = Work().count(lambda: deltas.extend(response.receive(Record(huge))))
    assert work.instructions < 400_000
    assert response.skipped >= 1 or response.failure is not None


def test_a_redacted_thought_is_no_lost_word() -> None:
    part = {"type": "redacted_thinking", "data": "AAAA"}
    for fields in ({"content": [part]}, {"thinking_blocks": [part]}):
        said = Said(delta(content="a"), delta(**fields), STOP)
        assert (said.text, said.response.skipped) == ("a", 0)


@pytest.mark.parametrize("value", [{"id": "x"}, {"a": [1, None]}, [], {"type": "x"}, 5])
def test_what_has_no_words(value: Any) -> None:
    assert not has_words(value)


# Any neighbour of the words, and any byte outside of them


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
OUTER = ["id", "object", "created", "model", "system_fingerprint", "usage"]
MIDDLE = ["index", "finish_reason", "logprobs", "stop_reason", "matched_stop", "new"]
INNER = ["role", "tool_calls", "function_call", "audio", "annotations", "reasoning"]
NEIGHBOURS = (OUTER, MIDDLE, [*INNER, "new"])


@settings(max_examples=400, deadline=None)
@given(st.data(), json_values)
def test_any_neighbour_may_be_anything(data: st.DataObject, value: Any) -> None:
    level = data.draw(st.integers(0, 2))
    name = data.draw(st.sampled_from(NEIGHBOURS[level]))
    inner: dict[str, Any] = {"role": "assistant", "content": "NOT"}
    middle: dict[str, Any] = {"index": 0, "delta": inner, "finish_reason": None}
    outer: dict[str, Any] = {"id": "c", "object": "x", "choices": [middle]}
    (outer, middle, inner)[level][name] = value
    said = Said(
        delta(content="<"), json.dumps(outer).encode(), delta(content=">"), STOP
    )
    told = said.response.skipped > 0 or said.response.failure is not None
    assert "NOT" in said.text or told


LINE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":"NOT"},"logprobs":null,'
    b'"finish_reason":null}],"usage":null}\n\n'
)
_WORD = range(LINE.index(b"NOT") - 1, LINE.index(b"NOT") + 4)
PLACES = [place for place in range(len(LINE)) if place not in _WORD]
BEFORE = b'data: {"choices":[{"index":0,"delta":{"content":"<"}}]}\n\n'
AFTER = BEFORE.replace(b"<", b">") + b"data: " + json.dumps(STOP).encode() + b"\n\n"


@settings(max_examples=1500, deadline=None)
@given(
    st.sampled_from(PLACES),
    st.binary(max_size=2),
)
@example(5, b"\n")
@example(0, b":")
@example(len(LINE) - 1, b"x")
def test_any_byte_outside_of_the_words_may_be_lost_or_another(
    place: int, instead: bytes
) -> None:
    body = BEFORE + LINE[:place] + instead + LINE[place + 1 :] + AFTER
    decoder, response = SSEDecoder(), OpenAIResponse()
    text = ""
    for record in [*decoder.receive_data(body), *decoder.receive_eof()]:
        for piece in response.receive(record):
            text += piece.text if isinstance(piece, TextDelta) else ""
    response.receive_eof()
    told = response.skipped > 0 or response.failure is not None
    assert "NOT" in text or told, body
    assert text.count("NOT") <= 1
    assert (">" in text) or told
