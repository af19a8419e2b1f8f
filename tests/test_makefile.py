"""The two commands of the README, up to where they would install something."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"}
    environment = {k: v for k, v in os.environ.items() if k not in inherited}
    program = shutil.which("make")
    assert program is not None
    return subprocess.run(
        [program, "--no-print-directory", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_lists_every_target() -> None:
    phony = re.search(
        r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE
    )
    assert phony is not None
    result = make("help")
    assert result.returncode == 0
    listed = re.findall(r"^make (\S+) +\S", result.stdout, re.MULTILINE)
    assert listed == phony[1].split()
    assert make().stdout == result.stdout


def test_a_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\n', "utf-8")
    old.chmod(0o755)
    result = make("test", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert result.returncode != 0
    assert "needs Python 3.11 or newer" in result.stderr
    assert "is Python 3.9.2" in result.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_missing_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "python3"
    result = make("demo", f"PYTHON={missing}", f"VENV={tmp_path / 'venv'}")
    assert result.returncode != 0
    assert f"There is no {missing} here" in result.stderr


def test_a_python_without_venv_is_explained(tmp_path: Path) -> None:
    bare = tmp_path / "python3"
    bare.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n', "utf-8")
    bare.chmod(0o755)
    result = make("test", f"PYTHON={bare}", f"VENV={tmp_path / 'venv'}")
    assert result.returncode != 0
    assert "python3-venv" in result.stderr


def test_the_lock_says_what_it_needs(tmp_path: Path) -> None:
    result = make("lock", f"UV={tmp_path / 'uv'}")
    assert result.returncode != 0
    assert "make lock needs uv" in result.stderr
