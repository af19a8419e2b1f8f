"""The wire contract: events written and read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import BackendRejected, RateLimited
from bridge.events import (
    AnyEvent,
    Cancelled,
    Completed,
    Control,
    ErrorInfo,
    Event,
    Failed,
    Handover,
    JobIdentity,
    Reasoning,
    Resumed,
    SpeechEnd,
    Started,
    Timings,
    Token,
    ToolCall,
    ToolCallDelta,
    UnknownEvent,
    decode_control,
    decode_event,
    decode_speech,
    encode,
    event_in,
    speech_in,
)

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
            job_time="1700000000123456789",
            deadline_ms=30_000,
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
            "job_time": "1700000000123456789",
            "deadline_ms": 30_000,
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


NO_EVENTS = [
    b"",
    b"x",
    b"{}",
    b"[]",
    b"null",
    b"[" * 100_000,
    b'{"type":"token"}',
    b'{"type":"token","id":"\xff","seq":1,"attempt":1,"text":"x"}',
    b'{"type":"token","id":"a","seq":1,"attempt":1,"text":"\\ud83d"}',
    b'{"type":"token","id":"a","seq":0,"attempt":1,"text":"x"}',
    b'{"type":"token","id":"a","seq":1,"attempt":0,"text":"x"}',
    b'{"type":"token","id":"a","seq":-1,"attempt":1,"text":"x"}',
    b'{"type":"token","id":"a","seq":9007199254740993,"attempt":1,"text":"x"}',
    b'{"type":"token","id":"a","seq":1,"attempt":1e30,"text":"x"}',
    b'{"type":"token","id":"a","seq":true,"attempt":1,"text":"x"}',
    b'{"type":"later","id":"a","seq":0,"attempt":1}',
    b'{"type":"later","id":7,"seq":1,"attempt":1}',
    b'{"type":"later","id":"a","seq":1,"attempt":1,"x":' + b"[" * 100_000,
]


@pytest.mark.parametrize("decode", [decode_event, decode_speech])
@pytest.mark.parametrize("data", NO_EVENTS, ids=lambda data: repr(data[:60]))
def test_what_is_no_event_raises_one_error(
    decode: Callable[[bytes], object], data: bytes
) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_event_or_one_error(data: bytes) -> None:
    for wrapped in (data, b'{"type":"token","id":"' + data + b'"}'):
        with contextlib.suppress(msgspec.DecodeError):
            decode_event(wrapped)


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


@pytest.mark.parametrize(
    ("time", "ns"),
    [
        ("1700000000123456789", 1_700_000_000_123_456_789),
        ("9223372036854775807", 2**63 - 1),
        ("18446744073709551615", 2**64 - 1),
        ("", 0),  # before there was one
        ("184467440737095516150", 0),
        ("-1", 0),
        ("1.7e18", 0),
        ("1_700", 0),
        (" 17", 0),
        ("١٧", 0),
    ],
)
def test_which_job_a_log_was_begun_for(time: str, ns: int) -> None:
    started = Started(
        "a", 1, 1, v=1, model="m", created=5, queue_ms=0, job=9, job_time=time,
        metadata={},
    )  # fmt: skip
    event = decode_event(encode(started))
    assert isinstance(event, Started)
    assert event.identity == JobIdentity(9, ns)


def test_a_log_of_a_bridge_before_the_jobs_time_can_be_read() -> None:
    event = decode_event(
        b'{"type":"started","id":"a","seq":1,"attempt":1,"v":1,"model":"m",'
        b'"created":5,"queue_ms":0,"job":9,"metadata":{}}'
    )
    assert isinstance(event, Started)
    assert (event.identity, event.deadline_ms) == (JobIdentity(9, 0), 0)


NO_EVENTS = [
    b"",
    b"garbage",
    b"\xff",
    b"7",
    b"[]",
    b"[" * 100_000,
    b'{"type":"token","id":"one","seq":1}',
    b'{"type":"token","id":"two","seq":1,"attempt":1,"text":"x"}',
    b'{"type":"token","id":"one","seq":0,"attempt":1,"text":"x"}',
    b'{"type":"token","id":"one","seq":1,"attempt":0,"text":"x"}',
    b'{"type":"token","id":"one","seq":-1,"attempt":1,"text":"x"}',
    b'{"type":"token","id":"one","seq":1e99,"attempt":1,"text":"x"}',
    b'{"type":"resumed","id":"one","seq":1,"attempt":1,"after":0,"mode":"later"}',
    b'{"type":"cancelled","id":"one","seq":1,"attempt":1}',
    b'{"type":"failed","id":"one","seq":1,"attempt":1}',
]


@pytest.mark.parametrize("data", NO_EVENTS)
def test_what_is_no_event_of_a_request(data: bytes) -> None:
    assert event_in("one", data) is None
    assert speech_in("one", data) is None


def test_what_is_an_event_of_a_request() -> None:
    token = Token("one", 1, 1, "x")
    assert event_in("one", encode(token)) == token
    assert event_in("two", encode(token)) is None
    later = b'{"type":"later","id":"one","seq":2,"attempt":1,"x":[]}'
    assert event_in("one", later) == UnknownEvent("later", "one", 2, 1)
    end = SpeechEnd("one", 3, 1)
    assert speech_in("one", encode(end)) == end
    assert speech_in("two", encode(end)) is None
