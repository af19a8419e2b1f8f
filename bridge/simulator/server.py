"""The simulator as an HTTP server."""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from aiohttp import web

from bridge.errors import ConfigurationError
from bridge.simulator.behaviour import Behaviour
from bridge.simulator.endpoints import ANY_MODEL, Endpoints
from bridge.simulator.records import RequestLog, RequestRecord

#: Connections that may wait to be accepted: thousands of streams start at once. The
#: kernel's own limit (``somaxconn``, 4,096) counts where it is lower.
_BACKLOG = 8192


class Simulator:
    """A stand-in for an LLM server: OpenAI's chat completions, with faults to order.

    ``port`` 0 takes a free one, and keeps it when the simulator is started again.
    ``models``: the names that are served, others get 404; ``"*"`` serves any.
    ``api_key``: what ``Authorization: Bearer`` must carry; ``None`` asks for nothing.

    ::

        async with Simulator(behaviour=Behaviour(tokens_per_second=20)) as simulator:
            client = httpx.AsyncClient(base_url=simulator.url)

    Raises `InvalidBehaviour` where a value of ``behaviour`` is out of range.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
        models: Sequence[str] = (ANY_MODEL,),
        api_key: str | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._log = RequestLog()
        self._endpoints = Endpoints(self._log, behaviour.checked(), models, api_key)
        self._runner: web.AppRunner | None = None

    def __repr__(self) -> str:
        state = self.url if self._runner is not None else "stopped"
        return f"<Simulator {state}, {self._log!r}>"

    # -- running ----------------------------------------------------------------

    async def start(self) -> None:
        """Listen. Raises `ConfigurationError` where the address cannot be had."""
        if self._runner is not None:
            raise RuntimeError("the simulator is running already")
        runner = web.AppRunner(
            self._endpoints.application(),
            access_log=None,
            handler_cancellation=True,  # A client's close ends its answer at once.
            shutdown_timeout=1.0,  # `Endpoints` has cancelled them by then.
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port, backlog=_BACKLOG)
            await site.start()
        except (OSError, UnicodeError) as error:
            await runner.cleanup()
            raise _cannot_listen(self._host, self._port, error) from error
        except BaseException:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner

    async def stop(self) -> None:
        """Stop listening and break off every answer. Doing it twice does no harm."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the first start on a free one."""
        return self._port

    @property
    def url(self) -> str:
        """The base for clients, ending in ``/v1``."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/v1"

    @property
    def behaviour(self) -> Behaviour:
        """How a request is served where its ``simulate`` object says nothing else.

        May be replaced; raises `InvalidBehaviour` where a value is out of range.
        """
        return self._endpoints.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._endpoints.behaviour = behaviour.checked()

    # -- what it saw ------------------------------------------------------------

    @property
    def requests(self) -> deque[RequestRecord]:
        """The last requests, the oldest first; records change while they run."""
        return self._log.records

    @property
    def active(self) -> int:
        """Requests that are being answered."""
        return self._log.active

    async def wait_for(
        self, condition: Callable[[RequestRecord], bool], timeout: float = 10.0
    ) -> RequestRecord:
        """Wait until the condition holds for a request, and return the first such.

        The condition is asked again whenever something changes: a request came, sent
        a token, ended. Raises `TimeoutError` after ``timeout`` seconds.
        """

        def first() -> RequestRecord | None:
            return next(filter(condition, list(self._log.records)), None)

        await self._log.wait_until(lambda: first() is not None, timeout)
        found = first()
        assert found is not None  # Nothing ran in between.
        return found

    async def wait_closed(self, record: RequestRecord, timeout: float = 10.0) -> float:
        """Wait until the client of ``record`` was seen to close; the loop's time of it.

        Raises `TimeoutError` after ``timeout`` seconds, also where the answer ended
        otherwise.
        """
        await self._log.wait_until(lambda: record.closed_at is not None, timeout)
        assert record.closed_at is not None
        return record.closed_at

    async def wait_idle(self, timeout: float = 10.0) -> None:
        """Wait until nothing is being answered. Raises `TimeoutError`."""
        await self._log.wait_until(lambda: self._log.active == 0, timeout)


async def run(
    host: str = "127.0.0.1",
    port: int = 8000,
    behaviour: Behaviour = Behaviour(),  # noqa: B008 - frozen
    *,
    models: Sequence[str] = (ANY_MODEL,),
    api_key: str | None = None,
    on_ready: Callable[[Simulator], None] | None = None,
) -> None:
    """Serve until cancelled; ``on_ready`` is called once it listens.

    Raises `ConfigurationError` where the address cannot be had, `InvalidBehaviour`
    where a value of ``behaviour`` is out of range.
    """
    async with Simulator(host, port, behaviour, models, api_key) as simulator:
        if on_ready is not None:
            on_ready(simulator)
        await asyncio.get_running_loop().create_future()


def _cannot_listen(
    host: str, port: int, error: OSError | UnicodeError
) -> ConfigurationError:
    if isinstance(error, UnicodeError):
        advice = "that is no address and no name"
    elif error.errno == errno.EADDRINUSE:
        advice = "the port is taken; choose another one, or stop what listens there"
    elif error.errno == errno.EACCES:
        advice = "this user may not listen on that port; choose one from 1024 up"
    else:
        advice = error.strerror or str(error)
    return ConfigurationError(f"the simulator cannot listen on {host}:{port}: {advice}")
