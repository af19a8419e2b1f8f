"""Text to sound with espeak-ng, and a loudspeaker that can be silenced at once."""

from __future__ import annotations

import asyncio
import shutil
import struct
import wave
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: What espeak-ng produces: mono, 16 bit, little endian.
RATE = 22_050
SAMPLE_BYTES = 2


class NoSpeechEngine(RuntimeError):
    """There is no espeak-ng on this machine."""


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng and its pace in words a minute."""

    name: str = "en-us"
    pace: int = 175

    async def say(self, text: str) -> bytes:
        """The sound of ``text``. Raises `NoSpeechEngine`; may be cancelled."""
        program = shutil.which("espeak-ng")
        if program is None:
            raise NoSpeechEngine("espeak-ng is not installed: apt install espeak-ng")
        process = await asyncio.create_subprocess_exec(
            program, "-v", self.name, "-s", str(self.pace), "--stdin", "--stdout",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            sound, _ = await process.communicate(text.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        # It cannot know the length in advance, so its header has a wrong one.
        _, _, data = sound.partition(b"data")
        return data[4 : len(data) - len(data) % SAMPLE_BYTES]


@dataclass
class Clip:
    """Sound that was played: ``at`` in seconds on the conversation's clock."""

    at: float
    pcm: bytes
    speaker: str
    label: str

    @property
    def seconds(self) -> float:
        """How long it sounds."""
        return len(self.pcm) / SAMPLE_BYTES / RATE

    @property
    def end(self) -> float:
        """When it is over."""
        return self.at + self.seconds


class Loudspeaker:
    """Plays one clip after the other in real time; `silence` ends it in mid-word.

    ``played`` has what was heard, a clip that was cut off as far as it was heard.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        on_start: Callable[[], None],
        on_silence: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._on_start = on_start
        self._on_silence = on_silence
        self._queue: deque[tuple[bytes, str]] = deque()
        self._news = asyncio.Event()
        self._cut = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.played: list[Clip] = []

    def play(self, pcm: bytes, label: str) -> None:
        """Put sound behind what is playing."""
        self._queue.append((pcm, label))
        self._idle.clear()
        self._news.set()

    def silence(self) -> None:
        """Be quiet now: the queue is emptied, the clip that sounds is cut off."""
        self._queue.clear()
        self._cut.set()
        self._news.set()

    async def wait_idle(self) -> None:
        """Wait until everything was played."""
        await self._idle.wait()

    async def run(self) -> None:
        """Play until cancelled."""
        while True:
            while not self._queue:
                self._idle.set()
                self._news.clear()
                await self._news.wait()
            pcm, label = self._queue.popleft()
            await self._sound(Clip(self._clock(), pcm, "assistant", label))

    async def _sound(self, clip: Clip) -> None:
        self._cut.clear()
        self.played.append(clip)
        self._on_start()
        try:
            async with asyncio.timeout(clip.end - self._clock()):
                await self._cut.wait()
        except TimeoutError:
            return
        samples = int((self._clock() - clip.at) * RATE)
        clip.pcm = clip.pcm[: samples * SAMPLE_BYTES]
        self._on_silence()


def write_wav(path: Path, clips: list[Clip]) -> None:
    """Mix the clips, each at its time, into one file."""
    length = max((int(clip.end * RATE) + 1 for clip in clips), default=0)
    mixed = [0] * length
    for clip in clips:
        start = int(clip.at * RATE)
        count = len(clip.pcm) // SAMPLE_BYTES
        for index, sample in enumerate(struct.unpack(f"<{count}h", clip.pcm)):
            mixed[start + index] += sample
    samples = [max(-32768, min(32767, sample)) for sample in mixed]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(RATE)
        file.writeframes(struct.pack(f"<{length}h", *samples))
