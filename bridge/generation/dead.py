"""Dead letters: the headers that say why a job could not be served."""

from __future__ import annotations

from bridge.bus.jobs import Delivery
from bridge.errors import shorten

#: All headers together stay far below the 4 KiB that the protocol allows.
MAX_VALUE_CHARS = 512


def dead_letter_headers(code: str, message: str, delivery: Delivery) -> dict[str, str]:
    """The headers of a dead letter (``docs/protocol.md``, section 1)."""
    message = shorten(message, MAX_VALUE_CHARS)
    return {
        # A repeat after a lost acknowledgement is the same letter; the time tells a
        # job from one with its number in a stream that was made again.
        "Nats-Msg-Id": f"dead/{delivery.lane}/{delivery.stream_seq}/"
        f"{delivery.stored_at:.6f}",
        "Tokenbridge-Code": code,
        # Headers are read as ASCII by some clients.
        "Tokenbridge-Message": message.encode("ascii", "backslashreplace").decode(),
        "Tokenbridge-Subject": delivery.subject[:MAX_VALUE_CHARS],
        "Tokenbridge-Job": str(delivery.stream_seq),
        "Tokenbridge-Attempt": str(delivery.attempt),
        "Tokenbridge-Stored-At": f"{delivery.stored_at:.3f}",
    }
