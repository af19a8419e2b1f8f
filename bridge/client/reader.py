"""One request's events, whole and in order: its log and its live events spliced.

``docs/protocol.md``, section 4, "How the log is read". The rules are
`bridge.sequence.Position`'s; here is what they are fed with, and when.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

import msgspec

from bridge.bus.api import StoredMessage
from bridge.bus.cell import Cell
from bridge.client.feed import Feed
from bridge.errors import (
    BusError,
    ConnectionLost,
    LogExpired,
    NothingInLog,
    NotPermitted,
    RequestLost,
    StreamUnavailable,
)
from bridge.events import AnyEvent, Started, decode_event
from bridge.intake import MAX_MILLISECONDS
from bridge.sequence import DELIVER, DROP, HOLE, Position, Ruling, Verdict

log = logging.getLogger(__name__)

#: What is read from the log at a time: one direct get's worth.
PAGE_MESSAGES = 4096
PAGE_BYTES = 1024 * 1024

#: Between two looks at a log that has not got so far yet, in seconds: ingest takes
#: milliseconds, a repair or a takeover up to seconds.
AGAIN_FIRST_S = 0.005
AGAIN_LAST_S = 0.25

#: The same after a question that nobody answered.
AGAIN_UNANSWERED_S = 0.05

#: How many of them in a row, while NATS is connected, are worth a warning. As many that
#: the server refused show that this user may not read the log.
UNANSWERED = 3

#: Live events of a later attempt that are kept until the log was asked for it.
HELD_MESSAGES = 4096

#: How long live may take to fill a hole where the log may not be read, in seconds.
REFUSED_S = 1.0

#: How long NATS must have given no answer before an end that live has shown is taken
#: unconfirmed, in seconds: an election of a leader took up to 7 s. (A refusal is heard
#: at once.)
UNCONFIRMED_S = 10.0

#: How long the log is read again before a hole in it counts as permanent, in seconds:
#: a page that was cut off is whole the next time.
HOLE_S = 2.0

#: How long a log of which something was read must be empty, while NATS is connected,
#: before it counts as gone, and the time between two looks at it meanwhile; in seconds.
EMPTY_S = 5.0
EMPTY_LOOK_S = 0.5

#: How long after its deadline a request may still end, in seconds. Later it never will:
#: its job is gone. The bridge ends a job at its deadline, queued ones within seconds.
LOST_AFTER_S = 30.0

#: No time at all: whatever waits for it does not.
NEVER = float("inf")

Query = Callable[[], Awaitable[AnyEvent | None]]


class _Tries:
    """One kind of question, and how often in a row it was not answered."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.failed = 0
        #: The server's words where it has refused the last one.
        self.refusal: str | None = None
        self._since = 0.0

    def answered(self) -> None:
        self.failed = 0
        self.refusal = None

    def missed(self, now: float, refusal: str | None) -> None:
        if not self.failed:
            self._since = now
        self.failed += 1
        self.refusal = refusal

    def hopeless(self, now: float, after_s: float) -> bool:
        """Whether asking again is in vain: refused, or unanswered for ``after_s``."""
        lasting = self.refusal is not None or now - self._since >= after_s
        return self.failed >= UNANSWERED and lasting

    def refused_for(self, now: float) -> float:
        """For how many seconds the server has refused it."""
        many = self.refusal is not None and self.failed >= UNANSWERED
        return now - self._since if many else 0.0


