"""Messages as commands of the NATS client protocol."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.errors import BusError

#: Of a message with headers nats-py checks the payload only, and a server cuts the
#: connection of a client that exceeds ``max_payload``: the status line and blank line.
HEADER_BASE_BYTES = len(b"NATS/1.0\r\n\r\n")


class TooLarge(BusError):
    """A message exceeds the server's ``max_payload``."""


def headers_size(headers: Mapping[str, str] | None) -> int:
    """The bytes that ``headers`` add to a message."""
    if not headers:
        return 0
    lines = sum(len(k.encode()) + len(v.encode()) + 4 for k, v in headers.items())
    return HEADER_BASE_BYTES + lines


def command(
    subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None
) -> bytes:
    """One PUB or HPUB command of the NATS client protocol."""
    if not headers:
        head = f"PUB {subject} {reply} {len(payload)}\r\n"
        return b"%b%b\r\n" % (head.encode(), payload)
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    block = f"NATS/1.0\r\n{lines}\r\n".encode()
    total = len(block) + len(payload)
    head = f"HPUB {subject} {reply} {len(block)} {total}\r\n"
    return b"%b%b%b\r\n" % (head.encode(), block, payload)
