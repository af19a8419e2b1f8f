"""The wire contract: jobs read and refused, events written and read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import BackendRejected, InvalidJob, RateLimited
from bridge.events import (
    MAX_METADATA_BYTES,
    AnyEvent,
    Cancelled,
    Completed,
    Control,
    ErrorInfo,
    Event,
    Failed,
    Handover,
    Job,
    Reasoning,
    Resumed,
    Started,
    Timings,
    Token,
    ToolCall,
    ToolCallDelta,
    UnknownEvent,
    decode_control,
    decode_event,
    decode_job,
    encode,
    read_job_id,
)

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def job(**fields: Any) -> bytes:
    return json.dumps({"id": "one", "request": REQUEST, **fields}).encode()


# Jobs


def test_a_job_as_the_protocol_shows_it() -> None:
    decoded = decode_job(
        job(
            session="call-42",
            supersede=True,
            deadline_ms=30000,
            keepalive_ms=500,
            on_restart="fail",
            speech={"language": "en"},
            metadata={"caller": "web"},
        )
    )
    assert decoded == Job(
        id="one",
        request=REQUEST,
        session="call-42",
        supersede=True,
        deadline_ms=30000,
        keepalive_ms=500,
        on_restart="fail",
        speech={"language": "en"},
        metadata={"caller": "web"},
    )
    assert decoded.model == "m"
    assert decode_job(encode(decoded)) == decoded


def test_the_defaults_of_a_job() -> None:
    decoded = decode_job(job())
    assert decoded.on_restart == "restart"
    assert decoded.session is None
    assert decoded.deadline_ms is None
    assert decoded.keepalive_ms is None
    assert decoded.metadata == {}
    assert decoded.speech is decoded.supersede is False
    assert json.loads(encode(decoded)) == {"id": "one", "request": REQUEST}


@pytest.mark.parametrize("n", [1, None])
def test_one_text_is_what_there_is(n: int | None) -> None:
    decode_job(job(request={**REQUEST, "n": n}))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": "a.b"}, "id"),
        ({"id": ""}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"id": 7}, "id"),
        ({"id": None}, "id"),
        ({"request": None}, "request"),
        ({"request": []}, "request"),
        ({"request": {}}, "model"),
        ({"request": {**REQUEST, "model": 7}}, "model"),
        ({"request": {**REQUEST, "messages": {}}}, "messages"),
        ({"request": {**REQUEST, "messages": [None]}}, "messages"),
        ({"request": {**REQUEST, "n": 2}}, "request.n"),
        ({"request": {**REQUEST, "n": 0}}, "request.n"),
        ({"request": {**REQUEST, "n": True}}, "request.n"),
        ({"request": {**REQUEST, "n": "1"}}, "request.n"),
        ({"request": {**REQUEST, "n": 1.5}}, "request.n"),
        ({"session": ""}, "session"),
        ({"session": "a*"}, "session"),
        ({"supersede": True}, "session"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"deadline_ms": 86_400_001}, "deadline_ms"),
        ({"deadline_ms": "1"}, "deadline_ms"),
        ({"keepalive_ms": 0}, "keepalive_ms"),
        ({"on_restart": "continue"}, "on_restart"),
        ({"speech": "yes"}, "speech"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": None}}, "metadata"),
        ({"metadata": {"a": "x" * MAX_METADATA_BYTES}}, "metadata"),
        ({"Id": "x"}, "Id"),
        ({"zzz": 1}, "zzz"),
    ],
)
def test_the_message_names_the_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        decode_job(job(**fields))
    assert named in caught.value.message
    assert caught.value.code == "invalid_job"
    assert not caught.value.retryable


UNREADABLE = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b'{"id":"\xff","request":{}}',
    b'{"id":"one","request":{"model":"\xff"}}',
    b'{"id":"one","request":' + b'{"a":' * 50_000,
    b'{"id":"one","request":' + b"[" * 50_000,
    b"[" * 50_000,
    b'{"id":"one","request":{"model":1e999}}',
    b'{"id":"one","request":{"model":NaN}}',
]


@pytest.mark.parametrize("data", UNREADABLE)
def test_a_job_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(InvalidJob) as caught:
        decode_job(data)
    assert len(caught.value.message) < 1000
    read_job_id(data)
    assert decode_control(data) is None


def test_the_message_does_not_grow_with_the_job() -> None:
    with pytest.raises(InvalidJob) as caught:
        decode_job(job(**{"f" * 100_000: 1}))
    assert len(caught.value.message) < 1000


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_a_job_or_refused(data: bytes) -> None:
    with pytest.raises(InvalidJob):
        decode_job(data)
    read_job_id(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_any_object_is_a_job_or_refused(fields: dict[str, Any]) -> None:
    data = json.dumps(fields).encode()
    try:
        decoded = decode_job(data)
    except InvalidJob:
        return
    assert decoded.id == fields["id"]


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (b'{"id":"one"}', "one"),
        (b'{"id":"one","zzz":[1,{"a":2}],"request":7}', "one"),
        (b'{"id":"a.b"}', None),
        (b'{"id":7}', None),
        (b"{}", None),
        (b"", None),
        (b"[" * 50_000, None),
    ],
)
def test_the_id_of_a_job_that_is_not_valid(data: bytes, id: str | None) -> None:
    assert read_job_id(data) == id


# Events

EVENTS: list[tuple[Event, dict[str, Any]]] = [
    (
        Started(
            "a",
            1,
            1,
            v=1,
            model="m",
            created=5,
            queue_ms=0,
            job=9,
            session="s",
            metadata={"k": "v"},
        ),
        {
            "type": "started",
            "v": 1,
            "model": "m",
            "created": 5,
            "queue_ms": 0,
            "job": 9,
            "session": "s",
            "metadata": {"k": "v"},
        },
    ),
    (Token("a", 1, 1, ""), {"type": "token", "text": ""}),
    (Token("a", 1, 1, "é\n\0😀"), {"type": "token", "text": "é\n\0😀"}),
    (Reasoning("a", 1, 1, "hm"), {"type": "reasoning", "text": "hm"}),
    (
        ToolCallDelta("a", 1, 1, index=0, call_id="c", name="f", arguments=""),
        {"type": "tool_call", "index": 0, "call_id": "c", "name": "f", "arguments": ""},
    ),
    (Handover("a", 1, 1), {"type": "handover"}),
    (
        Resumed("a", 1, 1, after=0, mode="restart", reason="takeover"),
        {"type": "resumed", "after": 0, "mode": "restart", "reason": "takeover"},
    ),
    (
        Completed(
            "a",
            1,
            1,
            finish_reason="stop",
            text="",
            tool_calls=[ToolCall(0, "c", "f", "{}")],
            usage={"completion_tokens": 0},
            timings=Timings(0, 0, 0),
            backend="b",
            metadata={},
        ),
        {
            "type": "completed",
            "finish_reason": "stop",
            "text": "",
            "tool_calls": [
                {"index": 0, "call_id": "c", "name": "f", "arguments": "{}"}
            ],
            "usage": {"completion_tokens": 0},
            "timings": {"queue_ms": 0, "first_token_ms": 0, "total_ms": 0},
            "backend": "b",
            "metadata": {},
        },
    ),
    (
        Failed(
            "a",
            1,
            1,
            error=ErrorInfo.of(RateLimited("slow down", status=429)),
            text="par",
            timings=Timings(queue_ms=4),
            metadata={},
        ),
        {
            "type": "failed",
            "error": {
                "code": "rate_limited",
                "message": "slow down",
                "retryable": True,
                "status": 429,
            },
            "text": "par",
            "timings": {"queue_ms": 4},
            "metadata": {},
        },
    ),
    (
        Cancelled("a", 1, 1, reason="", timings=Timings(), metadata={}),
        {"type": "cancelled", "reason": "", "timings": {}, "metadata": {}},
    ),
]


@pytest.mark.parametrize(
    ("event", "wire"), EVENTS, ids=[f"{e.type}{n}" for n, (e, _) in enumerate(EVENTS)]
)
def test_each_event_on_the_wire_and_back(event: Event, wire: dict[str, Any]) -> None:
    data = encode(event)
    assert json.loads(data) == {"id": "a", "seq": 1, "attempt": 1, **wire}
    back: AnyEvent = decode_event(data)
    assert back == event
    assert back.type == wire["type"]
    assert back.terminal == (wire["type"] in ("completed", "failed", "cancelled"))


def test_unknown_fields_are_passed_over() -> None:
    data = b'{"type":"token","id":"a","seq":2,"attempt":1,"text":"x","zzz":{"y":[]}}'
    assert decode_event(data) == Token("a", 2, 1, "x")


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"later","id":"a","seq":2,"attempt":1,"text":7}',
        b'{"type":"token","id":"a","seq":2,"attempt":1}',
        b'{"type":"resumed","id":"a","seq":2,"attempt":1,"mode":"other"}',
    ],
)
def test_events_of_a_later_version_keep_their_number(data: bytes) -> None:
    event = decode_event(data)
    assert isinstance(event, UnknownEvent)
    assert (event.id, event.seq, event.attempt) == ("a", 2, 1)
    assert not event.terminal


@pytest.mark.parametrize("data", [b"", b"x", b"{}", b'{"type":"token"}', b"[]"])
def test_what_is_no_event_raises(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_event(data)


def test_an_error_says_on_the_wire_what_it_knows() -> None:
    info = ErrorInfo.of(BackendRejected("no", status=404))
    assert json.loads(msgspec.json.encode(info)) == {
        "code": "backend_rejected",
        "message": "no",
        "retryable": False,
        "status": 404,
    }


def test_control_messages() -> None:
    data = b'{"action":"cancel","reason":"barge-in","before":7,"zzz":1}'
    assert decode_control(data) == Control("cancel", "barge-in", 7)
    assert decode_control(b'{"action":"cancel"}') == Control("cancel")
    assert decode_control(b'{"reason":"x"}') is None
    assert json.loads(encode(Control("cancel"))) == {"action": "cancel"}
