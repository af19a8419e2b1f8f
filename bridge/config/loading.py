"""Settings from a TOML file and ``TOKENBRIDGE_*`` variables; the variables win.

Every text is trimmed: white space, line breaks and byte order marks at its ends. What
cannot be taken is one `ConfigurationError` of one line, which names the setting and
says what it may be.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from bridge.config import ClientSettings, Secret, Section, Settings
from bridge.config.checks import check
from bridge.config.texts import (
    check_text,
    one_line,
    quoted,
    read_text,
    shown,
    trimmed,
    unquoted,
)
from bridge.errors import ConfigurationError

ENVIRONMENT_PREFIX = "TOKENBRIDGE_"

S = TypeVar("S", bound=Section)


#: Texts whose quotes may be meant.
QUOTED = {"nats_user", "nats_password", "nats_token"}

#: Variables of others that are read, for want of ours: as curl, the lower case first,
#: and an empty one is none.
FOREIGN = {
    "backend_https_proxy": ("https_proxy", "HTTPS_PROXY"),
    "backend_no_proxy": ("no_proxy", "NO_PROXY"),
}


def load(
    kind: type[S], environ: Mapping[str, str], path: str | Path | None = None
) -> S:
    """Fill a struct of ``kind`` from ``path`` and ``environ``, and check it.

    Raises `ConfigurationError`: one line that names the setting and what it may be.
    """
    try:
        return _load(kind, environ, path)
    except ConfigurationError as error:
        raise ConfigurationError(one_line(str(error))) from error


def _load(kind: type[S], environ: Mapping[str, str], path: str | Path | None) -> S:
    table = _read_file(path) if path is not None else {}
    known = get_type_hints(kind, include_extras=True)
    everything = set(get_type_hints(Settings)) | set(get_type_hints(ClientSettings))
    for key in table:
        if key not in everything:
            where = f"{shown(str(path))}: {shown(key)}"
            raise ConfigurationError(_no_such(where, _near(key, everything)))
    values = _from_foreign(known, environ)
    values |= {key: value for key, value in table.items() if key in known}
    values |= _from_environment(known, environ, everything)
    try:
        settings = msgspec.convert(values, kind, strict=True, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_explain(error, kind, path)) from error
    check(settings)
    return settings


def _read_file(path: str | Path) -> dict[str, Any]:
    if not str(path):
        raise ConfigurationError("--config must name a file")
    text = read_text(path)
    try:
        # TOML's own errors, integers of thousands of digits, and brackets of that many.
        table = tomllib.loads(text)
        return {key: _trimmed(key, value) for key, value in table.items()}
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise ConfigurationError(
            f"{shown(str(path))} is not valid TOML: {why}"
        ) from error


def _trimmed(where: str, value: Any) -> Any:
    """``value`` with every text in it trimmed. Raises `ConfigurationError`."""
    if isinstance(value, str):
        text = trimmed(value)
        check_text(shown(where), text, path=where.endswith("_file"))
        return text
    if isinstance(value, list):
        return [_trimmed(f"{where}[{at}]", item) for at, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _trimmed(f"{where}.{key}", item) for key, item in value.items()}
    return value


def _from_foreign(
    hints: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    """What other variables than ours say of the settings that ``hints`` has."""
    values = {}
    for name, variables in FOREIGN.items():
        texts = [unquoted(environ.get(variable, "")) for variable in variables]
        if name in hints and any(texts):
            values[name] = next(filter(None, texts))
    return values


def _from_environment(
    hints: Mapping[str, Any], environ: Mapping[str, str], everything: set[str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name == "config":
            continue
        if name not in everything:
            near = [
                f"{ENVIRONMENT_PREFIX}{known.upper()}"
                for known in _near(name, everything)
            ]
            raise ConfigurationError(_no_such(shown(variable), near))
        if name in hints:
            clean = trimmed(text) if name in QUOTED else unquoted(text)
            check_text(variable, clean, path=name.endswith("_file"))
            values[name] = _parse(variable, name, clean, hints[name])
    return values


def _near(name: str, everything: set[str]) -> list[str]:
    return get_close_matches(name, everything, n=1)


def _no_such(where: str, near: list[str]) -> str:
    hint = f"; is {near[0]} meant?" if near else ""
    return f"{where}: there is no such setting{hint}"


def _parse(variable: str, name: str, text: str, hint: Any) -> Any:
    if name == "prefixes":
        return _parts(text)
    if name == "lanes":
        return {part: {} for part in _parts(text)}
    if name == "backends":
        raise ConfigurationError(
            f"{variable}: several backends go into the file; one is "
            f"{ENVIRONMENT_PREFIX}BACKEND_URL"
        )
    if hint is Secret:
        return Secret(text)
    try:
        # strict=False turns the variable's text into the number that is asked for.
        return msgspec.convert(text, hint, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"{variable} {quoted(text)} must be {describe(hint)}"
        ) from error


def _parts(text: str) -> list[str]:
    parts = map(unquoted, text.split(","))
    return [part for part in parts if part]


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    Secret: "a text",
}


def describe(hint: Any) -> str:
    """What a setting of this type may be, in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(repr(choice) for choice in arguments)
    if origin is Annotated:
        return _described_range(arguments[0], arguments[1])
    if origin is list:
        return f"an array, each {describe(arguments[0])}"
    if origin is dict:
        return "a table of tables"
    if origin in (Union, UnionType):
        first = describe(arguments[0])
        return first if NoneType in arguments else f"{first}, or empty"
    if isinstance(hint, type) and issubclass(hint, Section):
        return "a table of " + ", ".join(hint.__struct_encode_fields__)
    return _WORDS.get(hint, "a valid value")


def _described_range(base: Any, meta: Meta) -> str:
    if meta.pattern is not None:
        return "1 to 64 characters of A-Z a-z 0-9 _ -"
    text = _WORDS[base]
    if meta.ge is not None:
        text += f" of at least {meta.ge}"
    if meta.gt is not None:
        text += f" above {meta.gt}"
    if meta.le is not None:
        text += f" and at most {meta.le}"
    return text


def _decode_secret(kind: type, value: Any) -> Any:
    if kind is Secret:
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return Secret(value)
        raise ValueError("Expected `str`")
    raise NotImplementedError(kind)


def _explain(
    error: msgspec.ValidationError, kind: type[Section], path: str | Path | None
) -> str:
    """One line: where, what may stand there, and what is wrong with what does."""
    message, _, where = str(error).partition(" - at `$")
    name = where.strip("`.").replace("[...]", ".*")
    file = f"{shown(str(path))}: " if path is not None else ""
    wanted = describe(_hint_of(kind, name))
    if "unknown field" in message or "missing required" in message:
        detail = message.replace("Object ", "").replace("`", "")
        return f"{file}{name} {shown(detail)}; it must be {wanted}"
    return f"{file}{name} must be {wanted}"


def _hint_of(kind: Any, name: str) -> Any:
    """The type of ``backends[0].url`` or ``lanes.*.ack_wait_s`` in ``kind``."""
    hint: Any = kind
    for step in name.replace("[", ".[").split("."):
        if get_origin(hint) in (list, dict):
            hint = get_args(hint)[-1]
        else:
            field = "continue_" if step == "continue" else step
            hint = get_type_hints(hint, include_extras=True)[field]
    return hint
