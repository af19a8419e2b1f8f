from __future__ import annotations

from collections.abc import Iterable

import pytest

from bridge.decoders import COMMENT, Record
from bridge.decoders.sse import MAX_EVENT_BYTES, SSEDecoder
from bridge.errors import BackendProtocolError


def feed(decoder: SSEDecoder, pieces: Iterable[bytes], records: list[Record]) -> None:
    for piece in pieces:
        records += decoder.receive_data(piece)
    records += decoder.receive_eof()


def decode(pieces: Iterable[bytes], decoder: SSEDecoder | None = None) -> list[Record]:
    records: list[Record] = []
    feed(decoder or SSEDecoder(), pieces, records)
    return records


def cuts(body: bytes) -> Iterable[list[bytes]]:
    """Whole, byte by byte, cut in two at every place; and after a read of its own."""
    yield [body]
    yield [body[i : i + 1] for i in range(len(body))]
    for i in range(len(body) + 1):
        yield [body[:i], body[i:]]


def after_a_comment(body: bytes) -> Iterable[list[bytes]]:
    """The same behind a first event, where reads may take the short way."""
    for pieces in cuts(body):
        yield [b":\n\n", *pieces]


@pytest.mark.parametrize(
    ("body", "records"),
    [
        # The three examples of the specification, section 9.2.6.
        (
            b"data: YHOO\ndata: +2\ndata: 10\n\n",
            [Record(b"YHOO\n+2\n10")],
        ),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
            b"data:  third event\n",
            [
                Record(b"first event", id="1"),
                Record(b"second event"),
                Record(b" third event"),
            ],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [Record(b""), Record(b"\n"), Record(b"")]),
        (b"data:test\n\ndata: test\n\n", [Record(b"test"), Record(b"test")]),
        # Comments and unknown fields.
        (b":\n:data: x\n: ping\n\n", []),
        (b"foo: bar\nfoo\ndatax: y\n\n", []),
        (b"DATA: z\n data: w\n\n", [Record(b"z\nw")]),
        (b"data: data: w\n\nData: data:v\n\n", [Record(b"data: w"), Record(b"data:v")]),
        (b"data:a: b:\n\n", [Record(b"a: b:")]),
        # The event type is that of one event only.
        (
            b"event: ping\n\nevent: a\nevent: b\ndata: 1\n\ndata: 2\n\n",
            [Record(b"1", "b"), Record(b"2")],
        ),
        (b"event: a\nevent\ndata: 1\n\n", [Record(b"1")]),
        # The id stays, and takes effect with an event without data, too.
        (
            b"id: 7\n\ndata: 1\n\ndata: 2\n\n",
            [Record(b"1", id="7"), Record(b"2", id="7")],
        ),
        (b"id: 7\ndata: 1\nid: a\0b\n\n", [Record(b"1", id="7")]),
        (b"id: 7\ndata: 1\n\nid:\ndata: 2\n\n", [Record(b"1", id="7"), Record(b"2")]),
        # Line ends of all kinds.
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [Record(b"1"), Record(b"2")]),
        (b"data: 1\r\rdata: 2\r\r", [Record(b"1"), Record(b"2")]),
        (b"data: 1\n\r\ndata: 2\r\n\n\n\n", [Record(b"1"), Record(b"2")]),
        (b"data: 1\rdata: 2\n\r", [Record(b"1\n2")]),
        # A last event needs no blank line, and no line end.
        (b"data: 1\n\ndata: 2\n", [Record(b"1"), Record(b"2")]),
        (b"data: 1\n\ndata: 2", [Record(b"1"), Record(b"2")]),
        (b"data: 1", [Record(b"1")]),
        # JSON documents: separated by a line end, without a field name, or both.
        (
            b'data: {"a":1}\ndata: {"b":2}\ndata: [DONE]\n',
            [Record(b'{"a":1}'), Record(b'{"b":2}'), Record(b"[DONE]")],
        ),
        (b'{"a":1}\n{"b":2}\n\n', [Record(b'{"a":1}'), Record(b'{"b":2}')]),
        (b'data: {"a":1}\n  {"b":2}\n', [Record(b'{"a":1}'), Record(b'{"b":2}')]),
        (
            b'{\n  "data": [\n    {}\n  ]\n}\n\ndata: 1\n\n',
            [Record(b'{\n  "data": [\n    {}\n  ]\n}'), Record(b"1")],
        ),
        (b'data: {\ndata: "a":1}\n\n', [Record(b'{\n"a":1}')]),
        (
            b'{\n "a": [\n  {}]\n}\n{\n "b": 2\n}\n',
            [Record(b'{\n "a": [\n  {}]\n}'), Record(b'{\n "b": 2\n}')],
        ),
        # One that is cut by a line end goes on, and ends where another one begins.
        (b'data: {"a\nb":1}\n\n', [Record(b'{"a\nb":1}')]),
        (b'data: {"a":\n{"b":2}\n\n', [Record(b'{"a":'), Record(b'{"b":2}')]),
        # What may be the remains of a record is not passed over.
        (b'dbta: {"a":1}\n\n', [Record(b'dbta: {"a":1}')]),
        (b':ata: {"a":1}\n\n', [Record(b':ata: {"a":1}', COMMENT)]),
        (b"error: {}\n\n", [Record(b"{}", "error")]),
        (b"data: 1\n\nno hosts\n", [Record(b"1"), Record(b"no hosts")]),
        (b'data: \n"a": 1}\n\n', [Record(b'"a": 1}'), Record(b"")]),
        (b'event: edata: {"a":1}\n\n', [Record(b'event: edata: {"a":1}')]),
        # UTF-8 is passed on as it is.
        (
            'data: {"a":"é€😀"}\n\nevent: 😀\ndata: x\n\n'.encode(),
            [Record('{"a":"é€😀"}'.encode()), Record(b"x", "😀")],
        ),
        (
            b"event: \xff\nid: \xfe\ndata: \xff\n\n",
            [Record(b"\xff", "\ufffd", "\ufffd")],
        ),
        # Several whole events; and something behind them.
        (
            b"data: 1\n\ndata:2\n\ndata: 3\n\n",
            [Record(b"1"), Record(b"2"), Record(b"3")],
        ),
        (b"data: 1\n\nevent: e\ndata: 2\n\n", [Record(b"1"), Record(b"2", "e")]),
        (
            b"data: 1\n\ndata: 2\n\ndata: 3",
            [Record(b"1"), Record(b"2"), Record(b"3")],
        ),
        (b"data: 1\n\n\ndata: 2\n\n", [Record(b"1"), Record(b"2")]),
    ],
)
def test_events_are_the_same_wherever_the_reads_are_cut(
    body: bytes, records: list[Record]
) -> None:
    for pieces in cuts(body):
        assert decode(pieces) == records, pieces
    for pieces in after_a_comment(body):
        assert decode(pieces) == records, pieces


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b"\xef\xbb\xbfdata: 1\n\n", [Record(b"1")]),
        (
            b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\ndata: 2\n\n",
            [Record(b"1"), Record(b"2")],
        ),
        (b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n", [Record(b"1"), Record(b"2")]),
        (b"\xef\xbbdata: 1\n\n", []),
    ],
)
def test_a_byte_order_mark_before_a_line_is_dropped(
    body: bytes, records: list[Record]
) -> None:
    for pieces in cuts(body):
        assert decode(pieces) == records, pieces


