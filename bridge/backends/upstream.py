"""One generation at a backend: bytes in, deltas out, and how it ended.

An answer is complete with ``[DONE]``; with the end of the body, where it has a finish
reason; and where it has one, also when the connection breaks or nothing comes for
`END_SILENCE_S`, because servers and proxies lose what follows it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bridge.backends.body import Body
from bridge.backends.errors import stream_error
from bridge.decoders import Decoder, Record
from bridge.dialects import Delta
from bridge.dialects.openai import OpenAIResponse
from bridge.errors import BackendProtocolError, BackendUnavailable, GenerationError

#: How long the end of a body may take after the backend said that it was done.
LINGER_S = 1.0

#: How long a backend must be silent after a finish reason for its answer to be
#: complete, in seconds.
END_SILENCE_S = 2.0

#: How many records of one read are taken at once: a read of 64 KiB may hold thousands,
#: and each that is no plain token takes some 15 µs. The rest waits for the next turn of
#: the loop, so that the tokens of other requests come in between.
MAX_RECORDS_AT_ONCE = 128


class Sink(Protocol):
    """Where an upstream's deltas go. Called from the socket's own callback."""

    def deltas(self, deltas: Sequence[Delta]) -> None:
        """Take the deltas of one record, in order, never empty."""

    def skipped(self, count: int) -> None:
        """``count`` records could not be read."""

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
        #: Records that wait for the next turn, and the end of the body behind them.
        self._backlog: deque[Record] = deque()
        self._turn: asyncio.Handle | None = None
        self._body_over = False
        #: Whether bytes came since the last pause.
        self._unlooked = False
        #: What broke the connection, or kept its bytes from being read.
        self._broken: Exception | None = None
        self._skipped = 0
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
        if self._sink is None:
            return
        records = self._decoder.receive_data(data)
        self._unlooked = True
        if self._backlog or len(records) > MAX_RECORDS_AT_ONCE:
            self._queue(records)
        else:
            self._take(records)

    def _take(self, records: Sequence[Record]) -> None:
        """Give the deltas of some records to the sink."""
        sink, answer = self._sink, self.answer
        if sink is None:
            return
        receive = answer.receive
        for record in records:
            deltas = receive(record)
            if deltas:
                if answer.skipped != self._skipped:
                    self._tell_skipped(sink)
                sink.deltas(deltas)
        if answer.skipped != self._skipped:
            self._tell_skipped(sink)
        if answer.done:
            # What is left is the end of the body, after which the connection can be
            # kept; a backend that does not send it loses the connection.
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(LINGER_S, self.abort)
            self._end(None)

    def _tell_skipped(self, sink: Sink) -> None:
        count = self.answer.skipped - self._skipped
        self._skipped = self.answer.skipped
        sink.skipped(count)

    def _queue(self, records: Sequence[Record]) -> None:
        self._backlog += records
        self._body.pause()
        if self._turn is None:
            self._work_off()

    def _work_off(self) -> None:
        """Take some of the backlog; called once a turn until there is none."""
        self._turn = None
        backlog = self._backlog
        count = min(MAX_RECORDS_AT_ONCE, len(backlog))
        self._take_safely(lambda: [backlog.popleft() for _ in range(count)])
        if self._sink is None:
            backlog.clear()
            if not self._aborted:
                self._body.resume()  # to its end, so that the connection is kept
        elif backlog:
            self._turn = asyncio.get_running_loop().call_soon(self._work_off)
        elif self._body_over:
            self._finish()
        elif not self.paused:
            self._body.resume()

    def _take_safely(self, read: Callable[[], Sequence[Record]]) -> bool:
        """`_take` where no body hears what that, or ``read``, raises.

        Returns whether anything was read, or it failed.
        """
        try:
            records = read()
            self._take(records)
            return bool(records)
        except Exception as error:
            # Whatever it is, the sink has to hear of it, as it would from the body.
            sink = self._sink
            self.abort()
            if sink is not None:
                sink.ended(self._failure(error))
            return True

    def _failure(self, error: Exception) -> GenerationError:
        failure = stream_error(error, self.backend)
        if failure is not error:
            failure.__cause__ = error
        return failure

    def body_ended(self, error: Exception | None) -> None:
        """The body is over; see `bridge.backends.body.Receiver`."""
        if self._linger is not None:
            self._linger.cancel()
        if self._sink is None:
            return
        self._broken = error
        self._body_over = True
        if not self._backlog:
            self._finish()

    def _finish(self) -> None:
        """No more will come, and what came was read but for what has no end."""
        broken = self._broken
        failure = self._failure(broken) if broken is not None else None
        try:
            if broken is None:
                self._take(self._decoder.receive_eof())
            elif not isinstance(broken, GenerationError):
                self._take(self._decoder.receive_pause())
                # Behind a finish reason a broken connection is an end; bytes that
                # could not be read are not.
                if self.answer.finish_reason is not None and _is_break(failure):
                    failure = None
                    self._take(self._decoder.receive_eof())
        except Exception as error:
            # Whatever it is, the sink has to hear of it.
            failure = self._failure(error)
        self._end(failure)

    def silent(self, seconds: float) -> bool:
        """Say that nothing but comments has come for ``seconds``.

        Reads a last record whose end is missing, and ends an answer that is complete
        but for the end of its body. Returns whether it did either.
        """
        if seconds < END_SILENCE_S or self._sink is None or self._backlog:
            return False
        if self._unlooked:
            self._unlooked = False
            if self._take_safely(self._decoder.receive_pause):
                return True
        if self.answer.finish_reason is not None:
            # What has begun will not be ended: it is told.
            self._take_safely(self._decoder.receive_eof)
            self._end(None)
            self.abort()
            return True
        return False

    def _end(self, error: GenerationError | None) -> None:
        sink, self._sink = self._sink, None
        if sink is None:
            return
        if error is None:
            try:
                deltas = self.answer.receive_eof(whole=self._decoder.whole)
                if deltas:
                    sink.deltas(deltas)
            except Exception as failure:
                error = self._failure(failure)
            error = error or self.answer.failure
        sink.ended(error)

    def pause(self) -> None:
        """Read no further for now; what was read already may still come."""
        self.paused = True
        self._body.pause()

    def resume(self) -> None:
        """Read on."""
        self.paused = False
        if not self._backlog:
            self._body.resume()

    def abort(self) -> None:
        """Close the connection at once; the sink hears nothing more."""
        self._sink = None
        self._backlog.clear()
        if self._turn is not None:
            self._turn.cancel()
        if not self._aborted:  # a second cancellation would interrupt the closing
            self._aborted = True
            self._body.abort()


def _is_break(failure: GenerationError | None) -> bool:
    """Whether the connection was lost, or ended before the body did."""
    return isinstance(failure, BackendUnavailable | BackendProtocolError)
