"""A chaos run: requests, readers, faults, and the verdict."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import NamedTuple

from bridge.bus.cell import Cell
from bridge.client import Client
from tests.chaos import logs
from tests.chaos.load import Order, orders
from tests.chaos.readers import Reader
from tests.chaos.stage import Stage
from tests.chaos.verdict import Verdict, judge, judge_speech

#: Readers share so many connections, as the processes of a front end would.
CLIENTS = 3

#: After the last fault every request comes to its end within this, in seconds: the
#: longest answer, a takeover, and a machine that is busy.
REST_S = 90.0

#: Pauses between faults, in seconds: some meet the one before, most do not.
PAUSES_S = (0.3, 5.0)


class Plan(NamedTuple):
    """What a run shall be: its size, its length in seconds, its seed."""

    requests: int
    seconds: float
    seed: int
    cluster: bool = False


async def run(plan: Plan, folder: Path) -> Verdict:
    """Run and judge. Whatever happens, no process is left."""
    chance = random.Random(plan.seed)
    wanted = orders(plan.requests, plan.seconds, chance)
    stage = Stage(folder, cluster=plan.cluster, chance=chance)
    async with stage, logs.connected(stage.nats_url, "llm") as cell:
        clients = [Client(stage.nats_url) for _ in range(CLIENTS)]
        try:
            for client in clients:
                await client.connect()
            return await _Run(plan, stage, cell, clients, chance).to_the_end(wanted)
        finally:
            for client in clients:
                await client.close()


class _Run:
    def __init__(
        self,
        plan: Plan,
        stage: Stage,
        cell: Cell,
        clients: list[Client],
        chance: random.Random,
    ) -> None:
        self._plan = plan
        self._stage = stage
        self._cell = cell
        self._clients = clients
        self._chance = chance
        self._started = time.monotonic()
        self._readers: list[Reader] = []

    async def to_the_end(self, wanted: list[Order]) -> Verdict:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._break())
                for order in wanted:
                    await self._until(order.at_s)
                    group.create_task(self._submit(order))
            await self._stage.heal()
            unread = await self._finish()
            unsettled = await self._settle()
            found = {order.id: await self._log(order) for order in wanted}
            spoken = {
                order.id: await logs.read(self._cell, order.id, spoken=True)
                for order in wanted
                if order.kind == "spoken"
            }
        finally:
            for reader in self._readers:
                await reader.stop()
        seconds = time.monotonic() - self._started
        verdict = judge(self._stage, wanted, found, self._readers, unread, seconds)
        judge_speech(verdict, found, spoken)
        if unsettled:
            verdict.wrong.append("a job was never settled")
        return verdict

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(self._started + at_s - time.monotonic())

    # Requests

    async def _submit(self, order: Order) -> None:
        number = len(self._readers)
        here, there = (self._clients[(number + i) % CLIENTS] for i in (0, 1))
        late_s = 0.2 + 2 * self._chance.random()
        self._readers.append(Reader(here, order))
        self._readers.append(Reader(there, order, late_s=late_s))
        await logs.submit(self._cell, order.job)
        if order.doubled:
            await logs.submit(self._cell, order.job, known=False)
        if order.cancel_s is not None:
            await asyncio.sleep(order.cancel_s)
            await logs.cancel(self._cell, order.id)

    async def _finish(self) -> list[Reader]:
        """Wait for all readers; those that did not come to an end."""
        deadline = time.monotonic() + REST_S
        unread = []
        for reader in self._readers:
            try:
                await reader.finish(max(0.1, deadline - time.monotonic()))
            except Exception as error:
                print(f"{reader!r}: {error!r}")
                unread.append(reader)
        return unread

    async def _settle(self) -> bool:
        """Whether some job was not settled."""
        try:
            await logs.settled(self._cell, REST_S / 3)
        except TimeoutError:
            return True
        return False

    async def _log(self, order: Order) -> list[logs.Event]:
        events = await logs.read(self._cell, order.id)
        path = self._stage.folder / "logs" / f"{order.id}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(json.dumps(event) for event in events), "utf-8")
        return events

    # Faults

    async def _break(self) -> None:
        """Every kind in turn, in an order that the seed decides, until time is up."""
        end = self._started + self._plan.seconds
        kinds: list[str] = []
        striking: list[asyncio.Task[None]] = []
        await asyncio.sleep(1)
        while time.monotonic() < end:
            if not kinds:
                kinds = self._chance.sample(self._stage.kinds, len(self._stage.kinds))
            strike = self._stage.strike(kinds.pop(), self._cell)
            striking.append(asyncio.create_task(strike))
            # A third of the faults meet the next one, while they last.
            if self._chance.random() > 1 / 3 or len(striking) > 1:
                await asyncio.gather(*striking)
                striking.clear()
            await asyncio.sleep(self._chance.uniform(*PAUSES_S))
        await asyncio.gather(*striking)
