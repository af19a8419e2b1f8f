"""Numbering on the bridge's side; holes and stale attempts on the reader's."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import msgspec

from bridge.events import AnyEvent, Event, Resumed, encode

_encode = msgspec.json.Encoder().encode


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

    Raises `ValueError` where not even one character would.
    """
    if max_bytes < len(_encode("\U0001f600")) + 12:
        raise ValueError("no room for a single character")
    pieces: list[str] = []
    rest = text
    while len(_encode(rest)) > max_bytes:
        # An escaped character takes six bytes, an astral one at most four.
        cut = _longest(rest, max_bytes)
        pieces.append(rest[:cut])
        rest = rest[cut:]
    pieces.append(rest)
    return pieces


def _longest(text: str, max_bytes: int) -> int:
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_encode(text[:middle])) <= max_bytes:
            low = middle
        else:
            high = middle - 1
    return low


class Verdict(Enum):
    """What a reader does with an event."""

    DELIVER = "deliver"
    DROP = "drop"
    HOLE = "hole"


class Ruling(NamedTuple):
    """A verdict; with DELIVER, ``truncate`` is the seq above which all is void."""

    verdict: Verdict
    truncate: int | None = None


_DELIVER = Ruling(Verdict.DELIVER)
_DROP = Ruling(Verdict.DROP)
_HOLE = Ruling(Verdict.HOLE)


class Position:
    """How far a reader is: the last ``(attempt, seq)`` that it delivered.

    ``docs/protocol.md``, section 4, "How the log is read". The log is followed in its
    order; live events are taken where they fit, dropped where they are stale, and
    anything else is a hole.
    """

    __slots__ = ("attempt", "known", "seq")

    def __init__(self, after: int = 0) -> None:
        self.attempt = 0
        self.seq = after
        #: The last seq that the log itself has confirmed.
        self.known = after

    def __repr__(self) -> str:
        return f"<Position attempt={self.attempt} seq={self.seq} known={self.known}>"

    def live(self, event: AnyEvent) -> Ruling:
        """Rule on an event from the subject; nothing changes unless it is DELIVER."""
        if event.attempt < self.attempt:
            return _DROP
        if event.attempt == self.attempt or self.attempt == 0:
            if event.seq <= self.seq:
                return _DROP
            if event.seq == self.seq + 1 and self._enters(event):
                self._moved(event)
                return _DELIVER
            return _HOLE
        if isinstance(event, Resumed) and event.after <= self.seq:
            return self._resumed(event)
        return _HOLE

    def _enters(self, event: AnyEvent) -> bool:
        # Whoever joins in the middle does not know which attempt stands.
        return self.attempt != 0 or self.seq == 0

    def log(self, event: AnyEvent) -> Ruling:
        """Rule on the next event of the log: in it, everything counts."""
        if event.seq <= self.known:
            return _DROP
        if isinstance(event, Resumed) and event.attempt > self.attempt:
            ruling = self._resumed(event)
            self.known = event.seq
            return ruling
        self.known = event.seq
        if event.attempt == self.attempt and event.seq <= self.seq:
            return _DROP
        if event.attempt < self.attempt and event.seq <= self.seq:
            return _DROP
        self._moved(event)
        return _DELIVER

    def _resumed(self, event: Resumed) -> Ruling:
        truncate = event.after if event.after < self.seq else None
        self._moved(event)
        return Ruling(Verdict.DELIVER, truncate)

    def _moved(self, event: AnyEvent) -> None:
        self.attempt = event.attempt
        self.seq = event.seq
