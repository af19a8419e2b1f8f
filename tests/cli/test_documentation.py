"""``docs/cli.md`` has every command, every option, and every exit code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from bridge.cli import exit_codes
from bridge.cli.program import COMMANDS, program

DOCUMENT = (Path(__file__).parents[2] / "docs/cli.md").read_text("utf-8")


def sections() -> dict[str, str]:
    """Read the document: heading -> text below it."""
    parts = re.split(r"^## (.*)$", DOCUMENT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def parameters(command: str) -> set[str]:
    """Name the options, hidden ones included, and the arguments of a command."""
    found = program.get_command(click.Context(program), command)
    assert found is not None
    names: set[str] = set()
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            names.update(name for name in parameter.opts if name.startswith("--"))
        else:
            assert parameter.name is not None
            names.add(parameter.name.upper())
    return names


def test_every_command_is_documented_in_the_programs_order() -> None:
    assert list(sections()) == ["Exit codes", *COMMANDS]
    table = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    assert [name for name, _, _ in table] == list(COMMANDS)
    for name, anchor, summary in table:
        assert anchor == name
        assert f"{summary}." == COMMANDS[name]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented_and_no_other(command: str) -> None:
    section = sections()[command]
    rows = re.findall(r"^\| `(--[a-z-]+|[A-Z]+)[ `]", section, re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == parameters(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(command: str) -> None:
    example = re.search(r"```sh\n(.*?)```", sections()[command], re.DOTALL)
    assert example is not None
    assert f"tokenbridge {command}" in example[1]


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| ", sections()["Exit codes"], re.MULTILINE)
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    assert {int(row) for row in rows} == codes
