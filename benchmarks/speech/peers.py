"""Pipecat's and LiveKit's own segmenters, as they are, where they are installed.

They are no dependencies: install ``pipecat-ai`` and ``livekit-agents`` into a separate
environment that also has this project's ``msgspec`` and ``sentencex``, and run the
measurement with its interpreter.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from typing import Any

#: A segment's text, and the number of deltas that had been fed when it came out.
Spoken = list[tuple[str, int]]
Peer = Callable[[str, list[str]], Coroutine[Any, Any, Spoken]]


def peers() -> dict[str, Peer]:
    """The peers that can be imported, by name and version."""
    found: dict[str, Peer] = {}
    for name, load in (("pipecat-ai", _pipecat), ("livekit-agents", _livekit)):
        try:
            loaded = load()
        except ImportError:
            continue
        found |= {f"{key} {version(name)}": peer for key, peer in loaded.items()}
    return found


def _pipecat() -> dict[str, Peer]:
    module = importlib.import_module("pipecat.utils.text.simple_text_aggregator")

    async def run(language: str, deltas: list[str]) -> Spoken:
        aggregator = module.SimpleTextAggregator()
        aggregator.set_language(language)
        spoken = [
            (aggregation.text, fed)
            for fed, delta in enumerate(deltas, 1)
            async for aggregation in aggregator.aggregate(delta)
        ]
        rest = await aggregator.flush()
        return spoken + ([(rest.text, len(deltas))] if rest else [])

    return {"Pipecat": run}


def _livekit() -> dict[str, Peer]:
    tokenize = importlib.import_module("livekit.agents.tokenize")

    def peer(tokenizer: Any) -> Peer:
        async def run(language: str, deltas: list[str]) -> Spoken:
            stream = tokenizer.stream(language=language)
            spoken: Spoken = []
            fed = 0

            async def read() -> None:
                async for token in stream:
                    spoken.append((token.token, fed))

            reader = asyncio.create_task(read())
            for delta in deltas:
                fed += 1
                stream.push_text(delta)
                for _ in range(5):
                    await asyncio.sleep(0)
            stream.end_input()
            await reader
            return spoken

        return run

    return {
        "LiveKit basic": peer(tokenize.basic.SentenceTokenizer()),
        "LiveKit blingfire": peer(tokenize.blingfire.SentenceTokenizer()),
    }
