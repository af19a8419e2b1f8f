"""``dev``: three things that stay up, on ports that are free or named."""

from __future__ import annotations

import re
import signal
import socket
from typing import Any

import pytest

FREE = ("--nats-port", "0", "--simulator-port", "0", "--http-port", "0")


def test_ask_in_a_second_terminal_is_what_it_says(run: Any, start: Any) -> None:
    staying = start("dev", *FREE)
    url = staying.wait_for(r"NATS +(nats://127\.0\.0\.1:\d+)\n")[1]
    hint = staying.wait_for(r"In a second terminal:\n  (.*)\n")[1]
    assert hint == f'TOKENBRIDGE_NATS_URL={url} tokenbridge ask "Why is the sky blue?"'
    assert "simulated: set TOKENBRIDGE_BACKEND_URL for a real one" in staying.out
    env = {"TOKENBRIDGE_NATS_URL": url}
    result = run("ask", "Why is the sky blue?", "--max-tokens", "5", env=env)
    assert result.returncode == 0
    assert result.stdout
    staying.interrupt()
    assert staying.ended() == 0
    assert "Traceback" not in staying.err
    assert run("ask", "x", env=env).returncode == 1


def test_the_users_own_backend_takes_the_simulators_place(
    start: Any, simulator_url: str
) -> None:
    # Its port is taken, and that does not matter.
    port = simulator_url.rpartition(":")[2].removesuffix("/v1")
    options = ("--nats-port", "0", "--simulator-port", port, "--http-port", "0")
    staying = start("dev", *options, env={"TOKENBRIDGE_BACKEND_URL": simulator_url})
    staying.wait_for(rf"backend +{re.escape(simulator_url)}\n")
    staying.wait_for(r'ask --model simulator "Why')
    staying.interrupt(signal.SIGTERM)
    assert staying.ended() == 0


def test_a_nats_that_runs_may_be_used(start: Any, nats_url: str) -> None:
    options = ("--use-nats", "--simulator-port", "0", "--http-port", "0")
    url = nats_url.replace("//", "//joe:s3cret@")
    staying = start("dev", *options, env={"TOKENBRIDGE_NATS_URL": url})
    staying.wait_for(rf"NATS +{nats_url}\n")
    staying.wait_for(r"Ctrl-C ends it")
    staying.interrupt()
    assert staying.ended() == 0
    assert "s3cret" not in staying.out + staying.err


def test_a_nats_that_is_set_and_not_used_is_said(start: Any) -> None:
    url = "nats://joe:s3cret@127.0.0.1:1"
    staying = start("dev", *FREE, env={"TOKENBRIDGE_NATS_URL": url})
    staying.wait_for(
        r"note: TOKENBRIDGE_NATS_URL \(nats://127\.0\.0\.1:1\) is not used; add "
        r"--use-nats to use it instead of an embedded NATS\n",
        "err",
    )
    staying.wait_for(r"Ctrl-C ends it")
    staying.interrupt()
    assert staying.ended() == 0
    assert "s3cret" not in staying.out + staying.err


def test_a_backend_that_does_not_answer_yet_is_said(start: Any) -> None:
    url = "http://127.0.0.1:1/v1"
    staying = start("dev", *FREE, env={"TOKENBRIDGE_BACKEND_URL": url})
    staying.wait_for(rf"backend +{url} \(does not answer yet: Connection refused\)\n")
    staying.wait_for(r"ask --model MODEL")


@pytest.mark.parametrize(
    ("option", "what", "advice"),
    [
        ("--nats-port", "nats-server", "--use-nats"),
        ("--simulator-port", "the simulator", "--simulator-port"),
        ("--http-port", "the bridge", "TOKENBRIDGE_HTTP_PORT"),
    ],
)
def test_a_port_that_is_taken_is_one_line_that_says_how_to_change_it(
    run: Any, option: str, what: str, advice: str
) -> None:
    options = dict(zip(FREE[::2], FREE[1::2], strict=True))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        options[option] = port
        result = run("dev", *(word for pair in options.items() for word in pair))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {what} cannot listen on ")
    assert f":{port}: the port is taken" in line
    assert advice in line


def test_a_nats_that_has_the_port_is_recognised(run: Any, nats_url: str) -> None:
    port = nats_url.rpartition(":")[2]
    result = run("dev", "--nats-port", port, "--http-port", "0")
    assert result.returncode == 2
    assert "a NATS server listens there" in result.stderr