@pytest.mark.parametrize(
    ("line", "retry_ms"),
    [
        (b"retry: 3000", 3000),
        (b"retry:007", 7),
        (b"retry: 0", 0),
        (b"retry", None),
        (b"retry: ", None),
        (b"retry:  3", None),
        (b"retry: -3", None),
        (b"retry: 3.5", None),
        (b"retry: 3a", None),
        ("retry: ٣".encode(), None),
        pytest.param(b"retry: " + b"9" * 100_000, 10**15, id="huge"),
        pytest.param(b"retry: " + b"0" * 100_000 + b"5", 5, id="zeros"),
    ],
)
def test_retry_is_digits_only(line: bytes, retry_ms: int | None) -> None:
    decoder = SSEDecoder()
    assert decode([line + b"\n"], decoder) == []
    assert decoder.retry_ms == retry_ms


def test_the_last_event_id_is_that_of_the_last_dispatch() -> None:
    decoder = SSEDecoder()
    assert decoder.last_event_id == ""
    decoder.receive_data(b"id: 1\ndata: a\n\nid: 2\n")
    assert decoder.last_event_id == "1"
    assert decoder.receive_data(b"data: b\n\n") == [Record(b"b", id="2")]
    assert decoder.last_event_id == "2"
    decoder.receive_data(b"id: 3\n\n")
    assert decoder.last_event_id == "3"
    assert decoder.receive_data(b"data: c\n\n") == [Record(b"c", id="3")]


