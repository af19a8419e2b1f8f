"""Which event loop a command runs on: uvloop where it is to be had."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from bridge.errors import ConfigurationError

T = TypeVar("T")

#: ``auto``: uvloop where it is installed, else asyncio's own.
LOOPS = ("auto", "asyncio", "uvloop")


def run(main: Coroutine[Any, Any, T], loop: str = "auto") -> T:
    """Run ``main`` to its end on the loop of that name.

    SIGINT and SIGTERM cancel ``main`` and then raise `KeyboardInterrupt`, unless
    ``main`` has set handlers of its own. Raises `ConfigurationError` where uvloop is
    asked for and not installed.
    """
    try:
        factory = loop_factory(loop)
    except BaseException:
        main.close()
        raise
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            return runner.run(_cancelled_by_signals(main))
        except asyncio.CancelledError as error:
            raise KeyboardInterrupt from error


async def _cancelled_by_signals(main: Coroutine[Any, Any, T]) -> T:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a script's `&` starts it, and asyncio's runner leaves that as it is.
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    return await main


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop of that name; ``None`` stands for asyncio's own."""
    if loop == "asyncio":
        return None
    try:
        import uvloop
    except ImportError as error:
        if loop == "uvloop":
            raise ConfigurationError(
                "--loop: uvloop is not installed here; use auto or asyncio"
            ) from error
        return None
    return uvloop.new_event_loop
