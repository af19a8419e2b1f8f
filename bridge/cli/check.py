"""``tokenbridge check``: is everything there that the bridge needs?"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import click
import msgspec

from bridge.backends.http import Backend, make_backends
from bridge.bus.api import CONSUMER_NOT_FOUND, ApiError, JetStream
from bridge.bus.connection import Connection
from bridge.bus.streams import (
    Lane,
    StreamNames,
    blueprints,
    consumer,
    consumer_differences,
)
from bridge.cli import exit_codes
from bridge.cli.event_loop import run
from bridge.cli.logging import secrets_of, set_up
from bridge.cli.options import config_option, nats_option, settings_of
from bridge.cli.probing import why
from bridge.config import BackendSettings, Settings
from bridge.config.urls import Proxy, proxy_for
from bridge.errors import (
    BackendRejected,
    BusError,
    GenerationError,
    SetupError,
    StreamUnavailable,
)
from bridge.subjects import Subjects

#: A backend that lists its models does so at once.
PROBE_TIMEOUT_S = 5.0

EPILOG = """\b
Examples:
  tokenbridge check
  tokenbridge check --config bridge.toml

Exit code 0 if all is well, 1 if a line says FAIL."""


class Finding(msgspec.Struct, frozen=True):
    """One line: what was looked at, what was found, what to do where it is wrong."""

    ok: bool
    what: str
    found: str
    advice: str = ""
    unserved: int = 0
    """Jobs that wait in a consumer while nobody asks it for any."""


@click.command("check", epilog=EPILOG)
@config_option
@nats_option
@click.option(
    "--backend-url",
    metavar="URL",
    help="The LLM's base, ending in /v1  [default: TOKENBRIDGE_BACKEND_URL]",
)
def command(config: str | None, nats_url: str | None, backend_url: str | None) -> int:
    """See whether NATS and the backends are fit for the bridge.

    Changes nothing. Each line says what was looked at, and what to do about it where
    it is not as it should be.
    """
    settings = settings_of(Settings, config, nats_url=nats_url, backend_url=backend_url)
    set_up("critical", "auto", secrets_of(settings))
    return run(check(settings))


async def check(settings: Settings) -> int:
    """Look at everything and print what was found; the exit code."""
    good = True
    async for finding in all_findings(settings):
        good = good and finding.ok
        show(finding)
    return exit_codes.COMPLETED if good else exit_codes.FAILED


def show(finding: Finding) -> None:
    """Print one finding."""
    mark = (
        click.style("ok  ", fg="green")
        if finding.ok
        else click.style("FAIL", fg="red", bold=True)
    )
    click.echo(f"{mark}  {finding.what}: {finding.found}")
    if finding.advice:
        click.echo(f"      -> {finding.advice}")
    sys.stdout.flush()


async def all_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Look at NATS, then at the backends."""
    connection = Connection(settings, name="tokenbridge check")
    try:
        async for finding in nats_findings(connection, settings):
            yield finding
    finally:
        await connection.close()
    async for finding in backend_findings(settings):
        yield finding


async def nats_findings(
    connection: Connection, settings: Settings
) -> AsyncIterator[Finding]:
    """The server, JetStream, and the streams and consumers of every prefix."""
    try:
        await connection.connect(wait=False)
    except SetupError as error:
        yield Finding(False, "NATS", _plain(error), "see the settings of nats_…")
        return
    except BusError as error:
        yield Finding(
            False,
            "NATS",
            _plain(error),
            "start it (nats-server --jetstream; tokenbridge dev brings one), or set "
            "TOKENBRIDGE_NATS_URL",
        )
        return
    yield Finding(
        True, "NATS", f"{connection.servers}, nats-server {connection.server_version}"
    )
    yield _payload(connection, settings)
    jetstream = JetStream(connection)
    enabled = await _jetstream(jetstream)
    yield enabled
    if not enabled.ok:
        return
    for prefix in settings.prefixes:
        async for finding in stream_findings(jetstream, settings, Subjects(prefix)):
            yield finding


def _plain(error: BusError) -> str:
    return str(error).removeprefix("NATS at ")


def _payload(connection: Connection, settings: Settings) -> Finding:
    limit, job = connection.max_payload, settings.max_job_bytes
    if limit >= job:
        return Finding(True, "max_payload", f"{limit} bytes, a job has up to {job}")
    return Finding(
        False,
        "max_payload",
        f"{limit} bytes, less than a job may have ({job})",
        "raise max_payload in the server's configuration, or lower "
        "TOKENBRIDGE_MAX_JOB_BYTES",
    )


async def _jetstream(jetstream: JetStream) -> Finding:
    try:
        info = await jetstream.call("INFO")
    except BusError as error:
        return Finding(
            False,
            "JetStream",
            f"does not answer: {error}",
            "start the server with --jetstream, or with a jetstream { } block in its "
            "configuration, and give this account its share",
        )
    return Finding(True, "JetStream", f"enabled, {info.get('streams', 0)} streams")


