from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import httpx
import pytest

from bridge.backends.http1 import ResponseParser, encode_body, encode_head

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = [b"hello ", b"world"]


class Outcome(NamedTuple):
    status: int | None
    headers: list[tuple[bytes, bytes]] | None
    body: bytes
    done: bool
    failed: bool
    keep_alive: bool


def parse(pieces: Iterable[bytes], method: str = "GET", eof: bool = False) -> Outcome:
    parser = ResponseParser(method)
    body = b"".join([parser.receive_data(piece) for piece in pieces])
    if eof:
        parser.receive_eof()
    head = parser.head
    outcome = Outcome(
        head and head.status,
        head and head.headers,
        body,
        parser.done,
        parser.error is not None,
        parser.done and parser.keep_alive,
    )
    parser.close()
    return outcome


def every_way(raw: bytes, method: str = "GET", eof: bool = False) -> Outcome:
    """Whole, byte by byte, and in two at every place: always the same."""
    whole = parse([raw], method, eof)
    assert parse([raw[i : i + 1] for i in range(len(raw))], method, eof) == whole
    for cut in range(1, len(raw)):
        assert parse([raw[:cut], raw[cut:]], method, eof) == whole
    return whole


@pytest.mark.parametrize(
    ("raw", "keep_alive"),
    [
        (b"Content-Length: 11\r\n\r\nhello world", True),
        (b"Connection: close\r\nContent-Length: 11\r\n\r\nhello world", False),
        (b"Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n", True),
        (
            b"transfer-encoding: Chunked\r\n\r\n"
            b'6;name=value;q="a b"\r\nhello \r\n05\r\nworld\r\n'
            b"0;last\r\nX-Trailer: 1\r\nX-Other: 2\r\n\r\n",
            True,
        ),
    ],
)
def test_framed_bodies(raw: bytes, keep_alive: bool) -> None:
    outcome = every_way(OK + raw)
    assert outcome.body == b"hello world"
    assert outcome.done
    assert not outcome.failed
    assert outcome.keep_alive is keep_alive


def test_trailers_are_no_headers() -> None:
    outcome = every_way(
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    assert outcome.headers == [(b"Transfer-Encoding", b"chunked")]


@pytest.mark.parametrize(
    "fields",
    [b"", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: chunked, gzip\r\n"],
)
def test_a_body_until_the_connection_closes(fields: bytes) -> None:
    raw = OK + fields + b"\r\nhello world"
    assert not every_way(raw).done
    outcome = every_way(raw, eof=True)
    assert outcome.done
    assert outcome[2:] == (b"hello world", True, False, False)


@pytest.mark.parametrize(
    ("fields", "keep_alive"),
    [(b"", False), (b"Connection: keep-alive\r\n", True)],
)
def test_http_1_0(fields: bytes, keep_alive: bool) -> None:
    outcome = every_way(b"HTTP/1.0 200 OK\r\n" + fields + b"Content-Length: 1\r\n\r\na")
    assert outcome[2:] == (b"a", True, False, keep_alive)


@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("GET", OK + b"Content-Length: 0\r\n\r\n"),
        ("HEAD", OK + b"Content-Length: 5\r\n\r\n"),
        ("HEAD", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_responses_without_a_body_end_with_their_head(method: str, raw: bytes) -> None:
    outcome = every_way(raw, method)
    assert outcome[2:] == (b"", True, False, True)


def test_a_body_after_head_is_data_after_the_response() -> None:
    outcome = parse([OK + b"Content-Length: 5\r\n\r\nhello"], "HEAD")
    assert outcome[2:] == (b"", True, False, False)


def test_informational_responses_are_passed_over() -> None:
    outcome = every_way(
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        + OK
        + b"Content-Length: 2\r\nX: y\r\n\r\nhi"
    )
    assert outcome.status == 200
    assert outcome.headers == [(b"Content-Length", b"2"), (b"X", b"y")]
    assert outcome.body == b"hi"


def test_the_head() -> None:
    parser = ResponseParser("GET")
    parser.receive_data(
        b"HTTP/1.0 429 Too  Many \xe9\r\nX-Padded: \t a b \t\r\n"
        b"Empty:\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n"
    )
    assert parser.head == (
        429,
        b"Too  Many \xe9",
        b"HTTP/1.0",
        [
            (b"X-Padded", b"a b"),
            (b"Empty", b""),
            (b"Set-Cookie", b"a"),
            (b"Set-Cookie", b"b"),
        ],
    )


@pytest.mark.parametrize(
    "tail",
    [
        b"X",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"\x00\xff",
    ],
)
@pytest.mark.parametrize("connection", [b"", b"Connection: close\r\n"])
def test_what_follows_a_response_spoils_the_connection_only(
    tail: bytes, connection: bytes
) -> None:
    outcome = every_way(OK + connection + b"Content-Length: 2\r\n\r\nhi" + tail)
    assert outcome[2:] == (b"hi", True, False, False)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"<html>",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Connection: upgrade\r\nUpgrade: x\r\n\r\n",
        OK + b"Bad Name: 1\r\n\r\n",
        OK + b"Content-Length: x\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999999\r\n\r\n",
    ],
)
def test_bad_heads(raw: bytes) -> None:
    outcome = every_way(raw)
    assert outcome == (None, None, b"", True, True, False)


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"g\r\n", b""),
        (b"\r\n", b""),
        (b"ffffffffffffffffff\r\n", b""),
        (b"2\r\nabc\r\n", b"ab"),
        (b"2\nab", b""),
    ],
)
def test_bad_chunks(raw: bytes, body: bytes) -> None:
    outcome = every_way(OK + b"Transfer-Encoding: chunked\r\n\r\n" + raw)
    assert outcome[2:] == (body, True, True, False)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        OK + b"Content-Length: 5\r\n\r\nhell",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
