"""``demo``: what it shows, what it says at the end, and that nothing stays behind."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.demo import PROMPTS

PROGRAM = Path(sys.executable).with_name("tokenbridge")


@pytest.fixture
def scratch(tmp_path: Path) -> dict[str, str]:
    """The environment that puts temporary files where a test can count them."""
    return {"TMPDIR": str(tmp_path)}


def nats_pid(tmp_path: Path) -> int:
    (ports,) = tmp_path.glob("tokenbridge-nats-*/*.ports")
    return int(ports.stem.rpartition("_")[2])


def test_lines_where_stdout_is_no_terminal_and_how_to_use_a_real_one(
    run: Any, scratch: dict[str, str], tmp_path: Path
) -> None:
    # Nothing of the environment counts, not even what is wrong in it.
    result = run("demo", env={**scratch, "TOKENBRIDGE_SLOTS": "none"})
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    for number, prompt in enumerate(PROMPTS, start=1):
        assert f"[{number}] ? {prompt}\n" in result.stdout
        assert re.search(
            rf"^\[{number}\] = \d+ tokens, .*, stop$", result.stdout, re.MULTILINE
        )
    assert len(re.findall(r"completed .* ms .* 1…\d+ proven", result.stdout)) == 6
    assert re.search(r"6 requests +6 good +\d+ +6 proven", result.stdout)
    assert max(map(len, result.stdout.splitlines())) <= 90
    assert list(tmp_path.iterdir()) == []
    end = result.stdout.partition("The text came from a simulator")[2]
    for words in (
        "TOKENBRIDGE_BACKEND_URL",
        "TOKENBRIDGE_NATS_URL",
        "http://127.0.0.1:11434/v1 tokenbridge dev\n",
        "--use-nats",
        "tokenbridge ask --model llama3.2",
    ):
        assert words in end


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)]
)
def test_a_signal_ends_it_and_all_that_it_started(
    start: Any,
    scratch: dict[str, str],
    tmp_path: Path,
    number: signal.Signals,
    code: int,
) -> None:
    showing = start("demo", env=scratch)
    showing.wait_for(r"\[6\] \?")
    pid = nats_pid(tmp_path)
    showing.interrupt(number)
    assert showing.ended() == code
    assert "Traceback" not in showing.err
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


def test_panels_where_stdout_is_a_terminal(
    scratch: dict[str, str], terminal: tuple[int, int]
) -> None:
    ours, theirs = terminal
    env = {**os.environ, **scratch, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    showing = subprocess.Popen(
        [PROGRAM, "demo"], env=env, stdout=theirs, stderr=theirs, stdin=theirs
    )
    os.close(theirs)
    shown = bytearray()
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # Linux's way to say that nobody has the other side.
            break
        if not data:
            break
        shown += data
    assert showing.wait(30) == 0
    text = shown.decode()
    assert text.count("╭") > 12  # drawn more than once
    assert "6 proven" in text
