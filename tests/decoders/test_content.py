from __future__ import annotations

import pytest

from bridge.decoders.content import ContentKind, content_kind, decoder_for
from bridge.decoders.ndjson import NDJSONDecoder
from bridge.decoders.sse import SSEDecoder
from bridge.decoders.whole import WholeDecoder


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("text/event-stream", "sse"),
        ("text/event-stream; charset=utf-8", "sse"),
        (" Text/Event-Stream ;charset=utf-8", "sse"),
        ("application/json", "json"),
        ("application/json;charset=UTF-8", "json"),
        ("application/x-ndjson", "ndjson"),
        ("application/ndjson; charset=utf-8", "ndjson"),
        ("application/jsonl", "ndjson"),
        ("application/x-jsonlines", "ndjson"),
        ("application/json-lines", "ndjson"),
        ("application/problem+json", None),
        ("application/jsonp", None),
        ("text/html; charset=utf-8", None),
        ("text/plain", None),
        ("", None),
        (";", None),
    ],
)
def test_the_content_type_decides(content_type: str, kind: ContentKind | None) -> None:
    assert content_kind(content_type) == kind


def test_every_kind_has_its_decoder_and_every_body_a_new_one() -> None:
    assert isinstance(decoder_for("sse"), SSEDecoder)
    assert isinstance(decoder_for("ndjson"), NDJSONDecoder)
    assert isinstance(decoder_for("json"), WholeDecoder)
    assert decoder_for("sse") is not decoder_for("sse")
