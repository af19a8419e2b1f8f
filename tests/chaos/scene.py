"""The stage of the integration tests: a simulator, two bridges, somebody who reads."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from nats.aio.msg import Msg

from bridge.bus.cell import Cell
from bridge.simulator import Simulator, text_for
from tests.chaos import logs
from tests.chaos.logs import Event
from tests.chaos.processes import BridgeProcess, bridges

ACK_WAIT_S = 1.5

_numbers = itertools.count(1)


class Scene:
    """Two bridges on one prefix. The first has what is submitted before the second."""

    def __init__(
        self, cell: Cell, simulator: Simulator, processes: list[BridgeProcess]
    ) -> None:
        self.cell = cell
        self.simulator = simulator
        self.first, self.second, *self.others = processes
        #: What a plain subscriber got, by request: (monotonic seconds, event).
        self.live: dict[str, list[tuple[float, Event]]] = {}

    async def listen(self) -> None:
        """Keep what is published live from now on."""

        def received(message: Msg) -> None:
            event = json.loads(message.data)
            self.live.setdefault(event["id"], []).append((time.monotonic(), event))

        pattern = self.cell.subjects.tokens("default", "-").replace("-", "*")
        await self.cell.connection.subscribe(pattern, received)
        await self.cell.connection.flush()

    async def start(self, *processes: BridgeProcess) -> None:
        """Start bridges and wait until they take jobs."""
        for process in processes:
            process.start()
        for process in processes:
            await process.ready()

    async def submit(self, job: Event) -> str:
        """Submit a job; its id."""
        await logs.submit(self.cell, job)
        return str(job["id"])

    async def tokens(self, id: str, count: int) -> None:
        """Wait until ``count`` tokens of a request were seen live."""

        def seen() -> int:
            events = self.live.get(id, [])
            return sum(event["type"] == "token" for _, event in events)

        async with asyncio.timeout(30):
            while seen() < count:
                await asyncio.sleep(0.005)

    async def ended(self, id: str, within_s: float = 40) -> list[Event]:
        """Wait for the end of a request; its log, which must be without a fault."""
        events = await logs.ended(self.cell, id, within_s)
        assert logs.faults_of_log(events) == [], [e["seq"] for e in events]
        return events

    def longest_gap(self, id: str) -> float:
        """The longest silence between two tokens of a request, in seconds."""
        times = [at for at, event in self.live[id] if event["type"] == "token"]
        return max(later - at for at, later in itertools.pairwise(times))

    async def handed_over(self, id: str, times: int) -> None:
        """Wait until a request that was handed over so often goes on."""

        def seen() -> int:
            reasons = [event.get("reason") for _, event in self.live.get(id, [])]
            return reasons.count("handover")

        async with asyncio.timeout(30):
            while seen() < times:
                await asyncio.sleep(0.005)

    async def job_is_settled(self) -> None:
        """Wait until no job is stored any more."""
        await logs.settled(self.cell)


def job(tokens: int = 150, rate: float = 60, **fields: Any) -> Event:
    """A job of so many tokens at so many a second; ``fields`` are the job's own.

    ``request`` and ``simulate`` among them are added to those of the job.
    """
    number = next(_numbers)
    request = {
        "model": "simulator",
        "messages": [{"role": "user", "content": f"story {number}"}],
        "simulate": {
            "tokens": tokens,
            "tokens_per_second": rate,
            **fields.pop("simulate", {}),
        },
        **fields.pop("request", {}),
    }
    return {"id": f"request-{number}", "request": request, **fields}


def stalling(after: int = 20, times: int = 1) -> dict[str, Any]:
    """A ``simulate`` whose first calls are silent after so many tokens.

    So the text cannot end before it is disturbed, however busy the machine is.
    """
    return {"stall_after": after, "times": times}


def undisturbed(job: Event) -> str:
    """The text of a job that nothing happens to."""
    return text_for(job["request"])


def kinds(events: list[Event]) -> list[str]:
    """The types of events, a run of tokens as one."""
    return [kind for kind, _ in itertools.groupby(event["type"] for event in events)]


def only(events: list[Event], kind: str) -> Event:
    """The one event of that type."""
    found = [event for event in events if event["type"] == kind]
    assert len(found) == 1, found
    return found[0]


@asynccontextmanager
async def scene(
    folder: Path, nats_url: str, prefix: str, *, count: int = 2, **settings: Any
) -> AsyncIterator[Scene]:
    """A scene whose bridges are not started yet; everything is stopped in the end."""
    values = {"ack_wait_s": ACK_WAIT_S, "prefixes": prefix, **settings}
    async with Simulator() as simulator, logs.connected(nats_url, prefix) as cell:
        with bridges(count, folder, nats_url, simulator.url, **values) as processes:
            stage = Scene(cell, simulator, processes)
            await stage.listen()
            try:
                yield stage
            except BaseException:
                for process in processes:
                    if process.log_path.exists():
                        print(f"--- {process.name}\n{process.log[-6000:]}")
                raise
