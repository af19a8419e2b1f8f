"""What a generation needs of its worker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from bridge.backends.http import Backends
from bridge.bus.cell import Cell
from bridge.config import Settings
from bridge.metrics import Meters

#: While the server has as many open batches as it allows, a claim waits so long, in
#: seconds, and tries again. It keeps its message: a nak would count as a delivery.
CROWDED_S = 0.5


class Surroundings(NamedTuple):
    """What a generation needs of its worker.

    ``crowded`` is called when the server has too many open batches, ``gone`` when a
    stream is missing: it makes the streams again.
    """

    cell: Cell
    backends: Backends
    settings: Settings
    meters: Meters
    now: Callable[[], float]
    crowded: Callable[[], None]
    gone: Callable[[], Awaitable[None]]
