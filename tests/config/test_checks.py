"""What no type can say is said in one line that names the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config import ClientSettings, Settings
from bridge.config.loading import load
from bridge.errors import ConfigurationError
from tests.config.files import write

IN_THE_ENVIRONMENT = [
    ("ACK_WAIT_S", "inf", "ack_wait_s must be a finite number"),
    ("ACK_WAIT_S", "1e10", "ack_wait_s must be at most 1000000000 seconds"),
    ("JOBS_MAX_COUNT", "9" * 19, "jobs_max_count must be at most 9223372036854775807"),
    ("HTTP_HOST", " ", "http_host must be an address or a name"),
    ("PREFIXES", ",", "prefixes must name at least one prefix"),
    ("PREFIXES", "", "prefixes must name at least one prefix"),
    ("PREFIXES", "llm,llm", "prefixes must name each prefix once"),
    ("PREFIXES", "llm,LLM", "prefixes must name each prefix once"),
    ("LANES", " , ", "lanes must name at least one lane"),
    ("LANES", "a.b", "lanes: 'a.b' must be 1 to 64 characters"),
    ("BACKEND_URL", "127.0.0.1/v1", "backend_url: '127.0.0.1/v1' must start with http"),
    ("BACKEND_URL", "http:///v1", "backend_url: 'http:///v1' names no host"),
    ("BACKEND_URL", "http://h:99999/v1", "backend_url: 'http://h:99999/v1' is no URL"),
    ("NATS_URL", "localhost:4222", "nats_url: 'localhost:4222' must start with nats"),
    ("NATS_URL", "nats://a:1,http://b", "nats_url: 'http://b' must start with nats"),
    ("NATS_URL", "nats://a:port", "nats_url: 'nats://a:***' is no URL"),
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
    ("[lanes.voice]\nack_wait_s = inf", "ack_wait_s must be a finite number"),
    ("[lanes.voice]\nreserved_slots = 65", "65 reserved slots are more than slots"),
    (
        '[[backends]]\nname = "a"\nurl = "x"',
        "backends.url of a: 'x' must start with http",
    ),
    (
        'backend_url = "http://x/v1"\n[[backends]]\nname = "default"\n'
        'url = "http://y/v1"',
        "backends must each have a name of its own",
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


@pytest.mark.parametrize("tenant", ["_", "", "a.b", "a b", "a*", "x" * 65, "a\nb"])
def test_a_tenant_that_breaks_the_grammar_stops_a_client(tenant: str) -> None:
    with pytest.raises(ConfigurationError, match=r"(?i)tenant"):
        load(ClientSettings, {"TOKENBRIDGE_TENANT": tenant})


# --- URLs and keys --------------------------------------------------------------------

SECRET = "s3cret-value"

UNUSABLE = [
    ("BACKEND_URL", "http://h/v1#a", "has a fragment"),
    ("BACKEND_URL", f"http://me:{SECRET}@h/v1#", "has a fragment"),
    ("BACKEND_URL", f"ftp://joe:{SECRET}@h/v1", "must start with http:// or https://"),
    ("BACKEND_URL", f"http://joe:{SECRET}@/v1", "names no host"),
    ("BACKEND_URL", f"http://joe:{SECRET}/x@h/v1", "write / ? # @ as %2F"),
    ("BACKEND_URL", f"http://joe:{SECRET}?x@h/v1", "write / ? # @ as %2F"),
    ("BACKEND_URL", f"http://joe:1/{SECRET}@h/v1", "has an @ behind its host"),
    ("BACKEND_URL", f"http://joe:{SECRET}", "is no URL"),
    ("BACKEND_URL", f"joe:{SECRET}@h", "must start with"),
    ("BACKEND_URL", f"sk-proj-{SECRET}-{SECRET}", "must start with"),
    ("BACKEND_URL", f"http://h h/v1?key={SECRET}", "names no host that can exist"),
    ("BACKEND_URL", "http://a..b/v1", "names no host that can exist"),
    ("BACKEND_URL", "http://xn--a\u0378.example/v1", "names no host that can exist"),
    ("NATS_URL", f"nats://{'a' * 64}:1", "names no host that can exist"),
    ("BACKEND_URL", f"http://h/a b?key={SECRET}", "has a space in it"),
    ("BACKEND_URL", f"http://h/a\nb?key={SECRET}", "contains a control character"),
    ("BACKEND_URL", f"http://j%ff:{SECRET}@h/v1", "is no UTF-8"),
    ("BACKEND_URL", f"http://j%0a:{SECRET}@h/v1", "contains a control character"),
    ("BACKEND_URL", f"http://a%3Ab:{SECRET}@h/v1", "cannot have a colon"),
    ("NATS_URL", f"http://joe:{SECRET}@h:1", "must start with nats:// or tls://"),
    ("NATS_URL", f"nats://joe:{SECRET}@h:port", "is no URL"),
    ("NATS_URL", f"nats://joe:{SECRET}/b@h:1", "write / ? # @ as %2F"),
    ("NATS_URL", f"nats://joe:{SECRET}#b@h:1", "write / ? # @ as %2F"),
    ("NATS_URL", f"nats://{SECRET}/b@h:1", "has an @ behind its host"),
    ("NATS_URL", f"nats://{SECRET}#b@h:1", "has an @ behind its host"),
    ("NATS_URL", f"nats://joe:a,{SECRET}@h:1", "is no URL"),
    ("NATS_URL", f"nats://joe:{SECRET},b@h:1", "is no URL"),
    ("NATS_URL", f"nats://joe:{SECRET}", "is no URL"),
    ("NATS_URL", f"joe:{SECRET}@h:1", "must start with nats:// or tls://"),
    ("NATS_URL", "nats://h:1/path", "is more than scheme://host:port"),
    ("NATS_URL", f"nats://h:1?token={SECRET}", "is more than scheme://host:port"),
    ("NATS_PASSWORD", f"{SECRET}\n{SECRET}", "contains a control character"),
    ("NATS_TOKEN", f"{SECRET}\udcff", "is not text in UTF-8"),
    ("NATS_TOKEN", f"{SECRET}\0", "contains a control character"),
    ("BACKEND_API_KEY", f"{SECRET} {SECRET}", "must be printable ASCII"),
    ("BACKEND_API_KEY", f"{SECRET}é", "must be printable ASCII"),
    ("BACKEND_API_KEY", f"{SECRET}\udcff", "is not text in UTF-8"),
    ("BACKEND_API_KEY", f"a\r{SECRET}", "contains a control character"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), UNUSABLE)
def test_what_cannot_be_used_is_one_line_without_the_secret(
    name: str, value: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(Settings, {f"TOKENBRIDGE_{name}": value})
    assert sentence in str(caught.value)
    assert name.lower() in str(caught.value).lower()
    assert SECRET not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("where", ["API_KEY", "API_KEY_FILE"])
def test_a_user_name_and_a_key_are_too_many(where: str) -> None:
    environ = {
        "TOKENBRIDGE_BACKEND_URL": f"https://me:{SECRET}@h/v1",
        f"TOKENBRIDGE_BACKEND_{where}": "k",
    }
    with pytest.raises(
        ConfigurationError, match="backend_url has a user name"
    ) as caught:
        load(Settings, environ)
    assert SECRET not in str(caught.value)


def test_only_a_proxy_that_would_be_used_is_looked_at() -> None:
    proxy = {"HTTPS_PROXY": f"socks5://me:{SECRET}@h:1"}
    for url in ("http://h/v1", "https://a.internal/v1"):
        environ = {"TOKENBRIDGE_BACKEND_URL": url, "NO_PROXY": ".internal", **proxy}
        assert load(Settings, environ).backend_url == url
    with pytest.raises(ConfigurationError, match=r"HTTPS_PROXY.*must start") as caught:
        load(Settings, {"TOKENBRIDGE_BACKEND_URL": "https://h/v1", **proxy})
    assert SECRET not in str(caught.value)
