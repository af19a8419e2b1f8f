"""Which loop runs, and how signals end it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from bridge.cli.event_loop import LOOPS, run
from bridge.errors import ConfigurationError


@pytest.fixture(autouse=True)
def sigint_as_python_starts_with_it() -> Iterator[None]:
    """Loops of tests before, uvloop's above all, may have left another handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before or signal.default_int_handler)


async def module_of_the_loop() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_each_name_is_a_loop() -> None:
    uvloop = pytest.importorskip("uvloop")
    assert uvloop
    assert run(module_of_the_loop(), "uvloop").startswith("uvloop")
    assert run(module_of_the_loop()).startswith("uvloop")
    assert run(module_of_the_loop(), "asyncio").startswith("asyncio")
    assert set(LOOPS) == {"auto", "asyncio", "uvloop"}


def test_without_uvloop_asyncio_has_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(module_of_the_loop()).startswith("asyncio")
    with pytest.raises(ConfigurationError, match="uvloop is not installed"):
        run(module_of_the_loop(), "uvloop")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_cleans_up(loop: str, number: signal.Signals) -> None:
    cleaned = []

    async def main() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        run(main(), loop)
    assert cleaned == [True]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_sigint_counts_also_where_a_script_had_it_ignored(loop: str) -> None:
    async def main() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(asyncio.get_running_loop().create_future(), 30)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(main(), loop)
    finally:
        signal.signal(signal.SIGINT, before)
