"""Settings: structs, filled from a TOML file and ``TOKENBRIDGE_*`` variables.

Every setting has one name: ``slots`` in the file is ``TOKENBRIDGE_SLOTS`` in the
environment, and the environment wins. ``docs/configuration.md`` has a line for each.
Only the command line calls `load`; the library takes the structs as arguments.
"""

from __future__ import annotations

import math
import re
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
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from bridge.errors import ConfigurationError
from bridge.subjects import RESERVED_TENANT, TOKEN

ENVIRONMENT_PREFIX = "TOKENBRIDGE_"

PositiveInt = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Continue = Literal["none", "final_message"]
# `$` would let a final newline through.
Name = Annotated[str, Meta(pattern=rf"^{TOKEN.pattern}\Z")]

# Up to the last `@`: a password with a slash in it is no valid URL, and still secret.
_USERINFO = re.compile(r"://[^\s,]*@")


class Secret:
    """A value that shows itself only when asked: `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)" if self._value else "Secret()"


class _Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: unknown keys are errors, so that a typo is found.

    Its ``repr`` shows neither a `Secret` nor what stands before the ``@`` of a URL.
    """

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [(n, hide_userinfo(v) if isinstance(v, str) else v) for n, v in values]


class NatsSettings(_Section):
    """How to reach NATS; the bridge and the SDK alike."""

    nats_url: str = "nats://127.0.0.1:4222"
    nats_user: str = ""
    nats_password: Secret = Secret()
    nats_token: Secret = Secret()
    nats_credentials_file: str = ""
    nats_ca_file: str = ""
    nats_cert_file: str = ""
    nats_key_file: str = ""
    nats_connect_timeout_s: Seconds = 2.0
    nats_ping_interval_s: Seconds = 5.0
    nats_reconnect_wait_s: Seconds = 0.1


class BackendSettings(_Section):
    """One LLM backend (``[[backends]]``)."""

    name: Name
    url: str
    models: list[str] = []
    api_key: Secret = Secret()
    api_key_file: str = ""
    ca_file: str = ""
    continue_: Continue = msgspec.field(default="none", name="continue")


class LaneSettings(_Section):
    """One lane (``[lanes.NAME]``), in the order of the file.

    ``reserved_slots`` are slots that other lanes never take; ``ack_wait_s`` of
    ``None`` is the general one.
    """

    ack_wait_s: Seconds | None = None
    reserved_slots: Annotated[int, Meta(ge=0)] = 0


class BusSettings(NatsSettings):
    """NATS and the four streams of a prefix.

    An empty name is derived from the prefix (``LLM_JOBS``). A limit of 0 bytes is no
    limit: JetStream reserves what a limit names, and few disks have that to spare.
    """

    jobs_stream_name: Name | Literal[""] = ""
    tokens_stream_name: Name | Literal[""] = ""
    control_stream_name: Name | Literal[""] = ""
    dead_stream_name: Name | Literal[""] = ""
    stream_storage: Literal["file", "memory"] = "file"
    stream_replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    jobs_max_age_s: Seconds = 86_400.0
    jobs_max_count: PositiveInt = 100_000
    jobs_max_bytes: Bytes = 0
    tokens_max_age_s: Seconds = 3_600.0
    tokens_max_bytes: Bytes = 0
    dead_max_age_s: Seconds = 7 * 86_400.0
    dead_max_bytes: Bytes = 0
    max_job_bytes: PositiveInt = 512 * 1024


class Settings(BusSettings):
    """Everything that ``tokenbridge serve`` can be told."""

    prefixes: list[Name] = msgspec.field(default_factory=lambda: ["llm"])
    lanes: dict[str, LaneSettings] = msgspec.field(
        default_factory=lambda: {"default": LaneSettings()}
    )
    stream_setup: Literal["create", "update", "verify"] = "create"

    backend_url: str = ""
    backend_api_key: Secret = Secret()
    backend_api_key_file: str = ""
    backend_ca_file: str = ""
    backend_continue: Continue = "none"
    backend_transport: Literal["slim", "httpx"] = "slim"
    backends: list[BackendSettings] = []

    slots: PositiveInt = 64
    ack_wait_s: Annotated[float, Meta(ge=0.5)] = 10.0
    max_deliveries: PositiveInt = 5
    connect_timeout_s: Seconds = 5.0
    first_token_timeout_s: Seconds = 30.0
    idle_timeout_s: Seconds = 15.0
    deadline_s: Seconds = 600.0
    retry_budget: Annotated[int, Meta(ge=0)] = 2
    drain_timeout_s: Annotated[float, Meta(ge=0)] = 25.0
    max_record_bytes: PositiveInt = 1024 * 1024
    max_text_bytes: PositiveInt = 4 * 1024 * 1024

    http_host: str = "0.0.0.0"  # noqa: S104  a probe comes from outside the pod
    http_port: Port = 8088
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    def ack_wait_of(self, lane: str) -> float:
        """How long a job of ``lane`` stays claimed without a sign of life, in s."""
        settings = self.lanes.get(lane)
        own = settings.ack_wait_s if settings is not None else None
        return own if own is not None else self.ack_wait_s

    def all_backends(self) -> list[BackendSettings]:
        """The backends, those of ``backend_url`` first."""
        if not self.backend_url:
            return list(self.backends)
        bare = BackendSettings(
            name="default",
            url=self.backend_url,
            api_key=self.backend_api_key,
            api_key_file=self.backend_api_key_file,
            ca_file=self.backend_ca_file,
            continue_=self.backend_continue,
        )
        return [bare, *self.backends]


