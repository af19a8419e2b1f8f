"""The example that speaks: sound is there, in order, and stops after the cancel."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import struct
import subprocess
import sys
import wave
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bridge.simulator import Behaviour, RequestRecord, Simulator, text_for
from examples.voice.audio import RATE, Clip, Loudspeaker, write_wav
from examples.voice.conversation import Call, Settings, Turn
from examples.voice.timeline import Timeline
from tests.servers import NatsServer, running_service

ROOT = Path(__file__).parents[2]

speaks = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)

PACE = Behaviour(first_token_ms=50, tokens_per_second=40)

SCRIPT = (
    Turn("Tell me more.", listens_s=1.0),
    Turn("Stop.", max_tokens=8),
)


def samples(path: Path) -> list[int]:
    with wave.open(str(path)) as file:
        assert file.getparams()[:3] == (1, 2, RATE)
        data = file.readframes(file.getnframes())
    return list(struct.unpack(f"<{len(data) // 2}h", data))


def loudness(sound: list[int], from_s: float, to_s: float) -> float:
    """The mean amplitude of a part of the sound."""
    part = sound[int(from_s * RATE) : int(to_s * RATE)]
    return sum(map(abs, part)) / max(1, len(part))


async def call_of(
    nats_url: str, prefix: str, script: tuple[Turn, ...]
) -> tuple[Call, list[RequestRecord]]:
    async with (
        Simulator(behaviour=PACE) as simulator,
        running_service(nats_url, simulator.url, prefix=prefix),
    ):
        call = Call(Settings(nats_url, prefix=prefix))
        await call.run(script)
        await simulator.wait_idle()
        return call, list(simulator.requests)


@speaks
async def test_a_call_with_an_interruption(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    call, (first, second) = await call_of(nats_server.url, prefix, SCRIPT)
    timeline = call.timeline
    cancel, silence = timeline.of("cancel", 1), timeline.of("silence", 1)
    again = timeline.of("first_audio", 2)
    assert cancel is not None
    assert silence is not None
    assert again is not None
    cut_at, again_at = silence / 1000, again / 1000

    # In order: what was played is what came in segments, from the first on.
    clips = call.loudspeaker.played
    before = [clip for clip in clips if clip.at < cut_at]
    after = [clip for clip in clips if clip.at >= cut_at]
    of_first = call.speaker.segments[f"{call.session}-1"]
    of_second = call.speaker.segments[f"{call.session}-2"]
    assert [clip.label for clip in before] == [s.text for s in of_first][: len(before)]
    assert [clip.label for clip in after] == [s.text for s in of_second]
    for earlier, later in itertools.pairwise(clips):
        assert earlier.end <= later.at + 0.001

    # It is there, and it stops: the assistant's side of the line.
    write_wav(tmp_path / "assistant.wav", clips)
    sound = samples(tmp_path / "assistant.wav")
    for clip in clips:
        if clip.seconds > 0.3:
            assert loudness(sound, clip.at, clip.end) > 100
    assert before[-1].end <= cut_at + 0.001
    assert loudness(sound, cut_at + 0.001, again_at - 0.001) == 0
    assert silence - cancel < 1000
    # The model was stopped, too, in the middle of what it had to say.
    assert first.outcome == "client_closed"
    assert second.outcome == "completed"

    # And it is told what was heard, not what it wrote.
    heard = call.history[1]
    assert first.body is not None
    assert second.body is not None
    assert second.body["messages"] == call.history[:3]
    assert heard["role"] == "assistant"
    assert text_for({**first.body, "max_tokens": 200}).startswith(heard["content"])
    assert heard["content"].endswith(before[-1].label)
    assert call.history[3]["content"] == text_for(second.body)


@speaks
async def test_an_interruption_after_the_model_was_done(
    nats_server: NatsServer, prefix: str
) -> None:
    """Nothing is left to cancel, but the voice is still to be cut off."""
    script = (Turn("Hm?", listens_s=0.8, max_tokens=30), Turn("No.", max_tokens=4))
    call, (first, _) = await call_of(nats_server.url, prefix, script)
    assert first.outcome == "completed"
    assert call.timeline.of("cancelled", 1) is None
    assert call.timeline.of("silence", 1) is not None
    assert first.body is not None
    text = text_for(first.body)
    assert text.startswith(call.history[1]["content"])


@speaks
def test_it_runs_by_itself(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "examples.voice", "--out", str(tmp_path)]
    done = subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "timeline.json").read_text())
    events = [moment["event"] for moment in found["moments"]]
    marks = [event for event in events if event not in ("token", "segment")]
    answer = ["job", "first_token", "first_segment", "first_audio"]
    assert marks == [*answer, "cancel", "cancelled", "silence", *answer, "end"]
    assert max(sound["to_ms"] for sound in found["sounds"]) < 40_000
    sound = samples(tmp_path / "call.wav")
    assert len(sound) / RATE > 4
    assert loudness(sound, 0, len(sound) / RATE) > 100
    ElementTree.parse(tmp_path / "timeline.svg")


async def test_a_loudspeaker_is_silenced_in_the_middle(tmp_path: Path) -> None:
    started = asyncio.Event()
    silent = asyncio.Event()
    timeline = Timeline()
    loudspeaker = Loudspeaker(timeline.clock, started.set, silent.set)
    playing = asyncio.create_task(loudspeaker.run())
    second = struct.pack("<h", 1000) * RATE
    loudspeaker.play(second * 60, "one")
    loudspeaker.play(second, "two")
    await started.wait()
    loudspeaker.silence()
    await silent.wait()
    await loudspeaker.wait_idle()
    (clip,) = loudspeaker.played
    assert clip.seconds < 30
    loudspeaker.play(second[: RATE // 5], "three")
    await loudspeaker.wait_idle()
    assert [clip.label for clip in loudspeaker.played] == ["one", "three"]
    playing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await playing
    write_wav(tmp_path / "some.wav", loudspeaker.played)
    assert set(samples(tmp_path / "some.wav")) <= {0, 1000}


def test_voices_are_mixed_and_limited(tmp_path: Path) -> None:
    loud = struct.pack("<h", 30_000) * RATE
    clips = [Clip(0.0, loud, "caller", "a"), Clip(0.5, loud, "assistant", "b")]
    write_wav(tmp_path / "both.wav", clips)
    sound = samples(tmp_path / "both.wav")
    assert (sound[0], sound[int(0.7 * RATE)], sound[int(1.2 * RATE)]) == (
        30_000,
        32_767,
        30_000,
    )
