"""What a chaos run breaks: bridges, NATS servers, and how each is broken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from bridge.bus.cell import Cell
from bridge.errors import BridgeError
from tests.chaos.processes import BridgeProcess, Cluster, SimulatorProcess, bridges
from tests.servers import NatsServer

ACK_WAIT_S = 2.0
BRIDGES = 3
SLOTS = 64

#: Repairs are counted by processes that get killed: so often they are asked, in s.
LOOK_EVERY_S = 0.25


class Fault(NamedTuple):
    """One fault, from when to when (monotonic seconds) and of which kind."""

    kind: str
    begin: float
    end: float


class Stage:
    """Three bridges, a simulator, one NATS server or a cluster of three."""

    def __init__(self, folder: Path, *, cluster: bool, chance: random.Random) -> None:
        self.folder = folder
        self.faults: list[Fault] = []
        self.exits: Counter[int] = Counter()
        self._chance = chance
        self._clustered = cluster
        self._cluster = Cluster(folder) if cluster else None
        self._server = None if cluster else NatsServer(folder / "nats")
        self.simulator = SimulatorProcess(
            folder, tokens_per_second=50, first_token_ms=0
        )
        self.bridges: list[BridgeProcess] = []
        self._struck: set[BridgeProcess] = set()
        self._nats_struck = asyncio.Lock()
        self._stack = ExitStack()
        self._repairs: dict[tuple[str, int], float] = {}
        self._looking: asyncio.Task[None] | None = None

    @property
    def nats_url(self) -> str:
        return self._cluster.url if self._cluster else self._one.url

    @property
    def _one(self) -> NatsServer:
        assert self._server is not None
        return self._server

    @property
    def servers(self) -> list[NatsServer]:
        return self._cluster.servers if self._cluster else [self._one]

    @property
    def repairs(self) -> int:
        """Batches that were begun anew, as far as the processes lived to tell."""
        return int(sum(self._repairs.values()))

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    async def _start(self) -> None:
        for server in self.servers:
            self._stack.callback(server.kill)
            server.start()
        self._stack.callback(self.simulator.kill)
        await self.simulator.start()
        self.bridges = self._stack.enter_context(
            bridges(
                BRIDGES,
                self.folder,
                self.nats_url,
                self.simulator.url,
                ack_wait_s=ACK_WAIT_S,
                slots=SLOTS,
                stream_replicas=len(self.servers),
                drain_timeout_s=0.3,
                # No job of this run is poison, though it may meet many faults.
                max_deliveries=1000,
            )
        )
        for process in self.bridges:
            process.start()
        for process in self.bridges:
            await process.ready()
        self._looking = asyncio.create_task(self._look())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        self._stack.close()

    async def _look(self) -> None:
        while True:
            for process in self.bridges:
                if process.running and not process.frozen:
                    key = (process.name, process.pid)
                    repairs = await process.metric("tokenbridge_log_repairs")
                    self._repairs[key] = max(repairs, self._repairs.get(key, 0))
            await asyncio.sleep(LOOK_EVERY_S)

    # Breaking

    @property
    def kinds(self) -> list[str]:
        """The faults that this stage knows."""
        common = ["bridge killed", "bridge frozen", "bridge terminated"]
        if self._clustered:
            return [*common, "NATS leader killed", "NATS server terminated"]
        return [
            *common,
            "NATS killed",
            "NATS terminated",
            "NATS away for long",
            "NATS frozen",
        ]

    async def strike(self, kind: str, cell: Cell) -> None:
        """Let one fault happen, and end it."""
        bridge = kind.startswith("bridge")
        # A second server of three would be a lost quorum; a second fault of one, none.
        async with contextlib.nullcontext() if bridge else self._nats_struck:
            begin = time.monotonic()
            if bridge:
                await self._strike_bridge(kind)
            elif self._cluster is not None:
                await self._strike_cluster(kind, cell)
            else:
                await self._strike_server(kind)
            self.faults.append(Fault(kind, begin, time.monotonic()))

    async def _strike_bridge(self, kind: str) -> None:
        # Two faults at once never meet in one process: a second kill is no fault.
        process = self._chance.choice(
            [b for b in self.bridges if b not in self._struck]
        )
        self._struck.add(process)
        try:
            await self._strike_process(process, kind)
        finally:
            self._struck.discard(process)

    async def _strike_process(self, process: BridgeProcess, kind: str) -> None:
        if kind == "bridge frozen":
            process.freeze()
            await asyncio.sleep(2 * ACK_WAIT_S)
            process.thaw()
            return
        if kind == "bridge killed":
            process.kill()
        else:
            process.terminate()
            self.exits[await process.wait()] += 1
        process.start()
        await process.ready()

    async def _strike_server(self, kind: str) -> None:
        if kind == "NATS frozen":
            self._one.freeze()
            await asyncio.sleep(self._chance.uniform(0.5, 1.2 * ACK_WAIT_S))
            self._one.thaw()
            return
        self._one.stop(signal.SIGTERM if kind == "NATS terminated" else signal.SIGKILL)
        away_s = self._chance.uniform(0.1, ACK_WAIT_S / 2)
        if kind == "NATS away for long":
            away_s = ACK_WAIT_S * 1.5
        await asyncio.sleep(away_s)
        self._one.start()

    async def _strike_cluster(self, kind: str, cell: Cell) -> None:
        assert self._cluster is not None
        server = self._chance.choice(self._cluster.servers)
        how = signal.SIGTERM
        if kind == "NATS leader killed":
            how = signal.SIGKILL
            server = self._cluster.named(await _leader(cell))
        server.stop(how)
        await asyncio.sleep(self._chance.uniform(1, 3))
        server.start()
        await _all_current(cell)

    async def heal(self) -> None:
        """Bring back whatever is away."""
        for process in self.bridges:
            if process.frozen:
                process.thaw()
            if not process.running:
                process.start()
        for process in self.bridges:
            await process.ready()


async def _stream(cell: Cell) -> dict[str, object]:
    while True:
        try:
            info = await cell.jetstream.call(f"STREAM.INFO.{cell.names.tokens}")
            cluster = info["cluster"]
            if cluster.get("leader"):
                return dict(cluster)
        except BridgeError:
            pass
        await asyncio.sleep(0.1)


async def _leader(cell: Cell) -> str:
    return str((await _stream(cell))["leader"])


async def _all_current(cell: Cell) -> None:
    """Wait until every replica has caught up, so that the next fault finds three."""
    async with asyncio.timeout(60):
        while True:
            replicas = (await _stream(cell)).get("replicas")
            found = json.loads(json.dumps(replicas)) or []
            if len(found) == 2 and all(r.get("current") for r in found):
                return
            await asyncio.sleep(0.2)
