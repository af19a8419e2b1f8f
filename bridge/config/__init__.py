"""Settings: structs with a name, a type and a default for everything.

Every setting has one name: ``slots`` in the file is ``TOKENBRIDGE_SLOTS`` in the
environment. ``docs/configuration.md`` has a line for each. The library takes the
structs as arguments; only the command line fills them from there (`loading.load`).

- `loading`: from a TOML file and the environment into a struct
- `checks`: what no type can say
- `urls`: URLs taken apart; which proxy a backend has
- `texts`: what is trimmed of a value, and how an error shows one
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bridge.config.texts import check_text, hide_userinfo, read_text, shown, trimmed
from bridge.errors import ConfigurationError
from bridge.subjects import TOKEN

PositiveInt = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Continue = Literal["none", "final_message"]
# `$` would let a final newline through.
Name = Annotated[str, Meta(pattern=rf"^{TOKEN.pattern}\Z")]


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


def read_secret(value: Secret, path: str, setting: str) -> Secret:
    """The secret itself, or what the file at ``path`` holds, trimmed.

    Raises `ConfigurationError` when the file cannot be read, is empty, or has more than
    one line.
    """
    if not path:
        return value
    try:
        text = trimmed(read_text(path))
        check_text(shown(path), text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}") from error
    if not text:
        raise ConfigurationError(f"{setting}: {shown(path)} is empty")
    return Secret(text)


def check_api_key(key: Secret, setting: str) -> Secret:
    """Return ``key``, or raise `ConfigurationError`: no header can carry it."""
    text = key.reveal()
    if not all("!" <= character <= "~" for character in text):
        raise ConfigurationError(
            f"{setting} must be printable ASCII without spaces; that is all a header "
            "can carry"
        )
    return key


class Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: unknown keys are errors, so that a typo is found.

    Its ``repr`` shows no `Secret`, and of a URL neither the user and password before
    the ``@`` nor the query.
    """

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return [(n, hide_userinfo(v) if isinstance(v, str) else v) for n, v in values]


class NatsSettings(Section):
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


class BackendSettings(Section):
    """One LLM backend (``[[backends]]``)."""

    name: Name
    url: str
    models: list[str] = []
    api_key: Secret = Secret()
    api_key_file: str = ""
    ca_file: str = ""
    continue_: Continue = msgspec.field(default="none", name="continue")
    think_tags: bool = False


class LaneSettings(Section):
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
    backend_think_tags: bool = False
    backend_transport: Literal["slim", "httpx"] = "slim"
    backend_https_proxy: str = ""
    backend_no_proxy: str = ""
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
    unreadable_records: Literal["skip", "fail"] = "skip"

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
            think_tags=self.backend_think_tags,
        )
        return [bare, *self.backends]


class ClientSettings(NatsSettings):
    """What the commands that talk to a running bridge can be told."""

    prefixes: list[Name] = msgspec.field(default_factory=lambda: ["llm"])
    tenant: Name = "default"
    lane: Name = "default"
    model: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"


def api_key_of(backend: BackendSettings) -> Secret:
    """The API key of a backend, from its file where it has one.

    Raises `ConfigurationError` where the file cannot be read, and where no header can
    carry the key.
    """
    bare = backend.name == "default"
    setting = "backend_api_key" if bare else f"backends.api_key of {backend.name}"
    file = (
        "backend_api_key_file" if bare else f"backends.api_key_file of {backend.name}"
    )
    key = read_secret(backend.api_key, backend.api_key_file, file)
    return check_api_key(key, file if backend.api_key_file else setting)
