"""Requests on their way, and the answers to them."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from nats.aio.msg import Msg

from bridge.errors import ConnectionLost, NotPermitted, StreamUnavailable

#: Answers that stay away are noticed with this grain, in seconds.
EXPIRE_EVERY_S = 0.1


class Question(NamedTuple):
    """A request on its way; ``until`` is in seconds of the loop's clock."""

    waiting: dict[str, Question]
    token: str
    future: asyncio.Future[Msg]
    until: float
    subject: str
    timeout_s: float

    async def answer(self) -> Msg:
        """Wait for the answer, once. Raises as `Connection.request` does."""
        try:
            message = await self.future
        finally:
            self.forget()
        if not message.data and (message.headers or {}).get("Status") == "503":
            raise StreamUnavailable(f"nobody answers on {self.subject}")
        return message

    def forget(self) -> None:
        """Wait no longer; an answer that still comes is dropped."""
        self.waiting.pop(self.token, None)
        self.future.cancel()

    def give_up(self, reason: str = "") -> None:
        """The time is over, or there is a ``reason`` why no answer will come."""
        if not self.future.done():
            reason = (
                reason or f"no answer on {self.subject} within {self.timeout_s:g} s"
            )
            self.future.set_exception(ConnectionLost(reason))

    def refuse(self, reason: str) -> None:
        """The server did not let the question, or its answer, through."""
        if not self.future.done():
            self.future.set_exception(NotPermitted(reason))


class Questions:
    """All that one connection has asked, by the last token of the reply subject.

    One timer for all of them, for a timer each is dear.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Question] = {}
        self._next = 0
        self._expiry: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Questions open={self.open}>"

    @property
    def open(self) -> int:
        """How many wait for their answer."""
        return len(self._waiting)

    def expect(self, subject: str, timeout_s: float) -> Question:
        """An answer to come, in at most ``timeout_s``."""
        loop = asyncio.get_running_loop()
        self._next += 1
        token = f"{self._next:x}"
        until = loop.time() + timeout_s
        question = Question(
            self._waiting, token, loop.create_future(), until, subject, timeout_s
        )
        self._waiting[token] = question
        if self._expiry is None:
            self._expiry = loop.call_later(EXPIRE_EVERY_S, self._expire)
        return question

    def answered(self, message: Msg) -> None:
        """Hand an answer to who waits for it, if anybody does."""
        question = self._waiting.get(message.subject.rpartition(".")[2])
        if question is not None and not question.future.done():
            question.future.set_result(message)

    def give_up(self, reason: str = "") -> None:
        """No answer will come to anything that was asked so far."""
        for question in list(self._waiting.values()):
            question.give_up(reason)

    def refuse(self, subject: str | None, reason: str) -> None:
        """What was asked on ``subject``, in lower case, gets no answer; None: all."""
        for question in list(self._waiting.values()):
            if subject is None or question.subject.lower() == subject:
                question.refuse(reason)

    def close(self) -> None:
        """Give up, and let no timer stay behind."""
        if self._expiry is not None:
            self._expiry.cancel()
        self.give_up()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._expiry = None
        now = loop.time()
        for question in list(self._waiting.values()):
            if now >= question.until:
                question.give_up()
        if self._waiting:
            self._expiry = loop.call_later(EXPIRE_EVERY_S, self._expire)
