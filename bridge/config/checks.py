"""What no type can say of settings: how they fit together."""

from __future__ import annotations

import math
from urllib.parse import urlsplit

from bridge.config import (
    ClientSettings,
    NatsSettings,
    Section,
    Settings,
    hide_userinfo,
)
from bridge.errors import ConfigurationError
from bridge.subjects import RESERVED_TENANT, TOKEN

#: A job is kept for so much longer than the longest deadline, in seconds.
JOB_OUTLIVES_S = 60.0


def check(settings: Section) -> None:
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
    longest_s = settings.tokens_max_age_s / 2
    if settings.jobs_max_age_s < longest_s + JOB_OUTLIVES_S:
        raise ConfigurationError(
            f"jobs_max_age_s: {settings.jobs_max_age_s:,g} s are too short; a job may "
            f"wait for its deadline, {longest_s:,g} s at most (half of "
            f"tokens_max_age_s), and is kept {JOB_OUTLIVES_S:g} s longer: at least "
            f"{longest_s + JOB_OUTLIVES_S:,g} s, please"
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
