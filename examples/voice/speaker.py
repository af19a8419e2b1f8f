"""A consumer that speaks: segments in, sound out, silence on ``cancelled``.

It knows nothing of the bridge but its subjects: any NATS client could do this.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from bridge.speech import Segment
from examples.voice.audio import Loudspeaker, Voice

#: What the speaker tells of a request: the event's name, and the event.
Told = Callable[[str, dict[str, Any]], None]


class Speaker:
    """Says what ``<prefix>.speech.<tenant>.*`` brings, one request at a time."""

    def __init__(self, loudspeaker: Loudspeaker, voice: Voice, told: Told) -> None:
        self._loudspeaker = loudspeaker
        self._voice = voice
        self._told = told
        self._to_say: asyncio.Queue[tuple[str, Segment]] = asyncio.Queue()
        #: The requests that may still be heard.
        self._open: set[str] = set()
        self.segments: dict[str, list[Segment]] = {}

    async def listen(self, client: Client, prefix: str, tenant: str) -> None:
        """Subscribe; before a job is submitted, so that nothing is lost."""
        await client.subscribe(f"{prefix}.speech.{tenant}.*", cb=self._received)
        await client.flush()

    def expect(self, id: str) -> None:
        """A request is about to be submitted: its segments are to be heard."""
        self._open.add(id)
        self.segments[id] = []

    async def _received(self, message: Msg) -> None:
        event = json.loads(message.data)
        id = event["id"]
        if id not in self._open:
            return
        if event["type"] == "segment":
            segment = Segment(
                event["text"],
                event["first"],
                event["last"],
                event["start"],
                event["end"],
            )
            self.segments[id].append(segment)
            self._to_say.put_nowait((id, segment))
        elif event["type"] == "cancelled":
            self.hush(id)
        self._told(event["type"], event)

    def hush(self, id: str) -> None:
        """Say nothing more of a request: what waits is dropped, what sounds is cut."""
        self._open.discard(id)
        self._loudspeaker.silence()

    async def run(self) -> None:
        """Turn segments into sound, in order, until cancelled."""
        while True:
            id, segment = await self._to_say.get()
            if id in self._open:
                sound = await self._voice.say(segment.text)
                if id in self._open:  # the caller may have interrupted meanwhile
                    self._loudspeaker.play(sound, segment.text)
            self._to_say.task_done()

    async def wait_said(self) -> None:
        """Wait until all segments that have come were heard."""
        await self._to_say.join()
        await self._loudspeaker.wait_idle()
