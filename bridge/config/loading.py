"""Settings from a TOML file and ``TOKENBRIDGE_*`` variables; the variables win.

What cannot be taken is one `ConfigurationError` of one line, which names the setting
and says what it may be.
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
from bridge.errors import ConfigurationError

ENVIRONMENT_PREFIX = "TOKENBRIDGE_"

S = TypeVar("S", bound=Section)


def load(
    kind: type[S], environ: Mapping[str, str], path: str | Path | None = None
) -> S:
    """Fill a struct of ``kind`` from ``path`` and ``environ``, and check it.

    Raises `ConfigurationError`: one line that names the setting and what it may be.
    """
    table = _read_file(Path(path)) if path else {}
    known = get_type_hints(kind, include_extras=True)
    everything = set(get_type_hints(Settings)) | set(get_type_hints(ClientSettings))
    for key in table:
        if key not in everything:
            raise ConfigurationError(_no_such(f"{path}: {key}", _near(key, everything)))
    from_file = {key: value for key, value in table.items() if key in known}
    from_environment = _from_environment(known, environ, everything)
    try:
        settings = msgspec.convert(
            from_file | from_environment, kind, strict=True, dec_hook=_decode_secret
        )
    except msgspec.ValidationError as error:
        raise ConfigurationError(_explain(error, kind, path)) from error
    check(settings)
    return settings


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error


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
            raise ConfigurationError(_no_such(variable, near))
        if name in hints:
            values[name] = _parse(variable, name, text, hints[name])
    return values


def _near(name: str, everything: set[str]) -> list[str]:
    return get_close_matches(name, everything, n=1)


def _no_such(where: str, near: list[str]) -> str:
    hint = f"; is {near[0]} meant?" if near else ""
    return f"{where}: there is no such setting{hint}"


def _parse(variable: str, name: str, text: str, hint: Any) -> Any:
    if name == "prefixes":
        return [part.strip() for part in text.split(",") if part.strip()]
    if name == "lanes":
        return {part.strip(): {} for part in text.split(",") if part.strip()}
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
        shown = f" {text!r}" if len(text) <= 60 else ""
        raise ConfigurationError(
            f"{variable}{shown}: {describe(hint)}, please"
        ) from error


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
    if "unknown field" in message or "missing required" in message:
        detail = message.replace("Object ", "").replace("`", "")
        return f"{path}: {name}: {detail}; {describe(_hint_of(kind, name))}, please"
    return f"{path}: {name}: {describe(_hint_of(kind, name))}, please"


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
