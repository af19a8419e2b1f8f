"""A log whose batch broke: closed, counted at the leader, and the rest sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from bridge.bus.api import JetStream
from bridge.bus.batch import MAX_REPAIRS, Answer, Batches, Op, Verdict
from bridge.bus.log import find_last, find_next
from bridge.bus.refusals import Fenced, LogGone, StartRefused
from bridge.bus.streams import StreamNames
from bridge.bus.tail import ANSWER_TIMEOUT_S, Tail
from bridge.errors import BusError, ConnectionLost, StreamUnavailable
from bridge.events import AnyEvent, event_in, speech_in

#: Between two tries of a repair while the stream has no leader, in seconds.
RETRY_FIRST_S = 0.02
RETRY_LAST_S = 0.5

#: Without a leader nobody may answer at all: a repair waits no longer than this, in
#: seconds, to learn whether the stream is gone.
PROBE_S = 0.3


class RepairHome(Protocol):
    """What a repair needs of its cell."""

    batches: Batches
    jetstream: JetStream
    names: StreamNames
    repairs: int

    async def pause(self, seconds: float) -> None:
        """Wait a moment between two tries."""


class Repair:
    """Begins the batch of one log anew, as often as it breaks.

    ``stored`` and ``stored_speech`` are the numbers of the events that stood before
    this attempt. ``on_open`` is called as soon as the log goes on, with the answer that
    proves what was sent again, if anything was; ``on_committed`` when it is at its end.
    """

    def __init__(
        self,
        cell: RepairHome,
        tail: Tail,
        *,
        stored: int,
        stored_speech: int,
        owned: Callable[[], bool],
        on_open: Callable[[Answer | None], None],
        on_committed: Callable[[], None],
    ) -> None:
        self._cell = cell
        self._tail = tail
        self._id = tail.subject.rpartition(".")[2]
        self._base = stored + stored_speech
        self._base_tokens = stored
        self._owned = owned
        self._on_open = on_open
        self._on_committed = on_committed
        self._proof: asyncio.Future[bool] | None = None
        #: How many batches broke and were begun anew.
        self.count = 0

    def __repr__(self) -> str:
        return f"<Repair {self._tail!r} count={self.count}>"

    def disconnected(self) -> None:
        """Wait no longer for an answer that the old connection would have brought."""
        if self._proof is not None and not self._proof.done():
            self._proof.set_exception(ConnectionLost("the connection to NATS was lost"))

    async def run(self) -> None:
        """Try until the log is well.

        Raises `Fenced`, `StartRefused` or `LogGone`. May be cancelled.
        """
        delay = RETRY_FIRST_S
        while True:
            if not self._owned():
                raise Fenced("the lease ran out while the log was repaired")
            try:
                if await self._try():
                    return
            except StreamUnavailable as error:
                if error.gone or await self._stream_is_gone():
                    raise LogGone(str(error)) from error
            except ConnectionLost:
                pass  # NATS is on its way back; the lease bounds how long we wait
            await self._cell.pause(delay)
            delay = min(delay * 2, RETRY_LAST_S)

    async def _close(self) -> None:
        """Close the batch, or learn that there is no stream that could answer.

        Where a client listens to all logs, the server does not say that no stream does.
        Raises `BusError`.
        """
        batches = self._cell.batches
        closing = asyncio.ensure_future(batches.close([self._tail.batch]))
        try:
            await asyncio.wait([closing], timeout=PROBE_S)
            if not closing.done() and await self._stream_is_gone():
                raise StreamUnavailable("the stream of the log is gone", gone=True)
            await closing
        finally:
            closing.cancel()

    async def _stream_is_gone(self) -> bool:
        """Tell a stream that is gone from one that has no leader for a moment."""
        try:
            async with asyncio.timeout(PROBE_S):
                await self._cell.jetstream.last_message(
                    self._cell.names.tokens, self._tail.subject
                )
        except StreamUnavailable as error:
            return error.gone
        except (BusError, TimeoutError):
            pass
        return False

    async def _try(self) -> bool:
        """One try: close, count, send the rest again. Whether all is well now."""
        tail = self._tail
        await self._close()
        stored, last_seq, ended = await self._read_tip()
        # Behind this point nothing awaits until everything is sent again.
        missing = self._base + tail.forgotten - stored
        if missing > 0:
            # Proven, forgotten and lost: the next attempt goes on from what stands.
            raise Fenced(f"the server has lost {missing} events that it had stored")
        tail.forget(-missing)
        tail.last_seq = last_seq
        if ended or (tail.terminal and not tail.unproven):
            self._on_committed()
            return True
        if self.count >= MAX_REPAIRS:
            raise Fenced(f"the log broke more than {MAX_REPAIRS} times")
        self.count += 1
        self._cell.repairs += 1
        tail.use_batch(self.count)
        tail.detached = False
        if not tail.unproven:
            self._on_open(None)
            return True
        return await self._send_again()

    # What stands

    async def _read_tip(self) -> tuple[int, int, bool]:
        """Events stored in all, stream sequence of the last, whether it is our end.

        Anybody may store anything on the subjects: what is no event is passed over.
        """
        jetstream, stream = self._cell.jetstream, self._cell.names.tokens
        tail = self._tail
        found: tuple[int, AnyEvent | None] = await find_last(
            jetstream, stream, tail.subject, partial(event_in, self._id)
        )
        last_seq, event = found
        tokens = self._base_tokens
        ended = False
        if event is not None:
            if event.attempt > tail.attempt:
                raise Fenced(f"attempt {event.attempt} goes on with the request")
            if event.attempt < tail.attempt and event.seq != self._base_tokens:
                reason = "an older attempt wrote after the log was read"
                raise Fenced(reason) if tail.begun else StartRefused(reason)
            if event.attempt == tail.attempt and not await self._is_ours():
                raise StartRefused("the log was begun for another job of that id")
            tokens = event.seq
            ended = event.terminal and event.attempt == tail.attempt
        elif self._base or tail.forgotten:
            raise StreamUnavailable("the request's log is empty now", gone=True)
        speech = self._base - self._base_tokens
        if not tail.said:
            return tokens + speech, last_seq, ended
        _, spoken = await find_last(jetstream, stream, tail.speech, self._spoken)
        speech = spoken if spoken is not None else self._discarded(tokens)
        return tokens + speech, last_seq, ended

    def _discarded(self, tokens: int) -> int:
        """Speech events before the event numbered ``tokens``, where none is there now.

        None was stored yet, or the stream has discarded them with the log's head: all
        were stored in one order.
        """
        tail = self._tail
        kept = sum(subject == tail.speech for subject, _ in tail.unproven)
        proven = tail.said - kept
        speech = self._base - self._base_tokens + proven
        seq = self._base_tokens + tail.forgotten - proven
        for subject, _ in tail.unproven:
            if seq >= tokens:
                break
            if subject == tail.speech:
                speech += 1
            else:
                seq += 1
        return speech

    def _spoken(self, data: bytes) -> int | None:
        event = speech_in(self._id, data)
        return event.seq if event is not None else None

    async def _is_ours(self) -> bool:
        """Whether it is this attempt's first event that stands behind the base.

        A repeat of the job has attempts of its own, with the same numbers.
        """
        tail = self._tail
        if not tail.begun and tail.unproven:
            first = await find_next(
                self._cell.jetstream,
                self._cell.names.tokens,
                tail.subject,
                tail.last_seq + 1,
                lambda data: data if event_in(self._id, data) is not None else None,
            )
            tail.begun = first == tail.unproven[0][1]
        return tail.begun

    # The rest

    async def _send_again(self) -> bool:
        proof: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._proof = proof

        def answered(op: Op, answer: Answer) -> None:
            if proof.done() or (op is Op.START and answer.verdict is Verdict.ALIVE):
                return
            # At once: an answer right behind this one must find the new state.
            proof.set_result(self._answered(answer))

        self._cell.batches.listen(self._tail.batch, answered)
        self._tail.send_again()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await proof
        except TimeoutError as error:
            raise ConnectionLost("no answer to a repair") from error

    def _answered(self, answer: Answer) -> bool:
        """Take the answer to what was sent again; whether the log is well now."""
        tail = self._tail
        if answer.verdict is Verdict.COMMITTED and tail.terminal:
            if answer.number != tail.sent:
                return False
            tail.forget(len(tail.unproven))
            self._on_committed()
            return True
        if answer.verdict is Verdict.OVERLOADED:
            # Nothing was opened: the same name will do.
            self.count -= 1
        if answer.verdict is not Verdict.ALIVE:
            return False
        tail.go_on()
        self._on_open(answer)
        return True
