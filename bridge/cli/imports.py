"""Importing what a command needs, and not what its libraries would like to have."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

#: httpx (for a command line of its own) and structlog (for tracebacks) import it
#: wherever it is installed: a sixth of the time that a bridge takes to start.
UNWANTED = "rich"


@contextlib.contextmanager
def lean() -> Iterator[None]:
    """Make imports inside the block cheaper; not for what needs ``rich`` itself.

    Nothing is collected meanwhile, since modules stay, and what they brought is out of
    the collector's sight from then on: a full collection of a serving bridge would
    walk it all for nothing.
    """
    blocked = UNWANTED not in sys.modules
    if blocked:
        sys.modules[UNWANTED] = None  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
        if blocked:
            del sys.modules[UNWANTED]