def test_in_a_pause_a_whole_event_needs_no_blank_line() -> None:
    for body in (
        b'data: {"a":1}\n',
        b'data: {"a":1}',
        b'{"a":1}',
        b'{\n"a":1\n}',
        b"data: [DONE]",
        b'Data: {"a":1}',
        b' data:{"a":1}',
        b'data: data: {"a":1}',
        b'\xef\xbb\xbfdata: {"a":1}',
        b'data: \xef\xbb\xbf{"a":1}\n',
        b'data: {\ndata: "a":1\ndata: }',
    ):
        decoder = SSEDecoder()
        assert decoder.receive_data(b"data: 0\n\n" + body) == [Record(b"0")]
        assert len(decoder.receive_pause()) == 1
        assert decoder.receive_data(b"\n\ndata: 2\n\n") == [Record(b"2")]
    for body in (b"data: text", b'data: {"a":', b'data: {"a":\n', b": x", b"data: 1\n"):
        decoder = SSEDecoder()
        assert decoder.receive_data(body) == decoder.receive_pause() == []


def test_each_event_comes_with_the_read_that_completes_it() -> None:
    decoder = SSEDecoder()
    assert decoder.receive_data(b"data: 1\n") == []
    assert decoder.receive_data(b"\n") == [Record(b"1")]
    assert decoder.receive_data(b"data: 2\n\n") == [Record(b"2")]
    assert decoder.receive_data(b"data: 3\n\ndata: 4\n\n") == [
        Record(b"3"),
        Record(b"4"),
    ]
    assert decoder.receive_data(b"") == []
    assert decoder.receive_data(b"data: 5\r\n\r") == [Record(b"5")]
    assert decoder.receive_data(b"\ndata: 6\n\n") == [Record(b"6")]


def test_an_event_may_have_exactly_the_limit() -> None:
    body = b"data: abcde\ndata:\ndata: fgh\n\ndata: abcdefghij\n\n"
    for pieces in cuts(body):
        assert decode(pieces, SSEDecoder(max_event_bytes=10)) == [
            Record(b"abcde\n\nfgh"),
            Record(b"abcdefghij"),
        ]


@pytest.mark.parametrize(
    "body",
    [
        b"data: 1\n\ndata: abcdefghijk\n\ndata: 2\n\n",
        b"data: 1\n\ndata: abcde\ndata: fghij\n\n",
        b"data: 1\n\n" + b"data\n" * 12,
        b"data: 1\n\n" + b"data:\n" * 12 + b"\n",
    ],
)
def test_events_before_the_one_over_the_limit_are_given(body: bytes) -> None:
    for pieces in (*cuts(body), *after_a_comment(body)):
        decoder = SSEDecoder(max_event_bytes=10)
        records: list[Record] = []
        with pytest.raises(BackendProtocolError, match="event of more than 10 bytes"):
            feed(decoder, pieces, records)
        assert records == [Record(b"1")]
        with pytest.raises(BackendProtocolError):
            decoder.receive_data(b"data: 3\n\n")


def test_a_line_over_its_limit_fails_the_stream() -> None:
    for pieces in after_a_comment(b"data: 1\n\ndata: 0123456789\n\n"):
        decoder = SSEDecoder(max_line_bytes=12)
        records: list[Record] = []
        with pytest.raises(BackendProtocolError, match="line of more than 12 bytes"):
            feed(decoder, pieces, records)
        assert records == [Record(b"1")]
        with pytest.raises(BackendProtocolError):
            decoder.receive_data(b"data: 3\n\n")


def test_data_cut_into_lines_is_no_way_around_the_limit() -> None:
    decoder = SSEDecoder()
    read = b"data: " + b"x" * 4000 + b"\n"
    reads = iter([read] * 1000)
    with pytest.raises(BackendProtocolError, match=str(MAX_EVENT_BYTES)):
        feed(decoder, reads, [])
    assert 1000 - len(list(reads)) <= MAX_EVENT_BYTES // 4000 + 1
    assert "<SSEDecoder 0 bytes of data" in repr(decoder)


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        (b'{"a":1}', True),
        (b'\n{\n"a":1\n}\n\n', True),
        (b'{"a":1}\n{"b":2}\n', False),
        (b'data: {"a":1}\n\n', False),
        (b'{"a":1}\n\ndata: {"b":2}\n\n', False),
        (b"", False),
    ],
)
def test_a_lone_document_is_told_from_a_stream(body: bytes, whole: bool) -> None:
    for pieces in cuts(body):
        decoder = SSEDecoder()
        decode(pieces, decoder)
        assert decoder.whole is whole


def test_a_body_that_is_no_stream_is_given_as_it_is() -> None:
    body = b"no healthy upstream: reset\n"
    for pieces in cuts(body):
        assert decode(pieces) == [Record(body.rstrip())]
    for pieces in after_a_comment(body):
        assert decode(pieces) == []
