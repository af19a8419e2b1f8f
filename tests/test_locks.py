"""The lock files hold what the project declares, with hashes and without addresses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def pins(name: str) -> dict[str, str]:
    """Read a lock: distribution to version."""
    text = (ROOT / "requirements" / name).read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;\\]+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["build.txt", "runtime.txt", "dev.txt"])
def test_a_lock_has_a_hash_for_everything_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text("utf-8")
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(name)) > 0
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def declared() -> dict[str, list[str]]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    groups = project["dependency-groups"]
    runtime = project["project"]["dependencies"]
    server = project["project"]["optional-dependencies"]["server"]
    dev = [line for line in groups["dev"] if isinstance(line, str)]
    build = groups["build"] + project["build-system"]["requires"]
    return {
        "runtime.txt": runtime,
        "build.txt": build,
        "dev.txt": runtime + server + dev + build,
    }


@pytest.mark.parametrize("name", ["build.txt", "runtime.txt", "dev.txt"])
def test_a_lock_holds_what_the_project_declares(name: str) -> None:
    locked = pins(name)
    for line in declared()[name]:
        wanted = Requirement(line)
        version = locked.get(wanted.name.lower().replace("_", "-"))
        assert version is not None, f"{wanted.name} is not in {name}: make lock"
        assert version in wanted.specifier, f"{name}: {version}, not {line}: make lock"


def test_what_is_tested_is_what_is_shipped() -> None:
    tested = pins("dev.txt")
    assert pins("runtime.txt").items() <= tested.items()
    assert pins("build.txt").items() <= tested.items()
