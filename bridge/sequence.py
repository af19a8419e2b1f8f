"""Numbering on the bridge's side; holes and stale attempts on the reader's."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import msgspec

from bridge.errors import LogLost
from bridge.events import (
    AnyEvent,
    Event,
    Failed,
    Resumed,
    Started,
    UnknownEvent,
    encode,
)

_encode = msgspec.json.Encoder().encode

#: How many characters of a text to be split are measured at a time: each is
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
    HOLE = "hole"  # what comes before it is missing: read the log (again)
    CONFIRM = "confirm"  # a terminal event that fits, if the log ends with it too


class Ruling(NamedTuple):
    """A verdict; with DELIVER, ``truncate`` is the seq above which all is void."""

    verdict: Verdict
    truncate: int | None = None


DELIVER = Ruling(Verdict.DELIVER)
DROP = Ruling(Verdict.DROP)
HOLE = Ruling(Verdict.HOLE)
CONFIRM = Ruling(Verdict.CONFIRM)

#: Events that a claim may begin with, or a backend's failure within one.
_OPENINGS = (Started, Resumed)


def _opens(event: AnyEvent) -> bool:
    """Whether a claim begins with it, so that a log may have refused it."""
    if isinstance(event, Resumed):
        return event.reason != "backend_failure"
    return isinstance(event, Started)


def _enters(event: AnyEvent) -> bool:
    """Whether an attempt may begin with it in the log.

    An end may be all that an attempt says, and what an unknown type says is unknown.
    """
    return event.terminal or _opens(event) or isinstance(event, UnknownEvent)


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

    The log proves itself: each event continues the one before, and an attempt begins
    with its opening or is an end. What was delivered live needs no second proof, so a
    log may lack it. Whatever is missing else is a HOLE, and nothing behind it counts
    before it is filled.

    A reader that joins in the middle starts ``after`` the last ``seq`` that it has.
    """

    __slots__ = (
        "_after",
        "_entered",
        "_logged",
        "_runs",
        "attempt",
        "known",
        "nothing_yet",
        "seq",
    )

    def __init__(self, after: int = 0) -> None:
        self.attempt = 0
        self.seq = after
        #: The last seq that the log itself has confirmed.
        self.known = 0
        #: Whether neither log nor live has shown anything of the request.
        self.nothing_yet = True
        self._after = after
        self._logged = 0  # the attempt of `known` in the log; 0 before its first event
        self._entered = 0  # of what was not asked for, the last seq that was read
        self._runs: list[_Run] = []

    def __repr__(self) -> str:
        return f"<Position attempt={self.attempt} seq={self.seq} known={self.known}>"

    def live(self, event: AnyEvent) -> Ruling:
        """Rule on an event from the subject; nothing changes unless it is DELIVER."""
        if event.attempt != self.attempt:
            return self._other_attempt(event)
        if event.seq != self.seq + 1:
            return self._out_of_turn(event)
        if event.terminal:
            return CONFIRM
        if isinstance(event, _OPENINGS):
            return self._resumes(event)
        self.seq = event.seq
        return DELIVER

    def may_enter(self, event: AnyEvent) -> bool:
        """Whether a live event opens a later attempt, and nothing before it is missing.

        Only the log tells whether the event counts; see `enter_unconfirmed`.
        """
        later = event.attempt > self.attempt > 0
        return later and event.seq <= self.seq + 1 and _opens(event)

    def enter_unconfirmed(self, event: AnyEvent) -> Ruling:
        """Enter an attempt that `may_enter` allows, for a reader without a log."""
        return self._take(event)

    def _resumes(self, event: Started | Resumed) -> Ruling:
        """A failed backend is continued live; a claim comes from the log."""
        if isinstance(event, Started) or _opens(event):
            return HOLE
        self.seq = event.seq
        return _truncating(event.after) if event.after < event.seq - 1 else DELIVER

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
        if event.seq != 1 or not _enters(event):
            return HOLE
        self._move(event)
        return DELIVER

    def _out_of_turn(self, event: AnyEvent) -> Ruling:
        if event.seq > self.seq:
            return HOLE
        if not _opens(event):
            return DROP
        # Another claim of the same attempt, or another life of the id: the log tells.
        run = self._run(event.seq)
        return DROP if run is not None and event == run.opening else HOLE

    def log(self, event: AnyEvent) -> Ruling:
        """Rule on the next event of the log: in it, everything counts.

        HOLE: it does not follow what came before; read again, and never continue
        after it.
        """
        seq = event.seq
        if seq <= self.known:
            return DROP
        if event.attempt < self._logged:
            return DROP  # attempts only rise: its writer did not own the log
        if seq <= self.seq and self._delivered(event):
            self._confirm(event)
            return DROP
        if seq <= self._after:
            return self._before(event)
        if not self._follows(event):
            return HOLE
        ruling = self._take(event)
        self._confirm(event)
        return ruling

    def _take(self, event: AnyEvent) -> Ruling:
        """Continue with ``event``, whatever was delivered from its place on."""
        stands = min(self.seq, event.seq - 1)
        if isinstance(event, Resumed):
            stands = min(stands, event.after)
        void = stands < self.seq
        if void:
            self._cut(event.seq - 1)
        self._move(event)
        return _truncating(stands) if void else DELIVER

    def tip(self, event: AnyEvent) -> Ruling:
        """Rule on the log's last event, as the leader has it.

        DELIVER: it was all that was missing. DROP: nothing is missing. HOLE: read the
        log.
        """
        if self.known <= event.seq <= self.seq and self._delivered(event):
            # One attempt's events are the same live and in the log.
            self._confirm(event)
            return DROP
        if (
            event.seq == self.seq + 1
            and event.attempt == self.attempt
            and not _opens(event)
            and not self._unproven
        ):
            return self.log(event)
        return HOLE

    def read_anew(self) -> None:
        """The log is read from its first event again; nothing of it is known."""
        self.known = self._logged = 0

    def began_with(self, event: AnyEvent | None) -> bool:
        """Whether the log's first event may be that of what was delivered."""
        if event is None:
            return False
        run = self._run(event.seq)
        return event.seq > 1 or run is None or event == run.opening

    def end_unconfirmed(self, event: AnyEvent) -> bool:
        """Take a terminal event that live alone has shown, if it comes next."""
        if event.seq != self.seq + 1 or event.attempt < self.attempt:
            return False
        self._move(event)
        return True

    @property
    def _unproven(self) -> bool:
        # Nothing but an end follows an opening before the log has taken it.
        return self.known < self.seq == self._runs[-1].first

    def _follows(self, event: AnyEvent) -> bool:
        """Whether nothing is missing between what is known and ``event``."""
        base = max(self.known, self._after)
        if event.seq == base + 1:
            same = event.attempt == self._logged
            begins_in_the_middle = self._logged == 0 and self._after > 0
            return same or begins_in_the_middle or _enters(event)
        if event.seq == self.seq + 1 and event.attempt == self.attempt:
            return not _opens(event)  # live has brought what the log lacks
        # The log was made again for the event, which keeps its number.
        return self.known == 0 and _ends_a_lost_log(event)

    def _before(self, event: AnyEvent) -> Ruling:
        """An event that the reader did not ask for: the last tells the attempt."""
        if event.seq <= self._entered:
            return HOLE  # it is another log than the one that was counted in
        self._enter(event)
        self._entered = event.seq
        self._confirm(event)
        if event.seq == self._after:
            self.attempt = event.attempt
        # There is nothing behind it that could be waited for.
        return DELIVER if event.terminal else DROP

    def _delivered(self, event: AnyEvent) -> bool:
        """Whether ``event`` is what was delivered (or passed over) under its seq."""
        run = self._run(event.seq)
        if run is None or event.terminal or self._entered < event.seq <= self._after:
            return False
        if run.first == event.seq:
            return event == run.opening
        return run.opening.attempt == event.attempt and not _opens(event)

    def _run(self, seq: int) -> _Run | None:
        return next((run for run in reversed(self._runs) if run.first <= seq), None)

    def _confirm(self, event: AnyEvent) -> None:
        self.known = event.seq
        self._logged = event.attempt
        self.nothing_yet = False

    def _cut(self, seq: int) -> None:
        while self._runs and self._runs[-1].first > seq:
            self._runs.pop()
        self.seq = seq
        self.attempt = self._runs[-1].opening.attempt if self._runs else 0

    def _move(self, event: AnyEvent) -> None:
        self._enter(event)
        self.attempt = event.attempt
        self.seq = event.seq
        self.nothing_yet = False

    def _enter(self, event: AnyEvent) -> None:
        runs = self._runs
        if not runs or _opens(event) or runs[-1].opening.attempt != event.attempt:
            runs.append(_Run(event))


def _truncating(seq: int) -> Ruling:
    return Ruling(Verdict.DELIVER, seq)
