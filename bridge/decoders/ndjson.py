"""Newline-delimited JSON (ndjson.org, jsonlines.org): one record per line."""

from __future__ import annotations

from bridge.decoders import Record
from bridge.decoders.lines import MAX_LINE_BYTES, LineSplitter

_BLANK = b" \t"


class NDJSONDecoder:
    """Lines of JSON to records. Blank lines are skipped; the last needs no newline.

    The JSON itself is not looked at.
    """

    __slots__ = ("_lines",)

    def __init__(self, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._lines = LineSplitter(max_line_bytes)

    def __repr__(self) -> str:
        return f"<NDJSONDecoder {self._lines!r}>"

    def receive_data(self, data: bytes) -> list[Record]:
        """Take the next bytes, cut anywhere; return the records they complete.

        Raises `BackendProtocolError` for a line over the limit, in the call after the
        one that returns the records before it, and from then on.
        """
        return _records(self._lines.receive_data(data))

    def receive_eof(self) -> list[Record]:
        """Say that the body has ended; return the last record, if it had no newline.

        Raises `BackendProtocolError` where the limit was exceeded before.
        """
        return _records(self._lines.receive_eof())


def _records(lines: list[bytes]) -> list[Record]:
    return [Record(line) for line in lines if line.strip(_BLANK)]
