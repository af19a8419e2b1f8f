"""URLs of settings, taken apart: nothing of them is lost, and nothing secret shown.

- `backend_address`: a backend's base, its query and its basic authentication
- `nats_servers`: the servers of ``nats_url``, each with its login
- `proxy_for`: the proxy of an https backend, unless ``no_proxy`` names it
"""

from __future__ import annotations

import re
from base64 import b64encode
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from bridge.config import Secret
from bridge.config.texts import EDGES, check_text, shown_url
from bridge.errors import ConfigurationError

NATS_PORT = 4222

_LABEL = r"[A-Za-z0-9_\u0080-\U0010ffff-]+"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_SEPARATORS = re.compile(r"[\s,]+")
_ENCODED = "in a user name, password or token write / ? # @ as %2F %3F %23 %40"


class Login(NamedTuple):
    """The user and password before the ``@`` of a URL, percent-decoded.

    ``password`` is ``None`` where there is no colon: NATS takes ``user`` for a token.
    """

    user: str
    password: str | None

    def __repr__(self) -> str:
        return "Login(***)"


class NatsServer(NamedTuple):
    """One server of ``nats_url``; ``url`` has a port and no login."""

    url: str
    login: Login | None


class BackendAddress(NamedTuple):
    """A backend's base without a final slash, its query, and its login."""

    base: str
    query: str
    login: Login | None

    def __repr__(self) -> str:
        return f"BackendAddress({self.base})"

    def at(self, path: str) -> str:
        """The URL of ``path`` below the base; the query is at its end."""
        return f"{self.base}{path}?{self.query}" if self.query else self.base + path

    @property
    def authorization(self) -> Secret:
        """The value of the Authorization header that the login asks for (RFC 7617)."""
        if self.login is None:
            return Secret()
        text = f"{self.login.user}:{self.login.password or ''}"
        return Secret(f"Basic {b64encode(text.encode()).decode()}")


class Proxy(NamedTuple):
    """A proxy that is asked to CONNECT; ``url`` has no login."""

    url: str
    login: Login | None


def backend_address(url: str, setting: str = "backend_url") -> BackendAddress:
    """Take a backend's URL apart.

    Raises `ConfigurationError`, one line that names ``setting``.
    """
    url = url.strip(EDGES)
    more = " and be the base that ends in /v1"
    parts = _split(setting, url, url, ("http", "https"), more)
    if parts.fragment or url.endswith("#"):
        raise ConfigurationError(
            f"{setting}: {shown_url(url)} has a fragment (#…), which is never sent"
        )
    login = _login(setting, parts.netloc)
    if login is not None and ":" in login.user:
        raise ConfigurationError(
            f"{setting}: a user name of basic authentication cannot have a colon"
        )
    base = f"{parts.scheme}://{_host(parts)}{parts.path.rstrip('/')}"
    return BackendAddress(base, parts.query, login)


def nats_servers(text: str, setting: str = "nats_url") -> list[NatsServer]:
    """The servers of a list with commas or white space between them.

    Raises `ConfigurationError`, one line that names ``setting``.
    """
    urls = [url for url in _SEPARATORS.split(text.strip(EDGES)) if url] or [""]
    # A password with a comma in it is cut into two: then only the whole can be hidden.
    secret = "@" in text
    return [_nats_server(setting, url, text if secret else url) for url in urls]


def _nats_server(setting: str, url: str, whole: str) -> NatsServer:
    parts = _split(setting, url, whole, ("nats", "tls"))
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{setting}: {shown_url(whole)} is more than scheme://host:port; {_ENCODED}"
        )
    host = _host(parts) if parts.port else f"{_host(parts).rstrip(':')}:{NATS_PORT}"
    return NatsServer(f"{parts.scheme}://{host}", _login(setting, parts.netloc))


