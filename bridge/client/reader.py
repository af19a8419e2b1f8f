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
from bridge.errors import ConnectionLost, LogExpired, NothingInLog, StreamUnavailable
from bridge.events import AnyEvent, decode_event
from bridge.sequence import DELIVER, DROP, Position, Ruling, Verdict

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

#: So many of them in a row, while NATS is connected, are worth a warning.
UNANSWERED = 3

#: A log of which something was read, and which stays empty for so long, has expired.
EMPTY_S = 60.0

#: What the decoder raises for bytes that are no event.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

#: No time at all: whatever waits for it does not.
NEVER = float("inf")


class Reader:
    """Yields the events of a request from ``from_seq`` on, the terminal one last.

    ``truncated_to`` belongs to the event that came last: what was delivered above it
    is void. ``wait_s`` is how long the log may stay empty, None for ever. One task
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
    ) -> None:
        self._cell = cell
        self._tenant = tenant
        self._id = id
        self._feed = feed
        self._wait_s = wait_s
        self._give_up_at = NEVER
        self.position = Position(from_seq - 1)
        self.truncated_to: int | None = None
        #: Read from the log and not ruled on yet; ``_more`` follows them.
        self._page: deque[StoredMessage] = deque()
        self._reading = False
        self._more = False
        self._log_seq = 0
        #: What live has shown and the log is to reach: attempt and seq.
        self._wanted: tuple[int, int] | None = None
        #: The attempt of a terminal event that live has shown.
        self._ending: int | None = None
        self._read_at = self._look_at = NEVER
        self._again_s = AGAIN_FIRST_S
        self._empty_since: float | None = None
        self._unanswered = 0

    def __repr__(self) -> str:
        return f"<Reader {self._tenant}/{self._id} {self.position!r} {self._feed!r}>"

    def begin(self, *, read: bool) -> None:
        """Start the clock; with ``read`` the log first, else what is live."""
        now = _now()
        if self._wait_s is not None:
            self._give_up_at = now + self._wait_s
        if read:
            self._read_at = now

    # What is there

    def take(self) -> AnyEvent | None:
        """The next event, if live has brought it already: the short way."""
        if self._page or self._reading:
            return None
        feed, position = self._feed, self.position
        while feed.queue:
            try:
                event = decode_event(feed.pop())
            except UNREADABLE:
                continue  # not the bridge's: nothing can be made of it
            ruling = position.live(event)
            if ruling is DELIVER:
                self.truncated_to = None
                return event
            if self._note(event, ruling):
                return None
        return None

    def _note(self, event: AnyEvent, ruling: Ruling) -> bool:
        """Remember what the log is to be asked for; whether to do so at once."""
        if ruling.verdict is Verdict.CONFIRM:
            self._ending = event.attempt
            self._look_at = _now()
            return True
        if ruling.verdict is not Verdict.HOLE:
            return False
        self._want(event)
        if self._read_at != NEVER:
            return False  # asked already, and not answered as far as this
        self._read_at = _now()
        return True

    def _want(self, event: AnyEvent) -> None:
        wanted = (event.attempt, event.seq)
        self._wanted = max(self._wanted or wanted, wanted)

    def _from_page(self) -> AnyEvent | None:
        while self._page:
            stored = self._page.popleft()
            self._log_seq = stored.seq
            try:
                event = decode_event(stored.data)
            except UNREADABLE:
                continue
            ruling = self.position.log(event)
            if ruling.verdict is Verdict.EXPIRED:
                raise LogExpired(
                    f"the log of request {self._id!r} begins at seq {event.seq} by "
                    f"now; seq {self.position.seq + 1} is no longer kept"
                )
            if ruling.verdict is Verdict.DELIVER:
                self.truncated_to = ruling.truncate
                self._again_s = AGAIN_FIRST_S
                return event
        if self._reading:
            self._read_through()
        return None

    def _read_through(self) -> None:
        """Decide whether the log is to be read on, now or later."""
        self._reading = False
        if self._more:
            self._read_at = _now()
        elif not self._satisfied:
            self._read_at = _now() + self._back_off()
        else:
            self._wanted = None
            self._read_at = NEVER
            self._again_s = AGAIN_FIRST_S

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
        """The next event, waiting for it as long as it takes. May be cancelled.

        Raises `LogExpired`, `NothingInLog` after ``wait_s``, and `ConnectionLost` when
        the client is closed.
        """
        while True:
            event = self._from_page() or self.take()
            if event is not None:
                return event
            if self._feed.closed is not None:
                raise ConnectionLost(self._feed.closed)
            now = _now()
            if self._read_at <= now:
                await self._ask(self._read)
            elif self._look_at <= now or self._feed.due:
                event = await self._ask(self._look)
                if event is not None:
                    return event
            else:
                await self._wait(now)

    async def _wait(self, now: float) -> None:
        give_up_at = self._give_up_at if self.position.nothing_yet else NEVER
        if give_up_at <= now:
            self._give_up()
        until = min(self._read_at, self._look_at, give_up_at)
        await self._feed.wait(until if until != NEVER else None)

    def _give_up(self) -> None:
        connection = self._cell.connection
        if not connection.connected:
            raise ConnectionLost(f"not connected to NATS at {connection.servers}")
        raise NothingInLog(
            f"the log has nothing of request {self._id!r} of tenant {self._tenant!r} "
            f"after {self._wait_s:g} s: it is unknown, has not started yet, or is no "
            "longer kept"
        )

    async def _ask(
        self, question: Callable[[], Awaitable[AnyEvent | None]]
    ) -> AnyEvent | None:
        """Ask the log; where NATS does not answer, again in a moment."""
        try:
            async with self._feed.asking():
                event = await question()
            self._unanswered = 0
            return event
        except (ConnectionLost, StreamUnavailable, TimeoutError) as error:
            self._complain(error)
            now = _now()
            later = now + max(self._back_off(), AGAIN_UNANSWERED_S)
            if self._read_at <= now:
                self._read_at = later
            else:
                self._look_at = later
            return None

    def _complain(self, error: Exception) -> None:
        self._unanswered += self._cell.connection.connected
        if self._unanswered == UNANSWERED:
            log.warning(
                "the log of request %s cannot be read: %s; trying again. May this "
                "user publish to $JS.API.DIRECT.GET and $JS.API.STREAM.MSG.GET of "
                "stream %s?",
                self._id,
                str(error) or "no answer",
                self._cell.names.tokens,
            )

    async def _read(self) -> None:
        """Read a page of the log, from where it is known on."""
        read = cast(
            AsyncGenerator[StoredMessage, None],
            self._cell.read_log(self._tenant, self._id, self._log_seq + 1),
        )
        self._more = False
        size = 0
        async with aclosing(read):
            async for stored in read:
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
            stored = await self._cell.last_stored(self._tenant, self._id)
        except asyncio.CancelledError:
            # Another failure sets the time of the next look: still being due, it
            # would be looked at without a pause, and so without an end.
            self._feed.due = True
            raise
        self._look_at = NEVER
        if stored is None:
            self._log_is_empty()
            event, ruling = None, DROP
        else:
            self._empty_since = None
            event = decode_event(stored.data)
            ruling = self.position.tip(event)
            if self.position.known == event.seq:
                self._log_seq = stored.seq
        if event is not None and ruling.verdict is Verdict.DELIVER:
            self.truncated_to = ruling.truncate
            return event
        if event is not None and ruling.verdict is Verdict.HOLE:
            self._want(event)
            self._read_at = _now()
        if self._ending is not None and self._ending >= self.position.attempt:
            self._look_at = _now() + self._back_off()
        return None

    def _log_is_empty(self) -> None:
        now = _now()
        if self.position.nothing_yet:
            return
        if self._empty_since is None:
            self._empty_since = now
        elif now - self._empty_since > EMPTY_S:
            raise LogExpired(
                f"nothing of request {self._id!r} is kept any more; it was read up to "
                f"seq {self.position.seq}"
            )


def _now() -> float:
    return asyncio.get_running_loop().time()
