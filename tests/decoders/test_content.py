from __future__ import annotations

from collections.abc import Iterable

import pytest

from bridge.decoders import Decoder, Record
from bridge.decoders.content import SniffingDecoder, decoder_for
from bridge.decoders.sse import SSEDecoder
from bridge.errors import BackendProtocolError

EVENT = b'data: {"a":1}\n\n'
RECORD = Record(b'{"a":1}')


def made(content_type: str, **limits: int) -> Decoder:
    decoder = decoder_for(content_type, **limits)
    assert decoder is not None
    return decoder


def decode(decoder: Decoder, pieces: Iterable[bytes]) -> list[Record]:
    records: list[Record] = []
    for piece in pieces:
        records += decoder.receive_data(piece)
    return records + decoder.receive_eof()


@pytest.mark.parametrize(
    "content_type",
    ["text/event-stream", "text/event-stream; charset=x", " Text/Event-Stream ;a=b"],
)
def test_one_label_is_believed(content_type: str) -> None:
    assert isinstance(made(content_type), SSEDecoder)
    assert made(content_type) is not made(content_type)


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "TEXT/HTML"])
def test_one_is_refused(content_type: str) -> None:
    assert decoder_for(content_type) is None


LABELS = [
    "",
    ";",
    "application/json",
    "application/octet-stream",
    "application/problem+json",
    "application/x-ndjson",
    "binary",
    "text/event-stream, text/event-stream",
    "text/plain",
]


@pytest.mark.parametrize("content_type", LABELS)
@pytest.mark.parametrize(
    ("body", "records"),
    [
        (EVENT, [RECORD]),
        (b"\n\n" + EVENT, [RECORD]),
        (b"\xef\xbb\xbf" + EVENT, [RECORD]),
        (b": ping\n\nevent: e\n" + EVENT, [Record(b'{"a":1}', "e")]),
        (b'{"a":1}\n{"b":2}\n', [RECORD, Record(b'{"b":2}')]),
        (b'\xef\xbb\xbf \r\n{"a":1}', [RECORD]),
        (b'{\n"a":1}', [Record(b'{\n"a":1}')]),
        (b'[{"a":1}]', [Record(b'[{"a":1}]')]),
        (b"", []),
        (b" \n", []),
    ],
)
def test_else_the_first_bytes_decide(
    content_type: str, body: bytes, records: list[Record]
) -> None:
    for step in (1, 2, 3, 5, 100):
        decoder = made(content_type)
        assert isinstance(decoder, SniffingDecoder)
        pieces = [body[i : i + step] for i in range(0, len(body), step)]
        assert decode(decoder, pieces) == records


@pytest.mark.parametrize("body", [b"<!doctype html>", b" \n<html>", b"\xef\xbb\xbf<x>"])
def test_a_page_is_refused_whatever_its_label(body: bytes) -> None:
    with pytest.raises(BackendProtocolError, match="/v1"):
        decode(made("text/plain"), [body[:2], body[2:]])


def test_the_limit_is_for_a_record_of_a_stream() -> None:
    for content_type in ("text/event-stream", "application/x-ndjson"):
        with pytest.raises(BackendProtocolError):
            made(content_type, max_record_bytes=10).receive_data(b'{"a":"12345678"}\n')
    whole = made("application/json", max_record_bytes=10)
    assert decode(whole, [b'{"a":"12345678"}']) == [Record(b'{"a":"12345678"}')]
    assert whole.whole
