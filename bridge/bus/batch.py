"""Fast-ingest batches (ADR-50): subjects, answers, closing.

A batch is a run of messages that a stream stores in order and without a gap, or not at
all from the first gap on. Everything about a message's place in its batch stands in
its reply subject::

    <inbox>.<batch id>.<flow>.<gap mode>.<batch seq>.<op>.$FI

The protocol is young and may move: nothing outside this module, `bridge.bus.tail`,
`bridge.bus.repair` and `bridge.bus.writer` knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import Enum, IntEnum
from functools import partial
from typing import NamedTuple

import msgspec
from nats.aio.msg import Msg

from bridge.bus.api import BATCH_UNKNOWN, TOO_MANY_BATCHES, WRONG_LAST_SEQUENCE
from bridge.bus.connection import Connection
from bridge.errors import BusError, ConnectionLost, StreamUnavailable
from bridge.events import JobIdentity

#: The server may acknowledge every so many messages; those answers go to a subject
#: that nobody subscribes to, but a ping's answer names the last of them, so this is how
#: finely one learns what is stored.
FLOW = 64

#: Repairs that an attempt may need, so that a successor can name them all.
MAX_REPAIRS = 7

#: A batch sequence that no batch reaches: closing with it cuts off whatever an older
#: owner still sends.
CLOSING_SEQ = 1_000_000_000


class Op(IntEnum):
    """What a message does to its batch."""

    START = 0
    APPEND = 1
    COMMIT = 2
    CLOSE = 3
    PING = 4


class Verdict(Enum):
    """What an answer says of a batch."""

    ALIVE = "alive"
    COMMITTED = "committed"
    UNKNOWN = "unknown"  # no such batch: never started, ended, broken or timed out
    REFUSED = "refused"  # the start condition did not hold
    OVERLOADED = "overloaded"  # too many batches are open
    BROKEN = "broken"
    UNAVAILABLE = "unavailable"  # no stream, or no leader


class Answer(NamedTuple):
    """A verdict; ``number`` is ``seq`` of ALIVE and ``count`` of COMMITTED."""

    verdict: Verdict
    number: int = 0
    detail: str = ""


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Body(msgspec.Struct):
    type: str = ""
    seq: int = 0
    count: int = 0
    error: _Error | None = None


_decoder = msgspec.json.Decoder(_Body)

_VERDICTS = {
    WRONG_LAST_SEQUENCE: Verdict.REFUSED,
    TOO_MANY_BATCHES: Verdict.OVERLOADED,
    BATCH_UNKNOWN: Verdict.UNKNOWN,
}


def parse_answer(data: bytes) -> Answer:
    """Read the server's answer to one message of a batch."""
    if not data:
        return Answer(Verdict.UNAVAILABLE, detail="no stream or no leader")
    try:
        body = _decoder.decode(data)
    except msgspec.DecodeError:
        return Answer(Verdict.BROKEN, detail="an answer that is no JSON")
    if body.error is not None:
        error = body.error
        verdict = _VERDICTS.get(error.err_code, Verdict.BROKEN)
        if error.code == 503:
            verdict = Verdict.UNAVAILABLE
        if body.type == "err":
            # The error of one message inside a batch that lived until then.
            verdict = Verdict.BROKEN
        return Answer(verdict, detail=f"{error.description} ({error.err_code})")
    if body.type == "ack":
        return Answer(Verdict.ALIVE, body.seq)
    if body.type == "gap":
        return Answer(Verdict.BROKEN, detail="a message was lost on the way")
    return Answer(Verdict.COMMITTED, body.count)


#: A time in nanoseconds is shorter in base 36: 12 digits until the year 2120.
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def batch_id(job: JobIdentity, attempt: int, repair: int) -> str:
    """The name of a batch, so that any successor can name it too.

    64 characters at most, which is the server's limit, for numbers of 64 bits.
    """
    return f"{job.stream_seq}-{_base_36(job.stored_ns)}-{attempt}-{repair}"


def _base_36(number: int) -> str:
    digits = ""
    while number > 0:
        number, digit = divmod(number, len(DIGITS))
        digits = DIGITS[digit] + digits
    return digits or "0"


