"""Numbering on the bridge's side; holes and stale attempts on the reader's."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import msgspec

from bridge.errors import LogLost
from bridge.events import AnyEvent, Event, Failed, Resumed, Started, encode

_encode = msgspec.json.Encoder().encode

#: So many characters of a text that is to be split are measured at a time: each is
#: encoded once, and only the block that a cut falls into a few times more.
MEASURED_CHARS = 4096


class Numbering:
    """Numbers a request's events in one attempt, and encodes the frequent ones.

    An event's bytes are the same whether they are put together here or by
    `bridge.events.encode`.
    """

    __slots__ = ("_attempt", "_id", "_middle", "_reasoning", "_token", "seq")

    def __init__(self, id: str, attempt: int, seq: int = 0) -> None:
        self._id = id
        self._attempt = attempt
        self.seq = seq
        #: Only the number and the text differ between a request's tokens.
        self._token = b'{"type":"token","id":"%b","seq":' % id.encode()
        self._reasoning = b'{"type":"reasoning","id":"%b","seq":' % id.encode()
        self._middle = b',"attempt":%d,"text":' % attempt

    def __repr__(self) -> str:
        return f"<Numbering {self._id} attempt={self._attempt} seq={self.seq}>"

    def token(self, text: str) -> bytes:
        """The bytes of the next ``token`` event."""
        self.seq = seq = self.seq + 1
        return b"%b%d%b%b}" % (self._token, seq, self._middle, _encode(text))

    def reasoning(self, text: str) -> bytes:
        """The bytes of the next ``reasoning`` event."""
        self.seq = seq = self.seq + 1
        return b"%b%d%b%b}" % (self._reasoning, seq, self._middle, _encode(text))

    def next(self) -> tuple[str, int, int]:
        """``id``, ``seq`` and ``attempt`` for an event that is built elsewhere."""
        self.seq += 1
        return self._id, self.seq, self._attempt

    def encode(self, event: Event) -> bytes:
        """The bytes of an event that was built with `next`."""
        return encode(event)


def split_text(text: str, max_bytes: int) -> list[str]:
    """Cut ``text`` between characters so that each piece's JSON fits ``max_bytes``.

    Each piece but the last is as long as it can be. Linear in the text. Raises
    `ValueError` where not even one character would fit.
    """
    if max_bytes < _width("\U0001f600") + 14:
        raise ValueError("no room for a single character")
    room = max_bytes - 2
    step = min(MEASURED_CHARS, max_bytes)
    pieces: list[str] = []
    begin = at = used = 0
    while at < len(text):
        block = text[at : at + step]
        width = _width(block)
        if used + width <= room:
            used += width
            at += len(block)
            continue
        at += _longest(block, room - used)
        pieces.append(text[begin:at])
        begin, used = at, 0
    pieces.append(text[begin:])
    return pieces


def _width(text: str) -> int:
    """The bytes of ``text`` in JSON, without its quotes: a sum over its characters."""
    return len(_encode(text)) - 2


def _longest(text: str, room: int) -> int:
    """The longest prefix whose `_width` is at most ``room``: its length, maybe 0."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if _width(text[:middle]) <= room:
            low = middle
        else:
            high = middle - 1
    return low


class Verdict(Enum):
    """What a reader does with an event."""

    DELIVER = "deliver"
    DROP = "drop"
    HOLE = "hole"  # what comes before it is to be read from the log
    CONFIRM = "confirm"  # a terminal event that fits, if the log ends with it too
    EXPIRED = "expired"  # the log begins above what was to come next


class Ruling(NamedTuple):
    """A verdict; with DELIVER, ``truncate`` is the seq above which all is void."""

    verdict: Verdict
    truncate: int | None = None


DELIVER = Ruling(Verdict.DELIVER)
DROP = Ruling(Verdict.DROP)
HOLE = Ruling(Verdict.HOLE)
CONFIRM = Ruling(Verdict.CONFIRM)
EXPIRED = Ruling(Verdict.EXPIRED)


def _opens(event: AnyEvent) -> bool:
    """Whether a claim begins with it, so that a log may have refused it."""
    if isinstance(event, Resumed):
        return event.reason != "backend_failure"
    return isinstance(event, Started)


def _ends_a_lost_log(event: AnyEvent) -> bool:
    return isinstance(event, Failed) and event.error.code == LogLost.code


class _Run(NamedTuple):
    """What one attempt wrote in a row: from ``opening.seq`` to the next run."""

    opening: AnyEvent

    @property
    def first(self) -> int:
        return self.opening.seq