def test_a_connection_that_ends_too_early(raw: bytes) -> None:
    outcome = every_way(raw, eof=True)
    assert outcome.done
    assert outcome.failed
    assert not outcome.keep_alive


class TestLimits:
    def feed(self, *pieces: bytes) -> ResponseParser:
        parser = ResponseParser("GET", max_head_bytes=1000, max_headers=10)
        for piece in pieces:
            parser.receive_data(piece)
            if parser.done:
                break
        return parser

    @pytest.mark.parametrize("size", [1, 10, 100_000])
    @pytest.mark.parametrize(
        "endless",
        [
            b"HTTP/1.1 200 " + b"O" * 2000,
            OK + b"X: " + b"y" * 2000,
            OK + b"y" * 2000,
            OK + b"X: 1\r\n" * 500,
            b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\n" * 100,
            OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2000,
            OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 2000,
            OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: 1\r\n" * 400,
        ],
    )
    def test_of_bytes(self, endless: bytes, size: int) -> None:
        parser = self.feed(
            *[endless[i : i + size] for i in range(0, len(endless), size)]
        )
        assert parser.error is not None

    def test_of_fields(self) -> None:
        assert self.feed(OK + b"X: 1\r\n" * 10 + b"\r\n").error is None
        assert self.feed(OK + b"X: 1\r\n" * 11 + b"\r\n").error is not None

    def test_bind_no_body(self) -> None:
        head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
        chunk = b"1;" + b"x" * 900 + b"\r\na\r\n"
        parser = self.feed(
            head, *[piece for _ in range(50) for piece in (chunk[:500], chunk[500:])]
        )
        assert parser.error is None
        assert self.feed(head + b"800\r\n" + b"a" * 2048).error is None


def test_one_read_is_one_piece() -> None:
    parser = ResponseParser("GET")
    parser.receive_data(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    assert parser.receive_data(b"1\r\na\r\n2\r\nbc\r\n1\r\n") == b"abc"


def test_the_request_head() -> None:
    request = httpx.Request(
        "POST", "http://h:1/a%20b?c=d#e", headers={"X-Y": "z"}, content=b"abc"
    )
    assert encode_head(request) == (
        b"POST /a%20b?c=d HTTP/1.1\r\nHost: h:1\r\nX-Y: z\r\nContent-Length: 3\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"A": "1\r\nB: 2"}),
        ("GET", {"A": "1\nB: 2"}),
        ("GET", {"A": "1\x00"}),
        ("GET", {"A: 1\r\nB": "2"}),
        ("GET", {"": "1"}),
        ("GET / HTTP/1.1\r\nA: 1\r\n", {}),
    ],
)
def test_nothing_breaks_out_of_the_request_head(
    method: str, headers: dict[str, str]
) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        encode_head(httpx.Request(method, "http://h/", headers=headers))


def test_a_request_names_its_host() -> None:
    request = httpx.Request("POST", "http://h/", stream=httpx.ByteStream(b""))
    with pytest.raises(httpx.LocalProtocolError, match="Host"):
        encode_head(request)


async def parts(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def encoded(headers: dict[str, str]) -> bytes:
    content = parts(b"hello ", b"", b"world")
    request = httpx.Request("POST", "http://h/", headers=headers, content=content)
    return b"".join([piece async for piece in encode_body(request)])


async def test_streamed_request_bodies() -> None:
    assert await encoded({}) == b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"
    assert await encoded({"Content-Length": "11"}) == b"hello world"


@pytest.mark.parametrize("length", ["10", "12"])
async def test_a_streamed_body_has_the_length_it_says(length: str) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        await encoded({"Content-Length": length})
