"""The voice of one request: segments numbered, resumed, ended; without NATS."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.bus.api import StoredMessage
from bridge.events import Started, Token
from bridge.generation.voice import Spoken, Voice
from bridge.history import History
from bridge.speech import SpeechOptions, speech_options

Json = dict[str, Any]

TEXT = (
    "The harbour wakes before the town does. Dr. Amsel counts 12.5 crates of mackerel, "
    "writes the number down, and counts again. “Come in,” said Ines, “and mind the "
    "step.” Nobody hurried… and yet everything was done by noon. That is all."
)


class Stage:
    """A voice, a clock, and the speech log that the voice writes."""

    def __init__(
        self,
        *,
        spoken: Spoken | None = None,
        attempt: int = 1,
        options: SpeechOptions | None = None,
    ) -> None:
        self.now = 100.0
        self.log: list[bytes] = []
        self.seq = 1
        self.voice = Voice(
            options or speech_options(True),
            self.log.append,
            "one",
            attempt,
            spoken or Spoken(),
            lambda: self.now,
        )

    def hear(self, *deltas: str) -> None:
        for delta in deltas:
            self.seq += 1
            self.voice.hear(self.seq, delta)

    @property
    def events(self) -> list[Json]:
        return [json.loads(data) for data in self.log]

    @property
    def segments(self) -> list[str]:
        return [e["text"] for e in self.events if e["type"] == "segment"]

    def stored(self) -> Spoken:
        """What another worker reads of the speech log."""
        spoken = Spoken()
        for seq, data in enumerate(self.log, 1):
            spoken.receive(StoredMessage(seq, "speech", data))
        return spoken


def pieces(text: str, size: int = 4) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def history(deltas: list[str]) -> History:
    """A log with ``started`` and these tokens."""
    found = History()
    started = Started(
        "one", 1, 1, v=1, model="m", created=0, queue_ms=0, job=1, metadata={}
    )
    found.receive(started, 1)
    for seq, delta in enumerate(deltas, 2):
        found.receive(Token("one", seq, 1, delta), seq)
    return found


def test_segments_are_numbered_from_one_and_name_their_tokens() -> None:
    stage = Stage()
    stage.hear(*pieces(TEXT))
    stage.voice.end()
    events = stage.events
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    assert [e["type"] for e in events[:-1]] == ["segment"] * (len(events) - 1)
    assert events[-1] == {"type": "end", "id": "one", "seq": len(events), "attempt": 1}
    for segment in events[:-1]:
        # Tokens have seq 2, 3, …, of four characters each.
        assert segment["first"] == 2 + segment["start"] // 4
        assert segment["last"] == 2 + (segment["end"] - 1) // 4
        assert segment["text"] == TEXT[segment["start"] : segment["end"]]
    assert "".join("".join(stage.segments).split()) == "".join(TEXT.split())


@pytest.mark.parametrize(
    ("how", "event"),
    [
        ("cancelled", {"type": "cancelled", "reason": "x"}),
        ("failed", {"type": "failed", "code": "x"}),
    ],
)
def test_another_end_publishes_nothing_that_was_held(how: str, event: Json) -> None:
    stage = Stage()
    stage.hear("A clause that is not over yet and")
    getattr(stage.voice, how)("x")
    assert stage.events == [{"id": "one", "seq": 1, "attempt": 1, **event}]


def test_a_pause_lets_go_what_is_speakable_once() -> None:
    stage = Stage(options=speech_options({"flush_after_ms": 500}))
    stage.hear("This is something that can be said")
    stage.voice.sweep(stage.now)
    stage.now += 0.4
    stage.voice.sweep(stage.now)
    assert stage.segments == []
    stage.now += 0.2
    stage.voice.sweep(stage.now)
    said = stage.segments
    assert len(said) == 1
    stage.now += 10
    stage.voice.sweep(stage.now)
    assert stage.segments == said


def test_a_token_begins_the_pause_anew() -> None:
    stage = Stage(options=speech_options({"flush_after_ms": 500}))
    for word in ("This ", "is ", "something ", "that ", "can ", "be ", "said"):
        stage.hear(word)
        stage.voice.sweep(stage.now)
        stage.now += 0.4
        stage.voice.sweep(stage.now)
    assert stage.segments == []


def test_a_takeover_goes_on_behind_the_last_segment_that_is_stored() -> None:
    whole = Stage()
    whole.hear(*pieces(TEXT))
    whole.voice.end()
    deltas = pieces(TEXT)
    for told in range(1, len(deltas)):
        first = Stage()
        first.hear(*deltas[:told])
        second = Stage(spoken=first.stored(), attempt=3)
        said = len(first.log)
        second.voice.resume("continue", "takeover")
        assert second.events[0] == {
            "type": "resumed",
            "id": "one",
            "seq": said + 1,
            "attempt": 3,
            "after": said,
            "mode": "continue",
            "reason": "takeover",
        }
        second.voice.replay(history(deltas[:told]))
        second.seq = told + 1
        second.hear(*deltas[told:])
        second.voice.end()
        assert first.segments + second.segments == whole.segments


@settings(deadline=None)
@given(st.integers(0, len(TEXT)), st.integers(1, 9), st.integers(1, 9))
def test_nothing_is_said_twice_and_nothing_is_left_out(
    cut: int, before: int, after: int
) -> None:
    first = Stage()
    deltas = pieces(TEXT[:cut], before)
    first.hear(*deltas)
    first.now += 60
    first.voice.sweep(first.now)
    first.now += 60
    first.voice.sweep(first.now)  # whatever a pause lets go
    second = Stage(spoken=first.stored(), attempt=2)
    second.voice.resume("continue", "handover")
    second.voice.replay(history(deltas))
    second.seq = len(deltas) + 2
    second.hear(*pieces(TEXT[cut:], after))
    second.voice.end()
    segments = [
        event for event in first.events + second.events if event["type"] == "segment"
    ]
    at = 0
    for segment in segments:
        assert at <= segment["start"] < segment["end"]
        assert not TEXT[at : segment["start"]].strip(" \n“”….,!")
        at = segment["end"]
    assert not TEXT[at:].strip(" \n“”….,!")


def test_a_restart_says_it_all_again() -> None:
    stage = Stage()
    stage.hear(*pieces(TEXT[:120]))
    said = len(stage.log)
    assert said
    stage.voice.resume("restart", "backend_failure")
    stage.hear(*pieces(TEXT))
    stage.voice.end()
    events = stage.events
    assert events[said]["mode"] == "restart"
    assert events[said + 1]["start"] == 0
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))


def test_what_a_log_says_so_far() -> None:
    stage = Stage()
    stage.hear(*pieces(TEXT))
    spoken = stage.stored()
    assert spoken.seq == len(stage.log)
    assert spoken.end == stage.events[-1]["end"]
    stage.voice.resume("continue", "backend_failure")
    assert stage.stored().end == spoken.end
    stage.voice.resume("restart", "backend_failure")
    assert (stage.stored().seq, stage.stored().end) == (spoken.seq + 2, 0)


def test_a_resumption_in_the_log_of_a_sentence_that_was_held() -> None:
    """A sentence that a dead worker had heard, and had not published, is not lost."""
    deltas = ["One sentence stands here. ", "And another"]
    first = Stage()
    first.hear(*deltas)
    assert len(first.segments) <= 1
    second = Stage(spoken=first.stored(), attempt=2)
    second.voice.resume("continue", "takeover")
    second.voice.replay(history(deltas))
    second.voice.end()
    said = " ".join(first.segments + second.segments)
    assert said == "One sentence stands here. And another"


def test_repr_shows_where_it_is() -> None:
    stage = Stage()
    stage.hear("Hello there.")
    assert repr(stage.voice).startswith("<Voice one ")
