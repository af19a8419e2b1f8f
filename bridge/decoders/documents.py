"""JSON documents one behind the other: a whole body, or newline-delimited JSON.

ndjson.org and jsonlines.org put one document on a line. Some servers print each over
several lines, and a body of ``application/json`` is a single document of any number of
lines: a document ends where its brackets are closed.
"""

from __future__ import annotations

import re

import msgspec

from bridge.decoders import Record
from bridge.decoders.lines import BOM, LineSplitter
from bridge.errors import BackendProtocolError

#: A document may have this many bytes: the assembled text may have 4 MiB
#: (``docs/protocol.md``, section 7); JSON's escapes and the fields around it get as
#: much again.
MAX_DOCUMENT_BYTES = 8 * 1024 * 1024

#: Up to here brackets are looked at one by one, a tenth of a microsecond each. In more
#: bytes at once they are only counted, which cannot tell where a document ends in them.
MAX_SCANNED_BYTES = 64 * 1024

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_OUTSIDE = re.compile(rb'[\[\]{}"]')
_INSIDE = re.compile(rb'["\\]')
_OPENING = (b"{", b"[")
#: Some servers put a NUL behind each record, as C strings end.
_AROUND = b" \t\r\n\0"
_DONE = b"[DONE]"

_raw_decoder = msgspec.json.Decoder(msgspec.Raw)


class Nesting:
    """Counts the brackets of a document that comes in parts; linear in its bytes."""

    __slots__ = ("_escaped", "_in_string", "depth")

    def __init__(self) -> None:
        self.depth = 0
        self._in_string = False
        self._escaped = False

    def __repr__(self) -> str:
        return f"<Nesting depth={self.depth} in_string={self._in_string}>"

    @property
    def closed(self) -> bool:
        """Whether no bracket and no string is open."""
        return self.depth <= 0 and not self._in_string

    def feed(self, data: bytes) -> None:
        """Take the next part."""
        if len(data) > MAX_SCANNED_BYTES and not self._in_string:
            outside = _STRING.sub(b"", data)
            self.depth += outside.count(b"{") + outside.count(b"[")
            self.depth -= outside.count(b"}") + outside.count(b"]")
            self._in_string = outside.count(b'"') % 2 == 1
            return
        at = 1 if self._escaped and data else 0
        self._escaped = self._escaped and not data
        while found := (_INSIDE if self._in_string else _OUTSIDE).search(data, at):
            at = found.end()
            char = found[0]
            if char == b'"':
                self._in_string = not self._in_string
            elif char == b"\\":
                self._escaped = at == len(data)
                at += 1
            else:
                self.depth += 1 if char in _OPENING else -1


def is_document(data: bytes) -> bool:
    """Whether ``data`` is a whole object or array, as far as its brackets tell."""
    text = data.strip(_AROUND)
    if not text.startswith(_OPENING) or not text.endswith((b"}", b"]")):
        return False
    if is_valid(text) or text == _DONE:
        return True
    nesting = Nesting()
    nesting.feed(text)
    return nesting.closed


def is_valid(data: bytes) -> bool:
    """Whether ``data`` is one JSON document by the letter of RFC 8259."""
    try:
        _raw_decoder.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def loose_value(line: bytes) -> bytes:
    """The value of a line of data, whatever its name looks like; or the line itself."""
    while True:
        line = line.lstrip(BOM + b" \t").rstrip(_AROUND)
        name, colon, value = line.partition(b":")
        if not colon or name.strip().lower() != b"data":
            return line
        line = value


class DocumentDecoder:
    """Documents to records; the JSON itself is not looked at beyond its brackets.

    A line that opens no bracket is a record of its own. A document that is never
    closed ends where a whole one begins on a line of its own, or at the end.
    """

    __slots__ = (
        "_error",
        "_lines",
        "_max_bytes",
        "_nesting",
        "_open",
        "_size",
        "documents",
    )

    def __init__(self, *, max_document_bytes: int = MAX_DOCUMENT_BYTES) -> None:
        self._lines = LineSplitter(max_document_bytes)
        self._max_bytes = max_document_bytes
        self._open: list[bytes] = []
        self._size = 0
        self._nesting = Nesting()
        self._error: BackendProtocolError | None = None
        #: How many records were given.
        self.documents = 0

    def __repr__(self) -> str:
        return f"<DocumentDecoder {self._size} bytes open, {self._lines!r}>"

    @property
    def whole(self) -> bool:
        """Whether the body was a single document so far."""
        return self.documents == 1

    def receive_data(self, data: bytes) -> list[Record]:
        """Take the next bytes, cut anywhere; return the records they complete.

        Raises `BackendProtocolError` for a document over the limit, in the call after
        the one that returns the records before it, and from then on.
        """
        if self._error is not None:
            raise self._error
        records: list[Record] = []
        for line in self._lines.receive_data(data):
            if not self._open and is_valid(line):
                records.append(Record(line))
            else:
                self._take(line, records)
                if self._size > self._max_bytes + 1:
                    return self._fail(records)
        self.documents += len(records)
        return records

    def receive_pause(self) -> list[Record]:
        """The body is silent: return the last document, if all of it is here.

        Raises `BackendProtocolError` where the limit was exceeded before.
        """
        if self._error is not None:
            raise self._error
        line = self._lines.buffered
        records: list[Record] = []
        document = b"\n".join([*self._open, line])
        if is_document(document):
            self._open.clear()
        elif is_document(loose_value(line)):
            document = line
        else:
            return []
        self._lines.take()
        self._close(records)
        records.append(Record(document))
        self.documents += len(records)
        return records

    def receive_eof(self) -> list[Record]:
        """Say that the body has ended; return what is left, whole or not.

        Raises `BackendProtocolError` where the limit was exceeded before.
        """
        if self._error is not None:
            raise self._error
        records: list[Record] = []
        for line in self._lines.receive_eof():
            self._take(line, records)
        self._close(records)
        self.documents += len(records)
        return records

    def _take(self, line: bytes, records: list[Record]) -> None:
        if self._open:
            if line[:1] == b"{" and is_valid(line):
                self._close(records)
                records.append(Record(line))
                return
        elif not line.strip():
            return
        elif not line.lstrip().startswith(_OPENING):
            records.append(Record(line))
            return
        self._open.append(line)
        self._size += len(line) + 1
        self._nesting.feed(line)
        if self._nesting.closed:
            self._close(records)

    def _close(self, records: list[Record]) -> None:
        if self._open:
            records.append(Record(b"\n".join(self._open)))
            self._open.clear()
            self._size = 0
        self._nesting = Nesting()

    def _fail(self, records: list[Record]) -> list[Record]:
        self._open.clear()
        self._size = 0
        self._error = BackendProtocolError(
            f"the backend sent a JSON document of more than {self._max_bytes} bytes"
        )
        if not records:
            raise self._error
        return records
