"""``simulate``: where it listens, and the behaviour that its options ask for."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.simulate import behaviour_of
from bridge.errors import ConfigurationError
from bridge.simulator import Behaviour


def test_it_listens_says_where_and_ends_with_0(start: Any) -> None:
    simulating = start("simulate", "--port", "0", "--model", "a", "--model", "b")
    url = simulating.wait_for(r"listens on (http://127\.0\.0\.1:\d+/v1)")[1]
    with urllib.request.urlopen(f"{url}/models", timeout=10) as answer:
        models = json.load(answer)["data"]
    assert [model["id"] for model in models] == ["a", "b"]
    simulating.wait_for(f"TOKENBRIDGE_BACKEND_URL={url} tokenbridge serve")
    simulating.interrupt(signal.SIGTERM)
    assert simulating.ended() == 0
    assert simulating.err == ""


def test_ctrl_c_ends_it_too(start: Any) -> None:
    simulating = start("simulate", "--port", "0")
    simulating.wait_for("listens on")
    simulating.interrupt()
    assert simulating.ended() == 0
    assert simulating.err == ""


def test_a_port_that_is_taken_is_one_line(run: Any, simulator_url: str) -> None:
    port = simulator_url.rpartition(":")[2].removesuffix("/v1")
    result = run("simulate", "--port", port)
    assert result.returncode == 2
    assert result.stderr.startswith("error: the simulator cannot listen on")


def test_options_win_over_faults_and_faults_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "behaviour.json"
    path.write_text('{"first_token_ms": 1, "jitter": 0.1, "ndjson": true}', "utf-8")
    pace = {"first_token_ms": 3.0, "tokens_per_second": None, "jitter": None}
    behaviour = behaviour_of(str(path), '{"jitter": 0.2, "first_token_ms": 2}', pace)
    assert behaviour == Behaviour(first_token_ms=3, jitter=0.2, ndjson=True)
    assert behaviour_of(None, None, {}) == Behaviour()


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        ("[]", "--faults must be a JSON object"),
        ("{", "--faults must be a JSON object"),
        ('{"explode": 1}', "--faults: simulate: .*explode"),
        ('{"status": 200}', "--faults: simulate: .*status"),
    ],
)
def test_wrong_faults_name_the_field(faults: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        behaviour_of(None, faults, {})


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read missing\.json"):
        behaviour_of("missing.json", None, {})


@pytest.mark.parametrize("host", ["a..b", "no.such.invalid", "192.0.2.1"])
def test_a_host_that_cannot_be_had_is_one_line(run: Any, host: str) -> None:
    result = run("simulate", "--host", host, "--port", "0")
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: the simulator cannot listen on {host}:0: ")
