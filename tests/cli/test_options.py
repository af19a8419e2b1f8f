"""Options: what they may be, and that they win over the environment and a file."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from bridge.cli.options import TOKEN, settings_of
from bridge.config import ClientSettings, Settings
from bridge.errors import ConfigurationError


def test_an_option_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text('slots = 1\nack_wait_s = 1.0\nbackend_url = "http://f/v1"\n')
    monkeypatch.setenv("TOKENBRIDGE_SLOTS", "2")
    monkeypatch.setenv("TOKENBRIDGE_BACKEND_URL", "http://e/v1")
    settings = settings_of(
        Settings, str(path), backend_url="http://o/v1", nats_url=None
    )
    assert (settings.ack_wait_s, settings.slots) == (1.0, 2)
    assert settings.backend_url == "http://o/v1"
    assert settings.nats_url == Settings().nats_url


def test_a_wrong_option_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match="nats_url: 'http://x' must start"):
        settings_of(ClientSettings, None, nats_url="http://x")
    with pytest.raises(ConfigurationError, match="TOKENBRIDGE_HTTP_PORT '-1'"):
        settings_of(Settings, None, http_port=-1)


@pytest.mark.parametrize("name", ["a", "A-Z_0", "x" * 64])
def test_a_name_fits_into_a_subject(name: str) -> None:
    assert TOKEN.convert(name, None, None) == name
    assert TOKEN.convert(f" {name}\r\n", None, None) == name


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "a b", "ä", "x" * 65, "a\r\nb"])
def test_what_does_not_fit_never_gets_there(name: str) -> None:
    option = click.Option(["--tenant"])
    with pytest.raises(click.BadParameter, match=r"tenant .* must be 1 to 64"):
        TOKEN.convert(name, option, None)
