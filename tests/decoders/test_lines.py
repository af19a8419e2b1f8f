from __future__ import annotations

from collections.abc import Iterable

import pytest

from bridge.decoders.lines import MAX_LINE_BYTES, LineSplitter
from bridge.errors import BackendProtocolError


def feed(splitter: LineSplitter, pieces: Iterable[bytes], lines: list[bytes]) -> None:
    for piece in pieces:
        lines += splitter.receive_data(piece)
    lines += splitter.receive_eof()


def split(pieces: Iterable[bytes], splitter: LineSplitter | None = None) -> list[bytes]:
    lines: list[bytes] = []
    feed(splitter or LineSplitter(), pieces, lines)
    return lines


def cuts(body: bytes) -> Iterable[list[bytes]]:
    """Whole, byte by byte, cut in two at every place, and with empty reads."""
    yield [body]
    yield [body[i : i + 1] for i in range(len(body))]
    for i in range(len(body) + 1):
        yield [body[:i], b"", body[i:]]


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\rb\r", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\n\rb\r\r\nc", [b"a", b"", b"b", b"", b"c"]),
        (b"\r\n\n\r", [b"", b"", b""]),
        (b"\r\n\r\na", [b"", b"", b"a"]),
        # Only these three end a line; str.splitlines knows more.
        (
            "a\x0bb\x0cc\x1cd\x85e\u2028f\n".encode(),
            ["a\x0bb\x0cc\x1cd\x85e\u2028f".encode()],
        ),
        ("é€😀\n😀".encode(), ["é€😀".encode(), "😀".encode()]),
        (b"\xef\xbb\xbfa\nb", [b"a", b"b"]),
        (b"\xef\xbb\xbf\n", [b""]),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb\xbf\xef\xbb\xbfa\n", [b"\xef\xbb\xbfa"]),
        (b"a\n\xef\xbb\xbfb\n", [b"a", b"\xef\xbb\xbfb"]),
        (b"\xef\xbb", [b"\xef\xbb"]),
        (b"\xef\xbb\n", [b"\xef\xbb"]),
        (b"\xef\n\xbb\xbf", [b"\xef", b"\xbb\xbf"]),
        (b"a\0b\n", [b"a\0b"]),
    ],
)
def test_lines_are_the_same_wherever_the_reads_are_cut(
    body: bytes, lines: list[bytes]
) -> None:
    for pieces in cuts(body):
        assert split(pieces) == lines, pieces


def test_a_line_is_given_as_soon_as_its_cr_is_there() -> None:
    splitter = LineSplitter()
    assert splitter.receive_data(b"a\r") == [b"a"]
    assert not splitter.at_line_start
    assert splitter.receive_data(b"\n") == []
    assert splitter.at_line_start


def test_whether_a_line_has_begun_is_told() -> None:
    splitter = LineSplitter()
    assert not splitter.at_line_start  # a byte order mark may come
    splitter.receive_data(b"a")
    assert not splitter.at_line_start
    splitter.receive_data(b"\n")
    assert splitter.at_line_start


def test_a_line_may_have_exactly_the_limit() -> None:
    body = b"abcd\nefgh\r\nijkl"
    for pieces in cuts(body):
        assert split(pieces, LineSplitter(4)) == [b"abcd", b"efgh", b"ijkl"]


@pytest.mark.parametrize(
    "body", [b"ab\nc\nabcde\nf\n", b"ab\nc\nabcdefghi", b"\xef\xbb\xbfab\nc\nabcde"]
)
def test_lines_before_the_one_over_the_limit_are_given(body: bytes) -> None:
    for pieces in cuts(body):
        splitter = LineSplitter(4)
        lines: list[bytes] = []
        with pytest.raises(BackendProtocolError, match="more than 4 bytes"):
            feed(splitter, pieces, lines)
        assert lines == [b"ab", b"c"]
        with pytest.raises(BackendProtocolError):
            splitter.receive_data(b"x\n")
        with pytest.raises(BackendProtocolError):
            splitter.receive_eof()


def test_an_endless_line_is_refused_at_the_limit_and_released() -> None:
    splitter = LineSplitter()
    read = b"x" * 65536
    reads = iter([read] * 160)
    with pytest.raises(BackendProtocolError, match=str(MAX_LINE_BYTES)):
        feed(splitter, reads, [])
    assert len(list(reads)) == 160 - MAX_LINE_BYTES // len(read) - 1
    assert repr(splitter) == "<LineSplitter failed>"


def test_repr_shows_what_is_buffered() -> None:
    splitter = LineSplitter()
    splitter.receive_data(b"x\nabc")
    assert repr(splitter) == "<LineSplitter 3 bytes buffered>"
