"""``tail``: a running or ended request from any of its events."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest


@pytest.fixture(scope="module")
def asked(run: Any, shared_nats_url: str, shared_bridge: Any) -> str:
    """Ask a request of 8 tokens, `asked`, to its end; what `ask` printed."""
    env = {"TOKENBRIDGE_NATS_URL": shared_nats_url}
    result = run("ask", "Why?", "--id", "asked", "--max-tokens", "8", env=env)
    assert result.returncode == 0
    return str(result.stdout)


def test_an_ended_request_is_read_from_its_log(
    run: Any, shared: dict[str, str], asked: str
) -> None:
    result = run("tail", "asked", env=shared)
    assert result.returncode == 0
    assert result.stdout == asked
    figures = r"8 tokens, first after \d+ ms, \d+ ms in all, length\n"
    assert re.fullmatch(figures, result.stderr)


def test_it_begins_where_it_is_told_to(
    run: Any, shared: dict[str, str], asked: str
) -> None:
    result = run("tail", "asked", "--from-seq", "7", "--json", env=shared)
    assert result.returncode == 0
    assert [json.loads(line)["seq"] for line in result.stdout.splitlines()] == [
        7,
        8,
        9,
        10,
    ]


def test_a_running_request_goes_on_live_and_outlives_its_tail(
    run: Any, start: Any, shared: dict[str, str]
) -> None:
    asking = start(
        "ask", "Why?", "--id", "tailed", "--max-tokens", "100000", env=shared
    )
    asking.wait_for(r"\S+ \S+ \S+")
    tailing = start("tail", "tailed", env=shared)
    tailing.wait_for(r"\S+ \S+ \S+ \S+")
    tailing.interrupt()
    assert tailing.ended() == 130
    seen = len(asking.out)
    asking.wait_for(rf"(?s).{{{seen + 20}}}")
    following = start("tail", "tailed", env=shared)
    following.wait_for(r"\S+ \S+ \S+ \S+")
    assert run("cancel", "tailed", "--reason", "enough", env=shared).returncode == 0
    assert following.ended() == 3
    assert asking.ended() == 3
    assert following.out == asking.out
    assert "cancelled: enough" in following.err


def test_an_unknown_id_is_one_line(run: Any, shared: dict[str, str]) -> None:
    result = run("tail", "nobody", "--wait", "0.1", env=shared)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "'nobody'" in line


def test_another_tenants_request_is_unknown(
    run: Any, shared: dict[str, str], asked: str
) -> None:
    result = run("tail", "asked", "--tenant", "other", "--wait", "0", env=shared)
    assert result.returncode == 1
