"""One request served by the bridge's own code, from scripted bytes to its log.

`serve` runs a real `Exchange` with real decoders, dialect, upstream, body and
transcript over scripted backends, in virtual time. What is scripted is the socket:
which bytes come when, and how the body ends. What is replaced is the bus: the log is
a list, and there is always room in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, cast

import httpx

from bridge.backends.body import BodyStream
from bridge.backends.upstream import Upstream
from bridge.bus.leases import Lease
from bridge.config import Settings
from bridge.decoders.content import decoder_for
from bridge.dialects.openai import OpenAIResponse
from bridge.errors import BackendRejected, GenerationError, InternalError
from bridge.events import (
    AnyEvent,
    Completed,
    Failed,
    Job,
    OnRestart,
    Timings,
    decode_event,
    encode,
)
from bridge.generation.exchange import Around, Exchange
from bridge.generation.interrupt import Interrupt, Interruption
from bridge.metrics import Meters
from bridge.sequence import Numbering
from bridge.transcript import Transcript, encode_terminal
from tests.fuzz.virtual import VirtualLoop

End = Literal["eof", "reset", "protocol", "silence", "pings"]

#: How often silence is looked for, in virtual seconds, as the worker does.
SWEEP_S = 0.25

#: No request of these takes so long, in virtual seconds.
FOREVER_S = 600.0

MAX_PAYLOAD = 1 << 20

ERRORS: dict[str, type[httpx.TransportError]] = {
    "reset": httpx.ReadError,
    "protocol": httpx.RemoteProtocolError,
}


@dataclass
class Script:
    """What one call of a backend answers: reads, each after a gap in seconds."""

    content_type: str
    reads: Sequence[tuple[float, bytes]]
    end: End
    max_record_bytes: int = 1 << 20
    fail_unreadable: bool = False


@dataclass
class Request:
    """A job, and what its backend answers, call by call."""

    scripts: Sequence[Script]
    fields: dict[str, Any] = field(default_factory=dict)
    can_continue: bool = False
    on_restart: OnRestart = "restart"
    retry_budget: int = 0
    max_text_bytes: int = 1 << 22
    think_tags: bool = False
    #: The log is congested at every so many deltas; 0 is never.
    congested: int = 0
    max_payload: int = MAX_PAYLOAD


@dataclass
class Served:
    """What came of a request: its log, and the bodies that backends were sent."""

    events: list[AnyEvent]
    bodies: list[bytes]
    terminal: Completed | Failed | None
    defects: list[str]
    seconds: float


class _Outbox:
    """Is congested at every so many deltas, until the next sweep; 0 is never."""

    relaxed = True

    def __init__(self, every: int) -> None:
        self._every = every
        self._asked = 0

    @property
    def congested(self) -> bool:
        self._asked += 1
        return self._every > 0 and self._asked % self._every == 0


class _Socket:
    """Feeds a script into a body; holds back while reading is paused."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._reads = iter(script.reads)
        self._next: tuple[float, bytes] | None = next(self._reads, None)
        self.body = BodyStream(self)
        self._timer: asyncio.Handle | None = None
        self._paused = self._closed = False

    def start(self) -> None:
        if self._timer is None and not (self._paused or self._closed):
            loop = asyncio.get_running_loop()
            if self._next is not None and self._next[0]:
                self._timer = loop.call_later(self._next[0], self._feed)
            else:
                self._timer = loop.call_soon(self._feed)

    def _feed(self) -> None:
        self._timer = None
        if self._closed:
            return
        if self._next is not None:
            data = self._next[1]
            self._next = next(self._reads, None)
            self.body.feed_data(data)
            self.start()
        elif self._script.end == "pings":
            self._next = (1.0, b": ping\n\n")
            self.start()
        elif self._script.end != "silence":
            self._closed = True
            error = ERRORS.get(self._script.end)
            self.body.feed_eof(error("scripted") if error is not None else None)

    def pause_reading(self) -> None:
        self._paused = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume_reading(self) -> None:
        self._paused = False
        self.start()

    def abort(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Backend:
    """One route that answers from scripts."""

    name = "scripted"

    def __init__(self, request: Request) -> None:
        self.can_continue = request.can_continue
        self._scripts = iter(request.scripts)
        self._think_tags = request.think_tags
        self.bodies: list[bytes] = []
        self.sockets: list[_Socket] = []

    def candidates(self, model: str) -> list[_Backend]:
        return [self]

    def failed(self) -> None:
        pass

    def hide_secrets(self, error: GenerationError) -> None:
        pass

    async def open(self, body: bytes, *, continued: bool = False) -> Upstream:
        self.bodies.append(body)
        script = next(self._scripts, None)
        if script is None:
            raise BackendRejected("there is no further script")
        decoder = decoder_for(
            script.content_type, max_record_bytes=script.max_record_bytes
        )
        assert decoder is not None, script.content_type
        socket = _Socket(script)
        self.sockets.append(socket)
        socket.start()
        answer = OpenAIResponse(
            fail_unreadable=script.fail_unreadable,
            think_tags=self._think_tags and not continued,
        )
        return Upstream(self.name, socket.body, decoder, answer)


async def serve(request: Request) -> Served:
    """Serve one request to its end. Returns; raises only for a defect of the test."""
    loop = cast(VirtualLoop, asyncio.get_running_loop())
    backend = _Backend(request)
    payloads: list[bytes] = []
    transcript = Transcript(
        Numbering("one", 1),
        payloads.append,
        max_payload=request.max_payload,
        max_text_bytes=request.max_text_bytes,
    )
    defects: list[str] = []

    def interrupt(stop: Interrupt) -> None:
        defects.append(f"interrupted: {stop}")

    around = Around(
        backends=cast(Any, backend),
        settings=Settings(retry_budget=request.retry_budget),
        meters=Meters(),
        now=loop.time,
        lease=Lease(loop.time(), 1e9),
        writer=cast(
            Any,
            SimpleNamespace(tail=SimpleNamespace(unproven_bytes=0, full=False)),
        ),
        voice=None,
        outbox=cast(Any, _Outbox(request.congested)),
        interrupt=interrupt,
    )
    fields = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    job = Job("one", fields | request.fields, on_restart=request.on_restart)
    exchange = Exchange(around, job, transcript, float("inf"), None)
    begun = loop.time()
    task = loop.create_task(exchange.run(Interruption()))
    while not task.done() and loop.time() - begun < FOREVER_S:
        await asyncio.wait({task}, timeout=SWEEP_S)
        exchange.sweep(loop.time())
    seconds = loop.time() - begun
    terminal = await _terminal(task, exchange, transcript, defects)
    for socket in backend.sockets:
        socket.abort()
    await asyncio.sleep(10)  # what lingers is over then
    defects += [repr(context) for context in loop.failures]
    loop.failures.clear()
    if terminal is not None:
        try:
            payloads.append(encode_terminal(terminal, request.max_payload))
        except UnicodeEncodeError as error:
            defects.append(f"the terminal event cannot be encoded: {error}")
    events = [decode_event(payload) for payload in payloads]
    for event, payload in zip(events, payloads, strict=True):
        if encode(cast(Any, event)) != payload:
            defects.append(f"not what is decoded: {payload[:200]!r}")
        if len(payload) > request.max_payload:
            defects.append(f"an event of {len(payload)} bytes: {payload[:200]!r}")
    return Served(events, backend.bodies, terminal, defects, seconds)


async def _terminal(
    task: asyncio.Task[None],
    exchange: Exchange,
    transcript: Transcript,
    defects: list[str],
) -> Completed | Failed | None:
    """The event that `bridge.generation.serving` would end the request with."""
    if not task.done():
        defects.append("it never ended")
        task.cancel()
        await asyncio.wait({task})
        return None
    failure = task.exception()
    if failure is None:
        return transcript.completed(
            finish_reason=exchange.finish_reason,
            usage=exchange.usage or {},
            timings=Timings(),
            backend=exchange.backend or "",
            metadata={},
        )
    if not isinstance(failure, GenerationError) or isinstance(failure, InternalError):
        defects.append(f"a defect: {failure!r} from {failure.__cause__!r}")
    if not isinstance(failure, GenerationError):
        return None
    return transcript.failed(
        failure,
        usage=exchange.usage,
        timings=Timings(),
        backend=exchange.backend,
        metadata={},
    )


class Server:
    """Serves requests one after the other on one loop of its own."""

    def __init__(self) -> None:
        self._loop = VirtualLoop()

    def __enter__(self) -> Server:
        self._log = logging.getLogger("bridge")
        self._level = self._log.level
        self._log.setLevel(logging.CRITICAL)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.setLevel(self._level)
        self._loop.close()

    def serve(self, request: Request) -> Served:
        """Serve one request to its end."""
        return self._loop.run_until_complete(serve(request))
