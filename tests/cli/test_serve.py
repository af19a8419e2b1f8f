"""``serve``: its start, its drain, what stops it, and how it logs."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from bridge.config import Settings


def records(err: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in err.splitlines()]


def test_without_a_backend_it_names_the_setting(run: Any) -> None:
    result = run("serve")
    assert result.returncode == 2
    assert "TOKENBRIDGE_BACKEND_URL" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_exit_code_is_0(
    bridge: Any, number: signal.Signals
) -> None:
    bridge.interrupt(number)
    assert bridge.ended() == 0
    last = records(bridge.err)
    assert any("draining" in record["event"] for record in last)
    assert bridge.out == ""


def test_it_logs_json_with_fields_where_stderr_is_no_terminal(bridge: Any) -> None:
    bridge.interrupt()
    assert bridge.ended() == 0
    ready = next(r for r in records(bridge.err) if r["event"] == "ready")
    assert ready["level"] == "info"
    assert ready["logger"] == "bridge.service"
    assert ready["slots"] == Settings().slots
    assert ready["timestamp"].endswith("Z")


def test_it_is_ready_only_when_it_says_so(bridge: Any) -> None:
    ready = next(r for r in records(bridge.err) if r["event"] == "ready")
    url = f"http://127.0.0.1:{ready['http_port']}/readyz"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "auto"])
def test_it_serves_on_either_loop(
    run: Any, start: Any, env: dict[str, str], loop: str
) -> None:
    serving = start("serve", "--loop", loop, env=env)
    serving.wait_for(r'"event":"ready"', "err")
    assert run("ask", "Hi", "--max-tokens", "3", env=env).returncode == 0
    serving.interrupt()
    assert serving.ended() == 0


def test_without_nats_it_says_so_and_a_signal_still_ends_it(start: Any) -> None:
    with socket.socket() as taken:
        # Bound and not listening: nobody else can be there.
        taken.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{taken.getsockname()[1]}"
        serving = start(
            *("serve", "--nats-url", url, "--backend-url", "http://127.0.0.1:1/v1"),
            env={"TOKENBRIDGE_HTTP_PORT": "0"},
        )
        serving.wait_for(r"cannot be reached", "err")
        serving.interrupt()
        assert serving.ended() == 0


def test_a_file_configures_it_and_a_secret_in_it_is_never_logged(
    start: Any, env: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "bridge.toml"
    url = env["TOKENBRIDGE_NATS_URL"].replace("//", "//joe:s3cret-word@")
    path.write_text(
        f'nats_url = "{url}"\nslots = 7\nlog_level = "debug"\nhttp_port = 0\n'
        f'backend_url = "{env["TOKENBRIDGE_BACKEND_URL"]}"\n'
        'backend_api_key = "s3cret-key"\n',
        "utf-8",
    )
    serving = start("serve", "--config", str(path))
    serving.wait_for(r'"event":"ready".*\n', "err")
    serving.interrupt(signal.SIGTERM)
    assert serving.ended() == 0
    assert '"slots":7' in serving.err
    assert "s3cret" not in serving.err


def test_logs_may_be_asked_to_be_for_people(start: Any, env: dict[str, str]) -> None:
    serving = start("serve", env={**env, "TOKENBRIDGE_LOG_FORMAT": "console"})
    serving.wait_for(r"ready.*slots=64", "err")
    assert "{" not in serving.err.partition("ready")[0]


def test_a_port_that_is_taken_is_one_line(run: Any, env: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = run("serve", env={**env, "TOKENBRIDGE_HTTP_PORT": port})
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert port in result.stderr
    assert len(result.stderr.splitlines()) == 1
