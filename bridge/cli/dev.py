"""``tokenbridge dev``: NATS, the bridge and a backend, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import click
import msgspec

from bridge.backends.http import Backend, make_backends
from bridge.cli import exit_codes
from bridge.cli.event_loop import run
from bridge.cli.in_process import start
from bridge.cli.logging import secrets_of, set_up
from bridge.cli.options import config_option, settings_of
from bridge.cli.ports import check_free
from bridge.cli.probing import reason
from bridge.cli.serve import drain_on_signals
from bridge.config import BackendSettings, ClientSettings, Settings
from bridge.config.texts import without_brackets
from bridge.config.urls import backend_address, nats_servers
from bridge.embedded import EmbeddedServer
from bridge.errors import BackendTimeout, BackendUnavailable, GenerationError
from bridge.service import Service
from bridge.simulator import Behaviour, Simulator

NATS_PORT = 4222
SIMULATOR_PORT = 8089

#: A pace that one can read along with.
PACE = Behaviour(first_token_ms=200, tokens_per_second=40, jitter=0.5)

#: Only to name a model in the hint, and to say who does not answer: a backend that is
#: slow to list its models is used too.
PROBE_TIMEOUT_S = 2.0

EPILOG = """\b
Examples:
  tokenbridge dev
  TOKENBRIDGE_BACKEND_URL=http://127.0.0.1:11434/v1 tokenbridge dev
  tokenbridge ask "Why is the sky blue?"      # in a second terminal"""


@click.command("dev", epilog=EPILOG)
@config_option
@click.option(
    "--nats-port",
    type=click.IntRange(0, 65535),
    default=NATS_PORT,
    show_default=True,
    help="Where the embedded nats-server listens; 0 takes a free port.",
)
@click.option(
    "--use-nats",
    is_flag=True,
    help="Use the NATS of TOKENBRIDGE_NATS_URL instead of an embedded one.",
)
@click.option(
    "--simulator-port",
    type=click.IntRange(0, 65535),
    default=SIMULATOR_PORT,
    show_default=True,
    help="Where the simulated LLM listens; 0 takes a free port.",
)
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    help="The bridge's port for /readyz and /metrics  [default: 8088]",
)
def command(
    config: str | None,
    nats_port: int,
    use_nats: bool,
    simulator_port: int,
    http_port: int | None,
) -> int:
    """Keep NATS, a bridge and a backend up for development.

    The same three as in the demo, on their default ports, until Ctrl-C. Where
    TOKENBRIDGE_BACKEND_URL is set, the bridge talks to that LLM instead of the
    simulator. What NATS stores is gone at the end, unless --use-nats is given.
    """
    settings = settings_of(Settings, config, http_port=http_port)
    set_up(settings.log_level, settings.log_format, secrets_of(settings))
    if not use_nats:
        _note_unused(settings)
    return run(dev(settings, None if use_nats else nats_port, simulator_port))


def _note_unused(settings: Settings) -> None:
    if settings.nats_url != Settings().nats_url:
        variable = "TOKENBRIDGE_NATS_URL"
        name = variable if variable in os.environ else "nats_url"
        click.echo(
            f"note: {name} ({_shown(settings.nats_url)}) is not used; add --use-nats "
            "to use it instead of an embedded NATS",
            err=True,
        )


async def dev(settings: Settings, nats_port: int | None, simulator_port: int) -> int:
    """Keep everything up until drained; the exit code.

    ``nats_port`` of ``None``: use the NATS of ``settings``. Raises
    `ConfigurationError` where a port is taken, and what `Service.run` raises.
    """
    check_free(
        settings.http_port,
        "the bridge",
        "choose another with --http-port or TOKENBRIDGE_HTTP_PORT",
        settings.http_host,
    )
    async with contextlib.AsyncExitStack() as stack:
        if nats_port is not None:
            url = await stack.enter_async_context(_embedded(nats_port))
            settings = msgspec.structs.replace(settings, nats_url=url)
        simulated = not settings.all_backends()
        if simulated:
            url = await stack.enter_async_context(_simulated(simulator_port))
            settings = msgspec.structs.replace(
                settings, backend_url=url, backend_continue="final_message"
            )
        service = Service(settings)
        stopped = drain_on_signals(service)
        bridge = await start(service)
        if not bridge.life.done():
            await _say(settings, service, simulated)
        await bridge.life
    return exit_codes.FAILED if stopped.is_set() else exit_codes.COMPLETED


@contextlib.asynccontextmanager
async def _embedded(port: int) -> AsyncIterator[str]:
    check_free(
        port,
        "nats-server",
        "use what listens there with --use-nats (and TOKENBRIDGE_NATS_URL), or choose "
        "another port with --nats-port",
    )
    async with EmbeddedServer(port) as server:
        yield server.url


@contextlib.asynccontextmanager
async def _simulated(port: int) -> AsyncIterator[str]:
    check_free(port, "the simulator", "choose another port with --simulator-port")
    async with Simulator(port=port, behaviour=PACE) as simulator:
        yield simulator.url


async def _say(settings: Settings, service: Service, simulated: bool) -> None:
    if simulated:
        kind = "simulated: set TOKENBRIDGE_BACKEND_URL for a real one"
        shown, model = f"{settings.backend_url} ({kind})", None
    else:
        shown, model = await _looked_at(settings)
    lines = [
        f"NATS      {_shown(settings.nats_url)}",
        f"bridge    http://{_reachable(settings.http_host)}:{service.http_port}/readyz",
        f"backend   {shown}",
        "",
        "In a second terminal:",
        f"  {_ask(settings, model)}",
        "",
        "Ctrl-C ends it.",
    ]
    click.echo("\n".join(lines))


def _reachable(host: str) -> str:
    """Where to reach what listens on ``host``, as a URL has it."""
    host = without_brackets(host)
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _ask(settings: Settings, model: str | None) -> str:
    words = ["tokenbridge ask"]
    if settings.nats_url != ClientSettings().nats_url:
        words.insert(0, f"TOKENBRIDGE_NATS_URL={_shown(settings.nats_url)}")
    if "default" not in settings.lanes:
        words.append(f"--lane {next(iter(settings.lanes))}")
    if model is not None:
        words.append(f"--model {model}")
    return " ".join([*words, '"Why is the sky blue?"'])


def _shown(nats_url: str) -> str:
    return ",".join(server.url for server in nats_servers(nats_url))


async def _looked_at(settings: Settings) -> tuple[str, str]:
    """The backends, with who does not answer, and a model that can be named."""
    backends = make_backends(settings)
    try:
        found = await asyncio.gather(
            *map(_probed, settings.all_backends(), backends.routes)
        )
    finally:
        await backends.aclose()
    models = [model for _, model in found if model is not None]
    return ", ".join(shown for shown, _ in found), models[0] if models else "MODEL"


async def _probed(given: BackendSettings, route: Backend) -> tuple[str, str | None]:
    shown, models = backend_address(given.url).base, given.models
    try:
        listed = await route.probe(timeout_s=PROBE_TIMEOUT_S)
    except GenerationError as error:
        # One with a status, or with another answer than a list, is there.
        if isinstance(error, BackendUnavailable | BackendTimeout) and not error.status:
            shown += f" (does not answer yet: {reason(error, route.name)})"
    else:
        models = models or listed
    return shown, models[0] if models else None
