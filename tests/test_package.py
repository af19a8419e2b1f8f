"""The front door: what ``bridge`` shows, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bridge

HEAVY = ("nats", "msgspec", "asyncio", "httpx", "aiohttp", "bridge.client")


def test_everything_that_is_shown_is_there() -> None:
    for name in bridge.__all__:
        assert getattr(bridge, name).__module__.startswith(("bridge.", "types"))
    assert set(bridge.__all__) <= set(dir(bridge))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bridge.nothing


def test_importing_it_is_cheap() -> None:
    code = (
        "import sys, bridge, bridge.errors;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
