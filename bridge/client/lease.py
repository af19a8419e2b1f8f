"""The sign that somebody still reads a request (``keepalive_ms``)."""

from __future__ import annotations

import asyncio
import contextlib

from bridge.bus.cell import Cell
from bridge.errors import BusError
from bridge.events import Control

#: Renewed so many times within ``keepalive_ms``: two may be lost.
RENEWALS = 3


class Lease:
    """Publishes ``llm.control.<tenant>.lease.<id>`` from now until `end`."""

    def __init__(self, cell: Cell, tenant: str, id: str, keepalive_ms: int) -> None:
        self._cell = cell
        self._tenant = tenant
        self._id = id
        self._every_s = keepalive_ms / 1000 / RENEWALS
        self._timer: asyncio.TimerHandle | None = None
        self._renew()

    def __repr__(self) -> str:
        return f"<Lease {self._tenant}/{self._id} every {self._every_s:g} s>"

    def _renew(self) -> None:
        # While NATS is away nothing is published: a pool of old signs helps nobody.
        if self._cell.connection.connected:
            with contextlib.suppress(BusError):
                self._cell.publish_control(
                    self._tenant, "lease", self._id, Control("renew")
                )
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._every_s, self._renew)

    def end(self) -> None:
        """Publish no more. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
