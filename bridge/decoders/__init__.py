"""Bytes to records, without I/O: lines, server-sent events, newline-delimited JSON."""

from __future__ import annotations

from typing import Protocol

import msgspec

#: The event of a record that is an event stream's comment, or looks like one. No event
#: type can be this, for it ends a field's name.
COMMENT = ":"


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of a backend's stream: an SSE event, or a line of NDJSON.

    ``data`` is UTF-8 as it came. ``event`` and ``id`` are those of WHATWG's event
    streams; NDJSON has neither.
    """

    data: bytes
    event: str = "message"
    id: str = ""


class Decoder(Protocol):
    """What turns a body's bytes into records. Not to be called concurrently."""

    def receive_data(self, data: bytes) -> list[Record]:
        """Take the next bytes, cut anywhere; return the records they complete.

        Raises `BackendProtocolError` when a named limit is exceeded; the decoder is
        unusable from then on.
        """

    def receive_pause(self) -> list[Record]:
        """Say that nothing comes for a while.

        Returns a record of which all is here but its end. Raises as `receive_data`.
        """

    def receive_eof(self) -> list[Record]:
        """Say that the body has ended; return what is left, whole or not."""

    @property
    def whole(self) -> bool:
        """Whether the body was a single document, and no stream, so far."""
