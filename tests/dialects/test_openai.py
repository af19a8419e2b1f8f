from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from bridge.decoders import Record
from bridge.decoders.content import decoder_for
from bridge.dialects import Delta, ReasoningDelta, TextDelta, ToolCallPart
from bridge.dialects.openai import MAX_USAGE_BYTES, OpenAIResponse
from bridge.errors import BackendProtocolError, BackendReportedError

DONE = Record(b"[DONE]")


def record(value: Any, event: str = "message") -> Record:
    return Record(msgspec.json.encode(value), event)


def chunk(delta: Any = None, finish_reason: Any = None, **fields: Any) -> Record:
    choice = {"index": 0, "delta": delta or {}, "logprobs": None}
    return record(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1732100000,
            "model": "llama3",
            "choices": [choice | {"finish_reason": finish_reason}],
            **fields,
        }
    )


def text(content: str) -> Record:
    return chunk({"content": content})


def body(message: Any, finish_reason: Any = "stop", **fields: Any) -> Record:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return record({"object": "chat.completion", "choices": [choice], **fields})


def receive(response: OpenAIResponse, *records: Record) -> list[Delta]:
    return [delta for each in records for delta in response.receive(each)]


def deltas_of(*records: Record) -> list[Delta]:
    return receive(OpenAIResponse(), *records)


def test_a_usual_stream() -> None:
    stream = OpenAIResponse()
    assert receive(
        stream,
        chunk({"role": "assistant", "content": ""}),
        text("Hel"),
        text("lo"),
        text(" 😀\n"),
        chunk({}, "stop"),
        record({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}),
        DONE,
    ) == [TextDelta("Hel"), TextDelta("lo"), TextDelta(" 😀\n")]
    stream.receive_eof()
    assert stream.finish_reason == "stop"
    assert stream.usage == {"prompt_tokens": 3, "completion_tokens": 4}
    assert stream.done
    assert stream.skipped == 0
    assert stream.first_skipped == ""
    assert repr(stream) == "<OpenAIResponse finish_reason='stop' done=True skipped=0>"


