"""The invariant: what a decoder gives depends on the bytes, never on the reads.

For any body and any cuts (whole, byte by byte, every single cut, arbitrary ones, also
behind a read of its own and with more behind it) a decoder gives the same records, the
same last event ID and the same reconnection time, and fails with the same error after
the same records. Without JSON in it, they are those of a naive reading of the whole
body by the letter of the specification, with names in any case, sentences without a
field given as records, and a last event that needs no end. No body raises anything but
`BackendProtocolError`; and no stream of records makes the dialect raise anything, or
give a delta that is empty or cannot be encoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.decoders import Decoder, Record
from bridge.decoders.content import decoder_for
from bridge.decoders.documents import DocumentDecoder
from bridge.decoders.sse import SSEDecoder
from bridge.dialects import FullText, ReasoningDelta, TextDelta
from bridge.dialects.openai import OpenAIResponse
from bridge.errors import BackendProtocolError

Outcome = tuple[list[Record], str | None, str, int | None]

FRAGMENTS = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\xef\xbb\xbf",
    b"\xef",
    b" ",
    b":",
    b"\0",
    b"data",
    b"data:",
    b"data: ",
    b"data: x\n\n",
    b"data:x\n\n",
    b"data: x\r\n\r\n",
    b"event: e",
    b"event",
    b"id: 1",
    b"id: 2\n",
    b"id: \0",
    b"id",
    b"retry: 12",
    b"retry: 1x",
    b": comment\n",
    "😀é€".encode(),
    "\u2028\x85\x0b\x0c".encode(),
    b"\xff\xf0\x9f",
]
DOCUMENTS = [
    b"data: [DONE]\n\n",
    b'data: {"a":1}\n',
    b'{"a":1}\n',
    b'{"a":',
    b'"b\\"}"',
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"\\",
    b"Infinity",
]
plain_bodies = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=24).map(b"".join),
    st.binary(max_size=40).map(lambda body: re.sub(rb'[{"\[]', b"", body)),
)
bodies = st.lists(st.sampled_from(FRAGMENTS + DOCUMENTS), max_size=24).map(b"".join)


def outcome(decoder: Decoder, pieces: Iterable[bytes]) -> Outcome:
    records: list[Record] = []
    error = None
    try:
        for piece in pieces:
            records += decoder.receive_data(piece)
        records += decoder.receive_eof()
    except BackendProtocolError as exception:
        error = exception.message
    if isinstance(decoder, SSEDecoder) and error is None:
        return records, error, decoder.last_event_id, decoder.retry_ms
    return records, error, "", None


def every_cut(body: bytes) -> Iterable[list[bytes]]:
    yield [body]
    yield [body[i : i + 1] for i in range(len(body))]
    for i in range(len(body) + 1):
        yield [body[:i], body[i:]]


def cut_at(body: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({place % (len(body) + 1) for place in places} | {len(body)})
    return [body[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def specified(body: bytes) -> Outcome:
    """Section 9.2.6 of WHATWG HTML, naively, over the whole body."""
    lines = re.split(b"\r\n|\r|\n", body.removeprefix(b"\xef\xbb\xbf"))
    if not lines[-1]:
        lines.pop()
    records: list[Record] = []
    data, event, id, last_id = b"", b"", b"", b""
    known = False
    retry: int | None = None
    for marked in [*lines, b""]:
        line = re.sub(b"^(\xef\xbb\xbf)[\xef\xbb\xbf]*", b"", marked)
        field, colon, value = line.partition(b":")
        field = field.strip().lower()
        value = value[1:] if value[:1] == b" " else value
        comment = bool(colon and not field)
        known = known or comment or field in (b"data", b"event", b"id", b"retry")
        if line == b"":
            last_id = id
            if data != b"":
                kind = event.decode(errors="replace") or "message"
                records.append(
                    Record(data[:-1], kind, last_id.decode(errors="replace"))
                )
            data, event = b"", b""
        elif b" " in field and not (known and colon):
            records.append(Record(line, id=last_id.decode(errors="replace")))
        elif field == b"event":
            event = value
        elif field == b"data":
            data += value + b"\n"
        elif field == b"id" and b"\0" not in value:
            id = value
        elif field == b"retry" and re.fullmatch(b"[0-9]+", value):
            retry = int(value)
    return records, None, last_id.decode(errors="replace"), retry


@settings(max_examples=200, deadline=None)
@given(plain_bodies)
@example(b"data: 1\r\n\r\ndata: 2\r\n\r\n")
@example(b"\xef\xbb\xbfdata: 1\n\n")
def test_sse_is_what_the_specification_says_at_every_cut(body: bytes) -> None:
    expected = specified(body)
    for pieces in every_cut(body):
        assert outcome(SSEDecoder(), pieces) == expected, pieces


@settings(max_examples=200, deadline=None)
@given(plain_bodies, plain_bodies, st.lists(st.integers(0, 1000), max_size=6))
def test_the_short_way_gives_what_the_long_way_gives(
    body: bytes, behind: bytes, places: list[int]
) -> None:
    # After a blank line the decoder is where the short way is open.
    before = b":\n\nid: 9\n\n"
    expected = specified(before + body + behind)
    assert outcome(SSEDecoder(), [before, body, behind]) == expected
    assert outcome(SSEDecoder(), [before, *cut_at(body + behind, places)]) == expected
    for pieces in every_cut(body):
        assert outcome(SSEDecoder(), [before, *pieces, behind]) == expected, pieces


@settings(max_examples=300, deadline=None)
@given(bodies, st.sampled_from(["text/event-stream", "", "application/x-ndjson"]))
def test_a_body_with_documents_gives_the_same_at_every_cut(
    body: bytes, content_type: str
) -> None:
    def new() -> Decoder:
        decoder = decoder_for(content_type)
        assert decoder is not None
        return decoder

    expected = outcome(new(), [body])
    for pieces in every_cut(body):
        assert outcome(new(), pieces) == expected, pieces


@settings(max_examples=150, deadline=None)
@given(bodies, st.integers(1, 20), st.integers(1, 20))
def test_limits_are_met_after_the_same_records_at_every_cut(
    body: bytes, line_limit: int, event_limit: int
) -> None:
    makers: list[Callable[[], Decoder]] = [
        lambda: SSEDecoder(max_line_bytes=line_limit, max_event_bytes=event_limit),
        lambda: DocumentDecoder(max_document_bytes=line_limit),
    ]
    for make in makers:
        expected = outcome(make(), [body])
        for pieces in every_cut(body):
            assert outcome(make(), pieces) == expected, pieces


FIELDS = re.findall(
    r"\w+",
    "choices delta message content index finish_reason reasoning reasoning_content "
    "tool_calls function name arguments id usage error type text thinking code object",
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(0.5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "content": json_values,
        "reasoning": json_values,
        "reasoning_content": json_values,
        "tool_calls": st.lists(json_values, max_size=2) | json_values,
    },
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "delta": deltas,
        "message": deltas,
        "finish_reason": json_values,
        "index": json_values,
    },
)
chunks = st.fixed_dictionaries(
    {"choices": st.lists(choices, max_size=2)},
    optional={"usage": json_values, "error": json_values},
)
record_data = st.one_of(
    chunks.map(msgspec.json.encode),
    json_values.map(msgspec.json.encode),
    st.sampled_from(
        [b"[DONE]", b"", b"{", b'{"choices":[{"delta":{"content":"\xff"}}]}']
    ),
    st.just(b'{"choices":[{"delta":{"content":"\\ud83d"}}]}'),
    st.just(b'{"choices":' + b"[" * 5000),
    st.binary(max_size=20),
)
records = st.builds(Record, record_data, st.sampled_from(["message", "error", "ping"]))


@settings(max_examples=300, deadline=None)
@given(st.lists(records, max_size=6), st.booleans())
def test_no_record_breaks_the_dialect(stream: list[Record], whole: bool) -> None:
    response = OpenAIResponse()
    deltas = [delta for record in stream for delta in response.receive(record)]
    deltas += response.receive_eof(whole=whole)
    for delta in deltas:
        assert msgspec.json.encode(delta)
        if isinstance(delta, TextDelta | FullText | ReasoningDelta):
            assert delta.text
    if response.failure is not None:
        assert msgspec.json.encode(response.failure.message)
    else:
        assert response.finish_reason
    msgspec.json.encode([response.finish_reason, response.usage])
