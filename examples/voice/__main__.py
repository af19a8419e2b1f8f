"""``python -m examples.voice --out DIR``: a call with an interruption, as one WAV."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from bridge.cli.in_process import bridge_running
from bridge.config import Settings as BridgeSettings
from bridge.embedded import EmbeddedServer
from bridge.errors import BridgeError
from bridge.simulator import Behaviour, Simulator
from examples.voice.audio import NoSpeechEngine, write_wav
from examples.voice.conversation import Call, Settings

#: A model of middling size on a GPU of its own.
PACE = Behaviour(first_token_ms=180, tokens_per_second=30)

#: A script of two turns takes about ten seconds.
TIMEOUT_S = 60.0


@contextlib.asynccontextmanager
async def everything() -> AsyncIterator[Settings]:
    """A nats-server, a simulated LLM and a bridge, gone with the block."""
    async with EmbeddedServer() as server, Simulator(behaviour=PACE) as simulator:
        settings = BridgeSettings(
            nats_url=server.url,
            backend_url=simulator.url,
            http_host="127.0.0.1",
            http_port=0,
        )
        async with bridge_running(settings):
            yield Settings(server.url)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.voice", description=__doc__
    )
    parser.add_argument("--out", type=Path, default=Path("voice-out"), metavar="DIR")
    parser.add_argument(
        "--nats-url", help="a running deployment; without it, all is brought along"
    )
    parser.add_argument("--model", default="simulator")
    parser.add_argument("--lane", default="default")
    return parser.parse_args(arguments)


async def play(options: argparse.Namespace) -> Call:
    """Play the call; write what was heard, and when."""
    async with contextlib.AsyncExitStack() as stack:
        if options.nats_url:
            settings = Settings(
                options.nats_url, lane=options.lane, model=options.model
            )
        else:
            settings = await stack.enter_async_context(everything())
        call = Call(settings)
        async with asyncio.timeout(TIMEOUT_S):
            await call.run()
    options.out.mkdir(parents=True, exist_ok=True)
    write_wav(options.out / "call.wav", call.clips)
    call.timeline.write_json(options.out / "timeline.json", call.clips)
    call.timeline.write_svg(options.out / "timeline.svg", call.clips)
    return call


def main() -> int:
    options = parse()
    try:
        call = asyncio.run(play(options))
    except (NoSpeechEngine, BridgeError, TimeoutError) as error:
        print(f"examples.voice: {error or 'it took too long'}", file=sys.stderr)
        return 1
    for moment in call.timeline.moments:
        if moment["event"] not in ("token", "segment"):
            print(f"{moment['at_ms']:8.0f} ms  {moment['turn']}  {moment['event']}")
    for message in call.history:
        print(f"{message['role']}: {message['content']}")
    print(f"written to {options.out}: call.wav, timeline.json, timeline.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