class Reader:
    """Yields the events of a request from ``from_seq`` on, the terminal one last.

    ``truncated_to`` belongs to the event that came last: what was delivered above it
    is void. ``wait_s`` is how long the log may stay empty, None for ever;
    ``deadline_ms`` the job's deadline, where the reader has submitted it. One task
    reads at a time; a cancelled `next` loses nothing.
    """

    def __init__(
        self,
        cell: Cell,
        tenant: str,
        id: str,
        feed: Feed,
        *,
        from_seq: int = 1,
        wait_s: float | None = None,
        deadline_ms: int | None = None,
    ) -> None:
        self._cell = cell
        self._tenant = tenant
        self._id = id
        self._feed = feed
        self._wait_s = wait_s
        self._give_up_at = NEVER
        self._deadline_ms = deadline_ms
        #: When the deadline began to count, plus what the connection was away before.
        self._counts_from = 0.0
        self.position = Position(from_seq - 1)
        self.truncated_to: int | None = None
        #: Whether the log has, as far as this reader knows, what was delivered last:
        #: False for a terminal event that could not be compared with it.
        self.confirmed = True
        #: Messages that were no event of this request, and were passed over.
        self.ignored = 0
        #: Read from the log and not ruled on yet; ``_more`` follows them.
        self._page: deque[StoredMessage] = deque()
        self._reading = False
        self._more = False
        #: The last message that was read: its place in the stream, its bytes. The next
        #: page begins with it, or else is of another log.
        self._log_seq = 0
        self._anchor = b""
        #: What live has shown and the log is to reach: attempt and seq.
        self._wanted: tuple[int, int] | None = None
        #: A terminal event that live has shown.
        self._ending: AnyEvent | None = None
        #: The opening of a later attempt that live has shown, and what came behind it:
        #: all that reading can continue with where the log may not be read.
        self._held: deque[AnyEvent] = deque()
        self._without = False
        self._complained = False
        self._read_at = self._look_at = NEVER
        self._again_s = AGAIN_FIRST_S
        self._empty_since: float | None = None
        self._empty_received = 0
        self._hole_since: float | None = None
        self._hole_at = 0
        tokens = cell.names.tokens
        self._reads = _Tries(f"$JS.API.DIRECT.GET.{tokens}")
        self._looks = _Tries(f"$JS.API.STREAM.MSG.GET.{tokens}")

    def __repr__(self) -> str:
        return f"<Reader {self._tenant}/{self._id} {self.position!r} {self._feed!r}>"

    def begin(self, *, read: bool) -> None:
        """Start the clock; with ``read`` the log first, else what is live."""
        now = _now()
        if not self._cell.connection.connected:
            self._feed.disconnected()
        self._counts_from = now - self._feed.away_s
        if self._wait_s is not None:
            self._give_up_at = now + self._wait_s
        if read:
            self._read_at = now

    # What is there

    def take(self) -> AnyEvent | None:
        """The next event, if live has brought it already: the short way."""
        if self._page or self._reading or self._without:
            return None
        feed, position = self._feed, self.position
        while feed.queue:
            try:
                event = decode_event(feed.pop())
            except msgspec.DecodeError:
                self._ignore()
                continue
            if event.id != self._id:
                self._ignore()
                continue
            ruling = position.live(event)
            if ruling is DELIVER or ruling.verdict is Verdict.DELIVER:
                self.truncated_to = ruling.truncate
                if event.seq == 1:
                    self._heed(event)
                return event
            if self._note(event, ruling):
                return None
        return None

    def _ignore(self) -> None:
        """Count a message that is no event of this request."""
        self.ignored += 1
        if self.ignored == 1:
            log.warning(
                "a message on the subject of request %s is no event of it, and was "
                "passed over",
                self._id,
            )

    def _event(self, data: bytes) -> AnyEvent | None:
        try:
            event = decode_event(data)
        except msgspec.DecodeError:
            return None
        return event if event.id == self._id else None

    def _heed(self, event: AnyEvent) -> None:
        """Take the deadline from ``started``: it is the one that counts."""
        ms = event.deadline_ms if isinstance(event, Started) else None
        if ms is None or not 0 < ms <= MAX_MILLISECONDS:
            return
        if self._deadline_ms is None:
            # Submitted by another one, some time ago: this is its latest end.
            self._counts_from = _now() - self._feed.away_s
        self._deadline_ms = ms

    def _note(self, event: AnyEvent, ruling: Ruling) -> bool:
        """Remember what the log is to be asked for; whether to do so at once."""
        if ruling.verdict is Verdict.DROP:
            return False
        if event.terminal:
            self._ending = event
        if ruling.verdict is Verdict.CONFIRM:
            self._look_at = _now()
            return True
        self._want(event)
        self._hold(event)
        if self._read_at != NEVER:
            return False  # asked already, and not answered as far as this
        self._read_at = _now()
        return True

    def _hold(self, event: AnyEvent) -> None:
        held = self._held
        if held and event.attempt < held[0].attempt:
            return  # of a worker that has lost the job
        if not held and not self.position.may_enter(event):
            return
        held.append(event)
        if len(held) > HELD_MESSAGES:
            held.clear()

    def _want(self, event: AnyEvent) -> None:
        wanted = (event.attempt, event.seq)
        self._wanted = max(self._wanted or wanted, wanted)

    def _from_page(self) -> AnyEvent | None:
        while self._page:
            stored = self._page.popleft()
            event = self._event(stored.data)
            if event is None:
                self._ignore()
            ruling = self.position.log(event) if event is not None else DROP
            if event is not None and ruling.verdict is Verdict.HOLE:
                self._hole(event)
                return None
            self._log_seq, self._anchor = stored.seq, stored.data
            if event is not None and event.seq == 1:
                self._heed(event)
            if event is not None and ruling.verdict is Verdict.DELIVER:
                self.truncated_to = ruling.truncate
                self._again_s = AGAIN_FIRST_S
                return event
        if self._reading:
            self._read_through()
        return None

    def _read_through(self) -> None:
        """Decide whether the log is to be read on, now or later."""
        self._reading = False
        if not self._more or self.position.known >= self._hole_at:
            self._hole_since = None
        if self._more:
            self._read_at = _now()
        elif not self._satisfied:
            self._read_at = _now() + self._back_off()
        else:
            self._wanted = None
            self._held.clear()
            self._read_at = NEVER
            self._again_s = AGAIN_FIRST_S

    def _hole(self, event: AnyEvent) -> None:
        """The log continues with ``event``, and something before it is missing.

        A page may have been cut off, and the log may have been made again. Raises
        `LogExpired` where reading it again for `HOLE_S` has changed nothing.
        """
        now, known = _now(), self.position.known
        if self._hole_since is None:
            self._hole_since = now
        elif now - self._hole_since >= HOLE_S:
            if known == 0 and event.seq > 1:
                raise LogExpired(
                    f"the log of request {self._id!r} begins at seq {event.seq} by "
                    f"now; seq {self.position.seq + 1} is no longer kept"
                )
            raise LogExpired(
                f"the log of request {self._id!r} is not whole: seq {event.seq} of "
                f"attempt {event.attempt} does not follow seq {known}, and reading it "
                f"again for {HOLE_S:g} s has not changed that"
            )
        self._hole_at = event.seq
        self._read_anew()
        self._read_at = now + self._back_off()

    def _read_anew(self) -> None:
        """Read the log from its first event, whatever was known of it."""
        self._page.clear()
        self._reading = self._more = False
        self._log_seq, self._anchor = 0, b""
        self.position.read_anew()

    @property
    def _satisfied(self) -> bool:
        if self._wanted is None:
            return True
        attempt, seq = self._wanted
        if self.position.attempt in (0, attempt):
            return self.position.known >= seq
        return self.position.attempt > attempt

    def _back_off(self) -> float:
        delay, self._again_s = self._again_s, min(2 * self._again_s, AGAIN_LAST_S)
        return delay

    # What is to come

    async def next(self) -> AnyEvent:
        """The next event, waiting for it as long as it may take. May be cancelled.

        Raises `RequestLost` (`LogExpired`), `NothingInLog` after ``wait_s``,
        `NotPermitted` where this user may not read what live has left out, and
        `ConnectionLost` when the client is closed.
        """
        while True:
            event = self._from_page() or self.take()
            if event is None and self._feed.closed is not None:
                raise ConnectionLost(self._feed.closed)
            event = event or self._without_log() or await self._ask_or_wait()
            if event is not None:
                return event

    async def _ask_or_wait(self) -> AnyEvent | None:
        """Do what is due: ask the log, or wait until something is."""
        now = _now()
        if self._lost_at <= now:
            return await self._look_at_last()
        if self._read_at <= now:
            return await self._ask(self._read, self._reads)
        if self._look_at <= now or self._feed.due:
            return await self._ask(self._look, self._looks)
        await self._wait(now)
        return None

    async def _wait(self, now: float) -> None:
        give_up_at = self._give_up_at if self.position.nothing_yet else NEVER
        if give_up_at <= now:
            self._give_up()
        until = min(self._read_at, self._look_at, give_up_at, self._lost_at)
        await self._feed.wait(until if until != NEVER else None)

    def _give_up(self) -> None:
        connection = self._cell.connection
        if not connection.connected:
            raise ConnectionLost(f"not connected to NATS at {connection.servers}")
        if self._reads.refusal is not None:
            raise self._not_permitted(self._reads)
        raise NothingInLog(
            f"the log has nothing of request {self._id!r} of tenant {self._tenant!r} "
            f"after {self._wait_s:g} s: it is unknown, has not started yet, or is no "
            "longer kept"
        )

    # A request that never ends

    @property
    def _lost_at(self) -> float:
        """When the request is taken for lost, in the loop's time as it looks now."""
        if self._deadline_ms is None or not self._cell.connection.connected:
            return NEVER
        allowed_s = self._deadline_ms / 1000 + LOST_AFTER_S
        return self._counts_from + allowed_s + self._feed.away_s

    async def _look_at_last(self) -> AnyEvent | None:
        """What the log has after all; None while NATS is away. Raises `RequestLost`."""
        event = await self._ask(self._look, self._looks)
        while event is None and self._cell.connection.connected:
            await self._ask(self._read, self._reads)
            event = self._from_page() or self.take()
            if self._read_at > _now():
                break
        if event is None and self._lost_at <= _now():
            assert self._deadline_ms is not None
            raise RequestLost(
                f"request {self._id!r} of tenant {self._tenant!r} has not ended "
                f"{LOST_AFTER_S:g} s after its deadline of {self._deadline_ms} ms: "
                f"{self._where_to_look}"
            )
        return event

    @property
    def _where_to_look(self) -> str:
        jobs = self._cell.names.jobs
        return (
            f"its job is gone, or no bridge serves it. Look at stream {jobs}: was it "
            "deleted or emptied, does it keep jobs (jobs_max_age_s) for longer than "
            "their deadlines? tokenbridge check tells whether a bridge serves the lane"
        )

    def _log_is_empty(self) -> AnyEvent | None:
        """The end that live has shown, if the log stays empty.

        Raises `RequestLost` where it has shown none.
        """
        now = _now()
        self._read_anew()
        if self.position.nothing_yet:
            return None
        received = self._feed.received
        if self._empty_since is None or received != self._empty_received:
            self._empty_since, self._empty_received = now, received
        elif now - self._empty_since >= EMPTY_S:
            end = self._ending
            if end is not None and self.position.end_unconfirmed(end):
                self.confirmed, self.truncated_to = False, None
                return end
            raise RequestLost(
                f"nothing of request {self._id!r} is kept any more in stream "
                f"{self._cell.names.tokens}; it was read up to seq "
                f"{self.position.seq}. The stream was deleted or emptied, or its age "
                f"is over; if the request had not ended, {self._where_to_look}"
            )
        self._look_at = now + EMPTY_LOOK_S
        return None

    # A log that cannot be read

    def _without_log(self) -> AnyEvent | None:
        """What live has shown, where the log cannot be asked for it.

        Raises `NotPermitted` where live alone will not do.
        """
        reads, looks = self._reads, self._looks
        if not (reads.failed or looks.failed):
            return None
        now, end = _now(), self._ending
        event = self._from_held() if reads.refused_for(now) else None
        if event is not None:
            return event
        hopeless = all(tries.hopeless(now, UNCONFIRMED_S) for tries in (reads, looks))
        if end is not None and hopeless and self.position.end_unconfirmed(end):
            self.confirmed, self.truncated_to = False, None
            return end
        if self._feed.deaf is not None and reads.refused_for(now):
            raise self._not_permitted(reads)
        if self._missing and reads.refused_for(now) >= REFUSED_S:
            raise self._not_permitted(reads)
        return None

    def _from_held(self) -> AnyEvent | None:
        """Continue in a later attempt that live alone has shown."""
        held, position = self._held, self.position
        while held:
            # What comes live waits until all of it is through.
            self._without = True
            event = held.popleft()
            if position.may_enter(event):
                ruling = position.enter_unconfirmed(event)
            else:
                ruling = position.live(event)
            if ruling.verdict is Verdict.DELIVER:
                self.truncated_to = ruling.truncate
                return event
            if ruling.verdict is Verdict.HOLE:
                held.clear()
                self._want(event)
        if self._without and not self._missing:
            self._wanted, self._read_at = None, NEVER
        self._without = False
        return None

    @property
    def _missing(self) -> bool:
        """Whether live has left a hole that only the log can fill."""
        if self._wanted is None:
            return False
        position, end = self.position, self._ending
        if end is not None and end.seq == position.seq + 1:
            return False
        attempt, seq = self._wanted
        behind = attempt == position.attempt and seq > position.seq
        return behind or attempt > position.attempt

    def _not_permitted(self, tries: _Tries) -> NotPermitted:
        return NotPermitted(
            f"this NATS user may not read the log of request {self._id!r}, and its "
            f"live events alone are not enough behind seq {self.position.seq}: allow "
            f"it to publish to {self._reads.subject} and {self._looks.subject}, and to "
            f"subscribe to {self._cell.subjects.tokens(self._tenant, self._id)}. The "
            f"server said: {tries.refusal}"
        )

    # Asking the log

    async def _ask(self, question: Query, tries: _Tries) -> AnyEvent | None:
        """Ask the log; where NATS does not answer, again in a moment."""
        feed = self._feed
        feed.refusal = None
        try:
            async with feed.asking(tries.subject):
                event = await question()
            tries.answered()
            return event
        except (BusError, TimeoutError) as error:
            self._missed(tries, error)
            return None

    def _missed(self, tries: _Tries, error: Exception) -> None:
        now = _now()
        later = now + max(self._back_off(), AGAIN_UNANSWERED_S)
        if tries is self._reads:
            self._hole_since = None
        else:
            self._empty_since = None
        if self._cell.connection.connected:
            refusal = str(error) if isinstance(error, NotPermitted) else None
            tries.missed(now, self._feed.refusal or refusal)
            self._complain(tries, error)
        else:
            tries.answered()  # an outage says nothing of what comes after it
        needed = self._missing or self._ending is not None
        if tries.refusal is not None and not needed and self._feed.deaf is None:
            later = NEVER  # the next silence asks again
        if tries is self._reads:
            self._read_at = later
            return
        self._look_at = later
        unread = tries.refusal is not None and self._reads.refusal is None
        needed = self._ending is not None or self._feed.deaf is not None
        if self._read_at == NEVER and (needed or unread):
            # The log itself may be read although its last message may not be asked.
            self._read_at = now + AGAIN_UNANSWERED_S
            if self._ending is not None:
                self._want(self._ending)

    def _complain(self, tries: _Tries, error: Exception) -> None:
        if tries.failed != UNANSWERED or self._complained:
            return
        self._complained = True
        said = tries.refusal or str(error) or "no answer"
        log.warning(
            "the log of request %s cannot be read: %s. %s May this user publish to %s "
            "and %s?",
            self._id,
            said,
            "What live shows stays unconfirmed." if tries.refusal else "Trying again.",
            self._reads.subject,
            self._looks.subject,
        )

    async def _read(self) -> None:
        """Read a page of the log, from the message that was read last on."""
        read = cast(
            AsyncGenerator[StoredMessage, None],
            self._cell.read_log(self._tenant, self._id, max(self._log_seq, 1)),
        )
        self._more = False
        size, proven = 0, self._log_seq == 0
        async with aclosing(read):
            async for stored in read:
                if not proven:
                    if stored.seq != self._log_seq or stored.data != self._anchor:
                        # Cut off, expired up to here, or the log of another stream.
                        self._read_anew()
                        return
                    proven = True
                    continue
                self._page.append(stored)
                size += len(stored.data)
                if len(self._page) >= PAGE_MESSAGES or size >= PAGE_BYTES:
                    self._more = True
                    break
        self._read_at = NEVER
        self._reading = True

    async def _look(self) -> AnyEvent | None:
        """Compare with the log's last event, as the leader has it."""
        self._feed.due = False
        try:
            another = self._feed.renewed and await self._is_another()
            self._feed.renewed = False
            if another:
                self._read_anew()
                self._read_at = _now()
                return None
            stored = await self._cell.last_stored(self._tenant, self._id)
        except asyncio.CancelledError:
            # Another failure sets the time of the next look: still being due, it
            # would be looked at without a pause, and so without an end.
            self._feed.due = self._feed.refusal is None
            raise
        except StreamUnavailable as error:
            if not error.gone:
                raise
            stored = None
        self._look_at = NEVER
        event = None
        if stored is None:
            event = self._log_is_empty()
        else:
            self._empty_since = None
            event = self._compare(stored)
        if event is None and self._awaits_end:
            self._look_at = min(self._look_at, _now() + self._back_off())
        return event

    async def _is_another(self) -> bool:
        """Whether a new connection shows another log: NATS may have come back empty.

        One message is asked for: the one that was read last, or else the first.
        """
        if self.position.nothing_yet:
            return False
        jetstream, tokens = self._cell.jetstream, self._cell.names.tokens
        if self._log_seq:
            stored = await jetstream.message(tokens, self._log_seq)
            return stored is None or stored.data != self._anchor
        subject = self._cell.subjects.tokens(self._tenant, self._id)
        stored = await jetstream.next_message(tokens, subject, 1)
        if stored is None:
            return False
        return not self.position.began_with(self._event(stored.data))

    @property
    def _awaits_end(self) -> bool:
        end = self._ending
        return end is not None and end.attempt >= self.position.attempt

    def _compare(self, stored: StoredMessage) -> AnyEvent | None:
        """Rule on the log's last message; the event, if it was all that was missing."""
        if stored.seq == self._log_seq and stored.data == self._anchor:
            return None  # all of it was read
        another = stored.seq <= self._log_seq
        if another:
            self._read_anew()  # sequences only rise: the stream was made again
        self._read_at = _now()
        event = self._event(stored.data)
        if event is None:
            return None  # what precedes it may be new
        ruling = HOLE if another else self.position.tip(event)
        if ruling.verdict is Verdict.HOLE:
            self._want(event)
            return None
        self._read_at = NEVER if self._satisfied else self._read_at
        self._log_seq, self._anchor = stored.seq, stored.data
        if ruling.verdict is Verdict.DROP:
            return None
        self.truncated_to = ruling.truncate
        return event


def _now() -> float:
    return asyncio.get_running_loop().time()
