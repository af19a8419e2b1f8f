"""Server-sent events (WHATWG HTML, section 9.2.6, "Interpreting an event stream").

What the specification reads, this decoder reads alike. Where it would pass over bytes
that LLM servers are known to put words into, they are read as what they were meant to
be, or given as a record that cannot be read, so that they are not lost in silence:

- field names in capitals or behind white space (``Data:``, `` data:``), and behind a
  byte order mark;
- JSON on a line of its own, without a field name, on one line or on several;
- records that are separated by one line end instead of a blank line;
- a line that no field begins, inside a JSON document that is not closed, or with a
  sentence in it;
- ``error:`` as a field;
- at the end of the body, and when it is silent, an event whose blank line is missing.
"""

from __future__ import annotations

from enum import Enum

from bridge.decoders import COMMENT, Record
from bridge.decoders.documents import Nesting, is_document, loose_value
from bridge.decoders.lines import BOM, MAX_LINE_BYTES, LineSplitter
from bridge.errors import BackendProtocolError

#: An event's ``data`` lines, joined, may have this many bytes: the same 1 MiB as one
#: line, so that cutting a record into lines is no way around the limit.
MAX_EVENT_BYTES = 1024 * 1024

#: A ``retry`` beyond this many digits means "never" as well as any other, and keeps
#: the conversion cheap: 15 digits of milliseconds are 30,000 years.
MAX_RETRY_DIGITS = 15

_LF = 0x0A
_DATA = b"data:"
_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})
_OPENING = (b"{", b"[")


class _State(Enum):
    """What the data of an event are so far."""

    OTHER = "other"
    OPEN = "open"  # JSON whose brackets are not closed
    WHOLE = "whole"  # a JSON document


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
        "_bare_documents",
        "_data",
        "_error",
        "_event",
        "_id",
        "_is_stream",
        "_known",
        "_line_ends_event",
        "_lines",
        "_max_event_bytes",
        "_nesting",
        "_recognized",
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
        #: Documents without a field name, and whether there was ever a field.
        self._bare_documents = 0
        self._is_stream = False
        #: Whether there was a field or a comment.
        self._recognized = False
        #: What the data are, if that was looked at.
        self._known: _State | None = None
        #: The brackets of data that are open.
        self._nesting = Nesting()
        #: Whether this backend ends its events with the line.
        self._line_ends_event = False
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

    @property
    def whole(self) -> bool:
        """Whether the body was a single document so far, and no event stream at all."""
        return self._bare_documents == 1 and not self._is_stream

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

    def receive_pause(self) -> list[Record]:
        """The body is silent: return the last event, if all of its data is here.

        Raises `BackendProtocolError` where a limit was exceeded before.
        """
        if self._error is not None:
            raise self._error
        records: list[Record] = []
        line, data = self._lines.buffered, bytes(self._data)
        value = loose_value(line)
        if is_document(value) or (data and is_document(data + value)):
            self._line(self._lines.take(), records)
        if is_document(loose_value(bytes(self._data))):
            self._dispatch(records)
        return records

    def receive_eof(self) -> list[Record]:
        """Say that the body has ended; return the last event, whole or not.

        Raises `BackendProtocolError` where a limit was exceeded before.
        """
        if self._error is not None:
            raise self._error
        records: list[Record] = []
        for line in self._lines.receive_eof():
            self._line(line, records)
        self._dispatch(records)
        return records

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
            self._line(line, records)
            if len(self._data) > self._max_event_bytes + 1:
                return self._fail(records)
        self._at_event_start = (
            not self._data
            and not self._event
            and self._id == self.last_event_id
            and not self._bare_documents
            and self._lines.at_line_start
        )
        return records

    def _line(self, line: bytes, records: list[Record]) -> None:
        if not line:
            self._dispatch(records)
        elif line[:5] == _DATA:
            self._is_stream = self._recognized = True
            self._take_data(line[6:] if line[5:6] == b" " else line[5:], records)
        else:
            self._other_line(line, records)

    def _take_data(self, value: bytes, records: list[Record]) -> None:
        begins = value[:1] in _OPENING
        if begins and self._data and self._state is _State.WHOLE:
            self._line_ends_event = True
            self._dispatch(records)
        self._data += value
        self._data.append(_LF)
        if begins and self._line_ends_event and self._state is _State.WHOLE:
            self._dispatch(records)

    @property
    def _state(self) -> _State:
        """What the data are, looked at once: when a line follows that is not blank."""
        if self._known is None:
            self._known = _State.OTHER
            if self._data[:1] in _OPENING:
                data = bytes(self._data)
                self._known = _State.WHOLE if is_document(data) else _State.OPEN
                self._nesting = Nesting()
                self._nesting.feed(data)
        return self._known

    def _dispatch(self, records: list[Record]) -> None:
        self.last_event_id = self._id
        if self._data:
            self._data.pop()
            event = self._event or "message"
            records.append(Record(bytes(self._data), event, self._id))
            self._data = bytearray()
        self._event = ""
        self._known = None

    def _other_line(self, line: bytes, records: list[Record]) -> None:
        """Take a line that is neither blank nor begins with ``data:``."""
        if line.startswith(BOM):
            self._line(line.lstrip(BOM), records)
            return
        name, colon, value = line.partition(b":")
        name = name.strip().lower()
        self._recognized = self._recognized or bool(colon and not name)
        is_open = bool(self._data) and self._state is _State.OPEN
        if name in _FIELDS and (colon or not is_open):
            self._is_stream = self._recognized = True
            self._field(name, value.removeprefix(b" "), records)
            if name != b"data" and b"{" in value:
                # A line end was lost, and with it the record behind it.
                records.append(Record(line, "message", self.last_event_id))
        elif is_open:
            self._continue(line, records)
        elif line.lstrip()[:1] in _OPENING:
            self._bare_documents += 1
            self._take_data(line.strip(), records)
        elif name == b"error" and colon:
            # llama.cpp names an error by its field.
            records.append(Record(value.strip(), "error", self.last_event_id))
        elif b" " in name and not (colon and self._recognized):
            # A sentence of a gateway, or a body that is no stream at all: its words
            # tell what happened.
            records.append(Record(line, "message", self.last_event_id))
        elif b"{" in line or b'"' in name:
            # A comment, or an unknown field: not to be read, but perhaps the
            # remains of a record.
            event = "message" if name or not colon else COMMENT
            records.append(Record(line, event, self.last_event_id))

    def _continue(self, line: bytes, records: list[Record]) -> None:
        """A document is not closed: the line is its next one, or begins another."""
        if line[:1] in _OPENING and is_document(line):
            self._dispatch(records)
            self._bare_documents += 1
            self._take_data(line, records)
        else:
            self._data += line
            self._data.append(_LF)
            self._nesting.feed(line)
            if self._nesting.closed:
                self._dispatch(records)

    def _field(self, name: bytes, value: bytes, records: list[Record]) -> None:
        if name == b"data":
            self._take_data(value, records)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif value.isdigit():
            digits = value.lstrip(b"0")[: MAX_RETRY_DIGITS + 1] or b"0"
            self.retry_ms = min(int(digits), 10**MAX_RETRY_DIGITS)

    def _fail(self, records: list[Record]) -> list[Record]:
        self._data = bytearray()
        self._known = None
        self._error = BackendProtocolError(
            f"the backend sent an event of more than {self._max_event_bytes} bytes"
        )
        if not records:
            raise self._error
        return records
