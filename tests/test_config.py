"""Settings: where they come from, what they may be, and that each is documented."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import (
    BackendSettings,
    ClientSettings,
    LaneSettings,
    NatsSettings,
    Secret,
    Settings,
    load,
    read_secret,
)
from bridge.errors import ConfigurationError

DOCUMENT = Path(__file__).parent.parent / "docs/configuration.md"
BACKEND = {"TOKENBRIDGE_BACKEND_URL": "http://127.0.0.1:11434/v1"}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "bridge.toml"
    path.write_text(text, "utf-8")
    return path


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
    ("ACK_WAIT_S", "inf", "ack_wait_s: a finite number"),
    ("IDLE_TIMEOUT_S", "0", "TOKENBRIDGE_IDLE_TIMEOUT_S '0': a number above 0"),
    ("HTTP_PORT", "70000", "of at least 0 and at most 65535"),
    ("STREAM_REPLICAS", "6", "at most 5"),
    ("STREAM_STORAGE", "tape", "one of 'file', 'memory'"),
    ("STREAM_SETUP", "x", "one of 'create', 'update', 'verify'"),
    ("LOG_LEVEL", "loud", "one of 'debug', 'info', 'warning', 'error'"),
    ("JOBS_STREAM_NAME", "a b", "1 to 64 characters of A-Z a-z 0-9 _ -, or empty"),
    ("PREFIXES", "llm,a.b", "prefixes[1]: 1 to 64 characters"),
    ("PREFIXES", "", "prefixes: at least one"),
    ("PREFIXES", "llm,llm", "prefixes: each one once"),
    ("PREFIXES", "llm,LLM", "prefixes: each one once"),
    ("LANES", " , ", "lanes: at least one"),
    ("LANES", "a.b", "lanes: 'a.b' must be 1 to 64 characters"),
    ("BACKENDS", "x", "TOKENBRIDGE_BACKENDS: several backends go into the file"),
    ("BACKEND_URL", "127.0.0.1/v1", "backend_url: '127.0.0.1/v1' must start with http"),
    ("BACKEND_URL", "http:///v1", "backend_url: 'http:///v1' names no host"),
    ("BACKEND_URL", "http://h:99999/v1", "backend_url: 'http://h:99999/v1' is no URL"),
    ("NATS_URL", "localhost:4222", "nats_url: 'localhost:4222' must start with nats"),
    ("NATS_URL", "nats://a:1,http://b", "nats_url: 'http://b' must start with nats"),
    ("NATS_URL", "nats://a:port", "nats_url: 'nats://a:port' is no URL"),
    ("NATS_URL", "", "nats_url: '' must start with nats"),
    ("NATS_CERT_FILE", "c.pem", "nats_cert_file and nats_key_file go together"),
    ("DEADLINE_S", "3000", "deadline_s: at most half of tokens_max_age_s"),
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
    ("[lanes.voice]\nack_wait_s = inf", "ack_wait_s: a finite number"),
    ("[lanes.voice]\nslots = 3", "contains unknown field slots; a table of ack_wait_s"),
    ("[lanes.voice]\nreserved_slots = 65", "65 reserved slots are more than slots"),
    ('[backends]\nname = "x"', "backends: an array, each a table of name, url"),
    ('[[backends]]\nname = "a"', "backends[0]: missing required field url"),
    (
        '[[backends]]\nname = "a b"\nurl = "http://x/v1"',
        "backends[0].name: 1 to 64 characters",
    ),
    ('[[backends]]\nname = "a"\nurl = "x"', "backends.url: 'x' must start with http"),
    (
        '[[backends]]\nname = "a"\nurl = "http://x/v1"\ncontinue = "yes"',
        "backends[0].continue: one of 'none', 'final_message'",
    ),
    (
        'backend_url = "http://x/v1"\n[[backends]]\nname = "default"\n'
        'url = "http://y/v1"',
        "backends: each name once",
    ),
    (
        'prefixes = ["a", "b"]\ntokens_stream_name = "X"',
        "jobs_stream_name and the other names: only with a single prefix",
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


@pytest.mark.parametrize("tenant", ["_", "", "a.b", "a b", "a*", "x" * 65, "a\n"])
def test_a_tenant_that_breaks_the_grammar_stops_a_client(tenant: str) -> None:
    with pytest.raises(ConfigurationError, match=r"(?i)tenant"):
        load(ClientSettings, {"TOKENBRIDGE_TENANT": tenant})


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


# --- Secrets -------------------------------------------------------------------------

SECRET = "s3cret-value"


def secretive() -> Settings:
    environ = {
        "TOKENBRIDGE_NATS_URL": f"nats://joe:{SECRET}@h:1, nats://{SECRET}@h:2",
        "TOKENBRIDGE_NATS_PASSWORD": SECRET,
        "TOKENBRIDGE_NATS_TOKEN": SECRET,
        "TOKENBRIDGE_BACKEND_URL": f"https://joe:{SECRET}@h/v1",
        "TOKENBRIDGE_BACKEND_API_KEY": SECRET,
    }
    return load(Settings, environ)


def test_a_secret_is_in_no_repr() -> None:
    settings = secretive()
    for shown in (repr(settings), str(settings), repr(settings.all_backends())):
        assert SECRET not in shown
        assert "Secret(***)" in shown
    assert repr(settings.__rich_repr__()).count(SECRET) == 0
    assert settings.nats_password.reveal() == SECRET
    assert "nats://***@h:1, nats://***@h:2" in repr(settings)


def test_a_secret_is_in_no_error() -> None:
    for name, value in [
        ("NATS_URL", f"http://joe:{SECRET}@h:1"),
        ("NATS_URL", f"nats://joe:{SECRET}@h:port"),
        ("NATS_URL", f"nats://joe:{SECRET}/b@h:1"),
        ("BACKEND_URL", f"ftp://joe:{SECRET}@h/v1"),
        ("BACKEND_URL", f"http://joe:{SECRET}@/v1"),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            load(Settings, {f"TOKENBRIDGE_{name}": value})
        assert SECRET not in str(caught.value)


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
