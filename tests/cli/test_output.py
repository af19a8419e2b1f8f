"""Standard streams as shells leave them: closed, full, or read by nobody."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest

from bridge.cli.output import readable
from bridge.simulator import text_for
from tests.cli.conftest import PATIENCE_S, PROGRAM, environment, serve


def shell(
    command: str, env: dict[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run ``command``, where ``tb`` is the program, by bash."""
    return subprocess.run(
        ["bash", "-c", f'tb() {{ "{PROGRAM}" "$@"; }}\n{command}'],
        env=environment(env or {}),
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_S * 2,
    )


# --- An output that cannot be written ------------------------------------------------


FULL = b"error: cannot write to stdout: No space left on device\n"


@pytest.mark.parametrize(
    "command", ["--help", "--version", "ask --help", "simulate --port 0"]
)
def test_a_full_disk_is_one_line(command: str) -> None:
    result = shell(f"tb {command} > /dev/full")
    assert (result.returncode, result.stderr) == (1, FULL)


@pytest.mark.parametrize("option", ["", "--json"])
def test_a_full_disk_cancels_what_is_asked(
    shared: dict[str, str], shared_bridge: Any, option: str
) -> None:
    id = f"full{option}"
    command = f"tb ask Why? --max-tokens 100000 --id {id} {option} > /dev/full"
    result = shell(command, shared)
    assert (result.returncode, result.stderr) == (1, FULL)
    shared_bridge.wait_for(rf'request cancelled.*"id":"{id}"', "err")
    assert shell(f"tb tail {id} --json > /dev/full", shared).stderr == FULL


def test_what_cannot_be_said_on_stderr_changes_nothing(
    shared: dict[str, str], shared_bridge: Any
) -> None:
    ask = "tb ask Why? --max-tokens 5"
    wanted = shell(ask, shared).stdout
    for redirected in ("2> /dev/full", "2>&-", "2> >(true)"):
        result = shell(f"{ask} {redirected}", shared)
        assert (result.returncode, result.stdout) == (0, wanted)
        result = shell(f"tb cancel {redirected}")
        assert (result.returncode, result.stdout, result.stderr) == (2, b"", b"")
    assert shell("tb --help > /dev/full 2>&1").returncode == 1


# --- An output that nobody reads -----------------------------------------------------


@pytest.mark.parametrize("option", ["", "--json"])
def test_ask_ends_with_3_and_cancels_when_nobody_reads_it(
    shared: dict[str, str], shared_bridge: Any, option: str
) -> None:
    id = f"head{option}"
    result = shell(
        f"tb ask Why? --max-tokens 100000 --id {id} {option} | head -c 2\n"
        "exit ${PIPESTATUS[0]}",
        shared,
    )
    assert result.returncode == 3
    assert len(result.stdout) == 2
    assert result.stderr == b"cancelled: the output is not read any more\n"
    shared_bridge.wait_for(rf'request cancelled.*"id":"{id}"', "err")


def test_ask_does_not_wait_for_a_text_to_find_that_nobody_reads_it(
    start: Any, env: dict[str, str]
) -> None:
    slow = ("--first-token-ms", "60000")
    simulator = start("simulate", "--port", "0", *slow)
    url = simulator.wait_for(r"listens on (\S+)")[1]
    bridge = serve(start, {**env, "TOKENBRIDGE_BACKEND_URL": url})
    read_end, write_end = os.pipe()
    asking = start("ask", "Why?", "--id", "unread", env=env, stdout=write_end)
    os.close(write_end)
    tailing = start("tail", "unread", "--json", "--wait", "30", env=env)
    tailing.wait_for('"type":"started"')
    os.close(read_end)
    assert asking.ended() == 3
    assert asking.err == "cancelled: the output is not read any more\n"
    bridge.wait_for(r'request cancelled.*"id":"unread"', "err")


def test_tail_and_check_end_quietly_when_nobody_reads_them(
    run: Any, shared: dict[str, str], shared_bridge: Any
) -> None:
    options = ("--max-tokens", "5", "--id", "read")
    assert run("ask", "Why?", *options, env=shared).returncode == 0
    read_end, write_end = os.pipe()
    os.close(read_end)
    for command in (("tail", "read"), ("tail", "read", "--json"), ("check",), ("-h",)):
        result = subprocess.run(
            [PROGRAM, *command],
            env=environment(shared),
            stdout=write_end,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
        )
        assert (result.returncode, result.stderr) == (141, b"")
    os.close(write_end)
    assert run("tail", "read", env=shared).returncode == 0


def test_an_output_that_does_not_block_is_waited_for() -> None:
    code = (
        "from bridge.cli.output import open_standard_streams\n"
        "open_standard_streams()\n"
        "for number in range(50_000):\n    print(number)"
    )
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    writing = subprocess.Popen(
        [sys.executable, "-c", code], stdout=write_end, stderr=subprocess.PIPE
    )
    os.close(write_end)
    # It writes against a pipe that is full, for it has more than one holds.
    while unread(read_end) < 60_000:
        assert writing.poll() is None
    with open(read_end, "rb") as output:
        numbers = [int(line) for line in output.read().splitlines()]
    _, said = writing.communicate(timeout=PATIENCE_S)
    assert (writing.returncode, said) == (0, b"")
    assert numbers == list(range(50_000))


# --- Streams that are closed ---------------------------------------------------------


CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_streams_do_no_harm(
    shared: dict[str, str], shared_bridge: Any, closed: str
) -> None:
    asked = shell(f"tb ask Why? --max-tokens 3 {closed}", shared)
    assert asked.returncode == 0
    assert bool(asked.stdout) is (">&-" not in closed.replace("2>&-", ""))
    assert b"Traceback" not in asked.stderr
    assert shell(f"tb --help {closed}").returncode == 0
    assert shell(f"tb cancel {closed}").returncode == 2


@pytest.mark.parametrize("empty", ["<&-", "< /dev/null", "<&- >&- 2>&-"])
def test_an_empty_stdin_is_wrong_usage(empty: str) -> None:
    result = shell(f"tb ask - {empty}")
    assert result.returncode == 2
    if "2>" not in empty:
        [line] = result.stderr.decode().splitlines()
        assert line.startswith(
            "error: the prompt on stdin is empty, or stdin is closed"
        )


def test_a_stdin_that_cannot_be_read_is_one_line() -> None:
    result = shell("tb ask - 0> /dev/null")
    assert result.returncode == 2
    [line] = result.stderr.decode().splitlines()
    assert line.startswith("error: the prompt cannot be read from stdin: Bad file")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-"])
def test_serve_drains_with_closed_streams(
    env: dict[str, str], loop: str, closed: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ready = f"http://127.0.0.1:{port}/readyz"
    result = shell(
        f'"{PROGRAM}" serve --loop {loop} {closed} & pid=$!\n'
        f'until "{sys.executable}" -c "import urllib.request as r; '
        f"r.urlopen('{ready}')\" 2> /dev/null; do kill -0 $pid || break; done\n"
        "kill -TERM $pid; wait $pid",
        {**env, "TOKENBRIDGE_HTTP_PORT": str(port)},
    )
    assert result.returncode == 0, result.stderr
    assert b"Traceback" not in result.stderr


# --- Bytes that are no text ----------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        (b"-caf\xe9", "-caf\ufffd"),
        (b"\xff\xfe\n", "\ufffd\ufffd\n"),
        (b"\xed\xb3\xa9", "\ufffd\ufffd\ufffd"),
        ("grüße\r\n".encode(), "grüße\r\n"),
        ("\ufeffgrüße".encode(), "grüße"),
    ],
)
def test_bytes_on_stdin_that_are_no_utf_8_are_replaced(
    shared: dict[str, str], simulator_url: str, data: bytes, prompt: str
) -> None:
    result = shell("tb ask - --max-tokens 7", shared, data)
    messages = [{"role": "user", "content": prompt}]
    wanted = {"model": "default", "messages": messages, "max_tokens": 7}
    assert result.returncode == 0
    assert result.stdout.decode() == text_for(wanted) + "\n"
    assert (b"U+FFFD" in result.stderr) is ("\ufffd" in prompt)


def test_bytes_of_the_command_line_that_are_no_utf_8_are_replaced(
    shared: dict[str, str], shared_bridge: Any
) -> None:
    prompt, system = "$'caf\\xe9'", "$'\\xff'"
    result = shell(f"tb ask {prompt} --system {system} --max-tokens 7", shared)
    messages = [
        {"role": "system", "content": "\ufffd"},
        {"role": "user", "content": "caf\ufffd"},
    ]
    wanted = {"model": "default", "messages": messages, "max_tokens": 7}
    assert (result.returncode, result.stdout.decode()) == (0, text_for(wanted) + "\n")
    assert b"PROMPT is not all UTF-8" in result.stderr
    cancelled = shell("tb cancel some --reason $'\\xe9'", shared)
    assert cancelled.returncode == 0
    assert b"Traceback" not in cancelled.stderr


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
@pytest.mark.parametrize(
    "command",
    [
        "ask x --id $'\\xe9'",
        "ask x --model $'\\xe9'",
        "ask x --nats-url $'nats://\\xe9'",
        "tail $'\\xe9'",
        "cancel x --tenant $'\\xe9'",
        "serve --config $'\\xe9.toml'",
        "check --backend-url $'http://h/\\xe9'",
        "simulate --faults $'{\"\\xe9\": 1}'",
        "simulate --behaviour $'\\xe9'",
        "$'\\xe9'",
        "ask x --$'\\xe9'",
    ],
)
def test_what_is_no_utf_8_elsewhere_is_one_line(command: str, locale: str) -> None:
    plain = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = shell(f"tb {command}", plain)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert line.startswith(b"error: ")
    assert re.search(rb"[\x00-\x08\x0b-\x1f]", line) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain\n", "plain\n"),
        ("caf\udce9", "caf\ufffd"),
        ("\udcc3\udcbc", "ü"),
        ("half \ud83d", "half \ufffd"),
        ("\ud83d\udce9", "\ufffd\ufffd"),
    ],
)
def test_what_cannot_be_read_of_the_command_line(text: str, wanted: str) -> None:
    assert readable(text) == wanted


def test_a_signal_while_stdin_is_read_ends_with_130() -> None:
    asking = subprocess.Popen(
        [PROGRAM, "ask", "-"],
        env=environment({"PYTHONUNBUFFERED": "1"}),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell starts what it runs in the background with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert asking.stdin is not None
    asking.stdin.write(b"\xff")
    asking.stdin.flush()
    # It has imported everything once it has taken what is in the pipe.
    while unread(asking.stdin.fileno()):
        assert asking.poll() is None
    asking.send_signal(signal.SIGINT)
    _, said = asking.communicate(timeout=PATIENCE_S)
    assert asking.returncode == 130, said
    assert b"Traceback" not in said


def unread(descriptor: int) -> int:
    """How many bytes are in the pipe."""
    held = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0")
    return int(struct.unpack("i", held)[0])
