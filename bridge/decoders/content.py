"""Which decoder reads a body: its ``Content-Type`` decides (RFC 9110, section 8.3)."""

from __future__ import annotations

from typing import Literal

from bridge.decoders import Decoder
from bridge.decoders.lines import MAX_LINE_BYTES
from bridge.decoders.ndjson import NDJSONDecoder
from bridge.decoders.sse import SSEDecoder
from bridge.decoders.whole import WholeDecoder

ContentKind = Literal["sse", "ndjson", "json"]

#: Only ``text/event-stream`` and ``application/json`` are registered; each of the other
#: names is what some server sends for newline-delimited JSON.
CONTENT_TYPES: dict[str, ContentKind] = {
    "text/event-stream": "sse",
    "application/json": "json",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/x-jsonl": "ndjson",
    "application/jsonlines": "ndjson",
    "application/x-jsonlines": "ndjson",
    "application/json-lines": "ndjson",
    "application/x-json-lines": "ndjson",
    "application/json-stream": "ndjson",
    "application/x-json-stream": "ndjson",
    "application/stream+json": "ndjson",
    "text/x-ndjson": "ndjson",
    "text/ndjson": "ndjson",
    "text/jsonl": "ndjson",
}


def content_kind(content_type: str) -> ContentKind | None:
    """How a body of this ``Content-Type`` is read; ``None`` if it cannot be.

    Parameters are ignored: all three kinds are UTF-8 whatever ``charset`` says.
    """
    return CONTENT_TYPES.get(content_type.partition(";")[0].strip().lower())


def decoder_for(kind: ContentKind, *, max_line_bytes: int = MAX_LINE_BYTES) -> Decoder:
    """A new decoder for one body of this kind; the limit is for one record."""
    if kind == "sse":
        return SSEDecoder(max_line_bytes=max_line_bytes, max_event_bytes=max_line_bytes)
    if kind == "ndjson":
        return NDJSONDecoder(max_line_bytes=max_line_bytes)
    return WholeDecoder()