class ClientSettings(NatsSettings):
    """What the commands that talk to a running bridge can be told."""

    prefixes: list[Name] = msgspec.field(default_factory=lambda: ["llm"])
    tenant: Name = "default"
    lane: Name = "default"
    model: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"


S = TypeVar("S", bound=_Section)


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


def hide_userinfo(url: str) -> str:
    """``url`` with what stands before its ``@`` blanked."""
    return _USERINFO.sub("://***@", url)


def read_secret(value: Secret, path: str, setting: str) -> Secret:
    """The secret itself, or what the file at ``path`` holds, stripped.

    Raises `ConfigurationError` when the file cannot be read or is empty.
    """
    if not path:
        return value
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise ConfigurationError(f"{setting}: cannot read {path}: {why}") from error
    if not text:
        raise ConfigurationError(f"{setting}: {path} is empty")
    return Secret(text)


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
    if isinstance(hint, type) and issubclass(hint, _Section):
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
    error: msgspec.ValidationError, kind: type[_Section], path: str | Path | None
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


def check(settings: _Section) -> None:
    """Check what no type can say. Raises `ConfigurationError` naming the setting."""
    for section in (settings, *getattr(settings, "lanes", {}).values()):
        for name in section.__struct_fields__:
            value = getattr(section, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigurationError(f"{name}: a finite number, please")
    if isinstance(settings, NatsSettings):
        _check_nats(settings)
    if isinstance(settings, Settings | ClientSettings):
        _check_prefixes(settings)
    if isinstance(settings, Settings):
        _check_lanes(settings)
        _check_durations(settings)
        _check_backends(settings)
    if isinstance(settings, ClientSettings) and settings.tenant == RESERVED_TENANT:
        raise ConfigurationError(f"tenant: {RESERVED_TENANT!r} is reserved")


def _check_nats(settings: NatsSettings) -> None:
    if bool(settings.nats_cert_file) != bool(settings.nats_key_file):
        raise ConfigurationError("nats_cert_file and nats_key_file go together")
    for url in settings.nats_url.split(","):
        _check_url("nats_url", url.strip(), ("nats", "tls"))


def _check_url(
    setting: str, url: str, schemes: tuple[str, str], more: str = ""
) -> None:
    """The scheme, that there is a host, and that the port is a number."""
    shown = hide_userinfo(url)
    try:
        parts = urlsplit(url)
        bad = not parts.hostname or parts.port == 0
    except ValueError as error:
        # Not what it says: with a slash in a password, that is half of it.
        raise ConfigurationError(
            f"{setting}: {shown!r} is no URL: scheme://host:port, please"
        ) from error
    if parts.scheme not in schemes:
        either = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ConfigurationError(f"{setting}: {shown!r} must start with {either}{more}")
    if bad:
        raise ConfigurationError(f"{setting}: {shown!r} names no host and port")


def _check_prefixes(settings: Settings | ClientSettings) -> None:
    if not settings.prefixes:
        raise ConfigurationError("prefixes: at least one, please")
    # The streams' names are upper case.
    if len({prefix.upper() for prefix in settings.prefixes}) < len(settings.prefixes):
        raise ConfigurationError(
            "prefixes: each one once, please (a and A would share their streams)"
        )
    named = any(
        getattr(settings, f"{name}_stream_name", "")
        for name in ("jobs", "tokens", "control", "dead")
    )
    if named and len(settings.prefixes) > 1:
        raise ConfigurationError(
            "jobs_stream_name and the other names: only with a single prefix; they "
            "are derived from the prefixes where there are several"
        )


def _check_lanes(settings: Settings) -> None:
    if not settings.lanes:
        raise ConfigurationError("lanes: at least one, please")
    for lane in settings.lanes:
        if TOKEN.fullmatch(lane) is None:
            raise ConfigurationError(
                f"lanes: {lane!r} must be 1 to 64 characters of A-Z a-z 0-9 _ -"
            )
    # Each prefix has the lanes, and each lane its slots.
    reserved = len(settings.prefixes) * sum(
        lane.reserved_slots for lane in settings.lanes.values()
    )
    if reserved > settings.slots:
        raise ConfigurationError(
            f"lanes: {reserved} reserved slots are more than slots ({settings.slots})"
        )


def _check_durations(settings: Settings) -> None:
    if settings.deadline_s > settings.tokens_max_age_s / 2:
        raise ConfigurationError(
            "deadline_s: at most half of tokens_max_age_s, so that a log outlives "
            "its request"
        )


def _check_backends(settings: Settings) -> None:
    names = [backend.name for backend in settings.all_backends()]
    if len(set(names)) != len(names):
        raise ConfigurationError(
            "backends: each name once, please ('default' is that of backend_url)"
        )
    bare = bool(settings.backend_url)
    for backend in settings.all_backends():
        setting = (
            "backend_url" if bare and backend.name == "default" else "backends.url"
        )
        _check_url(
            setting,
            backend.url,
            ("http", "https"),
            " and be the base that ends in /v1",
        )
