"""Settings: structs, filled from a TOML file and ``TOKENBRIDGE_*`` variables.

Every setting has one name: ``slots`` in the file is ``TOKENBRIDGE_SLOTS`` in the
environment, and the environment wins. ``docs/configuration.md`` has a line for each.
Only the command line calls `load`; the library takes the structs as arguments.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Meta

from bridge.errors import ConfigurationError
from bridge.subjects import TOKEN

ENVIRONMENT_PREFIX = "TOKENBRIDGE_"

PositiveInt = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Continue = Literal["none", "final_message"]
Name = Annotated[str, Meta(pattern=f"^{TOKEN.pattern}$")]


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
    """A table of the file: unknown keys are errors, so that a typo is found."""


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
    known = set(get_type_hints(kind))
    everything = set(get_type_hints(Settings)) | set(get_type_hints(ClientSettings))
    for key in table:
        if key not in everything:
            raise ConfigurationError(f"{path}: there is no setting {key!r}")
    values = {key: value for key, value in table.items() if key in known}
    values |= _from_environment(kind, environ, everything)
    try:
        settings = msgspec.convert(values, kind, strict=True, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_explain(error, path)) from error
    if isinstance(settings, Settings):
        _check(settings)
    _check_nats(settings)
    return settings


def read_secret(value: Secret, path: str, setting: str) -> Secret:
    """The secret itself, or what the file at ``path`` holds, stripped.

    Raises `ConfigurationError` when the file cannot be read or is empty.
    """
    if not path:
        return value
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{setting}: cannot read {path}: {error}") from error
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
    kind: type[_Section], environ: Mapping[str, str], everything: set[str]
) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name == "config":
            continue
        if name not in everything:
            raise ConfigurationError(f"{variable}: there is no such setting")
        if name in hints:
            values[name] = _parse(variable, name, text, hints[name])
    return values


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
            f"{variable}{shown}: {describe(hint)}, please ({error})"
        ) from error


def describe(hint: Any) -> str:
    """What a setting of this type may be, in words."""
    arguments = get_args(hint)
    meta = next((a for a in arguments if isinstance(a, Meta)), None)
    base = arguments[0] if meta is not None else hint
    choices = [c for c in arguments if isinstance(c, str)]
    if choices:
        return "one of " + ", ".join(repr(c) for c in choices)
    words = {int: "a whole number", float: "a number", str: "a text", bool: "a boolean"}
    text = words.get(base, "a valid value")
    if meta is not None:
        if meta.ge is not None:
            text += f" of at least {meta.ge}"
        if meta.gt is not None:
            text += f" above {meta.gt}"
        if meta.le is not None:
            text += f" and at most {meta.le}"
        if meta.pattern is not None:
            text = "1 to 64 characters of A-Z a-z 0-9 _ -"
    return text


def _decode_secret(kind: type, value: Any) -> Any:
    if kind is Secret:
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return Secret(value)
        raise msgspec.ValidationError("Expected `str`")
    raise NotImplementedError(kind)


def _explain(error: msgspec.ValidationError, path: str | Path | None) -> str:
    text = str(error)
    message, _, where = text.partition(" - at `$.")
    name = where.rstrip("`")
    if not name:
        return f"{path or 'settings'}: {text}"
    top = name.split(".")[0].split("[")[0]
    hint = get_type_hints(Settings, include_extras=True).get(top)
    allowed = f"; {describe(hint)}, please" if hint is not None else ""
    return f"{name}: {message}{allowed}"


def _check(settings: Settings) -> None:
    if not settings.prefixes:
        raise ConfigurationError("prefixes: at least one, please")
    if len(set(settings.prefixes)) != len(settings.prefixes):
        raise ConfigurationError("prefixes: each one once, please")
    if not settings.lanes:
        raise ConfigurationError("lanes: at least one, please")
    for lane in settings.lanes:
        if TOKEN.fullmatch(lane) is None:
            raise ConfigurationError(
                f"lanes: {lane!r} must be 1 to 64 characters of A-Z a-z 0-9 _ -"
            )
    reserved = sum(lane.reserved_slots for lane in settings.lanes.values())
    if reserved > settings.slots:
        raise ConfigurationError(
            f"lanes: {reserved} reserved slots are more than slots ({settings.slots})"
        )
    if settings.deadline_s > settings.tokens_max_age_s / 2:
        raise ConfigurationError(
            "deadline_s: at most half of tokens_max_age_s, so that a log outlives "
            "its request"
        )
    if len(settings.prefixes) > 1 and any(
        getattr(settings, f"{name}_stream_name")
        for name in ("jobs", "tokens", "control", "dead")
    ):
        raise ConfigurationError(
            "stream names are derived from the prefixes where there are several"
        )
    _check_backends(settings)


def _check_backends(settings: Settings) -> None:
    names = [backend.name for backend in settings.all_backends()]
    if len(set(names)) != len(names):
        raise ConfigurationError("backends: each name once, please")
    for backend in settings.all_backends():
        if not backend.url.startswith(("http://", "https://")):
            setting = "backend_url" if backend.name == "default" else "backends.url"
            raise ConfigurationError(
                f"{setting}: {backend.url!r} must start with http:// or https:// and "
                "be the base that ends in /v1"
            )


def _check_nats(settings: _Section) -> None:
    if not isinstance(settings, NatsSettings):
        return
    if bool(settings.nats_cert_file) != bool(settings.nats_key_file):
        raise ConfigurationError("nats_cert_file and nats_key_file go together")
    for url in settings.nats_url.split(","):
        if not url.strip().startswith(("nats://", "tls://")):
            raise ConfigurationError(
                f"nats_url: {url.strip()!r} must start with nats:// or tls://"
            )