@pytest.mark.parametrize(
    "silent",
    [
        chunk({"role": "assistant"}),
        chunk({"role": "assistant", "content": None}),
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": ""}),
        chunk({"content": []}),
        chunk({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
        chunk({"content": None, "tool_calls": []}),
        chunk({"content": "", "reasoning_content": "", "reasoning": None}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}),
        chunk({}, ""),
        record({"choices": [{"index": 0, "finish_reason": None}]}),
        record({"choices": [{"index": 0, "delta": None}]}),
        record({"choices": []}),
        record({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
        record({"choices": None}),
        record({"choices": [], "error": None}),
        record({}),
        record({"type": "ping"}, "ping"),
        record({"choices": [{"index": 0, "delta": {}, "finish_reason": 0}]}),
        Record(b"ping"),
        Record(b"[PING]"),
        Record(b"keep-alive"),
        record([1]),
        record(5),
        Record(b""),
        Record(b" \r\n"),
    ],
)
def test_what_gives_no_token(silent: Record) -> None:
    stream = OpenAIResponse()
    assert receive(stream, silent) == []
    assert (stream.finish_reason, stream.usage, stream.skipped) == (None, None, 0)


@pytest.mark.parametrize(
    ("delta", "deltas"),
    [
        ({"content": "a", "unknown": {"b": [1]}}, [TextDelta("a")]),
        ({"content": 1}, [TextDelta("1")]),
        ({"content": [1]}, [TextDelta("1")]),
        ({"content": [{"type": "text", "text": "a"}, "b"]}, [TextDelta("ab")]),
        (
            {"content": [{"type": "thinking", "thinking": [{"text": "h"}]}]},
            [ReasoningDelta("h")],
        ),
        (
            {"content": [{"type": "thinking", "thinking": "h"}, {"type": "text"}]},
            [ReasoningDelta("h")],
        ),
        ({"reasoning_content": "h"}, [ReasoningDelta("h")]),
        ({"reasoning": "h", "content": None}, [ReasoningDelta("h")]),
        ({"reasoning": "h", "reasoning_content": "h"}, [ReasoningDelta("h")]),
        ({"reasoning": "h", "reasoning_content": None}, [ReasoningDelta("h")]),
        (
            {"content": "a", "reasoning_content": "h"},
            [ReasoningDelta("h"), TextDelta("a")],
        ),
    ],
)
def test_text_and_reasoning(delta: Any, deltas: list[Delta]) -> None:
    assert deltas_of(chunk(delta)) == deltas
    assert receive(OpenAIResponse(), body(delta)) == deltas


def test_text_beside_a_finish_reason_or_usage_is_not_lost() -> None:
    stream = OpenAIResponse()
    assert receive(
        stream,
        chunk({"content": "a"}, usage={"completion_tokens": 1}),
        chunk({"content": "b"}, "length", usage={"completion_tokens": 2}),
    ) == [TextDelta("a"), TextDelta("b")]
    stream.receive_eof()
    assert stream.finish_reason == "length"
    assert stream.usage == {"completion_tokens": 2}


def test_the_choice_that_is_seen_first_is_read_and_others_are_told() -> None:
    choices = [
        {"index": 1, "delta": {"content": "mine"}, "finish_reason": None},
        {"index": 0, "delta": {"content": "other"}, "finish_reason": "length"},
    ]
    stream = OpenAIResponse()
    assert receive(stream, record({"choices": choices})) == [TextDelta("mine")]
    assert (stream.finish_reason, stream.skipped) == (None, 1)
    assert receive(stream, text("other")) == []
    assert stream.skipped == 2


@pytest.mark.parametrize("index", [{}, {"index": None}])
def test_a_choice_without_an_index_is_the_first(index: Any) -> None:
    choice = {"delta": {"content": "a"}, **index}
    assert deltas_of(record({"choices": [choice]})) == [TextDelta("a")]


def test_tool_calls() -> None:
    def call(index: int, **fields: Any) -> Record:
        return chunk({"content": None, "tool_calls": [{"index": index, **fields}]})

    stream = OpenAIResponse()
    assert receive(
        stream,
        call(0, id="c1", type="function", function={"name": "f", "arguments": ""}),
        call(0, function={"arguments": '{"a":'}),
        call(0, id="", function={"name": None, "arguments": "1}"}),
        call(1, id="c2", function={"name": "g", "arguments": "{}"}),
        chunk({}, "tool_calls"),
    ) == [
        ToolCallPart(0, "c1", "f", '{"a":'),
        ToolCallPart(0, arguments="1}"),
        ToolCallPart(1, "c2", "g", "{}"),
    ]
    stream.receive_eof()
    assert stream.finish_reason == "tool_calls"


def test_the_usage_that_comes_last_wins_as_it_is() -> None:
    stream = OpenAIResponse()
    usage = {"completion_tokens": 9, "details": {"cached": [1, None]}, "cost": 0.5}
    receive(
        stream,
        chunk({"content": "a"}, usage={"completion_tokens": 1}),
        record({"choices": [], "usage": usage}),
        record({"usage": None, "choices": []}),
    )
    assert stream.usage == usage


def test_a_usage_too_large_for_the_terminal_event_is_left_out() -> None:
    stream = OpenAIResponse()
    usage = {"x": "y" * MAX_USAGE_BYTES}
    assert receive(stream, chunk({"content": "a"}, "s" * 5000, usage=usage))
    assert stream.usage is None
    assert stream.finish_reason == "s" * 100


@pytest.mark.parametrize(
    "malformed",
    [
        Record(b"{"),
        Record(b"no json"),
        Record(b'"text"'),
        Record(b'{"choices":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        Record(b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        record({"choices": "x"}),
        record({"choices": ["x"]}),
        record({"said": [{"by": "nobody"}]}),
        record({"choices": [{"dxlta": {"content": "x"}}]}),
        record({"chxices": [{"delta": {"content": "x"}}]}),
    ],
)
def test_a_record_that_cannot_be_read_is_skipped_and_counted(malformed: Record) -> None:
    stream = OpenAIResponse()
    assert receive(stream, text("a"), malformed, text("b"), chunk({}, "stop")) == [
        TextDelta("a"),
        TextDelta("b"),
    ]
    assert stream.skipped == 1
    assert stream.first_skipped.endswith("bytes)")
    assert len(stream.first_skipped) < 250
    stream.receive_eof()
    assert stream.failure is None


def test_or_it_is_a_failure_where_that_is_asked_for() -> None:
    stream = OpenAIResponse(fail_unreadable=True)
    assert receive(stream, text("a"), Record(b"{"), text("b"), DONE) == [TextDelta("a")]
    assert isinstance(stream.failure, BackendProtocolError)
    assert "1 record was skipped" in stream.failure.message


def test_the_first_skipped_record_is_described_without_its_content() -> None:
    stream = OpenAIResponse()
    receive(stream, Record(b'{"secret": "secret'), Record(b"{secret"))
    assert stream.skipped == 2
    assert "secret" not in stream.first_skipped


def test_invalid_utf_8_is_replaced() -> None:
    bad = Record(b'{"choices":[{"delta":{"content":"a\xff\xf0\x9fb"}}]}')
    stream = OpenAIResponse()
    assert receive(stream, bad) == [TextDelta("a\ufffd\ufffdb")]
    assert stream.skipped == 0
    whole = Record(b'{"choices":[{"message":{"content":"a\xff"}}]}')
    assert receive(OpenAIResponse(), whole) == [TextDelta("a\ufffd")]


@pytest.mark.parametrize("field", ["usage", "arguments"])
def test_values_nested_too_deep_to_be_passed_on_do_no_harm(field: str) -> None:
    # Near the interpreter's limit a value can still be read, but not be written.
    for depth in range(sys.getrecursionlimit() - 120, sys.getrecursionlimit() + 20, 7):
        value = b'{"x":' + b"[" * depth + b"]" * depth + b"}"
        call = b'"tool_calls":[{"function":{"name":"f","arguments":%s}}]' % value
        usage = b'"usage":%s,' % value if field == "usage" else b""
        delta = call if field == "arguments" else b'"content":"a"'
        deep = Record(b'{%s"choices":[{"delta":{%s}}]}' % (usage, delta))
        stream = OpenAIResponse()
        deltas = [*receive(stream, deep), *stream.receive_eof()]
        assert deltas or stream.skipped == 1
        assert field == "arguments" or len(deltas) + stream.skipped == 1
        assert stream.usage is None


def test_after_done_everything_is_ignored() -> None:
    stream = OpenAIResponse()
    late = record({"error": {"message": "late"}})
    assert receive(
        stream, text("a"), chunk({}, "stop"), DONE, text("b"), Record(b"{"), late
    ) == [TextDelta("a")]
    stream.receive_eof()
    assert (stream.finish_reason, stream.skipped) == ("stop", 0)


def test_done_without_a_finish_reason_is_unknown() -> None:
    stream = OpenAIResponse()
    receive(stream, text("a"), Record(b"{"), Record(b" [DONE] "))
    stream.receive_eof()
    assert (stream.finish_reason, stream.failure) == ("unknown", None)


def test_a_finish_reason_without_done_is_complete() -> None:
    stream = OpenAIResponse()
    receive(stream, text("a"), chunk({}, "length"))
    stream.receive_eof()
    assert (stream.finish_reason, stream.failure) == ("length", None)


def ends(stream: OpenAIResponse, *, whole: bool = False) -> str:
    """What is wrong with the end of a stream."""
    stream.receive_eof(whole=whole)
    assert isinstance(stream.failure, BackendProtocolError)
    return stream.failure.message


def test_a_stream_that_just_ends_is_never_complete() -> None:
    stream = OpenAIResponse()
    receive(stream, *[text("a")] * 100)
    assert ends(stream).endswith("neither a finish_reason nor [DONE]")
    assert ends(OpenAIResponse())


def test_a_stream_that_ends_says_what_was_skipped() -> None:
    stream = OpenAIResponse()
    receive(stream, text("a"), Record(b"{"))
    assert "1 record was skipped: " in ends(stream)


@pytest.mark.parametrize("last", [[DONE], [chunk({}, "stop")]])
def test_a_stream_of_nothing_readable_is_not_complete(last: list[Record]) -> None:
    stream = OpenAIResponse()
    receive(stream, Record(b"hello"), record({"said": "world"}), *last)
    message = ends(stream)
    assert "2 records were skipped" in message
    assert message.endswith("it said: hello")


def test_done_alone_is_no_answer_and_a_reason_alone_is_an_empty_one() -> None:
    stream = OpenAIResponse()
    receive(stream, chunk({"role": "assistant"}), DONE)
    assert "without an answer" in ends(stream)
    stream = OpenAIResponse()
    receive(stream, chunk({"role": "assistant"}), chunk({}, "stop"), DONE)
    assert not stream.receive_eof()
    assert (stream.finish_reason, stream.failure) == ("stop", None)


@pytest.mark.parametrize(
    ("failing", "message", "status", "retryable"),
    [
        (
            record({"error": {"message": "boom", "type": "server_error", "code": 500}}),
            "boom",
            500,
            True,
        ),
        (record({"error": "CUDA out of memory"}), "CUDA out of memory", None, False),
        (
            record({"object": "error", "message": "too long", "code": 400}),
            "too long",
            400,
            False,
        ),
        (
            chunk({"content": ""}, "error", error={"code": 502, "message": "gone"}),
            "gone",
            502,
            True,
        ),
        (record({"error": {"message": "m"}, "choices": "x"}), "m", None, False),
        (record({"message": "down", "code": 503}, "error"), "down", 503, True),
        (Record(b"plain words", "error"), "plain words", None, False),
        (Record(b"{}", "error"), "it did not say what", None, False),
        (Record(b'{"x":"\xff","error":"e"}'), "e", None, False),
        (chunk({}, "error"), "finish_reason 'error'", None, True),
    ],
)
def test_an_error_in_the_stream_ends_it(
    failing: Record, message: str, status: int | None, retryable: bool
) -> None:
    stream = OpenAIResponse()
    receive(stream, text("a"), failing)
    assert stream.done
    failure = stream.failure
    assert isinstance(failure, BackendReportedError)
    assert message in failure.message
    assert failure.status == status
    assert failure.retryable is retryable


@pytest.mark.parametrize(
    "nothing",
    [None, "", False, {}, [], 0, {"code": 0, "message": ""}, {"code": None}, [{}]],
)
def test_an_error_field_without_an_error_is_ignored(nothing: Any) -> None:
    assert deltas_of(chunk({"content": "a"}, error=nothing)) == [TextDelta("a")]


def test_a_whole_message() -> None:
    message = OpenAIResponse()
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    assert receive(
        message,
        body(
            {
                "role": "assistant",
                "content": "Hello",
                "reasoning_content": "Hm",
                "tool_calls": [call, call | {"id": "c2"}],
            },
            "tool_calls",
            usage={"total_tokens": 5},
        ),
    ) == [
        ReasoningDelta("Hm"),
        TextDelta("Hello"),
        ToolCallPart(0, "c1", "f", "{}"),
        ToolCallPart(1, "c2", "f", "{}"),
    ]
    message.receive_eof(whole=True)
    assert message.finish_reason == "tool_calls"
    assert message.usage == {"total_tokens": 5}


def test_a_whole_message_without_a_finish_reason_is_complete() -> None:
    message = OpenAIResponse()
    assert receive(message, body({"content": "a"}, None)) == [TextDelta("a")]
    message.receive_eof(whole=True)
    assert (message.finish_reason, message.failure) == ("unknown", None)


@pytest.mark.parametrize(
    "malformed",
    [
        Record(b"{"),
        Record(b"{}"),
        record({"choices": []}),
        record({"choices": [{"index": 0}]}),
        record({"choices": [{"index": 0, "message": {"content": None}}]}),
        Record(b"[" * 5000),
    ],
)
def test_a_whole_body_without_a_message_is_no_answer(malformed: Record) -> None:
    response = OpenAIResponse()
    receive(response, malformed)
    assert "no chat completion" in ends(response, whole=True)


@pytest.mark.parametrize(
    "failing",
    [
        record({"error": {"message": "boom", "code": 503}}),
        record({"object": "error", "message": "boom", "code": 503}),
        record({"error": {"message": "boom", "code": 503}, "choices": "x"}),
    ],
)
def test_an_error_in_a_whole_body(failing: Record) -> None:
    response = OpenAIResponse()
    response.receive(failing)
    assert isinstance(response.failure, BackendReportedError)
    assert "boom" in response.failure.message
    assert response.failure.retryable


@pytest.mark.parametrize(
    ("content_type", "lines"),
    [
        ("text/event-stream; charset=utf-8", b"data: %s\r\n\r\n"),
        ("application/x-ndjson", b"%s\n"),
    ],
)
def test_a_stream_is_read_alike_in_every_framing(
    content_type: str, lines: bytes
) -> None:
    parts = [text("é€"), text("😀"), chunk({}, "stop"), DONE]
    stream = b"".join(lines % part.data for part in parts)
    for step in (1, 3, 7, len(stream)):
        decoder, response = decoder_for(content_type), OpenAIResponse()
        assert decoder is not None
        records: list[Record] = []
        for i in range(0, len(stream), step):
            records += decoder.receive_data(stream[i : i + step])
        records += decoder.receive_eof()
        assert receive(response, *records) == [TextDelta("é€"), TextDelta("😀")]
        response.receive_eof()


def test_a_whole_body_through_its_decoder() -> None:
    decoder, response = decoder_for("application/json"), OpenAIResponse()
    assert decoder is not None
    for byte in body({"content": "é€😀"}).data:
        assert decoder.receive_data(bytes([byte])) == []
    assert receive(response, *decoder.receive_eof()) == [TextDelta("é€😀")]
    response.receive_eof(whole=decoder.whole)
    assert response.failure is None


def test_an_error_event_without_a_word_is_told() -> None:
    stream = OpenAIResponse()
    received = receive(stream, text("a"), Record(b"", "error"), text("b"))
    assert received == [TextDelta("a"), TextDelta("b")]
    assert (stream.skipped, stream.failure) == (1, None)
