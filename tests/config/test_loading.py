"""Where a setting comes from, and that what cannot be taken is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import ClientSettings, Settings
from bridge.config.loading import load
from bridge.errors import ConfigurationError
from tests.config.files import write

# --- Where a setting comes from ------------------------------------------------------


def test_without_anything_every_setting_has_its_default() -> None:
    assert load(Settings, {}) == Settings()
    assert load(ClientSettings, {}) == ClientSettings()
    assert Settings().nats_url == "nats://127.0.0.1:4222"
    assert Settings().http_port == 8088
    assert Settings().all_backends() == []


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'slots = 3\nack_wait_s = 2\nnats_url = "nats://file:1"\n')
    environ = {"TOKENBRIDGE_SLOTS": "9", "TOKENBRIDGE_NATS_URL": "nats://env:2"}
    settings = load(Settings, environ, path)
    assert settings.slots == 9
    assert settings.nats_url == "nats://env:2"
    assert settings.ack_wait_s == 2.0


def test_variables_of_others_are_left_alone() -> None:
    environ = {"PATH": "/bin", "TOKENBRIDG_SLOTS": "x", "TOKENBRIDGE_CONFIG": "a.toml"}
    assert load(Settings, environ) == Settings()


def test_the_bridge_and_its_clients_may_share_an_environment_and_a_file(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, 'slots = 3\ntenant = "acme"\n')
    environ = {"TOKENBRIDGE_MODEL": "llama3.2", "TOKENBRIDGE_HTTP_PORT": "1"}
    assert load(Settings, environ, path).slots == 3
    client = load(ClientSettings, environ, path)
    assert (client.tenant, client.model) == ("acme", "llama3.2")


def test_lists_have_commas_in_the_environment() -> None:
    environ = {"TOKENBRIDGE_PREFIXES": "llm, blue", "TOKENBRIDGE_LANES": "bulk,voice"}
    settings = load(Settings, environ)
    assert settings.prefixes == ["llm", "blue"]
    assert list(settings.lanes) == ["bulk", "voice"]


# --- What is wrong gets one line that names the setting ------------------------------

IN_THE_ENVIRONMENT = [
    ("SLOTS", "0", "TOKENBRIDGE_SLOTS '0': a whole number of at least 1"),
    ("SLOTS", "", "TOKENBRIDGE_SLOTS '': a whole number"),
    ("SLOTS", "many", "TOKENBRIDGE_SLOTS 'many': a whole number"),
    ("SLOTS", "1.5", "a whole number of at least 1"),
    (
        "SLOT",
        "1",
        "TOKENBRIDGE_SLOT: there is no such setting; is TOKENBRIDGE_SLOTS meant?",
    ),
    ("PORT", "tcp://10.0.0.1:80", "TOKENBRIDGE_PORT: there is no such setting"),
    ("ACK_WAIT_S", "0.1", "TOKENBRIDGE_ACK_WAIT_S '0.1': a number of at least 0.5"),
    ("ACK_WAIT_S", "nan", "TOKENBRIDGE_ACK_WAIT_S"),
    ("IDLE_TIMEOUT_S", "0", "TOKENBRIDGE_IDLE_TIMEOUT_S '0': a number above 0"),
    ("HTTP_PORT", "70000", "of at least 0 and at most 65535"),
    ("STREAM_REPLICAS", "6", "at most 5"),
    ("STREAM_STORAGE", "tape", "one of 'file', 'memory'"),
    ("STREAM_SETUP", "x", "one of 'create', 'update', 'verify'"),
    ("LOG_LEVEL", "loud", "one of 'debug', 'info', 'warning', 'error'"),
    ("JOBS_STREAM_NAME", "a b", "1 to 64 characters of A-Z a-z 0-9 _ -, or empty"),
    ("PREFIXES", "llm,a.b", "prefixes[1]: 1 to 64 characters"),
    ("BACKENDS", "x", "TOKENBRIDGE_BACKENDS: several backends go into the file"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), IN_THE_ENVIRONMENT)
def test_a_wrong_variable_is_one_line_that_says_what_it_may_be(
    name: str, value: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(Settings, {f"TOKENBRIDGE_{name}": value})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


IN_THE_FILE = [
    ("slots = ", "is not valid TOML"),
    ('slots = "3"', "slots: a whole number of at least 1"),
    ("slots = true", "slots: a whole number"),
    ("slot = 3", "slot: there is no such setting; is slots meant?"),
    ('prefixes = "llm"', "prefixes: an array, each 1 to 64 characters"),
    ('prefixes = ["a\\n"]', "prefixes[0]: 1 to 64 characters"),
    ("nats_password = 5", "nats_password: a text"),
    ('lanes = ["a"]', "lanes: a table of tables"),
    ('[lanes.voice]\nack_wait_s = "3"', "lanes.*.ack_wait_s: a number above 0"),
    ("[lanes.voice]\nslots = 3", "contains unknown field slots; a table of ack_wait_s"),
    ('[backends]\nname = "x"', "backends: an array, each a table of name, url"),
    ('[[backends]]\nname = "a"', "backends[0]: missing required field url"),
    (
        '[[backends]]\nname = "a b"\nurl = "http://x/v1"',
        "backends[0].name: 1 to 64 characters",
    ),
    (
        '[[backends]]\nname = "a"\nurl = "http://x/v1"\ncontinue = "yes"',
        "backends[0].continue: one of 'none', 'final_message'",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), IN_THE_FILE)
def test_a_wrong_file_is_one_line_that_says_what_it_may_be(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(Settings, {}, write(tmp_path, text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigurationError, match=r"missing\.toml: No such file"):
        load(Settings, {}, missing)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not valid TOML"):
        load(Settings, {}, binary)


@given(st.sampled_from(sorted(Settings.__struct_fields__)), st.text())
def test_any_text_in_any_variable_is_taken_or_refused_by_name(
    name: str, text: str
) -> None:
    environ = {f"TOKENBRIDGE_{name.upper()}": text}
    error = refused(environ)
    if error is None:
        assert load(Settings, environ) == load(Settings, environ)
    else:
        assert name in error.lower() or name.partition("_")[0] in error
        assert len(error.splitlines()) == 1


def refused(environ: dict[str, str]) -> str | None:
    try:
        load(Settings, environ)
    except ConfigurationError as error:
        return str(error)
    return None
