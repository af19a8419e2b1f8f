"""URLs taken apart: nothing of them is lost, and what is secret is known as such."""

from __future__ import annotations

import base64
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import Settings
from bridge.config.urls import (
    Login,
    backend_address,
    bypasses,
    nats_servers,
    proxy_for,
    secrets_in,
)
from bridge.errors import ConfigurationError

BACKENDS = [
    ("http://h/v1", "http://h/v1/chat/completions"),
    ("http://h/v1/", "http://h/v1/chat/completions"),
    ("http://h/v1///", "http://h/v1/chat/completions"),
    ("http://h", "http://h/chat/completions"),
    (" http://h/v1\r\n", "http://h/v1/chat/completions"),
    ("HTTP://h:8000/v1", "http://h:8000/v1/chat/completions"),
    ("https://h/d?api-version=1", "https://h/d/chat/completions?api-version=1"),
    ("https://h/d/?api-version=1", "https://h/d/chat/completions?api-version=1"),
    ("https://h?a=1&b=2/", "https://h/chat/completions?a=1&b=2/"),
    ("https://h/d?", "https://h/d/chat/completions"),
    ("https://h/d;p?a=%20", "https://h/d;p/chat/completions?a=%20"),
    ("https://me:pw@h:1/d?v=1", "https://h:1/d/chat/completions?v=1"),
    ("http://[::1]:8000/v1", "http://[::1]:8000/v1/chat/completions"),
    ("http://h/%40cf/v1", "http://h/%40cf/v1/chat/completions"),
]


@pytest.mark.parametrize(("url", "wanted"), BACKENDS)
def test_the_query_of_a_backend_goes_to_the_end(url: str, wanted: str) -> None:
    address = backend_address(url)
    assert address.at("/chat/completions") == wanted
    assert address.at("/models") == wanted.replace("/chat/completions", "/models")
    assert "?" not in repr(address)


LOGINS = [
    ("https://me:pw@h/v1", "me:pw"),
    ("https://me:p%40s%3As%2F@h/v1", "me:p@s:s/"),
    ("https://me:a:b@h/v1", "me:a:b"),
    ("https://me:a@b@h/v1", "me:a@b"),
    ("https://me@h/v1", "me:"),
    ("https://:pw@h/v1", ":pw"),
    ("https://gr%C3%BC%C3%9Fe:ü@h/v1", "grüße:ü"),
    ("https://me:100%@h/v1", "me:100%"),
    ("https://me:a+b@h/v1", "me:a+b"),
]


@pytest.mark.parametrize(("url", "userinfo"), LOGINS)
def test_a_login_becomes_basic_authentication(url: str, userinfo: str) -> None:
    address = backend_address(url)
    scheme, encoded = address.authorization.reveal().split(" ")
    assert (scheme, base64.b64decode(encoded).decode()) == ("Basic", userinfo)
    assert address.base == "https://h/v1"
    assert userinfo not in repr(address)


def test_without_a_login_there_is_no_authorization() -> None:
    for url in ("https://h/v1", "https://@h/v1"):
        assert not backend_address(url).authorization


SERVERS: list[tuple[str, list[tuple[str, Login | None]]]] = [
    ("nats://h", [("nats://h:4222", None)]),
    ("nats://h:", [("nats://h:4222", None)]),
    ("tls://h:1/", [("tls://h:1", None)]),
    ("nats://[::1]", [("nats://[::1]:4222", None)]),
    ("NATS://h:1", [("nats://h:1", None)]),
    (
        " nats://a:1 ,nats://b:2,\r\n nats://c:3, ",
        [("nats://a:1", None), ("nats://b:2", None), ("nats://c:3", None)],
    ),
    ("nats://a:1 nats://b:2", [("nats://a:1", None), ("nats://b:2", None)]),
    ("nats://me:p%40s%2Fs@h:1", [("nats://h:1", Login("me", "p@s/s"))]),
    ("nats://t%2Fk@h:1", [("nats://h:1", Login("t/k", None))]),
    ("nats://me:@h:1", [("nats://h:1", Login("me", ""))]),
]


@pytest.mark.parametrize(("text", "wanted"), SERVERS)
def test_the_servers_of_nats(text: str, wanted: list[tuple[str, Login | None]]) -> None:
    assert [tuple(server) for server in nats_servers(text)] == wanted


# --- Proxies -------------------------------------------------------------------------

