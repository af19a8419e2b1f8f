"""What no type can say is said in one line that names the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config import ClientSettings, Settings
from bridge.config.loading import load
from bridge.errors import ConfigurationError
from tests.config.files import write

IN_THE_ENVIRONMENT = [
    ("ACK_WAIT_S", "inf", "ack_wait_s: a finite number"),
    ("PREFIXES", "", "prefixes: at least one"),
    ("PREFIXES", "llm,llm", "prefixes: each one once"),
    ("PREFIXES", "llm,LLM", "prefixes: each one once"),
    ("LANES", " , ", "lanes: at least one"),
    ("LANES", "a.b", "lanes: 'a.b' must be 1 to 64 characters"),
    ("BACKEND_URL", "127.0.0.1/v1", "backend_url: '127.0.0.1/v1' must start with http"),
    ("BACKEND_URL", "http:///v1", "backend_url: 'http:///v1' names no host"),
    ("BACKEND_URL", "http://h:99999/v1", "backend_url: 'http://h:99999/v1' is no URL"),
    ("NATS_URL", "localhost:4222", "nats_url: 'localhost:4222' must start with nats"),
    ("NATS_URL", "nats://a:1,http://b", "nats_url: 'http://b' must start with nats"),
    ("NATS_URL", "nats://a:port", "nats_url: 'nats://a:port' is no URL"),
    ("NATS_URL", "", "nats_url: '' must start with nats"),
    ("NATS_CERT_FILE", "c.pem", "nats_cert_file and nats_key_file go together"),
    ("JOBS_MAX_AGE_S", "1859", "jobs_max_age_s: 1,859 s are too short"),
    ("JOBS_MAX_AGE_S", "60", "at least 1,860 s, please"),
    ("TOKENS_MAX_AGE_S", "604800", "for its deadline, 302,400 s at most"),
    ("DEADLINE_S", "3000", "deadline_s: at most half of tokens_max_age_s"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), IN_THE_ENVIRONMENT)
def test_what_a_variable_breaks_is_one_line(
    name: str, value: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(Settings, {f"TOKENBRIDGE_{name}": value})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


IN_THE_FILE = [
    ("[lanes.voice]\nack_wait_s = inf", "ack_wait_s: a finite number"),
    ("[lanes.voice]\nreserved_slots = 65", "65 reserved slots are more than slots"),
    ('[[backends]]\nname = "a"\nurl = "x"', "backends.url: 'x' must start with http"),
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
def test_what_a_file_breaks_is_one_line(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(Settings, {}, write(tmp_path, text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tenant", ["_", "", "a.b", "a b", "a*", "x" * 65, "a\n"])
def test_a_tenant_that_breaks_the_grammar_stops_a_client(tenant: str) -> None:
    with pytest.raises(ConfigurationError, match=r"(?i)tenant"):
        load(ClientSettings, {"TOKENBRIDGE_TENANT": tenant})


SECRET = "s3cret-value"


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