def proxy_for(url: str, proxy: str, no_proxy: str) -> Proxy | None:
    """The proxy that the backend at ``url`` is reached through, if any.

    ``proxy`` and ``no_proxy`` are the values of ``HTTPS_PROXY`` and ``NO_PROXY``.
    Raises `ConfigurationError` for a proxy that would be used and cannot be.
    """
    parts = urlsplit(url.strip(EDGES))
    if not proxy or parts.scheme != "https":
        return None
    if bypasses(no_proxy, parts.hostname or "", parts.port or 443):
        return None
    setting = "backend_https_proxy (or HTTPS_PROXY)"
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    check_text(setting, proxy)
    found = _split(setting, proxy, proxy, ("http", "https"))
    if found.path.strip("/") or found.query or found.fragment:
        raise ConfigurationError(
            f"{setting}: {shown_url(proxy)} is more than scheme://host:port; {_ENCODED}"
        )
    return Proxy(f"{found.scheme}://{_host(found)}", _login(setting, found.netloc))


def bypasses(no_proxy: str, host: str, port: int) -> bool:
    """Whether ``no_proxy`` names ``host``, as curl reads that variable.

    Its entries have commas or white space between them. ``*`` is every host; a name is
    the host itself and what is below it, with or without a leading dot; an address may
    be a network in CIDR notation. An entry with a port is for that port alone.
    """
    host = host.lower().rstrip(".")
    return any(
        _names(entry.lower(), host, port)
        for entry in _SEPARATORS.split(no_proxy)
        if entry
    )


def _names(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    entry, wanted = _without_port(entry)
    if wanted is not None and wanted != port:
        return False
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        name = entry.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ip_network(entry, strict=False)
    except ValueError:
        return False


def _without_port(entry: str) -> tuple[str, int | None]:
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, int(port[1:]) if _is_port(port[1:]) else None
    name, colon, port = entry.rpartition(":")
    if colon and ":" not in name and _is_port(port):
        return name, int(port)
    return entry, None


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) <= 5


def secrets_in(url: str) -> set[str]:
    """What a URL, or a list of them, has that must not be logged.

    Passwords and tokens, as written and decoded, and the values of a query.
    """
    found: set[str] = set()
    for piece in _SEPARATORS.split(url):
        userinfo, at, _ = piece.partition("://")[2].rpartition("@")
        if at:
            user, colon, password = userinfo.partition(":")
            secret = password if colon else user
            found |= {secret, unquote(secret)}
        query = piece.partition("#")[0].partition("?")[2]
        for parameter in query.split("&"):
            name, _, value = parameter.partition("=")
            if not name.endswith("version"):
                found |= {value, unquote(value)}
    return found - {""}


def _split(
    setting: str, url: str, whole: str, schemes: tuple[str, str], more: str = ""
) -> SplitResult:
    """The parts of ``url``; its host is one, its port a number.

    An error shows ``whole``, with what may be secret blanked.
    """
    check_text(setting, url)
    shown = shown_url(whole)
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        # Not what it says: with a slash in a password, that is half of it.
        raise ConfigurationError(
            f"{setting}: {shown} is no URL, which is scheme://host:port; {_ENCODED}"
        ) from error
    if parts.scheme not in schemes:
        either = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ConfigurationError(f"{setting}: {shown} must start with {either}{more}")
    if not host or port == 0:
        raise ConfigurationError(f"{setting}: {shown} names no host and port")
    if "@" in parts.path + parts.query + parts.fragment:
        raise ConfigurationError(
            f"{setting}: {shown} has an @ behind its host; {_ENCODED}"
        )
    if not (_is_name(host) or _is_ip_address(host)):
        raise ConfigurationError(f"{setting}: {shown} names no host that can exist")
    if any(c.isspace() for c in url):
        raise ConfigurationError(f"{setting}: {shown} has a space in it; write %20")
    return parts


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _login(setting: str, netloc: str) -> Login | None:
    userinfo, _, _ = netloc.rpartition("@")
    if not userinfo:
        return None
    user, colon, password = userinfo.partition(":")
    try:
        login = Login(
            unquote(user, errors="strict"),
            unquote(password, errors="strict") if colon else None,
        )
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{setting}: a percent-encoded user name or password is no UTF-8"
        ) from error
    check_text(setting, login.user + (login.password or ""))
    return login


def _is_name(host: str) -> bool:
    try:
        return _HOST.fullmatch(host) is not None and bool(host.encode("idna"))
    except UnicodeError:
        return False


def _is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