class Position:
    """How far a reader is: the last ``(attempt, seq)`` that it delivered.

    ``docs/protocol.md``, section 4, "How the log is read". Live events are taken only
    where they continue the attempt that is being read (or begin the request); every
    change of the attempt comes from the log, for the first event of a claim is
    published before the log has taken it. So a live reader can be ahead of the log in
    one way only, by events that the log does not have (yet), and `log` finds them:
    where its event is another one than was delivered, what was delivered from there on
    is void.

    A reader that joins in the middle starts ``after`` the last ``seq`` that it has.
    """

    __slots__ = ("_after", "_runs", "attempt", "known", "seq")

    def __init__(self, after: int = 0) -> None:
        self.attempt = 0
        self.seq = after
        #: The last seq that the log itself has confirmed.
        self.known = 0
        self._after = after
        self._runs: list[_Run] = []

    def __repr__(self) -> str:
        return f"<Position attempt={self.attempt} seq={self.seq} known={self.known}>"

    @property
    def nothing_yet(self) -> bool:
        """Whether neither log nor live has shown anything of the request."""
        return self.attempt == 0 and self.known == 0

    def live(self, event: AnyEvent) -> Ruling:
        """Rule on an event from the subject; nothing changes unless it is DELIVER."""
        if event.attempt != self.attempt:
            return self._other_attempt(event)
        if event.seq != self.seq + 1:
            return self._out_of_turn(event)
        if event.terminal:
            return CONFIRM
        if _opens(event):
            return HOLE
        self.seq = event.seq
        return DELIVER

    def _other_attempt(self, event: AnyEvent) -> Ruling:
        if self.attempt == 0:
            return self._first(event)
        if event.attempt > self.attempt:
            return HOLE
        # Stale, unless it is our own attempt whose opening the log has refused.
        return DROP if self.known >= self._runs[-1].first else HOLE

    def _first(self, event: AnyEvent) -> Ruling:
        if event.terminal:
            return CONFIRM
        if event.seq <= self._after:
            return DROP
        if event.seq != 1:
            return HOLE
        self._move(event)
        return DELIVER

    def _out_of_turn(self, event: AnyEvent) -> Ruling:
        if event.seq > self.seq:
            return HOLE
        if event.seq <= self.known or not _opens(event):
            return DROP
        return DROP if event == self._runs[-1].opening else HOLE

    def log(self, event: AnyEvent) -> Ruling:
        """Rule on the next event of the log: in it, everything counts."""
        seq = event.seq
        if seq <= self.known:
            return DROP
        if seq <= self._after:
            return self._before(event)
        if seq <= self.seq and self._delivered(event):
            self.known = seq
            return DROP
        if seq > self.seq + 1 and not _ends_a_lost_log(event):
            return EXPIRED
        stands = min(self.seq, seq - 1)
        if isinstance(event, Resumed):
            stands = min(stands, event.after)
        void = stands < self.seq
        if void:
            self._cut(seq - 1)
        self._move(event)
        self.known = seq
        return Ruling(Verdict.DELIVER, stands) if void else DELIVER

    def tip(self, event: AnyEvent) -> Ruling:
        """Rule on the log's last event, as the leader has it.

        DELIVER: it was all that was missing. DROP: nothing is missing. HOLE: read the
        log.
        """
        if event.seq <= self.known:
            return DROP
        if event.attempt == self.attempt and not _opens(event):
            if event.seq == self.seq + 1 and not self._unproven:
                return self.log(event)
            if self._after < event.seq <= self.seq:
                # One attempt's events are the same live and in the log.
                self.known = event.seq
                return DROP
        return HOLE

    @property
    def _unproven(self) -> bool:
        # Nothing but an end follows an opening before the log has taken it.
        return self.known < self.seq == self._runs[-1].first

    def _before(self, event: AnyEvent) -> Ruling:
        """An event that the reader did not ask for: the last tells the attempt."""
        self._enter(event)
        self.known = event.seq
        if event.seq == self._after:
            self.attempt = event.attempt
        # There is nothing behind it that could be waited for.
        return DELIVER if event.terminal else DROP

    def _delivered(self, event: AnyEvent) -> bool:
        """Whether ``event`` is what was delivered under its seq."""
        run = next(run for run in reversed(self._runs) if run.first <= event.seq)
        if run.first == event.seq:
            return event == run.opening
        return run.opening.attempt == event.attempt and not _opens(event)

    def _cut(self, seq: int) -> None:
        while self._runs and self._runs[-1].first > seq:
            self._runs.pop()
        self.seq = seq
        self.attempt = self._runs[-1].opening.attempt if self._runs else 0

    def _move(self, event: AnyEvent) -> None:
        self._enter(event)
        self.attempt = event.attempt
        self.seq = event.seq

    def _enter(self, event: AnyEvent) -> None:
        runs = self._runs
        if not runs or _opens(event) or runs[-1].opening.attempt != event.attempt:
            runs.append(_Run(event))
