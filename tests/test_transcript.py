"""Deltas to numbered events, split where they must be, and the whole of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import transcript as transcript_module
from bridge.dialects import (
    Delta,
    FullText,
    ReasoningDelta,
    TextDelta,
    ToolCallPart,
)
from bridge.errors import BackendProtocolError, BackendUnavailable, LimitExceeded
from bridge.events import (
    Skipped,
    Timings,
    Token,
    decode_event,
    encode,
)
from bridge.sequence import Numbering
from bridge.transcript import Transcript, encode_terminal

END: dict[str, Any] = {"timings": Timings(), "metadata": {}}


class Sink:
    """What a transcript publishes."""

    def __init__(
        self, *, max_payload: int = 1 << 20, max_text_bytes: int = 1 << 22, seq: int = 0
    ) -> None:
        self.payloads: list[bytes] = []
        self.transcript = Transcript(
            Numbering("one", 2, seq),
            self.payloads.append,
            max_payload=max_payload,
            max_text_bytes=max_text_bytes,
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.payloads]

    def completed(self) -> dict[str, Any]:
        event = self.transcript.completed(
            finish_reason="stop", usage={}, backend="b", **END
        )
        decoded: dict[str, Any] = json.loads(encode(event))
        return decoded


deltas = st.one_of(
    st.builds(TextDelta, st.text(min_size=1)),
    st.builds(ReasoningDelta, st.text(min_size=1)),
    st.builds(
        ToolCallPart,
        index=st.integers(0, 3),
        call_id=st.none() | st.text(max_size=8),
        name=st.none() | st.text(max_size=8),
        arguments=st.none() | st.text(max_size=20),
    ),
)


@settings(deadline=None)
@given(st.lists(st.lists(deltas, max_size=5), max_size=10), st.integers(0, 1000))
def test_each_delta_is_one_event_and_the_end_has_them_all(
    reads: list[list[Delta]], before: int
) -> None:
    sink = Sink(seq=before)
    for read in reads:
        sink.transcript.write(read)
    events = sink.events
    flat = [delta for read in reads for delta in read]
    assert [event["seq"] for event in events] == [
        before + n for n in range(1, len(flat) + 1)
    ]
    assert {(event["id"], event["attempt"]) for event in events} <= {("one", 2)}
    for payload in sink.payloads:
        assert encode(decode_event(payload)) == payload  # type: ignore[arg-type]
    end = sink.completed()
    assert end["seq"] == before + len(flat) + 1
    assert end["text"] == "".join(d.text for d in flat if isinstance(d, TextDelta))
    reasoning = "".join(d.text for d in flat if isinstance(d, ReasoningDelta))
    assert end.get("reasoning", "") == reasoning
    for call in end.get("tool_calls", []):
        parts = [
            d for d in flat if isinstance(d, ToolCallPart) and d.index == call["index"]
        ]
        assert call.get("arguments", "") == "".join(d.arguments or "" for d in parts)
        names = [d.name for d in parts if d.name]
        assert call.get("name") == (names[-1] if names else None)
    assert sink.transcript.deltas == len(flat)


kinds = st.sampled_from(["text", "reasoning", "tool"])
awkward = st.text(st.sampled_from('aé€😀"\\\n\0\x1f '), min_size=1)


@settings(max_examples=60, deadline=None)
@given(kinds, awkward, st.integers(1, 400))
def test_what_exceeds_a_message_is_split_between_characters(
    kind: str, piece: str, times: int
) -> None:
    text = piece * times
    sink = Sink(max_payload=1600)
    delta: Delta
    if kind == "text":
        delta = TextDelta(text)
    elif kind == "reasoning":
        delta = ReasoningDelta(text)
    else:
        delta = ToolCallPart(index=0, call_id="c", name="f", arguments=text)
    sink.transcript.write([delta])
    assert all(len(payload) <= 1600 for payload in sink.payloads)
    events = sink.events
    key = "arguments" if kind == "tool" else "text"
    assert "".join(event[key] for event in events) == text
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    if kind == "tool":
        assert [event.get("name") for event in events[1:]] == [None] * (len(events) - 1)
    end = sink.completed()
    if kind == "text":
        assert end["text"] == text


def test_the_limit_of_the_answer_counts_all_its_parts() -> None:
    sink = Sink(max_text_bytes=30)
    sink.transcript.write([TextDelta("x" * 10), ReasoningDelta("y" * 10)])
    sink.transcript.write([ToolCallPart(0, arguments="z" * 10)])
    with pytest.raises(BackendProtocolError, match="30"):
        sink.transcript.write([TextDelta("!")])


def test_a_restart_voids_and_a_continuation_does_not() -> None:
    sink = Sink()
    sink.transcript.write([TextDelta("a"), ReasoningDelta("r")])
    before = sink.transcript.continuable
    sink.transcript.resume("restart", "backend_failure")
    assert (before, sink.transcript.continuable) == (False, True)
    assert (sink.transcript.text, sink.transcript.text_deltas) == ("", 0)
    sink.transcript.write([TextDelta("b"), TextDelta("c")])
    sink.transcript.resume("continue", "backend_failure")
    assert (sink.transcript.text, sink.transcript.text_deltas) == ("bc", 2)
    resumed = [event for event in sink.events if event["type"] == "resumed"]
    assert [(e["seq"], e["after"], e["mode"]) for e in resumed] == [
        (3, 2, "restart"),
        (6, 5, "continue"),
    ]
    end = sink.completed()
    assert end["text"] == "bc"
    assert "reasoning" not in end


def test_a_restart_frees_the_limit() -> None:
    sink = Sink(max_text_bytes=10)
    for _ in range(5):
        sink.transcript.write([TextDelta("x" * 8)])
        sink.transcript.resume("restart", "backend_failure")


def test_what_an_earlier_attempt_left_is_part_of_the_answer() -> None:
    sink = Sink(seq=7, max_text_bytes=10)
    sink.transcript.go_on("Hel", 2, 0)
    sink.transcript.write([TextDelta("lo")])
    assert sink.events[0]["seq"] == 8
    assert sink.transcript.text_deltas == 3
    assert sink.completed()["text"] == "Hello"
    with pytest.raises(BackendProtocolError):
        sink.transcript.write([TextDelta("x" * 6)])


def test_the_ends_carry_the_partial_text() -> None:
    sink = Sink()
    sink.transcript.write([TextDelta("par")])
    failed = sink.transcript.failed(
        BackendUnavailable("away", status=503), usage=None, backend=None, **END
    )
    assert (failed.seq, failed.text, failed.error.status) == (2, "par", 503)
    cancelled = sink.transcript.cancelled("barge-in", **END)
    assert (cancelled.seq, cancelled.text) == (3, "par")
    assert sink.transcript.handover().seq == 4


def test_a_reason_is_one_short_line() -> None:
    event = Sink().transcript.cancelled("a\nb " + "x" * 100_000, **END)
    assert event.reason.startswith("a b xxx")
    assert len(event.reason) <= 500


def test_a_tool_calls_id_and_name_are_never_cut() -> None:
    sink = Sink()
    id, name = "c" * 9999, "n" * 9999
    sink.transcript.write([ToolCallPart(0, id, name, "{}"), ToolCallPart(1, "d", "m")])
    parts = [
        (event.get("call_id"), event.get("name"), event.get("arguments"))
        for event in sink.events
    ]
    assert parts == [(id, name, None), (None, None, "{}"), ("d", "m", None)]
    with pytest.raises(LimitExceeded, match="more than one event"):
        sink.transcript.write([ToolCallPart(2, "c", "n" * 2_000_000)])


def test_unread_records_are_events_and_a_restart_voids_them() -> None:
    sink = Sink()
    sink.transcript.skip(2)
    assert decode_event(sink.payloads[0]) == Skipped("one", 1, 2, count=2)
    failed = sink.transcript.failed(
        BackendUnavailable("away"), usage=None, backend=None, **END
    )
    assert failed.skipped_records == 2
    sink.transcript.resume("restart", "backend_failure")
    assert sink.transcript.cancelled("r", **END).skipped_records == 0


@pytest.mark.parametrize(
    ("said", "full", "text"),
    [
        (["He", "llo"], "Hello", "Hello"),
        (["He", "llo"], "Hello you", "Hello you"),
        (["He", "llo"], "llo", "Hello"),
        ([" He", "llo "], "Hello", " Hello "),
        ([" He", "llo"], "Hello you", " Hello you"),
        (["He"], "Bye", "HeBye"),
        ([], "Hello", "Hello"),
        (["It "], "safe", "It safe"),
        (["x" * 5000, "y"], "y", "x" * 5000 + "y"),
    ],
)
def test_what_was_said_is_not_said_again(said: list[str], full: str, text: str) -> None:
    sink = Sink()
    sink.transcript.go_on("Before. ", 1, 0)
    sink.transcript.begin_answer()
    sink.transcript.write([*map(TextDelta, said), FullText(full)])
    sink.transcript.write([TextDelta("!")])
    assert sink.transcript.text == f"Before. {text}!"
    events = [decode_event(payload) for payload in sink.payloads]
    assert "".join(e.text for e in events if isinstance(e, Token)) == f"{text}!"
    assert sink.transcript.skipped == 0


def test_a_repetition_that_differs_is_told() -> None:
    sink = Sink()
    sink.transcript.write(list(map(TextDelta, ["It ", "safe"])))
    sink.transcript.write([FullText("It is safe.")])
    assert (sink.transcript.text, sink.transcript.skipped) == ("It safe", 1)


@pytest.mark.parametrize(
    ("said", "full", "text"),
    [
        (["He", "llo"], "Hello", "Hello"),
        (["ha ", "ha "], "ha ", "ha ha ha "),
        (["ha "], "ha ", "ha ha "),
        (["He", "llo"], "Hello you", "HelloHello you"),
        ([" He", "llo "], "Hello", " Hello "),
    ],
)
def test_what_may_be_a_repetition_is_one_only_as_a_whole(
    said: list[str], full: str, text: str
) -> None:
    sink = Sink()
    sink.transcript.write([*map(TextDelta, said), FullText(full, certain=False)])
    assert sink.transcript.text == text


@pytest.mark.parametrize("max_payload", [100, 5000, 10_000_000])
def test_a_terminal_event_leaves_its_text_out_where_it_does_not_fit(
    max_payload: int,
) -> None:
    sink = Sink()
    parts: list[Delta] = [
        TextDelta("t" * 4000),
        ReasoningDelta("r" * 4000),
        ToolCallPart(0, name="f", arguments="a" * 4000),
    ]
    sink.transcript.write(parts)
    completed = sink.transcript.completed(
        finish_reason="stop", usage={"a": 1}, backend="b", **END
    )
    failed = sink.transcript.failed(
        BackendUnavailable("x"), usage=None, backend=None, **END
    )
    cancelled = sink.transcript.cancelled("r", **END)
    for event in (completed, failed, cancelled):
        whole = encode(event)
        payload = encode_terminal(event, max_payload)
        decoded = json.loads(payload)
        if len(whole) <= max_payload:
            assert payload == whole
            assert "text_omitted" not in decoded
        else:
            assert decoded["text_omitted"] is True
            assert not {"text", "reasoning", "tool_calls"} & set(decoded)
            assert len(payload) < 400
        assert decoded["type"] == event.type


@pytest.mark.parametrize("kind", ["completed", "failed", "cancelled"])
def test_what_cannot_fit_is_not_encoded_to_find_that_out(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = 0

    def counted(event: Any) -> bytes:
        nonlocal longest
        longest = max(longest, len(event.text or ""))
        return encode(event)

    monkeypatch.setattr(transcript_module, "encode", counted)
    sink = Sink()
    sink.transcript.write([TextDelta("\x01" * 50_001)])
    if kind == "completed":
        event: Any = sink.transcript.completed(
            finish_reason="stop", usage={}, backend="b", **END
        )
    elif kind == "failed":
        event = sink.transcript.failed(
            BackendUnavailable("x"), usage=None, backend=None, **END
        )
    else:
        event = sink.transcript.cancelled("r", **END)
    assert json.loads(encode_terminal(event, 50_000))["text_omitted"] is True
    assert longest == 0


def test_it_tells_who_listens_about_tokens_only() -> None:
    sink = Sink()
    told: list[tuple[int, str]] = []
    sink.transcript.on_token = lambda seq, text: told.append((seq, text))
    sink.transcript.write([ReasoningDelta("r"), TextDelta("a"), TextDelta("b")])
    assert told == [(2, "a"), (3, "b")]
