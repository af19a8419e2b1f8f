"""When a job's time is over: fixed once, by the server that stored it."""

from __future__ import annotations

import msgspec

from bridge.config import Settings
from bridge.events import UNREADABLE


class _DeadlineOnly(msgspec.Struct):
    deadline_ms: int | None = None


_decoder = msgspec.json.Decoder(_DeadlineOnly)


def effective_deadline_ms(wanted_ms: int | None, settings: Settings) -> int:
    """How long a job may take from its submission on, in ms.

    What it asks for, or the default; half of the log's age at most, so that a log
    outlives its request.
    """
    longest_ms = settings.tokens_max_age_s / 2 * 1000
    wanted = wanted_ms or settings.deadline_s * 1000
    return max(1, round(min(wanted, longest_ms)))


def read_deadline_ms(data: bytes) -> int | None:
    """The deadline that a job asks for, in ms, unchecked.

    ``None`` where it is missing, not above 0, or cannot be read.
    """
    try:
        wanted = _decoder.decode(data).deadline_ms
    except UNREADABLE:
        return None
    return wanted if wanted is not None and wanted > 0 else None
