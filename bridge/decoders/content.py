"""Which decoder reads a body: by its ``Content-Type``, else by its first bytes.

RFC 9110, section 8.3. Servers label event streams as plain text, as JSON, twice or not
at all, so that only one label is believed, and one refused: HTML.
"""

from __future__ import annotations

from bridge.decoders import Decoder, Record
from bridge.decoders.documents import MAX_DOCUMENT_BYTES, DocumentDecoder
from bridge.decoders.lines import BOM, MAX_LINE_BYTES
from bridge.decoders.sse import SSEDecoder
from bridge.errors import BackendProtocolError

EVENT_STREAM = "text/event-stream"

#: What an error page is labelled as.
_REFUSED = frozenset({"text/html", "application/xhtml+xml"})

_WHITE = b" \t\r\n\0"


def decoder_for(
    content_type: str, *, max_record_bytes: int = MAX_LINE_BYTES
) -> Decoder | None:
    """A new decoder for one body, or ``None`` where such a body is not read.

    Parameters are ignored: everything is UTF-8 whatever ``charset`` says. The limit
    is for one record of a stream; a whole body has `MAX_DOCUMENT_BYTES` of its own.
    """
    label = content_type.partition(";")[0].strip().lower()
    if label in _REFUSED:
        return None
    if label == EVENT_STREAM:
        return _events(max_record_bytes)
    streams = "json" in label and label != "application/json"
    return SniffingDecoder(
        max_record_bytes, max_record_bytes if streams else MAX_DOCUMENT_BYTES
    )


def _events(max_record_bytes: int) -> SSEDecoder:
    return SSEDecoder(max_line_bytes=max_record_bytes, max_event_bytes=max_record_bytes)


class SniffingDecoder:
    """Waits for the first byte that says what the body is; then decodes it.

    A bracket begins JSON, ``<`` a page, and everything else an event stream.
    """

    __slots__ = ("_decoder", "_max_document_bytes", "_max_record_bytes", "_start")

    def __init__(self, max_record_bytes: int, max_document_bytes: int) -> None:
        self._max_record_bytes = max_record_bytes
        self._max_document_bytes = max_document_bytes
        self._start = b""
        self._decoder: Decoder | None = None

    def __repr__(self) -> str:
        return f"<SniffingDecoder {self._decoder or 'undecided'!r}>"

    @property
    def whole(self) -> bool:
        """Whether the body was a single document so far."""
        return self._decoder is not None and self._decoder.whole

    def receive_data(self, data: bytes) -> list[Record]:
        """Take the next bytes, cut anywhere; return the records they complete.

        Raises `BackendProtocolError` for a page, and as the decoder that reads it.
        """
        if self._decoder is not None:
            return self._decoder.receive_data(data)
        # White space alone is dropped, so that what is held back stays short.
        data = (self._start + data).lstrip(_WHITE)
        rest = data.removeprefix(BOM).lstrip(_WHITE)
        if not rest or (len(data) < len(BOM) and BOM.startswith(data)):
            self._start = data
            return []
        self._start = b""
        if rest[:1] == b"<":
            raise BackendProtocolError(
                "the backend answered with a page, which is no completion; does its "
                "URL end in /v1?"
            )
        if rest[:1] in (b"{", b"["):
            self._decoder = DocumentDecoder(max_document_bytes=self._max_document_bytes)
        else:
            self._decoder = _events(self._max_record_bytes)
        return self._decoder.receive_data(rest)

    def receive_pause(self) -> list[Record]:
        """Return the last record, if all of it is here."""
        return self._decoder.receive_pause() if self._decoder is not None else []

    def receive_eof(self) -> list[Record]:
        """Say that the body has ended; return what is left."""
        return self._decoder.receive_eof() if self._decoder is not None else []
