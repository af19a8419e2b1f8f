from __future__ import annotations

from collections.abc import Iterable

import pytest

from bridge.decoders import Record
from bridge.decoders.documents import (
    MAX_DOCUMENT_BYTES,
    DocumentDecoder,
    Nesting,
    is_document,
)
from bridge.errors import BackendProtocolError


def cuts(body: bytes) -> Iterable[list[bytes]]:
    """Whole, byte by byte, and cut in two at every place."""
    yield [body]
    yield [body[i : i + 1] for i in range(len(body))]
    for i in range(len(body) + 1):
        yield [body[:i], body[i:]]


def feed(
    decoder: DocumentDecoder, pieces: Iterable[bytes], records: list[Record]
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
        # One document over several lines, and several on one.
        (b'{\n "a": 1\n}\n[\n {}\n]', [b'{\n "a": 1\n}', b"[\n {}\n]"]),
        (b'{"a":1}{"b":2}\n', [b'{"a":1}{"b":2}']),
        (b'[{"a":1},\n{"b":2}]\n', [b'[{"a":1},\n{"b":2}]']),
        (b'{"a": "}\\"{"\n}\n[]\n', [b'{"a": "}\\"{"\n}', b"[]"]),
        (b'{"a":\n"\xc3\xa9"}\n', [b'{"a":\n"\xc3\xa9"}']),
        # One that is never closed ends where a whole one begins.
        (b'{"a":[1\n{"b":2}\n', [b'{"a":[1', b'{"b":2}']),
        (b'{"a":"x\n{"b":2}\n{"c"', [b'{"a":"x', b'{"b":2}', b'{"c"']),
    ],
)
def test_records_are_the_same_wherever_the_reads_are_cut(
    body: bytes, data: list[bytes]
) -> None:
    for pieces in cuts(body):
        decoder = DocumentDecoder()
        records: list[Record] = []
        feed(decoder, pieces, records)
        assert records == [Record(line) for line in data], pieces


def test_records_before_the_one_over_the_limit_are_given() -> None:
    for pieces in cuts(b"123\n\n12345\n1\n"):
        decoder = DocumentDecoder(max_document_bytes=4)
        records: list[Record] = []
        with pytest.raises(BackendProtocolError, match="more than 4 bytes"):
            feed(decoder, pieces, records)
        assert records == [Record(b"123")]
        with pytest.raises(BackendProtocolError):
            decoder.receive_eof()


def test_repr_shows_what_is_buffered() -> None:
    decoder = DocumentDecoder()
    decoder.receive_data(b'{"a"')
    assert (
        repr(decoder)
        == "<DocumentDecoder 0 bytes open, <LineSplitter 4 bytes buffered>>"
    )


@pytest.mark.parametrize(
    ("body", "whole"),
    [(b'{"a":1}', True), (b'{"a":1}\n{"b":2}\n', False), (b"", False)],
)
def test_whether_it_was_a_single_document_is_told(body: bytes, whole: bool) -> None:
    decoder = DocumentDecoder()
    decoder.receive_data(body)
    decoder.receive_eof()
    assert decoder.whole is whole


def test_in_a_pause_a_whole_document_needs_no_line_end() -> None:
    decoder = DocumentDecoder()
    assert decoder.receive_data(b'{"a":') == decoder.receive_pause() == []
    assert decoder.receive_data(b"1}") == []
    assert decoder.receive_pause() == [Record(b'{"a":1}')]
    assert decoder.receive_data(b'\n{"b":2}\n') == [Record(b'{"b":2}')]
    assert decoder.receive_pause() == decoder.receive_eof() == []
    assert decoder.receive_data(b'{\n "a":1\n') == decoder.receive_pause() == []
    assert decoder.receive_data(b"}") == []
    assert decoder.receive_pause() == [Record(b'{\n "a":1\n}')]
    assert decoder.receive_data(b"\n{}\n") == [Record(b"{}")]


def test_a_document_over_the_limit_is_refused_and_released() -> None:
    decoder = DocumentDecoder()
    decoder.receive_data(b'{"a":\n')
    line = (b" " * 65_535 + b"\n") * (MAX_DOCUMENT_BYTES // 65_536 // 2)
    decoder.receive_data(line)
    with pytest.raises(BackendProtocolError, match=str(MAX_DOCUMENT_BYTES)):
        decoder.receive_data(line)
    assert repr(decoder).startswith("<DocumentDecoder 0 bytes open")
    with pytest.raises(BackendProtocolError):
        decoder.receive_eof()


@pytest.mark.parametrize(
    ("data", "closed"),
    [
        (b"", True),
        (b"{", False),
        (b'{"}"', False),
        (b'{"}"}', True),
        (b'{"\\"}"}', True),
        (b'{"\\\\"}', True),
        (b"[{}, [", False),
        (b'"', False),
        (b"]]", True),
        (b'{"a":"' + b"}" * 100_000 + b'"', False),
        (b'{"a":"' + b"{" * 100_000 + b'"}', True),
        (b'{"a":"' + b"}" * 100_000, False),
    ],
)
def test_brackets_are_counted_wherever_they_are_cut(data: bytes, closed: bool) -> None:
    for step in (1, 2, 3, 100, 200_000)[len(data) > 1000 and 3 :]:
        nesting = Nesting()
        for i in range(0, len(data), step):
            nesting.feed(data[i : i + step])
        assert nesting.closed is closed


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b'{"a":1}', True),
        (b' [{"a":-Infinity}] ', True),
        (b'{"a":"\x00\n"}', True),
        (b"[DONE]", True),
        (b'{"a":1', False),
        (b'{"a":"}', False),
        (b"1", False),
        (b"", False),
        (b"x{}", False),
    ],
)
def test_what_is_a_document(data: bytes, whole: bool) -> None:
    assert is_document(data) is whole
