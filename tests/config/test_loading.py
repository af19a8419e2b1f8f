"""Where a setting comes from, and that what cannot be taken is named in one line."""

from __future__ import annotations

import tempfile
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
    ("SLOTS", "0", "TOKENBRIDGE_SLOTS '0' must be a whole number of at least 1"),
    ("SLOTS", "", "TOKENBRIDGE_SLOTS '' must be a whole number"),
    ("SLOTS", "many", "TOKENBRIDGE_SLOTS 'many' must be a whole number"),
    ("SLOTS", "1.5", "a whole number of at least 1"),
    (
        "SLOT",
        "1",
        "TOKENBRIDGE_SLOT: there is no such setting; is TOKENBRIDGE_SLOTS meant?",
    ),
    ("PORT", "tcp://10.0.0.1:80", "TOKENBRIDGE_PORT: there is no such setting"),
    (
        "ACK_WAIT_S",
        "0.1",
        "TOKENBRIDGE_ACK_WAIT_S '0.1' must be a number of at least 0.5",
    ),
    ("ACK_WAIT_S", "nan", "TOKENBRIDGE_ACK_WAIT_S"),
    ("IDLE_TIMEOUT_S", "0", "TOKENBRIDGE_IDLE_TIMEOUT_S '0' must be a number above 0"),
    ("HTTP_PORT", "70000", "of at least 0 and at most 65535"),
    ("STREAM_REPLICAS", "6", "at most 5"),
    ("STREAM_STORAGE", "tape", "one of 'file', 'memory'"),
    ("STREAM_SETUP", "x", "one of 'create', 'update', 'verify'"),
    ("LOG_LEVEL", "loud", "one of 'debug', 'info', 'warning', 'error'"),
    ("JOBS_STREAM_NAME", "a b", "1 to 64 characters of A-Z a-z 0-9 _ -, or empty"),
    ("PREFIXES", "llm,a.b", "prefixes[1] must be 1 to 64 characters"),
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
    ('slots = "3"', "slots must be a whole number of at least 1"),
    ("slots = true", "slots must be a whole number"),
    ("slot = 3", "slot: there is no such setting; is slots meant?"),
    ('prefixes = "llm"', "prefixes must be an array, each 1 to 64 characters"),
    ('prefixes = ["a\\nb"]', "prefixes[0] contains a control character"),
    ("nats_password = 5", "nats_password must be a text"),
    ('lanes = ["a"]', "lanes must be a table of tables"),
    ('[lanes.voice]\nack_wait_s = "3"', "lanes.*.ack_wait_s must be a number above 0"),
    (
        "[lanes.voice]\nslots = 3",
        "contains unknown field slots; it must be a table of ack_wait_s",
    ),
    ('[backends]\nname = "x"', "backends must be an array, each a table of name, url"),
    ('[[backends]]\nname = "a"', "backends[0] missing required field"),
    (
        '[[backends]]\nname = "a b"\nurl = "http://x/v1"',
        "backends[0].name must be 1 to 64 characters",
    ),
    (
        '[[backends]]\nname = "a"\nurl = "http://x/v1"\ncontinue = "yes"',
        "backends[0].continue must be one of 'none', 'final_message'",
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
    with pytest.raises(ConfigurationError, match="it is text in UTF-16"):
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


# --- What is around a value is not part of it ----------------------------------------

TEXTS = {
    "NATS_URL": "nats://h:1",
    "NATS_USER": "me",
    "NATS_PASSWORD": "p w",
    "NATS_TOKEN": "t0ken",
    "NATS_CREDENTIALS_FILE": "/a/b.creds",
    "JOBS_STREAM_NAME": "JOBS",
    "STREAM_STORAGE": "memory",
    "BACKEND_URL": "http://h/v1",
    "BACKEND_API_KEY": "sk-1",
    "BACKEND_CA_FILE": "/a/ca.pem",
    "BACKEND_CONTINUE": "final_message",
    "BACKEND_THINK_TAGS": "true",
    "UNREADABLE_RECORDS": "fail",
    "PREFIXES": "a,b",
    "LANES": "bulk,voice",
    "SLOTS": "7",
    "ACK_WAIT_S": "2.5",
    "HTTP_HOST": "::",
    "LOG_LEVEL": "debug",
}
AROUND = ["\n", "\r\n", " ", "\t", "\ufeff", "\u00a0", " \r\n\ufeff"]


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_around_a_variable_is_not_part_of_it(name: str) -> None:
    bare = load(Settings, clean(name, TEXTS[name]))
    assert bare != Settings()
    for around in AROUND:
        for text in (TEXTS[name] + around, around + TEXTS[name] + around):
            assert load(Settings, clean(name, text)) == bare


def clean(name: str, text: str) -> dict[str, str]:
    return {f"TOKENBRIDGE_{name}": text}


@pytest.mark.parametrize("name", sorted(TEXTS.keys() - {"NATS_PASSWORD", "NATS_USER"}))
def test_the_quotes_of_an_env_file_are_not_part_of_a_value(name: str) -> None:
    bare = load(Settings, clean(name, TEXTS[name]))
    for quote in ('"', "'"):
        if name != "NATS_TOKEN":
            text = f"{quote}{TEXTS[name]}{quote}\r"
            assert load(Settings, clean(name, text)) == bare


def test_the_quotes_of_a_password_may_be_meant() -> None:
    settings = load(Settings, clean("NATS_PASSWORD", '"a"\n'))
    assert settings.nats_password.reveal() == '"a"'


def test_what_is_around_the_texts_of_a_file_is_not_part_of_them(tmp_path: Path) -> None:
    text = (
        'nats_url = "\\tnats://h:1\\r\\n"\nprefixes = [" a", "b\\n"]\n'
        'nats_password = "p w\\r\\n"\nlog_level = "debug "\n[[backends]]\n'
        'name = " x "\nurl = "http://h/v1\\r"\napi_key = "sk-1\\n"\nmodels = ["m\\n"]\n'
    )
    settings = load(Settings, {}, write(tmp_path, text))
    assert settings.nats_url == "nats://h:1"
    assert settings.prefixes == ["a", "b"]
    assert settings.nats_password.reveal() == "p w"
    assert settings.log_level == "debug"
    [backend] = settings.all_backends()
    assert (backend.name, backend.url, backend.models) == ("x", "http://h/v1", ["m"])
    assert backend.api_key.reveal() == "sk-1"


@pytest.mark.parametrize(
    ("data", "slots"),
    [
        (b"", 64),
        (b"\xef\xbb\xbfslots = 3", 3),
        (b"\xef\xbb\xbfslots = 3\r\nack_wait_s = 2\r\n", 3),
    ],
)
def test_a_file_of_any_editor_is_read(tmp_path: Path, data: bytes, slots: int) -> None:
    path = tmp_path / "bridge.toml"
    path.write_bytes(data)
    assert load(Settings, {}, path).slots == slots


FILES = [
    ("slots = 3".encode("utf-16"), "it is text in UTF-16; save it as UTF-8"),
    ("slots = 3".encode("utf-16-le"), "it is text in UTF-16; save it as UTF-8"),
    (b"# caf\xe9\nslots = 3", "it is not text in UTF-8"),
    (b"slots = 3\nslots = 4", "is not valid TOML: Cannot overwrite a value"),
    (b"a = " + b"[" * 100_000, "is not valid TOML: it is nested too deep"),
    (b"slots = " + b"9" * 5_000, "is not valid TOML: Exceeds the limit"),
    (b"slots = 3.0", "slots must be a whole number"),
    (b"slots = nan", "slots must be a whole number"),
    (b"slots = 2026-01-01", "slots must be a whole number"),
    (b"ack_wait_s = nan", "ack_wait_s must be a number of at least 0.5"),
    (b"ack_wait_s = inf", "ack_wait_s must be a finite number"),
    (b"ack_wait_s = 1" + b"0" * 400, "ack_wait_s must be a number"),
    (b'backend_think_tags = "true"', "backend_think_tags must be true or false"),
    (b'nats_url = "nats://a\\nb"', "nats_url contains a control character"),
    (b'nats_password = "s3cret\\u0000x"', "nats_password contains a control"),
    (
        b'[[backends]]\nname="a"\nurl="http://h"\napi_key="s3cret\\u00e9"',
        "of a must be",
    ),
    (b'"a\\nb" = 1', "a\\nb: there is no such setting"),
    (b'[lanes."a\\nb"]', "lanes: 'a\\nb' must be 1 to 64 characters"),
    (b'[lanes."' + b"x" * 5_000 + b'"]', "must be 1 to 64 characters"),
    (b"x" * 5_000 + b" = 1", "there is no such setting"),
    (b"#" * 2_000_000, "it is larger than 1048576 bytes"),
]


@pytest.mark.parametrize(("data", "sentence"), FILES)
def test_a_file_that_cannot_be_taken_is_one_line(
    tmp_path: Path, data: bytes, sentence: str
) -> None:
    path = tmp_path / "bridge.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError) as caught:
        load(Settings, {}, path)
    said = str(caught.value)
    assert sentence in said
    assert "s3cret" not in said
    assert said.isprintable()
    assert len(said) <= 500


def test_a_path_that_is_none_is_one_line(tmp_path: Path) -> None:
    for path, sentence in (
        ("", "--config must name a file"),
        (str(tmp_path), "Is a directory"),
        ("a\0b", "that is no path"),
        ("x" * 5_000, "File name too long"),
    ):
        with pytest.raises(ConfigurationError, match=sentence) as caught:
            load(Settings, {}, path)
        assert str(caught.value).isprintable()


def test_long_values_are_not_shown(tmp_path: Path) -> None:
    for name in ("SLOTS", "LOG_LEVEL", "BACKEND_URL", "NATS_URL", "LANES", "PREFIXES"):
        for text in ("x" * 100_000, "http://h/" + "x" * 100_000 + " y"):
            said = refused({f"TOKENBRIDGE_{name}": text})
            assert said is not None
            assert len(said) < 500


# --- The proxy of the environment ----------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "proxy", "no_proxy"),
    [
        ({"HTTPS_PROXY": "http://a:1\n", "NO_PROXY": " x "}, "http://a:1", "x"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b"}, "http://b", ""),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": ""}, "http://a:1", ""),
        ({"NO_PROXY": "x", "no_proxy": "y"}, "", "y"),
        ({"HTTP_PROXY": "http://a:1", "ALL_PROXY": "http://a:1"}, "", ""),
        ({"http_proxy": "http://a:1", "all_proxy": "http://a:1"}, "", ""),
        (
            {"https_proxy": "http://a", "TOKENBRIDGE_BACKEND_HTTPS_PROXY": "http://o"},
            "http://o",
            "",
        ),
        ({"https_proxy": "http://a", "TOKENBRIDGE_BACKEND_HTTPS_PROXY": ""}, "", ""),
        ({"no_proxy": "x", "TOKENBRIDGE_BACKEND_NO_PROXY": "y,z"}, "", "y,z"),
    ],
)
def test_the_proxy_is_the_environments_unless_a_setting_says_so(
    environ: dict[str, str], proxy: str, no_proxy: str
) -> None:
    settings = load(Settings, environ)
    assert settings.backend_https_proxy == proxy
    assert settings.backend_no_proxy == no_proxy


def test_a_file_wins_over_the_environments_proxy(tmp_path: Path) -> None:
    path = write(tmp_path, 'backend_https_proxy = "http://file:1"\n')
    settings = load(Settings, {"https_proxy": "http://a:1"}, path)
    assert settings.backend_https_proxy == "http://file:1"
    assert load(ClientSettings, {"https_proxy": "no url"}, path) == ClientSettings()


# --- Whatever the input --------------------------------------------------------------

SECRET = "s3+cret" * 4  # no name of anything
ANY_TEXT = st.one_of(
    st.text(st.characters(), max_size=80),
    st.sampled_from(["http://h/v1", "nats://h:1", "1e400", "-1", "true", "\udcff"]),
    st.sampled_from(
        [
            SECRET,
            f"nats://me:{SECRET}@h",
            f"http://me:{SECRET}/@h/v1",
            f"h:{SECRET}",
            f"https://h/v1?key={SECRET}",
            f"{SECRET}\n{SECRET}",
        ]
    ),
)
NAMES = st.sampled_from(
    [*Settings.__struct_fields__, "tenant", "lane", "model", "name", "url", "slot"]
)
SCALARS = st.one_of(
    ANY_TEXT, st.integers(), st.floats(), st.booleans(), st.dates(), st.none()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(NAMES, st.text(max_size=8)), inner, max_size=4),
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(NAMES, VALUES, max_size=5),
    st.dictionaries(NAMES.map(lambda n: f"TOKENBRIDGE_{n.upper()}"), ANY_TEXT),
    st.sampled_from([Settings, ClientSettings]),
)
def test_any_table_and_any_environment_are_taken_or_refused_in_one_line(
    table: dict[str, object], environ: dict[str, str], kind: type[Settings]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bridge.config.loading.tomllib.loads", lambda _: table)
        patch.setattr("bridge.config.loading.read_text", lambda _: "")
        try:
            settings = load(kind, environ, "bridge.toml")
        except ConfigurationError as error:
            said = str(error)
            assert SECRET not in said
            assert said.isprintable()
            assert len(said) <= 500
        else:
            assert SECRET not in hidden(settings)


def hidden(settings: Settings | ClientSettings) -> str:
    """The repr, but for the settings that are no secret and may be any text."""
    shown = settings.__rich_repr__()
    harmless = ("_file", "model", "http_host", "_proxy", "nats_user")
    return repr([pair for pair in shown if not pair[0].endswith(harmless)])


@given(st.binary(max_size=60))
def test_any_bytes_of_a_file_are_taken_or_refused_in_one_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bridge.toml"
        path.write_bytes(data)
        said = ""
        try:
            load(Settings, {}, path)
        except ConfigurationError as error:
            said = str(error)
        assert said.isprintable()
