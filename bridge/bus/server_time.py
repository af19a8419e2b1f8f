"""The time that the servers stamp messages with, on a monotonic clock. Sans-IO.

A machine's wall clock may be wrong, and may be set while the process runs; jobs and
controls carry the times of the servers that stored them. So the servers' time is a
monotonic clock plus an offset, known from answers that say what time it is there.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

NANOSECONDS = 1_000_000_000

#: How fast two clocks drift apart at most, for what a sample is worth later: quartz is
#: within 50 millionths, two of them within 100.
DRIFT = 100e-6

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)


def parse_time(text: str) -> int:
    """Read a time of RFC 3339 as nanoseconds since 1970, exactly.

    `datetime` has microseconds, with which two messages of one stream may be taken for
    each other. Digits behind the ninth are cut. Raises `ValueError`.
    """
    match = _RFC_3339.fullmatch(text)
    no_time = f"{text[:64]!r} is no time of RFC 3339"
    if match is None:
        raise ValueError(no_time)
    whole, fraction, zone = match.groups()
    offset = "+00:00" if zone in "Zz" else zone
    try:
        time = datetime.fromisoformat(whole.upper() + offset)
    except ValueError as error:
        raise ValueError(no_time) from error
    seconds = (time - _EPOCH) // _SECOND
    return seconds * NANOSECONDS + int((fraction or "0")[:9].ljust(9, "0"))


class ServerTime:
    """The servers' clock, as far as it is known.

    `sample` takes an answer; of several, the one with the shortest way counts. Times
    are seconds on the monotonic clock, and nanoseconds since 1970 on the servers'.
    """

    def __init__(self) -> None:
        self._offset_ns = 0
        self._bound_s = float("inf")
        self._sampled_at = 0.0
        #: Whether a sample was taken.
        self.known = False

    def __repr__(self) -> str:
        if not self.known:
            return "<ServerTime unknown>"
        return f"<ServerTime offset={self._offset_ns}ns bound={self._bound_s:.6f}s>"

    @property
    def bound_ns(self) -> int:
        """How far `at` may be off, when the last sample was taken."""
        self._check()
        return round(self._bound_s * NANOSECONDS)

    def sample(
        self, sent: float, received: float, server_ns: int, *, anew: bool = False
    ) -> None:
        """A question sent at ``sent`` was answered by ``received``: it was
        ``server_ns`` there in between.

        ``anew``: what was known before is of another server, and does not count.
        """
        bound_s = (received - sent) / 2
        offset_ns = server_ns - round((sent + received) / 2 * NANOSECONDS)
        aged_s = self._bound_s + DRIFT * (received - self._sampled_at)
        apart_s = abs(offset_ns - self._offset_ns) / NANOSECONDS
        # Both cannot be right: a clock was set there, or this machine was asleep.
        changed = apart_s > bound_s + aged_s
        if anew or changed or not self.known or bound_s <= aged_s:
            self._offset_ns = offset_ns
            self._bound_s = bound_s
            self._sampled_at = received
            self.known = True

    def at(self, monotonic: float) -> int:
        """The servers' time, in ns, at a moment of the monotonic clock."""
        self._check()
        return self._offset_ns + round(monotonic * NANOSECONDS)

    def monotonic(self, server_ns: int) -> float:
        """The moment of the monotonic clock, in s, at which it is ``server_ns``."""
        self._check()
        return (server_ns - self._offset_ns) / NANOSECONDS

    def _check(self) -> None:
        if not self.known:
            raise LookupError("the servers' time was not asked for yet")
