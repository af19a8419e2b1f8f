"""Requests whose job and log went with their server: nobody else can end them.

A lease that runs out during an outage leaves its job to another worker, unless the
server comes back without its streams (memory storage, a wiped disk): then no worker
will ever be delivered it, and whoever listens would wait for ever.
"""

from __future__ import annotations

import logging

from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery
from bridge.errors import BusError, StreamUnavailable

log = logging.getLogger(__name__)

#: While NATS does not answer, it is asked again so often, in seconds.
ASK_EVERY_S = 0.25


async def is_orphaned(cell: Cell, tenant: str, id: str, delivery: Delivery) -> bool:
    """Whether neither the job nor anything of its log is there any more.

    Only for a request whose log has begun. Waits for as long as NATS is away. May be
    cancelled.
    """
    while True:
        try:
            return await _is_gone(cell, tenant, id, delivery)
        except BusError as error:
            log.debug("request %s: %s", id, error)
        await cell.pause(ASK_EVERY_S)


async def _is_gone(cell: Cell, tenant: str, id: str, delivery: Delivery) -> bool:
    if await cell.job_is_stored(delivery.identity):
        return False
    try:
        return await cell.last_stored(tenant, id) is None
    except StreamUnavailable as error:
        if not error.gone:
            raise
        return True
