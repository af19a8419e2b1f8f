"""``tokenbridge`` itself: its help, its version, and how errors end."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest

from bridge.cli.program import COMMANDS, program


def test_help_lists_every_command_with_a_sentence(run: Any) -> None:
    result = run("--help")
    assert result.returncode == 0
    for name, summary in COMMANDS.items():
        assert f"{name} " in result.stdout
        assert summary in result.stdout
    assert "Examples:" in result.stdout


def test_every_command_of_the_table_is_there() -> None:
    context = click.Context(program)
    assert program.list_commands(context) == list(COMMANDS)
    for name, summary in COMMANDS.items():
        command = program.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert (command.help or "").split()[0] == summary.split()[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(run: Any, command: str) -> None:
    result = run(command, "-h")
    assert result.returncode == 0
    assert result.stdout.startswith(f"Usage: tokenbridge {command} ")
    assert (
        f"Examples:\n    {'TOKENBRIDGE' if command == 'serve' else 'tokenbridge'}"
        in (result.stdout)
    )
    assert result.stderr == ""


def test_version(run: Any) -> None:
    result = run("--version")
    assert result.stdout == f"tokenbridge, version {version('tokenbridge')}\n"
    assert result.returncode == 0


def test_without_a_command_there_is_help(run: Any) -> None:
    result = run()
    assert result.returncode == 2
    assert "Usage: tokenbridge" in result.stderr


def test_an_unknown_command_is_one_line(run: Any) -> None:
    result = run("sreve")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: No such command 'sreve'")


@pytest.mark.parametrize("command", ["serve", "check", "dev", "ask", "tail", "cancel"])
def test_a_wrong_setting_is_one_line_and_ends_with_2(run: Any, command: str) -> None:
    argument = ("x",) if command in ("ask", "tail", "cancel") else ()
    wrong = {"TOKENBRIDGE_NATS_PING_INTERVAL_S": "often"}
    result = run(command, *argument, env=wrong)
    assert result.returncode == 2
    assert result.stderr == (
        "error: TOKENBRIDGE_NATS_PING_INTERVAL_S 'often' must be a number above 0\n"
    )
    missing = run(command, *argument, "--config", "missing.toml")
    assert missing.returncode == 2
    assert missing.stderr == (
        "error: cannot read missing.toml: No such file or directory\n"
    )


COMMANDS_WITH_SETTINGS = ("serve", "check", "dev", "ask x", "tail x", "cancel x")


def spoiled(tmp_path: Path) -> dict[str, dict[str, str]]:
    """Environments that no command can run with; a secret is in each."""
    utf16, twice, junk = (tmp_path / name for name in ("utf16", "twice", "junk"))
    utf16.write_text('nats_token = "s3cret"', "utf-16")
    twice.write_text('nats_token = "s3cret"\nnats_token = "s3cret"\n')
    junk.write_text("s3cret")
    return {
        "utf16": {"CONFIG": str(utf16)},
        "twice": {"CONFIG": str(twice)},
        "folder": {"CONFIG": f"{tmp_path}\r\n", "NATS_TOKEN": "s3cret"},
        "url": {"NATS_URL": "nats://me:s3cret/x@h"},
        "token": {"NATS_TOKEN": "s3cret\nx"},
        "credentials": {"NATS_CREDENTIALS_FILE": str(junk)},
        "certificates": {"NATS_CA_FILE": str(junk)},
        "prefixes": {"PREFIXES": ",", "NATS_PASSWORD": "s3cret"},
    }


@pytest.mark.parametrize("command", COMMANDS_WITH_SETTINGS)
def test_settings_that_cannot_be_used_are_one_line_and_2(
    run: Any, tmp_path: Path, command: str
) -> None:
    every = spoiled(tmp_path)
    # All of them in one command: loading is the same in all.
    names = every if command == "ask x" else ("folder", "url", "credentials")
    for name in names:
        environ = every[name]
        variables = {f"TOKENBRIDGE_{key}": value for key, value in environ.items()}
        result = run(*command.split(), env=variables)
        assert (result.returncode, result.stdout) == (2, ""), name
        [line] = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert "s3cret" not in line


BACKENDS: list[tuple[dict[str, str], str]] = [
    ({"URL": "https://me:s3cret@h", "API_KEY": "k"}, "backend_url has a user name"),
    ({"URL": "https://h/v1#s3cret"}, "has a fragment"),
    ({"URL": "https://h/v1", "API_KEY": "s3crét"}, "backend_api_key must be printable"),
    ({"URL": "https://h/v1", "API_KEY_FILE": "/"}, "backend_api_key_file: cannot read"),
    ({"URL": "https://h/v1", "CA_FILE": "/dev/null"}, "backend_ca_file: cannot use"),
    ({"URL": "https://h/v1", "HTTPS_PROXY": "socks5://me:s3cret@h"}, "HTTPS_PROXY"),
]


@pytest.mark.parametrize(("environ", "sentence"), BACKENDS)
def test_a_backend_that_cannot_be_used_is_one_line_and_2(
    run: Any, environ: dict[str, str], sentence: str
) -> None:
    variables = {f"TOKENBRIDGE_BACKEND_{key}": text for key, text in environ.items()}
    result = run("serve", env={**variables, "TOKENBRIDGE_HTTP_PORT": "0"})
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert sentence in line
    assert "s3cr" not in line


def imported_by(*arguments: str) -> set[str]:
    unset = {k: v for k, v in os.environ.items() if not k.startswith("TOKENBRIDGE_")}
    code = (
        "import sys\nfrom bridge.cli import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=unset,
    )
    return set(result.stderr.split())


def test_a_command_imports_only_what_it_needs() -> None:
    listing = imported_by("--help")
    assert "bridge.cli.program" in listing
    assert not listing & {"asyncio", "nats", "aiohttp", "httpx", "rich", "structlog"}
    # Which sets up logging, too, before it stops for want of a backend.
    serving = imported_by("serve")
    assert "bridge.service" in serving
    assert not serving & {
        "bridge.simulator",
        "bridge.client",
        "rich.console",
        "structlog",
    }