async def stream_findings(
    jetstream: JetStream, settings: Settings, subjects: Subjects
) -> AsyncIterator[Finding]:
    """Every stream of a prefix, and the consumer of every lane."""
    lanes = [Lane(name, settings.ack_wait_of(name)) for name in settings.lanes]
    for blueprint in blueprints(settings, subjects, lanes):
        what = f"stream {blueprint.name}"
        try:
            info = await jetstream.call(f"STREAM.INFO.{blueprint.name}")
        except StreamUnavailable as error:
            yield _missing(what, settings) if error.gone else _unclear(what, error)
        except BusError as error:
            yield _unclear(what, error)
        else:
            found = blueprint.differences(info["config"])
            yield _compared(what, list(found.values()), f"{_count(info)} messages")
    jobs = StreamNames.of(settings, subjects.prefix).jobs
    consumers = [
        await _consumer(jetstream, settings, jobs, consumer(subjects, lane))
        for lane in lanes
    ]
    # A bridge whose slots are full does not pull either, and has them from any lane.
    busy = any(claimed for _, claimed in consumers)
    for finding, _ in consumers:
        yield finding if busy or not finding.unserved else _unserved(finding)


def _unserved(finding: Finding) -> Finding:
    jobs = finding.unserved
    waiting = "1 job waits" if jobs == 1 else f"{jobs} jobs wait"
    return Finding(
        False,
        finding.what,
        f"{waiting} and no bridge pulls",
        "start one: tokenbridge serve",
    )


async def _consumer(
    jetstream: JetStream, settings: Settings, stream: str, wanted: dict[str, object]
) -> tuple[Finding, int]:
    """What is found of a consumer, and how many jobs bridges have claimed there."""
    what = f"consumer {wanted['durable_name']} of {stream}"
    info = await _consumer_info(jetstream, settings, what, stream, wanted)
    if isinstance(info, Finding):
        return info, 0
    waiting, claimed = info.get("num_pending", 0), info.get("num_ack_pending", 0)
    found = _compared(
        what, consumer_differences(wanted, info["config"]), f"{waiting} jobs wait"
    )
    if found.ok and not info.get("num_waiting", 0):
        found = msgspec.structs.replace(found, unserved=waiting)
    return found, claimed


async def _consumer_info(
    jetstream: JetStream,
    settings: Settings,
    what: str,
    stream: str,
    wanted: dict[str, object],
) -> dict[str, Any] | Finding:
    try:
        info: dict[str, Any] = await jetstream.call(
            f"CONSUMER.INFO.{stream}.{wanted['durable_name']}"
        )
        return info
    except StreamUnavailable as error:
        return _missing(what, settings) if error.gone else _unclear(what, error)
    except ApiError as error:
        gone = error.err_code == CONSUMER_NOT_FOUND
        return _missing(what, settings) if gone else _unclear(what, error)
    except BusError as error:
        return _unclear(what, error)


def _count(info: dict[str, dict[str, int]]) -> int:
    return info.get("state", {}).get("messages", 0)


def _missing(what: str, settings: Settings) -> Finding:
    if settings.stream_setup != "verify":
        return Finding(True, what, "missing; tokenbridge serve will make it")
    return Finding(
        False, what, "missing", 'make it, or start once with stream_setup = "create"'
    )


def _unclear(what: str, error: BusError) -> Finding:
    return Finding(
        False, what, f"cannot be looked at: {error}", "has this user the permission?"
    )


def _compared(what: str, differences: list[str], there: str) -> Finding:
    if not differences:
        return Finding(True, what, f"there, {there}")
    return Finding(
        False,
        what,
        f"differs: {'; '.join(differences)}",
        "correct it, or start tokenbridge serve once with "
        "TOKENBRIDGE_STREAM_SETUP=update",
    )


async def backend_findings(settings: Settings) -> AsyncIterator[Finding]:
    """Every backend, by the list of its models. Raises `ConfigurationError`."""
    if not settings.all_backends():
        yield Finding(
            False,
            "backend",
            "none is configured",
            "set TOKENBRIDGE_BACKEND_URL to the base that ends in /v1 "
            "(Ollama: http://127.0.0.1:11434/v1; with tokenbridge dev and its "
            "simulator: http://127.0.0.1:8089/v1)",
        )
        return
    backends = make_backends(settings)
    try:
        for route, given in zip(backends.routes, settings.all_backends(), strict=True):
            proxy = proxy_for(
                given.url, settings.backend_https_proxy, settings.backend_no_proxy
            )
            yield await _backend(route, given, proxy)
    finally:
        await backends.aclose()


async def _backend(
    route: Backend, given: BackendSettings, proxy: Proxy | None
) -> Finding:
    what = f"backend {route.name}"
    # Without the query, which may have a key.
    where = str(route.models_url.copy_with(query=None))
    if proxy is not None:
        where += f" through {proxy.url}"
    try:
        models = await route.probe(timeout_s=PROBE_TIMEOUT_S)
    except GenerationError as error:
        return Finding(False, what, f"{why(error, route.name)} ({where})", _hint(error))
    absent = [model for model in given.models if model not in models]
    if absent:
        return Finding(
            False,
            what,
            f"answers, and does not list {', '.join(absent)}",
            f"it has: {_some(models)}",
        )
    return Finding(True, what, f"answers at {where}, models: {_some(models)}")


def _hint(error: GenerationError) -> str:
    if error.status in (401, 403):
        return "set TOKENBRIDGE_BACKEND_API_KEY, or ..._API_KEY_FILE"
    if isinstance(error, BackendRejected):
        return "is its URL the base that ends in /v1?"
    return "is it running, and is its URL the base that ends in /v1?"


def _some(models: list[str]) -> str:
    shown = ", ".join(models[:5]) or "none"
    return shown if len(models) <= 5 else f"{shown} and {len(models) - 5} more"
