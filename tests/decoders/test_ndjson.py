from __future__ import annotations

from collections.abc import Iterable

import pytest

from bridge.decoders import Record
from bridge.decoders.ndjson import NDJSONDecoder
from bridge.errors import BackendProtocolError


def cuts(body: bytes) -> Iterable[list[bytes]]:
    """Whole, byte by byte, and cut in two at every place."""
    yield [body]
    yield [body[i : i + 1] for i in range(len(body))]
    for i in range(len(body) + 1):
        yield [body[:i], body[i:]]


def feed(
    decoder: NDJSONDecoder, pieces: Iterable[bytes], records: list[Record]
) -> None:
    for piece in pieces:
        records += decoder.receive_data(piece)
    records += decoder.receive_eof()


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"", []),
        (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\r\n{"b":2}\r\n', [b'{"a":1}', b'{"b":2}']),
        (b'\n\n{"a":1}\n\n \t\n{"b":2}\n\n', [b'{"a":1}', b'{"b":2}']),
        (b'\xef\xbb\xbf{"a":1}\n', [b'{"a":1}']),
        (b"  \t", []),
        ('{"a":"é€😀"}\n"😀"'.encode(), ['{"a":"é€😀"}'.encode(), '"😀"'.encode()]),
        (b"[DONE]\n", [b"[DONE]"]),
        (b"no json\n", [b"no json"]),
    ],
)
def test_records_are_the_same_wherever_the_reads_are_cut(
    body: bytes, data: list[bytes]
) -> None:
    for pieces in cuts(body):
        decoder = NDJSONDecoder()
        records: list[Record] = []
        feed(decoder, pieces, records)
        assert records == [Record(line) for line in data], pieces


def test_records_before_the_one_over_the_limit_are_given() -> None:
    for pieces in cuts(b"123\n\n12345\n1\n"):
        decoder = NDJSONDecoder(max_line_bytes=4)
        records: list[Record] = []
        with pytest.raises(BackendProtocolError, match="more than 4 bytes"):
            feed(decoder, pieces, records)
        assert records == [Record(b"123")]
        with pytest.raises(BackendProtocolError):
            decoder.receive_eof()


def test_repr_shows_what_is_buffered() -> None:
    decoder = NDJSONDecoder()
    decoder.receive_data(b'{"a"')
    assert repr(decoder) == "<NDJSONDecoder <LineSplitter 4 bytes buffered>>"
