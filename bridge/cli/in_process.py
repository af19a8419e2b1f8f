"""A bridge inside this process, for the commands that bring everything themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from bridge.config import Settings
from bridge.service import Service


@dataclass
class Bridge:
    """A service that takes jobs, and the task that is its life."""

    service: Service
    life: asyncio.Task[None]


async def start(service: Service) -> Bridge:
    """Run ``service`` and wait until it takes jobs.

    Raises what `Service.run` raises where it ends before; a service that is drained
    while it starts is returned as it is. May be cancelled; then it is stopped.
    """
    life = asyncio.create_task(service.run())
    ready = asyncio.create_task(service.ready())
    try:
        await asyncio.wait([life, ready], return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        await _end(service, life)
        raise
    finally:
        ready.cancel()
    if life.done():
        life.result()
    return Bridge(service, life)


@contextlib.asynccontextmanager
async def bridge_running(settings: Settings) -> AsyncIterator[Bridge]:
    """A bridge that takes jobs inside the block, and is stopped at its end.

    Raises what `Service.run` raises.
    """
    bridge = await start(Service(settings))
    try:
        yield bridge
    finally:
        await _end(bridge.service, bridge.life)


async def _end(service: Service, life: asyncio.Task[None]) -> None:
    service.stop()
    with contextlib.suppress(Exception):
        await life