BYPASSES = [
    ("", "h.example", 443, False),
    ("*", "h.example", 443, True),
    ("h.example", "h.example", 443, True),
    ("H.Example.", "h.example", 443, True),
    ("h.example", "H.EXAMPLE.", 443, True),
    ("example", "h.example", 443, True),
    (".example", "h.example", 443, True),
    (".example", "example", 443, True),
    ("*.example", "h.example", 443, True),
    ("ample", "h.example", 443, False),
    ("h.example", "oh.example", 443, False),
    ("a, ,b\th.example,", "h.example", 443, True),
    ("h.example:443", "h.example", 443, True),
    ("h.example:8443", "h.example", 443, False),
    (".example:8443", "h.example", 8443, True),
    ("10.0.0.1", "10.0.0.1", 443, True),
    ("10.0.0.1", "10.0.0.10", 443, False),
    ("10.0.0.1:8443", "10.0.0.1", 8443, True),
    ("0.0.1", "10.0.0.1", 443, False),
    ("10.0.0.0/8", "10.1.2.3", 443, True),
    ("10.1.2.3/8", "10.1.2.3", 443, True),
    ("10.0.0.0/8", "11.1.2.3", 443, False),
    ("10.0.0.0/8", "h.example", 443, False),
    ("10.0.0.0/99", "10.0.0.1", 443, False),
    ("::1", "::1", 443, True),
    ("[::1]", "::1", 443, True),
    ("[::1]:8443", "::1", 8443, True),
    ("[::1]:8443", "::1", 443, False),
    ("0:0:0:0:0:0:0:1", "::1", 443, True),
    ("fd00::/8", "fd12::1", 443, True),
    ("fd00::/8", "10.0.0.1", 443, False),
    ("localhost", "127.0.0.1", 443, False),
    (".", "h.example", 443, False),
    ("h.example:" + "9" * 5000, "h.example", 443, False),
]


@pytest.mark.parametrize(("no_proxy", "host", "port", "direct"), BYPASSES)
def test_which_hosts_no_proxy_names(
    no_proxy: str, host: str, port: int, direct: bool
) -> None:
    assert bypasses(no_proxy, host, port) is direct


def test_the_proxy_of_a_backend() -> None:
    def url(backend: str, proxy: str, no_proxy: str = "") -> str | None:
        found = proxy_for(backend, proxy, no_proxy)
        return found.url if found is not None else None

    assert url("https://h/v1", "http://p:3128") == "http://p:3128"
    assert url("https://h/v1", "p:3128") == "http://p:3128"
    assert url("https://h/v1", "https://p/") == "https://p"
    assert url("https://h/v1", "") is None
    assert url("http://h/v1", "http://p:3128") is None
    assert url("https://h:8443/v1", "http://p:3128", "h:443") == "http://p:3128"
    assert url("https://h/v1", "http://p:3128", "h:443") is None
    found = proxy_for("https://h/v1", "http://me:p%40ss@p:3128", "")
    assert found is not None
    assert (found.url, found.login) == ("http://p:3128", Login("me", "p@ss"))
    assert "p@ss" not in repr(found)
    for wrong in ("socks5://p:1", "http://p:x", "http://p/path", "http://p p"):
        with pytest.raises(ConfigurationError, match="HTTPS_PROXY"):
            proxy_for("https://h/v1", wrong, "")


def test_what_of_a_url_is_secret() -> None:
    assert secrets_in("nats://me:p%40ss@a, nats://t0ken@b:1") == {
        "p%40ss",
        "p@ss",
        "t0ken",
    }
    assert secrets_in("https://h/v1?api-version=1&key=a%20b#x") == {"a%20b", "a b"}
    assert secrets_in("https://h/v1") == set()


# --- Whatever the input --------------------------------------------------------------

PIECES = st.one_of(
    st.sampled_from(
        [
            "http",
            "nats",
            "tls",
            "https",
            "://",
            "h",
            "1",
            "99999",
            "::1",
            "%zz",
            "%ff",
            "é",
        ]
    ),
    st.sampled_from(":@/?#[]%,. -\\\n"),
)
URLS = st.one_of(
    st.text(),
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(PIECES, max_size=12).map(lambda pieces: "https://" + "".join(pieces)),
)


@given(URLS)
def test_any_text_is_taken_apart_or_refused_in_one_line(text: str) -> None:
    for take in (backend_address, nats_servers, lambda t: proxy_for("https://h", t, t)):
        try:
            said = repr(take(text))
        except ConfigurationError as error:
            said = str(error)
        assert len(said.splitlines()) == 1
    bypasses(text, text, 443)
    secrets_in(text)
    repr(Settings(backend_url=text))


@given(URLS)
def test_httpx_takes_what_is_taken(text: str) -> None:
    try:
        address = backend_address(text)
    except ConfigurationError:
        return
    try:
        url = httpx.URL(address.at("/models"))
    except httpx.InvalidURL:
        return  # a name that is none, which `make_backends` refuses
    assert url.host
    assert not url.userinfo


PRINTABLE = st.text().filter(str.isprintable)


@given(PRINTABLE.filter(bool), PRINTABLE)
def test_a_login_comes_back_as_it_was_encoded(user: str, password: str) -> None:
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    [server] = nats_servers(f"nats://{login}@h:1")
    assert server == ("nats://h:1", Login(user, password))
    assert password in secrets_in(f"nats://{login}@h:1") | {""}
