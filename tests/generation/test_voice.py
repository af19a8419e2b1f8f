"""The voice of one request: segments numbered, resumed, ended; without NATS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.bus.api import StoredMessage
from bridge.events import Started, Token
from bridge.generation.voice import (
    MAX_BACKLOG_CHARS,
    MAX_TURN_CHARS,
    Spoken,
    Voice,
)
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
        self.owned = True
        self.log: list[bytes] = []
        self.seq = 1
        self.voice = Voice(
            options or speech_options(True),
            self.log.append,
            "one",
            attempt,
            spoken or Spoken(),
            lambda: self.now,
            lambda: self.owned,
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


# What one turn of the loop cannot take


class Turns(Stage):
    """A stage that notes how many characters the segmenter took in each turn."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.turns: list[int] = []
        self._took = 0
        self._watch()

    def _watch(self) -> None:
        receive = self.voice._segmenter.receive

        def counted(seq: int, text: str) -> Any:
            self._took += len(text)
            return receive(seq, text)

        self.voice._segmenter.receive = counted  # type: ignore[method-assign]

    async def play(self, until: Callable[[], bool]) -> None:
        """Turn the loop until ``until``."""
        while not until():
            self.turns.append(self._took)
            self._took = 0
            await asyncio.sleep(0)
        self.turns.append(self._took)


LONG = " ".join([TEXT] * 80)


@pytest.mark.parametrize("size", [1, 4, 1000, 5000, len(LONG)])
async def test_much_at_once_is_cut_a_bit_each_turn_to_the_same_segments(
    size: int,
) -> None:
    whole = Stage()
    for at in range(0, len(LONG), 500):
        whole.hear(LONG[at : at + 500])
        await whole.voice.drained()
    whole.voice.end()
    stage = Turns()
    stage.hear(*pieces(LONG, size))
    assert stage.voice.busy
    await stage.play(lambda: not stage.voice.busy)
    await stage.voice.drained()
    stage.voice.end()
    assert stage.segments == whole.segments
    assert max(stage.turns) <= MAX_TURN_CHARS
    assert sum(stage.turns) == len(LONG)
    for event in stage.events[:-1]:
        assert event["first"] == 2 + event["start"] // size
        assert event["last"] == 2 + (event["end"] - 1) // size


async def test_others_run_between_two_turns() -> None:
    stage = Stage()
    stage.hear("x " * 200_000)
    beats = 0
    while stage.voice.busy:
        beats += 1
        await asyncio.sleep(0)
    assert beats >= 400_000 // MAX_TURN_CHARS


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_another_end_drops_what_is_put_off(how: str) -> None:
    stage = Stage()
    stage.hear(LONG)
    await asyncio.sleep(0)
    said = len(stage.segments)
    getattr(stage.voice, how)("x")
    assert stage.events[-1]["type"] == how
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(stage.events) == said + 1
    assert not stage.voice.busy


async def test_nothing_put_off_is_published_without_the_lease() -> None:
    stage = Stage()
    stage.hear(LONG)
    stage.owned = False
    await asyncio.wait_for(stage.voice.drained(), 10)
    assert stage.events == []


async def test_a_closed_voice_says_nothing_more() -> None:
    stage = Stage()
    stage.hear(LONG)
    stage.voice.close()
    stage.voice.close()
    await asyncio.sleep(0)
    assert stage.events == []


async def test_what_publishing_raises_later_reaches_who_waits_and_who_goes_on() -> None:
    stage = Stage()

    def refuse(payload: bytes) -> None:
        raise ValueError("closed")

    stage.voice._append = refuse
    stage.hear(LONG)
    with pytest.raises(ValueError, match="closed"):
        await asyncio.wait_for(stage.voice.drained(), 10)
    with pytest.raises(ValueError, match="closed"):
        stage.hear("more")
    assert stage.voice.busy


async def test_a_resumption_keeps_its_place_and_a_restart_voids_what_waits() -> None:
    stage = Stage()
    stage.hear(LONG)
    stage.voice.resume("continue", "backend_failure")
    stage.hear(" And then it went on for a while. Really.")
    await stage.voice.drained()
    stage.voice.end()
    kinds = [event["type"] for event in stage.events]
    at = kinds.index("resumed")
    assert stage.events[at]["after"] == at
    assert stage.events[at - 1]["end"] > len(LONG) - 300
    assert "And then it went on for a while." in stage.segments

    stage = Stage()
    stage.hear(LONG)
    stage.voice.resume("restart", "backend_failure")
    assert stage.events[-1]["mode"] == "restart"
    assert not stage.voice.busy
    stage.hear("Now it is another text. Yes.")
    await stage.voice.drained()
    stage.voice.end()
    assert stage.segments == ["Now it is another text.", "Yes."]


async def test_a_long_replay_takes_many_turns_and_new_tokens_wait_behind_it() -> None:
    text = "x" * 59_000 + ". Then it was over. And more"
    said = Spoken()
    said.seq, said.end = 7, 59_001
    stage = Turns(spoken=said, attempt=2)
    stage.voice.replay(history(list(text)))
    stage.seq = len(text) + 1
    stage.hear(" came. Bye now. Really.")
    await stage.play(lambda: not stage.voice.busy)
    stage.voice.end()
    assert stage.segments == ["Then it was over.", "And more came.", "Bye now. Really."]
    assert max(stage.turns) <= MAX_TURN_CHARS
    assert len(stage.turns) > 59_000 // MAX_TURN_CHARS


async def test_a_large_backlog_asks_for_room_and_says_when_there_is() -> None:
    stage = Stage()
    rooms = []
    stage.voice.on_room = lambda: rooms.append(stage.voice.full)
    stage.hear("word " * (MAX_BACKLOG_CHARS // 5))
    full = [stage.voice.full]
    stage.hear("word " * 100)
    full.append(stage.voice.full)
    await stage.voice.drained()
    assert (full, rooms) == ([False, True], [False])


async def test_a_pause_is_none_while_something_is_put_off() -> None:
    stage = Stage()
    stage.hear(LONG)
    stage.voice.sweep(stage.now)
    stage.now += 60
    stage.voice.sweep(stage.now)
    assert stage.segments == []
    await stage.voice.drained()


def test_repr_shows_where_it_is() -> None:
    stage = Stage()
    stage.hear("Hello there.")
    assert repr(stage.voice).startswith("<Voice one ")
