"""``ask``: the text, the figures, the exit codes, and Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

import pytest

from bridge.simulator import text_for, tokens_for


def request(prompt: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "default", "messages": messages, **more}


def events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_the_text_is_on_stdout_and_the_figures_on_stderr(
    run: Any, shared: dict[str, str]
) -> None:
    result = run("ask", "Why is the sky blue?", "--max-tokens", "12", env=shared)
    assert result.returncode == 0, result.stderr
    wanted = request("Why is the sky blue?", max_tokens=12)
    assert result.stdout == text_for(wanted) + "\n"
    figures = r"12 tokens, first after \d+ ms, [\d.]+ tokens/s, length\n"
    assert re.fullmatch(figures, result.stderr)


def test_options_become_the_request(run: Any, shared: dict[str, str]) -> None:
    result = run(
        *("ask", "-", "--system", "Be short.", "--model", "m-1", "--id", "mine"),
        *("--temperature", "0.5", "--max-tokens", "5", "--session", "call-1"),
        *("--supersede", "--deadline-ms", "60000", "--tenant", "acme", "--json"),
        env=shared,
        stdin="From a pipe",
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    first, *_, last = events(result.stdout)
    assert (first["type"], first["id"], first["seq"]) == ("started", "mine", 1)
    assert (first["model"], first["session"]) == ("m-1", "call-1")
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "From a pipe"},
    ]
    asked = {"model": "m-1", "messages": messages, "max_tokens": 5, "temperature": 0.5}
    assert last["type"] == "completed"
    assert last["text"] == text_for(asked)


def test_json_is_the_wire_one_event_a_line(run: Any, shared: dict[str, str]) -> None:
    result = run("ask", "Hi", "--json", env=shared)
    found = events(result.stdout)
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    texts = [event["text"] for event in found if event["type"] == "token"]
    assert texts == tokens_for(request("Hi"))


def test_the_model_may_be_a_setting(run: Any, shared: dict[str, str]) -> None:
    result = run("ask", "Hi", "--json", env={**shared, "TOKENBRIDGE_MODEL": "m-2"})
    assert events(result.stdout)[0]["model"] == "m-2"


def test_the_text_comes_as_it_streams(start: Any, shared: dict[str, str]) -> None:
    asking = start("ask", "Why?", "--max-tokens", "100000", env=shared)
    asking.wait_for(r"\S+ \S+ \S+")
    assert asking.process.poll() is None


def test_ctrl_c_cancels_the_request_and_ends_with_3(
    run: Any, start: Any, shared: dict[str, str]
) -> None:
    options = ("--max-tokens", "100000", "--id", "long")
    asking = start("ask", "Why?", *options, env=shared)
    asking.wait_for(r"\S+ \S+")
    asking.interrupt()
    assert asking.ended() == 3
    assert asking.out.endswith("\n")
    assert "cancelled: interrupted" in asking.err
    # Gone from the bridge, too: its log ends so.
    tailed = run("tail", "long", "--json", env=shared)
    assert tailed.returncode == 3
    last = events(tailed.stdout)[-1]
    assert (last["type"], last["reason"]) == ("cancelled", "interrupted")


def test_a_second_ctrl_c_does_not_wait_for_a_bridge(
    start: Any, run: Any, bridge: Any, env: dict[str, str]
) -> None:
    bridge.interrupt()
    assert bridge.ended() == 0
    asking = start("ask", "Why?", "--id", "queued", env=env)
    asking.wait_for(r"queued is queued; is a bridge running", "err")
    asking.interrupt()
    asking.wait_for(r"cancelling; Ctrl-C again leaves at once", "err")
    asking.interrupt()
    assert asking.ended() == 3
    assert "queued" in asking.err.splitlines()[-1]


def test_without_a_bridge_it_gives_up_when_told_to(
    run: Any, bridge: Any, env: dict[str, str]
) -> None:
    bridge.interrupt()
    assert bridge.ended() == 0
    result = run("ask", "Why?", "--wait", "0.3", env=env)
    assert result.returncode == 1
    assert "no bridge took" in result.stderr
    assert "within 0.3 s" in result.stderr
    assert result.stderr.startswith("error: ")


def test_whoever_stops_reading_cancels(
    start: Any, shared: dict[str, str], shared_bridge: Any
) -> None:
    reading, writing = os.pipe()
    options = ("--id", "piped", "--max-tokens", "100000")
    asking = start("ask", "Why?", *options, env=shared, stdout=writing)
    os.close(writing)
    assert os.read(reading, 5)
    os.close(reading)
    assert asking.ended() == 3
    assert asking.err == "cancelled: the output is not read any more\n"
    shared_bridge.wait_for(r'request cancelled.*"id":"piped"', "err")


def test_a_failure_says_code_and_message_and_ends_with_1(
    run: Any, start: Any, env: dict[str, str]
) -> None:
    down = {**env, "TOKENBRIDGE_BACKEND_URL": "http://127.0.0.1:1/v1"}
    start("serve", env=down).wait_for(r'"event":"ready"', "err")
    result = run("ask", "Why?", env=env)
    assert result.returncode == 1
    assert re.search(r"^failed: backend_unavailable: ", result.stderr, re.MULTILINE)
    assert "worth another try" in result.stderr


def test_an_unknown_lane_is_one_line(run: Any, shared: dict[str, str]) -> None:
    result = run("ask", "Why?", "--lane", "express", env=shared)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "'express'" in line
    assert line.endswith("tokenbridge check tells")


def test_what_was_asked_before_is_read_from_its_log(
    run: Any, shared: dict[str, str]
) -> None:
    words = ("ask", "Why?", "--id", "again", "--max-tokens", "5")
    first, second = run(*words, env=shared), run(*words, env=shared)
    assert "was asked before" not in first.stderr
    assert (second.returncode, second.stdout) == (0, first.stdout)
    note, figures = second.stderr.splitlines()
    assert note == "[again was asked before: this is its log, nothing was generated]"
    assert figures.startswith("5 tokens, ")
    assert "tokens/s" not in figures


def test_a_full_queue_is_one_line(run: Any, start: Any, env: dict[str, str]) -> None:
    small = {**env, "TOKENBRIDGE_JOBS_MAX_COUNT": "1", "TOKENBRIDGE_SLOTS": "1"}
    start("serve", env=small).wait_for(r'"event":"ready"', "err")
    first = start("ask", "Why?", "--max-tokens", "100000", env=env)
    first.wait_for(r"\S+ \S+")
    result = run("ask", "Why?", env=env)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "the queue of jobs is full" in line
    assert "Try again later" in line


def test_a_job_that_is_too_large_is_one_line(run: Any, shared: dict[str, str]) -> None:
    result = run("ask", "-", env=shared, stdin="x" * 600_000)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "exceeds the limit for jobs" in line


def test_nats_away_is_one_line_and_quick(run: Any) -> None:
    begun = time.monotonic()
    result = run("ask", "Why?", "--nats-url", "nats://joe:s3cret@127.0.0.1:1")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: NATS at nats://127.0.0.1:1 cannot be reached")
    assert line.endswith(
        "; start it (tokenbridge dev brings one), or set TOKENBRIDGE_NATS_URL"
    )
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ask",), "Missing argument 'PROMPT'"),
        (("ask", "x", "--tenant", "a.b"), "'--tenant': tenant 'a.b' must be 1 to 64"),
        (("ask", "x", "--tenant", "_"), "tenant: '_' is reserved"),
        (("ask", "x", "--id", "a b"), "'--id': id 'a b' must be"),
        (("ask", "x", "--supersede"), "--supersede needs a --session"),
        (("ask", "x", "--max-tokens", "0"), "'--max-tokens': 0 is not in the range"),
        (("ask", "x", "--nope"), "No such option"),
        (("tail", "a.b"), "id 'a.b' must be 1 to 64 characters"),
        (("cancel",), "give an ID, or a --session"),
        (("cancel", "a", "--session", "b"), "give an ID, or a --session"),
    ],
)
def test_wrong_usage_is_one_line_and_ends_with_2(
    run: Any, arguments: tuple[str, ...], sentence: str
) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert sentence in line
