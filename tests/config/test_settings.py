"""The settings' structs: what they derive, what they hide, and the document of them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.config import (
    BackendSettings,
    ClientSettings,
    LaneSettings,
    NatsSettings,
    Secret,
    Settings,
    read_secret,
)
from bridge.config.loading import load
from bridge.errors import ConfigurationError
from tests.config.files import write

DOCUMENT = Path(__file__).parents[2] / "docs/configuration.md"
BACKEND = {"TOKENBRIDGE_BACKEND_URL": "http://127.0.0.1:11434/v1"}


def test_a_lane_has_its_own_ack_wait_or_the_general_one(tmp_path: Path) -> None:
    text = "ack_wait_s = 8.0\n[lanes.voice]\nack_wait_s = 3.0\n[lanes.bulk]\n"
    settings = load(Settings, {}, write(tmp_path, text))
    assert settings.ack_wait_of("voice") == 3.0
    assert settings.ack_wait_of("bulk") == 8.0


def test_the_bare_backend_stands_before_those_of_the_file(tmp_path: Path) -> None:
    text = (
        '[[backends]]\nname = "b"\nurl = "https://b/v1"\ncontinue = "final_message"\n'
    )
    environ = {
        **BACKEND,
        "TOKENBRIDGE_BACKEND_API_KEY": "k-1",
        "TOKENBRIDGE_BACKEND_CONTINUE": "final_message",
    }
    first, second = load(Settings, environ, write(tmp_path, text)).all_backends()
    assert (first.name, first.api_key.reveal()) == ("default", "k-1")
    assert first.continue_ == second.continue_ == "final_message"
    assert second.name == "b"


# --- Secrets -------------------------------------------------------------------------

SECRET = "s3cret-value"


def secretive() -> Settings:
    environ = {
        "TOKENBRIDGE_NATS_URL": f"nats://joe:{SECRET}@h:1, nats://{SECRET}@h:2",
        "TOKENBRIDGE_NATS_PASSWORD": SECRET,
        "TOKENBRIDGE_NATS_TOKEN": SECRET,
        "TOKENBRIDGE_BACKEND_URL": f"https://joe:{SECRET}@h/v1?key={SECRET}",
        "HTTPS_PROXY": f"http://joe:{SECRET}@proxy:3128",
    }
    return load(Settings, environ)


def test_a_secret_is_in_no_repr() -> None:
    settings = secretive()
    keyed = Settings(backend_url="https://h/v1", backend_api_key=Secret(SECRET))
    for shown in (repr(settings), str(settings), repr(keyed.all_backends())):
        assert SECRET not in shown
        assert "Secret(***)" in shown
    assert repr(settings.__rich_repr__()).count(SECRET) == 0
    assert settings.nats_password.reveal() == SECRET
    assert "nats://***@h:1, nats://***@h:2" in repr(settings)


def test_a_secret_can_be_compared_and_asked_whether_it_is_there() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a")
    assert not Secret()
    assert repr(Secret()) == "Secret()"


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"  {SECRET}\n", "utf-8")
    assert read_secret(Secret("other"), str(path), "x").reveal() == SECRET
    assert read_secret(Secret("other"), "", "x").reveal() == "other"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff"])
def test_a_secrets_file_without_one_names_the_setting(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"backend_api_key_file: .*key"):
        read_secret(Secret(), str(path), "backend_api_key_file")


# --- The document --------------------------------------------------------------------

ROW = re.compile(r"^\| `([^`]+)` \| (?:`(\w+)`|\(file\)) \| (\S.*?) \| (\S.*?) \|$")


def rows() -> dict[str, tuple[str | None, str]]:
    """Read the document: setting -> (variable, default)."""
    found: dict[str, tuple[str | None, str]] = {}
    for line in DOCUMENT.read_text("utf-8").splitlines():
        match = ROW.match(line)
        if match is not None:
            assert match[1] not in found, f"{match[1]} has two lines"
            found[match[1]] = (match[2], match[3])
    return found


def fields(kind: type[msgspec.Struct], before: str = "") -> dict[str, str]:
    """Every setting of ``kind`` with its default, as the document writes it."""
    found = {}
    for field in msgspec.structs.fields(kind):
        default: Any = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        found[f"{before}{field.encode_name}"] = shown(default)
    return found


def shown(default: object) -> str:
    if default is msgspec.NODEFAULT:
        return "required"
    if isinstance(default, Secret):
        default = default.reveal()
    if default == {"default": LaneSettings()}:
        default = {"default": {}}
    return f"`{json.dumps(default)}`"


def everything() -> dict[str, str]:
    client = fields(ClientSettings)
    del client["log_level"]  # One name, two defaults; the document says so in words.
    return {
        **fields(Settings),
        **client,
        **fields(LaneSettings, "lanes.*."),
        **fields(BackendSettings, "backends[]."),
    }


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {name: default for name, (_, default) in rows().items()}
    assert documented == everything()
    assert f'`log_level` is `"{ClientSettings().log_level}"`' in DOCUMENT.read_text(
        "utf-8"
    )


def test_every_variable_is_documented_by_its_name() -> None:
    for name, (variable, _) in rows().items():
        if name == "backends" or "." in name:
            assert variable is None
        else:
            assert variable == f"TOKENBRIDGE_{name.upper()}"


def test_the_documents_files_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        settings = load(Settings, {}, write(tmp_path, block))
        assert settings != Settings()
        assert settings.lanes["voice"].ack_wait_s == 3.0
        assert tomllib.loads(block).keys() <= set(Settings.__struct_fields__)


def test_the_settings_of_nats_are_the_same_for_all() -> None:
    shared = set(NatsSettings.__struct_fields__)
    assert shared < set(Settings.__struct_fields__)
    assert shared < set(ClientSettings.__struct_fields__)