def older_batches(jobs: Iterable[JobIdentity], below: int) -> list[str]:
    """Every batch that attempts lower than ``below`` may have open."""
    return [
        batch_id(job, attempt, repair)
        for job in sorted(set(jobs))
        for attempt in range(1, below)
        for repair in range(MAX_REPAIRS + 1)
    ]


Listener = Callable[[Op, Answer], None]


class _Closing:
    """Batches that are being closed; ``over`` is done with the last answer."""

    def __init__(self, batches: list[str]) -> None:
        self.open = set(batches)
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(self, batch: str, op: Op, answer: Answer) -> None:
        if op is not Op.CLOSE or self.over.done():
            return
        if answer.verdict is Verdict.UNAVAILABLE:
            # Nothing else will be heard of it: whoever waits may try again at once.
            self.fail(StreamUnavailable(f"the log: {answer.detail}"))
            return
        self.open.discard(batch)
        if not self.open:
            self.over.set_result(None)

    def fail(self, error: BusError) -> None:
        if not self.over.done():
            self.over.set_exception(error)


class Batches:
    """The answers of all batches that one cell writes on one connection."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        #: Where pings and closings go: in the log's stream, but on no request's
        #: subject, whose live subscribers would get them as empty messages.
        self._subject = subject
        self._inbox = ""
        self._listeners: dict[str, Listener] = {}
        self._closings: set[_Closing] = set()

    async def open(self) -> None:
        """Subscribe to the answers; of appends only a broken batch has any."""
        self._inbox = self._connection.new_inbox()
        for op in (Op.START, Op.COMMIT, Op.CLOSE, Op.PING):
            await self._connection.subscribe(
                f"{self._inbox}.*.*.*.*.{op:d}.$FI", self._answered
            )

    def _answered(self, message: Msg) -> None:
        tokens = message.subject.rsplit(".", 6)
        listener = self._listeners.get(tokens[1])
        if listener is not None:
            listener(Op(int(tokens[5])), parse_answer(message.data))

    def listen(self, batch: str, listener: Listener) -> None:
        """Call ``listener`` with every answer to ``batch``."""
        self._listeners[batch] = listener

    def forget(self, batch: str) -> None:
        """Call nobody for ``batch`` any more."""
        self._listeners.pop(batch, None)

    def disconnected(self) -> None:
        """Let nobody wait for answers that the old connection would have brought."""
        for closing in self._closings:
            closing.fail(ConnectionLost("the connection to NATS was lost"))

    def reply_head(self, batch: str) -> str:
        """The reply subject of a batch's messages up to the batch sequence."""
        return f"{self._inbox}.{batch}.{FLOW}.fail."

    def send(self, op: Op, batch: str, seq: int) -> None:
        """Publish a ping or a closing. Raises `ConnectionLost`."""
        reply = f"{self.reply_head(batch)}{seq}.{op:d}.$FI"
        self._connection.publish(self._subject, b"", reply)

    async def close(self, batches: list[str], *, timeout_s: float = 2.0) -> None:
        """Close batches, so that nothing of theirs is stored from now on.

        Returns when the server has answered for each of them. Raises `ConnectionLost`
        when it did not in time, and `StreamUnavailable` as soon as it says that the
        stream is away; closing again is harmless. May be cancelled.
        """
        if not batches:
            return
        if not self._connection.connected:
            raise ConnectionLost("not connected to NATS: nothing can be closed")
        closing = _Closing(batches)
        self._closings.add(closing)
        before = {batch: self._listeners.get(batch) for batch in batches}
        try:
            for batch in batches:
                self.listen(batch, partial(closing.answered, batch))
                self.send(Op.CLOSE, batch, CLOSING_SEQ)
            async with asyncio.timeout(timeout_s):
                await closing.over
        except TimeoutError as error:
            raise ConnectionLost(
                f"the log's stream did not answer for {len(closing.open)} of "
                f"{len(batches)} batches within {timeout_s:g} s"
            ) from error
        finally:
            self._closings.discard(closing)
            for batch, listener in before.items():
                if listener is None:
                    self.forget(batch)
                else:
                    self.listen(batch, listener)
