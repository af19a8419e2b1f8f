"""Texts of settings: trimmed, free of control characters, and shown without secrets.

A value often has more than was meant: the line break at the end of a Kubernetes
secret, a byte order mark of an editor, the quotes of an env file.
"""

from __future__ import annotations

import re
from pathlib import Path

from bridge.errors import ConfigurationError, shorten

#: What is cut off at both ends: spaces, line breaks, byte order marks.
EDGES = " \t\n\v\f\r\x85\xa0\u2028\u2029\u200b\ufeff"

#: Bytes of a settings file or of a file with a key: more is a wrong path.
MAX_FILE_BYTES = 1024 * 1024

#: Characters of a path, of a value that an error shows, and of the error itself.
MAX_SHOWN_CHARS = 80
MAX_VALUE_CHARS = 24
MAX_ERROR_CHARS = 500

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

#: Between two URLs of a list: a password may hold a comma, but none before a scheme.
#: Linear: a run of separators is looked at once, from its beginning.
_BETWEEN = re.compile(r"((?<![\s,])[\s,]++)(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_BEHIND_THE_PATH = re.compile(r"([?#]).+", re.DOTALL)
_HOST_AND_PORT = re.compile(r"[A-Za-z0-9.-]+:\d{1,5}(/[^?#@]*)?")


def trimmed(text: str) -> str:
    """``text`` without white space and byte order marks at its ends."""
    return text.strip(EDGES)


def unquoted(text: str) -> str:
    """``text`` without the quotes around it, which ``docker --env-file`` keeps."""
    text = trimmed(text)
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return trimmed(text[1:-1])
    return text


def without_brackets(host: str) -> str:
    """``host`` without the brackets that an IPv6 address has in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def check_text(where: str, text: str, *, path: bool = False) -> None:
    """Refuse control characters and, but for a ``path``, what is not UTF-8.

    Raises `ConfigurationError`, which names the setting and never the value.
    """
    if _CONTROL.search(text):
        raise ConfigurationError(
            f"{where} contains a control character, such as a line break"
        )
    if not path and _SURROGATE.search(text):
        raise ConfigurationError(f"{where} is not text in UTF-8")


def read_text(path: str | Path) -> str:
    """The text of a file, without a byte order mark.

    Raises `ConfigurationError` without the setting's name: what is wrong with the file.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "that is no path"
        raise ConfigurationError(f"cannot read {shown(str(path))}: {why}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(
            f"cannot read {shown(str(path))}: it is larger than {MAX_FILE_BYTES} bytes"
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        raise ConfigurationError(
            f"cannot read {shown(str(path))}: it is text in UTF-16; save it as UTF-8"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"cannot read {shown(str(path))}: it is not text in UTF-8"
        ) from error


def shown(text: str) -> str:
    """``text`` as an error line may have it: printable, and no longer than a line."""
    printable = repr(text)[1:-1]
    return shorten(printable, MAX_SHOWN_CHARS)


def quoted(text: str) -> str:
    """A value as an error line may have it; a longer one may be a key gone astray."""
    if len(text) > MAX_VALUE_CHARS:
        return f"({len(text)} characters)"
    return f"'{shown(text)}'"


def one_line(message: str) -> str:
    """An error's message on one line of bounded length."""
    printable = "".join(c if c.isprintable() else " " for c in message)
    return shorten(printable, MAX_ERROR_CHARS)


def hide_userinfo(text: str) -> str:
    """One URL or several, with what may be secret blanked.

    That is the user and password before the last ``@`` of each, and its query or
    fragment.
    """
    return "".join(map(_hidden, _BETWEEN.split(text)))


def _hidden(url: str) -> str:
    before, at, after = url.rpartition("@")
    scheme, separator, _ = before.partition("://")
    if at:
        url = f"{scheme}://***@{after}" if separator else f"***@{after}"
    if "://" in url:
        url = _BEHIND_THE_PATH.sub(r"\1***", url)
    return url


def shown_url(text: str) -> str:
    """A URL that is wrong, quoted as an error line may have it.

    What has no scheme may be a key in the wrong place, and what should be a port may
    be half a password: neither is shown.
    """
    hidden = hide_userinfo(text)
    scheme, separator, rest = hidden.partition("://")
    if not separator:
        return f"'{shown(text)}'" if _HOST_AND_PORT.fullmatch(text) else quoted(hidden)
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    host, colon, port = netloc.partition("]:" if netloc.startswith("[") else ":")
    if colon and port and not (port.isascii() and port.isdigit()):
        hidden = f"{scheme}://{host}{colon}***"
    return f"'{shown(hidden)}'"
