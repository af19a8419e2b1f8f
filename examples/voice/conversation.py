"""A phone call from a script: the caller speaks, listens, and interrupts."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import nats
from nats.aio.msg import Msg

from bridge import Client, spoken_message
from examples.voice.audio import Clip, Loudspeaker, Voice
from examples.voice.speaker import Speaker
from examples.voice.timeline import Timeline

CALLER = Voice("en-gb", 190)
ASSISTANT = Voice("en-us", 190)


@dataclass(frozen=True)
class Turn:
    """What the caller says, and how long the answer is listened to.

    ``listens_s`` of ``None`` is to its end; else the caller's next words cut it off.
    """

    says: str
    listens_s: float | None = None
    max_tokens: int = 200


SCRIPT = (
    Turn("Tell me about the town.", listens_s=2.2),
    Turn("Wait. A shorter one, please.", max_tokens=19),
)


@dataclass
class Settings:
    """Where the deployment is, and what is asked for."""

    nats_url: str
    prefix: str = "llm"
    tenant: str = "default"
    lane: str = "default"
    model: str = "simulator"


@dataclass
class Call:
    """One call; `run` plays the script, the rest is what it left."""

    settings: Settings
    timeline: Timeline = field(default_factory=Timeline)
    caller_clips: list[Clip] = field(default_factory=list)
    #: What the model was and is told: the caller's words, and what was heard.
    history: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = f"call-{uuid4().hex[:8]}"
        self.loudspeaker = Loudspeaker(
            self.timeline.clock, self._sounds, self._falls_silent
        )
        self.speaker = Speaker(self.loudspeaker, ASSISTANT, self._told)
        self._turn = 0
        self._id = ""
        self._text = ""
        self._played_before = 0
        self._sounding = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def clips(self) -> list[Clip]:
        """All that was heard, in order."""
        everything = self.caller_clips + self.loudspeaker.played
        return sorted(everything, key=lambda clip: clip.at)

    async def run(self, script: tuple[Turn, ...] = SCRIPT) -> None:
        """Play the script, in real time. Raises `NoSpeechEngine`, `BridgeError`."""
        settings = self.settings
        listener = await nats.connect(settings.nats_url)
        try:
            await self.speaker.listen(listener, settings.prefix, settings.tenant)
            tokens = f"{settings.prefix}.tokens.{settings.tenant}.*"
            await listener.subscribe(tokens, cb=self._received)
            await listener.flush()
            async with Client(
                settings.nats_url,
                tenant=settings.tenant,
                lane=settings.lane,
                model=settings.model,
                prefixes=[settings.prefix],
            ) as client:
                await self._play(client, script)
        finally:
            await listener.close()

    async def _play(self, client: Client, script: tuple[Turn, ...]) -> None:
        # Nobody wants to wait for these in the middle of a call.
        words = [await CALLER.say(turn.says) for turn in script]
        self.timeline.begin()
        tasks = [
            asyncio.create_task(self.loudspeaker.run()),
            asyncio.create_task(self.speaker.run()),
            asyncio.create_task(self._turns(client, script, words)),
        ]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.wait(tasks)
        for task in done:
            task.result()

    # The caller's side

    async def _turns(
        self, client: Client, script: tuple[Turn, ...], words: list[bytes]
    ) -> None:
        for turn, pcm in zip(script, words, strict=True):
            clip = Clip(self.timeline.clock(), pcm, "caller", turn.says)
            self.caller_clips.append(clip)
            if self._turn:
                await self._interrupt(client)
            self.history.append({"role": "user", "content": turn.says})
            await asyncio.sleep(max(0.0, clip.end - self.timeline.clock()))
            await self._ask(client, turn)
            await self._listen(turn)

    async def _ask(self, client: Client, turn: Turn) -> None:
        self._turn += 1
        self._id = f"{self.session}-{self._turn}"
        self._text = ""
        self._played_before = len(self.loudspeaker.played)
        self._sounding.clear()
        self._ended.clear()
        self.speaker.expect(self._id)
        self.timeline.mark("job", self._turn)
        await client.submit(
            context=self.history,
            id=self._id,
            session=self.session,
            supersede=True,
            speech={"language": "en"},
            max_tokens=turn.max_tokens,
        )

    async def _listen(self, turn: Turn) -> None:
        if turn.listens_s is not None:
            await self._sounding.wait()
            await asyncio.sleep(turn.listens_s)
            return
        await self._ended.wait()
        await self.speaker.wait_said()
        self.timeline.mark("end", self._turn)
        self.history.append({"role": "assistant", "content": self._text})

    async def _interrupt(self, client: Client) -> None:
        """Barge-in: stop the model and the voice; the history gets what was heard."""
        self.timeline.mark("cancel", self._turn)
        await client.cancel_session(self.session, reason="barge-in")
        await self._ended.wait()
        # Where the model was done before the caller spoke, nothing was cancelled.
        self.speaker.hush(self._id)
        heard = len(self.loudspeaker.played) - self._played_before
        segments = self.speaker.segments[self._id]
        self.history.append(spoken_message(self._text, segments, heard))

    # What is heard of the request

    async def _received(self, message: Msg) -> None:
        event = json.loads(message.data) if message.data else {}
        if event.get("id") != self._id:
            return
        if event["type"] == "token":
            if not self._text:
                self.timeline.mark("first_token", self._turn)
            self._text += event["text"]
            self.timeline.mark("token", self._turn)
        elif event["type"] == "resumed" and event["mode"] == "restart":
            self._text = ""
        elif event["type"] in ("completed", "failed", "cancelled"):
            self._ended.set()

    def _told(self, event: str, told: dict[str, Any]) -> None:
        if event == "segment":
            if told["seq"] == 1:
                self.timeline.mark("first_segment", self._turn)
            self.timeline.mark("segment", self._turn, text=told["text"])
        elif event in ("cancelled", "failed"):
            self.timeline.mark(event, self._turn)

    def _sounds(self) -> None:
        if not self._sounding.is_set():
            self.timeline.mark("first_audio", self._turn)
            self._sounding.set()

    def _falls_silent(self) -> None:
        self.timeline.mark("silence", self._turn)
