"""``check``: every line says what was found, and what to do about it."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.bus.api import JetStream
from bridge.bus.connection import Connection
from bridge.config import NatsSettings


def lines(output: str) -> dict[str, str]:
    """Read the findings: what was looked at -> the whole line."""
    found = [line for line in output.splitlines() if not line.startswith("      ")]
    return {line[6:].partition(":")[0]: line for line in found}


def test_all_is_well_before_the_first_start(run: Any, env: dict[str, str]) -> None:
    result = run("check", env=env)
    assert result.returncode == 0, result.stdout
    found = lines(result.stdout)
    assert all(line.startswith("ok ") for line in found.values())
    assert "nats-server 2." in found["NATS"]
    assert "missing; tokenbridge serve will make it" in found["stream LLM_TOKENS"]
    assert env["TOKENBRIDGE_BACKEND_URL"] in found["backend default"]
    assert "simulator" in found["backend default"]


def test_what_is_secret_of_a_backends_url_is_not_shown(
    run: Any, env: dict[str, str]
) -> None:
    plain = env["TOKENBRIDGE_BACKEND_URL"]
    url = plain.replace("://", "://me:s3cret-a@") + "?key=s3cret-b"
    for given in (url, url.replace("/v1", "/v2")):
        result = run("check", "--backend-url", given, env=env)
        assert "s3cret" not in result.stdout + result.stderr
    assert f"{plain.replace('/v1', '/v2')}/models" in result.stdout


def test_the_streams_of_a_running_bridge_are_there(
    run: Any, env: dict[str, str], bridge: Any
) -> None:
    result = run("check", env={**env, "TOKENBRIDGE_STREAM_SETUP": "verify"})
    assert result.returncode == 0, result.stdout
    found = lines(result.stdout)
    for name in ("JOBS", "TOKENS", "CONTROL", "DEAD"):
        assert f"stream LLM_{name}: there" in found[f"stream LLM_{name}"]
    assert "there" in found["consumer default of LLM_JOBS"]


def test_what_may_not_be_made_is_missing(run: Any, env: dict[str, str]) -> None:
    result = run("check", env={**env, "TOKENBRIDGE_STREAM_SETUP": "verify"})
    assert result.returncode == 1
    found = lines(result.stdout)
    assert found["stream LLM_JOBS"].startswith("FAIL  stream LLM_JOBS: missing")
    assert 'stream_setup = "create"' in result.stdout


async def test_a_stream_that_breaks_a_promise_differs(
    run: Any, env: dict[str, str], nats_url: str
) -> None:
    connection = Connection(NatsSettings(nats_url=nats_url), name="test")
    await connection.connect()
    config = {"name": "LLM_TOKENS", "subjects": ["llm.tokens.>"], "storage": "memory"}
    await JetStream(connection).call("STREAM.CREATE.LLM_TOKENS", config)
    await connection.close()
    result = run("check", env=env)
    assert result.returncode == 1
    line = lines(result.stdout)["stream LLM_TOKENS"]
    assert line.startswith("FAIL  stream LLM_TOKENS: differs: ")
    assert "allow_batched is None, must be True" in line
    assert "TOKENBRIDGE_STREAM_SETUP=update" in result.stdout


def test_without_anything_there_each_line_says_what_to_do(run: Any) -> None:
    result = run("check", "--nats-url", "nats://joe:s3cret@127.0.0.1:1")
    assert result.returncode == 1
    found = lines(result.stdout)
    assert found["NATS"].startswith("FAIL  NATS: nats://127.0.0.1:1 cannot be reached")
    assert "-> start it" in result.stdout
    assert "none is configured" in found["backend"]
    assert "-> set TOKENBRIDGE_BACKEND_URL" in result.stdout
    assert "s3cret" not in result.stdout + result.stderr
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("path", "advice"), [("", "the base that ends in /v1"), ("/v2", "/v1")]
)
def test_a_backend_that_is_elsewhere_fails(
    run: Any, env: dict[str, str], path: str, advice: str
) -> None:
    url = env["TOKENBRIDGE_BACKEND_URL"].removesuffix("/v1") + path
    result = run("check", "--backend-url", url, env=env)
    assert result.returncode == 1
    assert lines(result.stdout)["backend default"].startswith("FAIL  backend default:")
    assert advice in result.stdout


def test_a_backend_that_is_away_fails(run: Any, env: dict[str, str]) -> None:
    result = run("check", "--backend-url", "http://127.0.0.1:1/v1", env=env)
    assert result.returncode == 1
    assert "-> is it running" in result.stdout
    line = lines(result.stdout)["backend default"]
    assert line.startswith(
        "FAIL  backend default: cannot be reached: Connection refused (http://"
    )


def test_a_backend_without_a_list_of_models_is_not_asked_for_a_models_name(
    run: Any, env: dict[str, str]
) -> None:
    url = env["TOKENBRIDGE_BACKEND_URL"].removesuffix("/v1") + "/v2"
    result = run("check", "--backend-url", url, env=env)
    assert lines(result.stdout)["backend default"] == (
        f"FAIL  backend default: answered 404 Not Found ({url}/models)"
    )


def test_jobs_that_no_bridge_pulls_fail(
    run: Any, start: Any, env: dict[str, str], bridge: Any
) -> None:
    bridge.interrupt()
    assert bridge.ended() == 0
    asking = start("ask", "Why?", env=env)
    asking.wait_for("is queued", "err")
    result = run("check", env=env)
    assert result.returncode == 1, result.stdout
    line = lines(result.stdout)["consumer default of LLM_JOBS"]
    assert line.endswith("LLM_JOBS: 1 job waits and no bridge pulls")
    assert "-> start one: tokenbridge serve" in result.stdout


def test_a_model_that_no_backend_lists_is_named(
    run: Any, env: dict[str, str], tmp_path: Any
) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text(
        '[[backends]]\nname = "sim"\nmodels = ["llama9"]\n'
        f'url = "{env.pop("TOKENBRIDGE_BACKEND_URL")}"\n',
        "utf-8",
    )
    result = run("check", "--config", str(path), env=env)
    assert result.returncode == 1
    assert "does not list llama9" in lines(result.stdout)["backend sim"]
    assert "-> it has: simulator" in result.stdout
