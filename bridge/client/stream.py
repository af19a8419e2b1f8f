"""One request, as its caller reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

from bridge.client.answer import Answer
from bridge.client.attachment import Attachment
from bridge.client.reader import Reader
from bridge.errors import ConnectionLost, RequestCancelled, RequestFailed
from bridge.events import (
    Cancelled,
    Completed,
    Failed,
    KnownEvent,
    ToolCall,
    UnknownEvent,
)

#: How long `Stream.cancel` waits until JetStream keeps the cancel, in seconds.
CANCEL_S = 10.0


class Owner(Protocol):
    """What a stream needs of its client."""

    def attach(self, attachment: Attachment) -> None:
        """Own ``attachment`` from now on. Raises `ConnectionLost`."""

    def leave(self, attachment: Attachment, *, cancel: bool) -> asyncio.Task[None]:
        """Give ``attachment`` back, and cancel its request if so asked."""

    def drop(self, attachment: Attachment) -> None:
        """Leave from wherever a stream was dropped: another thread, a closed loop."""

    async def cancel(
        self, tenant: str, id: str, reason: str, *, timeout_s: float
    ) -> None:
        """Cancel a request, and wait until JetStream keeps that."""


class Stream:
    """The events of one request: an async iterator, and a context manager.

    Made by `Client.stream` and `Client.join`; nothing happens before it is entered or
    iterated::

        async for event in client.stream("Hello"):
            match event:
                case Token(text=text):
                    print(text, end="")
                case Failed(error=error):
                    print(error.message)

    - Every event comes once, in order, without a hole, whatever happens to workers,
      backends and the connection in between; the terminal one (`Completed`, `Failed`
      or `Cancelled`) is the last. Iterating raises nothing for a request that failed:
      `completed` does.
    - What was delivered can become void when another worker takes over. Then
      `truncated_to` is set beside the event that says so, and a `Resumed` of mode
      ``restart`` voids all text before it. `text` is always the text that stands.
    - Leaving before the end (``break``, an exception, a cancelled task, the end of
      ``async with``, a stream that is dropped) cancels the request where the stream
      was made with ``cancel_on_exit``, the default of `Client.stream`.
    - One task reads at a time. Reading may be cancelled and gone on with (with
      ``cancel_on_exit=False``, or outside an ``async for``) and loses nothing.

    - A reader that may not read the log gets the end as live shows it: `confirmed` is
      False then.

    Iterating raises `ConnectionLost` when the client is closed, `LogExpired` when
    what is to come is no longer kept, `RequestLost` when no end will come (30 s after
    the deadline, while NATS was connected), `NotPermitted` when live has left a hole
    that this user may not read, `NothingInLog` as `Client.join` says, and what
    `Client.submit` raises.
    """

    def __init__(
        self,
        owner: Owner,
        attachment: Attachment,
        reader: Reader,
        *,
        submit: Callable[[], Awaitable[bool]] | None,
        keepalive_ms: int | None,
    ) -> None:
        self._owner = owner
        self._attachment = attachment
        self._reader = reader
        self._submit = submit
        self._keepalive_ms = keepalive_ms
        self._begun = False
        self._left = False
        self._leaving: asyncio.Task[None] | None = None
        self._answer = Answer()
        self._end: Completed | Failed | Cancelled | None = None
        self.truncated_to: int | None = None
        self._void: int | None = None

    def __repr__(self) -> str:
        state = "ended" if self._end else "left" if self._left else "open"
        return f"<Stream {self.tenant}/{self.id} {state} seq={self.seq}>"

    @property
    def id(self) -> str:
        """The request's id."""
        return self._attachment.id

    @property
    def tenant(self) -> str:
        """The request's tenant."""
        return self._attachment.tenant

    @property
    def seq(self) -> int:
        """The number of the last event; 0 before the first.

        ``client.join(id, from_seq=stream.seq + 1)`` goes on from here.
        """
        return self._reader.position.seq

    @property
    def text(self) -> str:
        """The text that stands, of the events that this stream has yielded."""
        return self._answer.text

    @property
    def reasoning(self) -> str:
        """The reasoning that stands, where the backend separates it."""
        return self._answer.reasoning

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The current tool calls, each put together as far as it came."""
        return self._answer.tool_calls

    @property
    def confirmed(self) -> bool:
        """Whether the log has the terminal event; False before the end.

        False beside `end` where this user may not read the log: live has shown it,
        and what is shown live may be refused by the log.
        """
        return self._end is not None and self._reader.confirmed

    @property
    def ignored_messages(self) -> int:
        """Messages on the request's subject that were no event of it."""
        return self._reader.ignored

    @property
    def end(self) -> Completed | Failed | Cancelled | None:
        """The terminal event, once it was yielded."""
        return self._end

    # Reading

    def __aiter__(self) -> AsyncIterator[KnownEvent]:
        return _Iteration(self)

    async def __anext__(self) -> KnownEvent:
        if self._end is not None or self._left:
            raise StopAsyncIteration
        if not self._begun:
            await self._begin()
        reader = self._reader
        while True:
            event = reader.take() or await self._next()
            void = reader.truncated_to
            if void is not None:
                self._answer.truncate(void)
                # An event that is not shown may have told it.
                self._void = void if self._void is None else min(void, self._void)
            if isinstance(event, UnknownEvent):
                continue
            self.truncated_to, self._void = self._void, None
            self._answer.add(event)
            if isinstance(event, Completed | Failed | Cancelled):
                self._end = event
                self._leave_soon(cancel=False)
            return event

    async def _next(self) -> KnownEvent | UnknownEvent:
        try:
            return await self._reader.next()
        except asyncio.CancelledError:
            raise
        except Exception:
            # The request may well go on; only this reader cannot.
            await self._leave(cancel=False)
            raise

    async def completed(self) -> Completed:
        """Read to the end and return it.

        ``text``, ``reasoning`` and ``tool_calls`` are filled in where the event had to
        leave them out. Raises
        `RequestFailed` or `RequestCancelled`, which carry the partial text, and what
        iterating raises. Cancelling it leaves the stream.
        """
        async for _ in self:
            pass
        end = self._end
        if end is None:
            raise ConnectionLost("the stream was left before the request ended")
        text = end.text if end.text is not None else self.text
        if isinstance(end, Failed):
            error = end.error
            raise RequestFailed(
                error.code, error.message, retryable=error.retryable, text=text
            )
        if isinstance(end, Cancelled):
            raise RequestCancelled(end.reason, text=text)
        if end.text_omitted:
            end.text = text
            end.reasoning = self.reasoning or None
            end.tool_calls = self.tool_calls or None
        return end

    # Beginning and leaving

    async def _begin(self) -> None:
        attachment, submit = self._attachment, self._submit
        self._owner.attach(attachment)
        self._begun = True
        try:
            await attachment.subscribe()
            if self._keepalive_ms is not None:
                attachment.keep_alive(self._keepalive_ms)
            look = await submit() if submit is not None else True
        except asyncio.CancelledError:
            self._leave_soon(cancel=attachment.cancels)
            raise
        except Exception:
            # Not stored, or nobody knows: then the same id may be submitted again,
            # which a cancel would spoil.
            await self._leave(cancel=False)
            raise
        self._reader.begin(read=look)

    async def cancel(self, reason: str = "cancelled by client") -> None:
        """Cancel the request and go on reading: its end will be `Cancelled`.

        Or another one, where it ended before. Returns once JetStream keeps the
        cancel. Raises what `Client.cancel` does.
        """
        await self._owner.cancel(self.tenant, self.id, reason, timeout_s=CANCEL_S)

    def iteration_dropped(self) -> None:
        """What a ``break`` comes to; not for callers."""
        if self._begun and not self._left and self._attachment.cancels:
            self._left = True
            self._owner.drop(self._attachment)

    async def aclose(self) -> None:
        """Leave. Safe to call twice, and after the end."""
        await self._leave(cancel=self._attachment.cancels)

    async def _leave(self, *, cancel: bool) -> None:
        self._leave_soon(cancel=cancel)
        if self._leaving is not None:
            # Whoever is cancelled here leaves all the same.
            await asyncio.shield(self._leaving)

    def _leave_soon(self, *, cancel: bool) -> None:
        if not self._left and self._begun:
            cancel = cancel and self._end is None
            self._leaving = self._owner.leave(self._attachment, cancel=cancel)
        self._left = True

    async def __aenter__(self) -> Self:
        if not self._begun:
            await self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_begun", False) and not self._left:
            self._owner.drop(self._attachment)


class _Iteration:
    """One ``async for``: dropping it before the end leaves a stream that cancels."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __aiter__(self) -> _Iteration:
        return self

    def __anext__(self) -> Awaitable[KnownEvent]:
        return self._stream.__anext__()

    def __del__(self) -> None:
        self._stream.iteration_dropped()
