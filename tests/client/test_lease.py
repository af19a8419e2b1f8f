"""A lease is renewed often enough, and never after its end."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from nats.aio.msg import Msg

from bridge.client.lease import Lease
from bridge.events import decode_control
from tests.client.bridge_side import PATIENCE_S, Bus


async def test_a_lease_is_renewed_until_it_ends(bus: Bus) -> None:
    loop = asyncio.get_running_loop()
    renewed: list[float] = []
    enough = asyncio.Event()

    def received(message: Msg) -> None:
        assert decode_control(message.data) is not None
        renewed.append(loop.time())
        if len(renewed) == 4:
            enough.set()

    subject = bus.cell.subjects.control("default", "lease", "one")
    await bus.connection.subscribe(subject, received)
    lease = Lease(bus.cell, "default", "one", 300)
    async with asyncio.timeout(PATIENCE_S):
        await enough.wait()
    lease.end()
    lease.end()
    count = len(renewed)
    await asyncio.sleep(0.25)
    await bus.connection.flush()
    assert len(renewed) <= count + 1
    assert all(later - earlier > 0.05 for earlier, later in pairwise(renewed))


async def test_while_nats_is_away_nothing_piles_up(bus: Bus) -> None:
    await bus.connection.close()
    lease = Lease(bus.cell, "default", "one", 3)
    await asyncio.sleep(0.01)
    lease.end()
