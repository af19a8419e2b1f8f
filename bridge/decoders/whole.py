"""A body that is one record: ``application/json``, from what does not stream."""

from __future__ import annotations

from bridge.decoders import Record
from bridge.errors import BackendProtocolError

#: A whole body may have this many bytes. The assembled text may have 4 MiB
#: (``docs/protocol.md``, section 7); JSON's escapes and the fields around it get as
#: much again.
MAX_BODY_BYTES = 8 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class WholeDecoder:
    """Collects the body and gives it as one record at its end; none if it is blank."""

    __slots__ = ("_buffer", "_error", "_max_body_bytes")

    def __init__(self, *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_body_bytes = max_body_bytes
        self._buffer = bytearray()
        self._error: BackendProtocolError | None = None

    def __repr__(self) -> str:
        return f"<WholeDecoder {len(self._buffer)} bytes buffered>"

    def receive_data(self, data: bytes) -> list[Record]:
        """Take the next bytes; there is never a record before the end.

        Raises `BackendProtocolError` for a body over the limit, and from then on;
        what was buffered is released.
        """
        if self._error is None and len(self._buffer) + len(data) > self._max_body_bytes:
            self._buffer = bytearray()
            self._error = BackendProtocolError(
                f"the backend sent a body of more than {self._max_body_bytes} bytes"
            )
        if self._error is not None:
            raise self._error
        self._buffer += data
        return []

    def receive_eof(self) -> list[Record]:
        """Say that the body has ended; return it, without a byte order mark.

        Raises `BackendProtocolError` where the limit was exceeded before.
        """
        if self._error is not None:
            raise self._error
        body = bytes(self._buffer).removeprefix(_BOM)
        self._buffer = bytearray()
        return [Record(body)] if body.strip() else []
