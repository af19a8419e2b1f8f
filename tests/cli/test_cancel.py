"""``cancel``: one request, or all that a session has."""

from __future__ import annotations

from typing import Any

LONG = ("--max-tokens", "100000")


def test_a_running_request_ends_with_the_reason(
    run: Any, start: Any, shared: dict[str, str]
) -> None:
    asking = start("ask", "Why?", "--id", "hung-up", *LONG, env=shared)
    asking.wait_for(r"\S+ \S+")
    result = run("cancel", "hung-up", "--reason", "caller hung up", env=shared)
    assert result.returncode == 0
    assert result.stdout + result.stderr == ""
    assert asking.ended() == 3
    assert "cancelled: caller hung up" in asking.err


def test_all_requests_of_a_session_end(
    run: Any, start: Any, shared: dict[str, str]
) -> None:
    asking = [
        start("ask", prompt, "--session", session, *LONG, env=shared)
        for prompt, session in (("a", "one"), ("b", "one"), ("c", "two"))
    ]
    for command in asking:
        command.wait_for(r"\S+ \S+")
    assert run("cancel", "--session", "one", env=shared).returncode == 0
    assert [command.ended() for command in asking[:2]] == [3, 3]
    assert asking[2].process.poll() is None


def test_cancelling_what_has_ended_does_nothing(
    run: Any, shared: dict[str, str]
) -> None:
    asked = run("ask", "Why?", "--id", "done", "--max-tokens", "3", env=shared)
    assert run("cancel", "done", env=shared).returncode == 0
    again = run("tail", "done", env=shared)
    assert (again.returncode, again.stdout) == (0, asked.stdout)


def test_where_no_bridge_ever_ran_it_says_so(run: Any, nats_url: str) -> None:
    result = run("cancel", "hung-up", "--nats-url", nats_url)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")


def test_nats_away_is_one_line(run: Any) -> None:
    result = run("cancel", "hung-up", "--nats-url", "nats://127.0.0.1:1")
    assert result.returncode == 1
    assert "cannot be reached" in result.stderr
