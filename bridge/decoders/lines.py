"""Bytes to lines, as WHATWG's event streams end them: LF, CR, or CR LF."""

from __future__ import annotations

from bridge.errors import BackendProtocolError

#: A line longer than this ends the request. 1 MiB is the protocol's limit for one
#: upstream record: a thousand times a usual chunk, room for a tool call that carries
#: a document, and still small enough to buffer once per slot.
MAX_LINE_BYTES = 1024 * 1024

#: UTF-8's byte order mark.
BOM = b"\xef\xbb\xbf"
_LF = 0x0A
_CR = 0x0D
_LINE_ENDS = frozenset({_LF, _CR})


class LineSplitter:
    """Cuts bytes into lines, wherever the reads were cut. Lines come without their end.

    LF, CR and CR LF each end a line, CR LF also where a read ends between the two. One
    byte order mark at the very start is dropped. A line may have ``max_line_bytes``;
    the first longer one raises, in the call after the one that returns the lines that
    came before it, so that nothing complete is lost and the cuts make no difference.
    """

    __slots__ = ("_after_cr", "_buffer", "_error", "_max_line_bytes", "_started")

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._buffer = bytearray()
        self._after_cr = False
        self._started = False
        self._error: BackendProtocolError | None = None

    def __repr__(self) -> str:
        state = "failed" if self._error else f"{len(self._buffer)} bytes buffered"
        return f"<LineSplitter {state}>"

    @property
    def at_line_start(self) -> bool:
        """Whether the next byte starts a line, with nothing before it undecided."""
        return not (self._buffer or self._after_cr or self._error or not self._started)

    @property
    def buffered(self) -> bytes:
        """The line that has begun and not ended, as far as it came.

        Raises `BackendProtocolError` like `receive_data`.
        """
        if self._error is not None:
            raise self._error
        return bytes(self._buffer)

    def take(self) -> bytes:
        """Give the line that has begun as if its end had come."""
        line = bytes(self._buffer)
        self._buffer = bytearray()
        return line

    def receive_data(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the lines that they complete.

        Raises `BackendProtocolError` for a line over the limit, again in every later
        call; what was buffered is released.
        """
        if self._error is not None:
            raise self._error
        if not self._started:
            data = self._without_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == _LF:
                data = data[1:]
        if not data:
            return []
        # bytes.splitlines, unlike str's, knows exactly these three line ends.
        lines = data.splitlines()
        last = data[-1]
        tail = b"" if last in _LINE_ENDS else lines.pop()
        self._after_cr = last == _CR
        if self._buffer and lines:
            self._buffer += lines[0]
            lines[0] = bytes(self._buffer)
            self._buffer = bytearray()
        self._buffer += tail
        if len(data) + len(self._buffer) > self._max_line_bytes or (
            lines and len(lines[0]) > self._max_line_bytes
        ):
            return self._within_limit(lines)
        return lines

    def receive_eof(self) -> list[bytes]:
        """Say that the body has ended; return the last line, if it had no end.

        Raises `BackendProtocolError` like `receive_data`.
        """
        if self._error is not None:
            raise self._error
        line = self.take()
        return [line] if line else []

    def _without_bom(self, data: bytes) -> bytes:
        """Hold the first bytes back until they are a byte order mark, or are not."""
        data = bytes(self._buffer) + data
        self._buffer = bytearray()
        if len(data) < len(BOM) and BOM.startswith(data):
            self._buffer += data
            return b""
        self._started = True
        return data.removeprefix(BOM)

    def _within_limit(self, lines: list[bytes]) -> list[bytes]:
        """Return the lines before the first that is too long; fail with that one."""
        limit = self._max_line_bytes
        for position, line in enumerate(lines):
            if len(line) > limit:
                del lines[position:]
                return self._fail(lines)
        return self._fail(lines) if len(self._buffer) > limit else lines

    def _fail(self, lines: list[bytes]) -> list[bytes]:
        self._buffer = bytearray()
        self._error = BackendProtocolError(
            f"the backend sent a line of more than {self._max_line_bytes} bytes"
        )
        if not lines:
            raise self._error
        return lines
