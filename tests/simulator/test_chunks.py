import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator.chunks import Chunks, error_object, usage_object


def chunks(*, ndjson: bool = False, include_usage: bool = False) -> Chunks:
    return Chunks("id-1", 17, "m", ndjson=ndjson, include_usage=include_usage)


def read(frame: bytes, *, ndjson: bool = False) -> dict[str, Any]:
    start, end = (b"", b"\n") if ndjson else (b"data: ", b"\n\n")
    assert frame.startswith(start)
    assert frame.endswith(end)
    record = frame[len(start) : -len(end)]
    assert b"\n" not in record
    decoded = json.loads(record)
    assert isinstance(decoded, dict)
    return decoded


@given(st.text(), st.booleans(), st.booleans())
def test_a_token(text: str, ndjson: bool, include_usage: bool) -> None:
    frame = chunks(ndjson=ndjson, include_usage=include_usage).content(text)
    expected = {
        "id": "id-1",
        "object": "chat.completion.chunk",
        "created": 17,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "delta": {"content": text},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
    }
    if include_usage:
        expected["usage"] = None
    assert read(frame, ndjson=ndjson) == expected


def test_the_other_chunks() -> None:
    made = chunks()

    def delta(frame: bytes) -> Any:
        return read(frame)["choices"][0]["delta"]

    assert delta(made.role()) == {"role": "assistant", "content": ""}
    assert delta(made.reasoning("hm")) == {"reasoning_content": "hm"}
    call = delta(made.tool_call("c1", "f"))["tool_calls"][0]
    assert call["id"] == "c1"
    assert call["function"] == {"name": "f", "arguments": ""}
    call = delta(made.arguments('{"'))["tool_calls"][0]
    assert call == {"index": 0, "function": {"arguments": '{"'}}
    assert read(made.finish("stop"))["choices"][0]["finish_reason"] == "stop"
    last = read(made.usage(usage_object(3, 4, 0)))
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 7
    assert made.done() == b"data: [DONE]\n\n"
    assert chunks(ndjson=True).done() == b""


@pytest.mark.parametrize("ndjson", [False, True])
@pytest.mark.parametrize("size", [1, 1000, 123_456])
def test_a_huge_line_has_its_size_and_is_valid(size: int, ndjson: bool) -> None:
    frame = chunks(ndjson=ndjson).huge(size)
    assert read(frame, ndjson=ndjson)["choices"] == []
    line = frame.rstrip(b"\n")
    assert len(line) == size or (len(line) > size and size < 200)


def test_a_malformed_record_is_one_record_and_no_json() -> None:
    frame = chunks().malformed()
    with pytest.raises(ValueError, match="Unterminated"):
        read(frame)
    assert frame.count(b"\n\n") == 1


def test_errors_and_usage_as_openai_words_them() -> None:
    assert read(chunks().error("no"))["error"]["type"] == "server_error"
    assert error_object(400, "no", param="n")["error"]["param"] == "n"
    assert error_object(422, "no")["error"]["type"] == "invalid_request_error"
    assert error_object(429, "no")["error"]["type"] == "rate_limit_error"
    usage = usage_object(1, 5, 2)
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 2}
