"""Server-sent events (WHATWG HTML, section 9.2.6, "Interpreting an event stream")."""

from __future__ import annotations

from bridge.decoders import Record
from bridge.decoders.lines import MAX_LINE_BYTES, LineSplitter
from bridge.errors import BackendProtocolError

#: An event's ``data`` lines, joined, may have this many bytes: the same 1 MiB as one
#: line, so that cutting a record into lines is no way around the limit.
MAX_EVENT_BYTES = 1024 * 1024

#: A ``retry`` beyond this many digits means "never" as well as any other, and keeps
#: the conversion cheap: 15 digits of milliseconds are 30,000 years.
MAX_RETRY_DIGITS = 15

_LF = 0x0A


class SSEDecoder:
    """An event stream's bytes to records, one per dispatched event.

    ``last_event_id`` is the last event ID string, ``retry_ms`` the reconnection time
    that the backend asked for, ``None`` until it does. The bytes of ``data`` are passed
    on as they came; invalid UTF-8 in ``event`` and ``id`` becomes U+FFFD.

    Backends send a token as one ``data`` line and a blank one, mostly in a read of its
    own. Such reads take a short way through, without a buffer; the records are those
    that the long way would give.
    """

    __slots__ = (
        "_at_event_start",
        "_data",
        "_error",
        "_event",
        "_id",
        "_lines",
        "_max_event_bytes",
        "_short",
        "last_event_id",
        "retry_ms",
    )

    def __init__(
        self,
        *,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self._lines = LineSplitter(max_line_bytes)
        self._max_event_bytes = max_event_bytes
        self._data = bytearray()
        self._event = ""
        self._id = ""
        self._error: BackendProtocolError | None = None
        #: Nothing is buffered and nothing pending: the short way is open. The very
        #: first read is never on it, because a byte order mark may come.
        self._at_event_start = False
        #: A read of no more bytes than this cannot exceed either limit.
        self._short = min(max_line_bytes, max_event_bytes)

    def __repr__(self) -> str:
        return (
            f"<SSEDecoder {len(self._data)} bytes of data, {self._lines!r}, "
            f"last_event_id={self.last_event_id!r}>"
        )

    def receive_data(self, data: bytes) -> list[Record]:
        """Take the next bytes, cut anywhere; return the events they complete.

        Raises `BackendProtocolError` for a line or an event over its limit, in the
        call after the one that returns the events before it, and from then on.
        """
        if self._at_event_start and len(data) <= self._short:
            # An empty line at the end is a complete one. If a CR ended it, an LF may
            # follow; that is a blank line then, which at an event's start does nothing.
            lines = data.splitlines()
            if len(lines) == 2 and not lines[1] and lines[0][:6] == b"data: ":
                return [Record(lines[0][6:], "message", self.last_event_id)]
            records = self._plain_events(lines)
            if records is not None:
                return records
        return self._receive_lines(data)

    def receive_eof(self) -> list[Record]:
        """Say that the body has ended. An incomplete last event is discarded.

        Raises `BackendProtocolError` where a limit was exceeded before.
        """
        if self._error is not None:
            raise self._error
        self._lines.receive_eof()
        self._data = bytearray()
        return []

    def _plain_events(self, lines: list[bytes]) -> list[Record] | None:
        """Read one-line events; ``None``, and nothing done, if there is other in it."""
        if len(lines) % 2:
            return None
        records = []
        id = self.last_event_id
        pairs = iter(lines)
        for line, blank in zip(pairs, pairs, strict=True):
            if blank or line[:5] != b"data:":
                return None
            value = line[6:] if line[5:6] == b" " else line[5:]
            records.append(Record(value, "message", id))
        return records

    def _receive_lines(self, data: bytes) -> list[Record]:
        if self._error is not None:
            raise self._error
        self._at_event_start = False
        records: list[Record] = []
        for line in self._lines.receive_data(data):
            if not line:
                self._dispatch(records)
            elif line[:5] == b"data:":
                self._data += line[6:] if line[5:6] == b" " else line[5:]
                self._data.append(_LF)
            else:
                self._field(line)
            if len(self._data) > self._max_event_bytes + 1:
                return self._fail(records)
        self._at_event_start = (
            not self._data
            and not self._event
            and self._id == self.last_event_id
            and self._lines.at_line_start
        )
        return records

    def _dispatch(self, records: list[Record]) -> None:
        self.last_event_id = self._id
        if self._data:
            self._data.pop()
            event = self._event or "message"
            records.append(Record(bytes(self._data), event, self._id))
            self._data = bytearray()
        self._event = ""

    def _field(self, line: bytes) -> None:
        """Process a line that is neither blank nor ``data:``. A comment has no name."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(_LF)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            digits = value.lstrip(b"0")[: MAX_RETRY_DIGITS + 1] or b"0"
            self.retry_ms = min(int(digits), 10**MAX_RETRY_DIGITS)

    def _fail(self, records: list[Record]) -> list[Record]:
        self._data = bytearray()
        self._error = BackendProtocolError(
            f"the backend sent an event of more than {self._max_event_bytes} bytes"
        )
        if not records:
            raise self._error
        return records
