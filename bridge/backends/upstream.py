"""One generation at a backend: bytes in, deltas out, and how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from bridge.backends.body import Body
from bridge.backends.errors import stream_error
from bridge.decoders import Decoder
from bridge.dialects import Delta
from bridge.dialects.openai import OpenAIResponse
from bridge.errors import GenerationError

#: How long the end of a body may take after the backend said that it was done.
LINGER_S = 1.0


class Sink(Protocol):
    """Where an upstream's deltas go. Called from the socket's own callback."""

    def deltas(self, deltas: Sequence[Delta]) -> None:
        """Take the deltas of one record, in order, never empty."""

    def ended(self, error: GenerationError | None) -> None:
        """The last call: ``None`` for a complete response."""


class Upstream:
    """A backend's answer under way.

    `start` lets it flow into a sink; `pause` and `resume` hold it back; `abort` closes
    the connection at once and silently, so that the backend frees its GPU.
    """

    def __init__(
        self,
        backend: str,
        body: Body,
        decoder: Decoder,
        answer: OpenAIResponse,
    ) -> None:
        self.backend = backend
        self.answer = answer
        self._body = body
        self._decoder = decoder
        self._sink: Sink | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._aborted = False
        self.paused = False

    def __repr__(self) -> str:
        state = "paused" if self.paused else "flowing" if self._sink else "idle"
        return f"<Upstream {self.backend} {state} {self.answer!r}>"

    @property
    def usage(self) -> dict[str, Any] | None:
        """What the backend has reported so far."""
        return self.answer.usage

    def start(self, sink: Sink) -> None:
        """Let the answer flow into ``sink``, from now on."""
        self._sink = sink
        self._body.attach(self)

    def body_received(self, data: bytes) -> None:
        """Decode one read; see `bridge.backends.body.Receiver`."""
        sink = self._sink
        if sink is None:
            return
        receive = self.answer.receive
        for record in self._decoder.receive_data(data):
            deltas = receive(record)
            if deltas:
                sink.deltas(deltas)
        if self.answer.done:
            # What is left is the end of the body, after which the connection can be
            # kept; a backend that does not send it loses the connection.
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(LINGER_S, self.abort)
            self._end(None)

    def body_ended(self, error: Exception | None) -> None:
        """The body is over; see `bridge.backends.body.Receiver`."""
        if self._linger is not None:
            self._linger.cancel()
        sink = self._sink
        if sink is None:
            return
        try:
            if error is not None:
                raise stream_error(error, self.backend) from error
            deltas = [
                delta
                for record in self._decoder.receive_eof()
                for delta in self.answer.receive(record)
            ]
            if deltas:
                sink.deltas(deltas)
            self.answer.receive_eof()
        except GenerationError as failure:
            self._end(failure)
        else:
            self._end(None)

    def _end(self, error: GenerationError | None) -> None:
        sink, self._sink = self._sink, None
        if error is None and self.answer.finish_reason is None:
            try:
                self.answer.receive_eof()
            except GenerationError as failure:
                error = failure
        if sink is not None:
            sink.ended(error)

    def pause(self) -> None:
        """Read no further for now; what was read already may still come."""
        self.paused = True
        self._body.pause()

    def resume(self) -> None:
        """Read on."""
        self.paused = False
        self._body.resume()

    def abort(self) -> None:
        """Close the connection at once; the sink hears nothing more."""
        self._sink = None
        if not self._aborted:  # a second cancellation would interrupt the closing
            self._aborted = True
            self._body.abort()
