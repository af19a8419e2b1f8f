"""What no type can say of settings: how they fit together."""

from __future__ import annotations

import math

from bridge.config import (
    ClientSettings,
    NatsSettings,
    Section,
    Settings,
    check_api_key,
)
from bridge.config.texts import quoted
from bridge.config.urls import backend_address, nats_servers, proxy_for
from bridge.errors import ConfigurationError
from bridge.subjects import RESERVED_TENANT, TOKEN

#: How much longer than the longest deadline a job is kept, in seconds.
JOB_OUTLIVES_S = 60.0

#: JetStream counts durations in nanoseconds, and sizes in bytes, in 63 bits.
MAX_SECONDS = 1_000_000_000
MAX_COUNT = 2**63 - 1


def check(settings: Section) -> None:
    """Check what no type can say. Raises `ConfigurationError` naming the setting."""
    for section in (settings, *getattr(settings, "lanes", {}).values()):
        for name in section.__struct_fields__:
            _check_number(name, getattr(section, name))
    if isinstance(settings, NatsSettings):
        _check_nats(settings)
    if isinstance(settings, Settings | ClientSettings):
        _check_prefixes(settings)
    if isinstance(settings, Settings):
        _check_lanes(settings)
        _check_durations(settings)
        _check_backends(settings)
        if not settings.http_host:
            raise ConfigurationError(
                'http_host must be an address or a name; "::" is every address'
            )
    if isinstance(settings, ClientSettings) and settings.tenant == RESERVED_TENANT:
        raise ConfigurationError(f"tenant: {RESERVED_TENANT!r} is reserved")


def _check_number(name: str, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{name} must be a finite number")
    if isinstance(value, float) and value > MAX_SECONDS:
        raise ConfigurationError(f"{name} must be at most {MAX_SECONDS} seconds")
    if isinstance(value, int) and value > MAX_COUNT:
        raise ConfigurationError(f"{name} must be at most {MAX_COUNT}")


def _check_nats(settings: NatsSettings) -> None:
    if bool(settings.nats_cert_file) != bool(settings.nats_key_file):
        raise ConfigurationError("nats_cert_file and nats_key_file go together")
    nats_servers(settings.nats_url)


def _check_prefixes(settings: Settings | ClientSettings) -> None:
    if not settings.prefixes:
        raise ConfigurationError("prefixes must name at least one prefix")
    # The streams' names are upper case.
    if len({prefix.upper() for prefix in settings.prefixes}) < len(settings.prefixes):
        raise ConfigurationError(
            "prefixes must name each prefix once (a and A would share their streams)"
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
        raise ConfigurationError("lanes must name at least one lane")
    for lane in settings.lanes:
        if TOKEN.fullmatch(lane) is None:
            raise ConfigurationError(
                f"lanes: {quoted(lane)} must be 1 to 64 characters of A-Z a-z 0-9 _ -"
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
    longest_s = settings.tokens_max_age_s / 2
    if settings.jobs_max_age_s < longest_s + JOB_OUTLIVES_S:
        raise ConfigurationError(
            f"jobs_max_age_s: {settings.jobs_max_age_s:,g} s are too short; a job may "
            f"wait for its deadline, {longest_s:,g} s at most (half of "
            f"tokens_max_age_s), and is kept {JOB_OUTLIVES_S:g} s longer: at least "
            f"{longest_s + JOB_OUTLIVES_S:,g} s, please"
        )


def _check_backends(settings: Settings) -> None:
    backends = settings.all_backends()
    if len({backend.name for backend in backends}) != len(backends):
        raise ConfigurationError(
            "backends must each have a name of its own ('default' is that of "
            "backend_url)"
        )
    check_api_key(settings.backend_api_key, "backend_api_key")
    for backend in backends:
        bare = bool(settings.backend_url) and backend is backends[0]
        setting, key = (
            ("backend_url", "backend_api_key")
            if bare
            else (
                f"backends.url of {backend.name}",
                f"backends.api_key of {backend.name}",
            )
        )
        address = backend_address(backend.url, setting)
        check_api_key(backend.api_key, key)
        if address.login is not None and (backend.api_key or backend.api_key_file):
            raise ConfigurationError(
                f"{setting} has a user name, and there is an API key: only one of them "
                "can be the Authorization header"
            )
        proxy_for(backend.url, settings.backend_https_proxy, settings.backend_no_proxy)
