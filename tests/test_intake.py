"""Jobs read, and refused with the field's name."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import InvalidJob
from bridge.events import Job, decode_control, encode
from bridge.intake import MAX_METADATA_BYTES, decode_job, read_job_id

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def job(**fields: Any) -> bytes:
    return json.dumps({"id": "one", "request": REQUEST, **fields}).encode()


def test_a_job_as_the_protocol_shows_it() -> None:
    decoded = decode_job(
        job(
            session="call-42",
            supersede=True,
            deadline_ms=30000,
            keepalive_ms=500,
            on_restart="fail",
            speech={"language": "en"},
            metadata={"caller": "web"},
        )
    )
    assert decoded == Job(
        id="one",
        request=REQUEST,
        session="call-42",
        supersede=True,
        deadline_ms=30000,
        keepalive_ms=500,
        on_restart="fail",
        speech={"language": "en"},
        metadata={"caller": "web"},
    )
    assert decoded.model == "m"
    assert decode_job(encode(decoded)) == decoded


def test_the_defaults_of_a_job() -> None:
    decoded = decode_job(job())
    assert decoded.on_restart == "restart"
    assert decoded.session is None
    assert decoded.deadline_ms is None
    assert decoded.keepalive_ms is None
    assert decoded.metadata == {}
    assert decoded.speech is decoded.supersede is False
    assert json.loads(encode(decoded)) == {"id": "one", "request": REQUEST}


@pytest.mark.parametrize("n", [1, None])
def test_one_text_is_what_there_is(n: int | None) -> None:
    decode_job(job(request={**REQUEST, "n": n}))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": "a.b"}, "id"),
        ({"id": ""}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"id": 7}, "id"),
        ({"id": None}, "id"),
        ({"request": None}, "request"),
        ({"request": []}, "request"),
        ({"request": {}}, "model"),
        ({"request": {**REQUEST, "model": 7}}, "model"),
        ({"request": {**REQUEST, "messages": {}}}, "messages"),
        ({"request": {**REQUEST, "messages": [None]}}, "messages"),
        ({"request": {**REQUEST, "n": 2}}, "request.n"),
        ({"request": {**REQUEST, "n": 0}}, "request.n"),
        ({"request": {**REQUEST, "n": True}}, "request.n"),
        ({"request": {**REQUEST, "n": "1"}}, "request.n"),
        ({"request": {**REQUEST, "n": 1.5}}, "request.n"),
        ({"session": ""}, "session"),
        ({"session": "a*"}, "session"),
        ({"supersede": True}, "session"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"deadline_ms": 86_400_001}, "deadline_ms"),
        ({"deadline_ms": "1"}, "deadline_ms"),
        ({"keepalive_ms": 0}, "keepalive_ms"),
        ({"on_restart": "continue"}, "on_restart"),
        ({"speech": "yes"}, "speech"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": None}}, "metadata"),
        ({"metadata": {"a": "x" * MAX_METADATA_BYTES}}, "metadata"),
        ({"Id": "x"}, "Id"),
        ({"zzz": 1}, "zzz"),
    ],
)
def test_the_message_names_the_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        decode_job(job(**fields))
    assert named in caught.value.message
    assert caught.value.code == "invalid_job"
    assert not caught.value.retryable


UNREADABLE = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b'{"id":"\xff","request":{}}',
    b'{"id":"one","request":{"model":"\xff"}}',
    b'{"id":"one","request":' + b'{"a":' * 50_000,
    b'{"id":"one","request":' + b"[" * 50_000,
    b"[" * 50_000,
    b'{"id":"one","request":{"model":1e999}}',
    b'{"id":"one","request":{"model":NaN}}',
]


@pytest.mark.parametrize("data", UNREADABLE)
def test_a_job_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(InvalidJob) as caught:
        decode_job(data)
    assert len(caught.value.message) < 1000
    read_job_id(data)
    assert decode_control(data) is None


def test_the_message_does_not_grow_with_the_job() -> None:
    with pytest.raises(InvalidJob) as caught:
        decode_job(job(**{"f" * 100_000: 1}))
    assert len(caught.value.message) < 1000


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_a_job_or_refused(data: bytes) -> None:
    with pytest.raises(InvalidJob):
        decode_job(data)
    read_job_id(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_any_object_is_a_job_or_refused(fields: dict[str, Any]) -> None:
    data = json.dumps(fields).encode()
    try:
        decoded = decode_job(data)
    except InvalidJob:
        return
    assert decoded.id == fields["id"]


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (b'{"id":"one"}', "one"),
        (b'{"id":"one","zzz":[1,{"a":2}],"request":7}', "one"),
        (b'{"id":"a.b"}', None),
        (b'{"id":7}', None),
        (b"{}", None),
        (b"", None),
        (b"[" * 50_000, None),
        # What no reader of JSON reads any more.
        (b'{"id":"one","request":' + b"[" * 10_000, "one"),
        (b'{"request":' + b"[" * 1000 + b"]" * 1000 + b',"id":"one"}', "one"),
        (b'{"id":"one"', "one"),
        (b'{"id":"one","request":{"model', "one"),
        (b'{"id":"one"}}', "one"),
        (b'{"id":"one"} {"id":"two"}', "one"),
        (b'{"id":"one",,}', "one"),
        (b"{'id':'one'}", None),
        (b'{"id":"on', None),
        (b'{"id":one}', None),
        # Marks, control characters, escapes, what surrounds it.
        (b'\xef\xbb\xbf{"id":"one"', "one"),
        ('\ufeff{"id":"one"'.encode("utf-16"), "one"),
        (b' \0\r\n{"id":"one","a":"\n"', "one"),
        (b'{"\\u0069d":"o\\u006ee"', "one"),
        (b'{"a":"\xff","id":"one"', "one"),
        (b'{"id" \n:\t"one" ', "one"),
        # Never a nested one, nor one in a text.
        (b'{"request":{"id":"two"}', None),
        (b'{"request":{"id":"two"},"id":"one"', "one"),
        (b'{"request":{"id":"two"},"session":"id","x":"one"', None),
        (b'{"a":"\\"id\\":\\"two\\"","id":"one"', "one"),
        (b'{"a":"{","id":"one"', "one"),
        (b'{"a":["id",":","two"],"id":"one"', "one"),
        (b'[{"id":"two"}', None),
        (b'"{\\"id\\":\\"two\\"}"', None),
        (b'{"id":{"id":"two"}', None),
        (b'{"id":["two"]', None),
        (b'{"x":"id","id":"one"', "one"),
        # Of several the last counts, where it can be read.
        (b'{"id":"two","id":"one"', "one"),
        (b'{"id":"one","id":null', "one"),
    ],
)
def test_the_id_of_a_job_that_is_not_valid(data: bytes, id: str | None) -> None:
    assert read_job_id(data) == id
    # A header helps where the job does not say it.
    assert read_job_id(data, "t/named", "t") == (id or "named")


@pytest.mark.parametrize(
    "message_id", ["", "named", "other/named", "t/a.b", "t/", "/named", "t/a/b"]
)
def test_a_header_that_names_no_request_of_the_tenant(message_id: str) -> None:
    assert read_job_id(b"", message_id, "t") is None
    assert read_job_id(b'{"id":"one"', message_id, "t") == "one"


# Read leniently


def content(data: bytes) -> str:
    text = decode_job(data).request["messages"][0]["content"]
    assert isinstance(text, str)
    return text


TEMPLATE = b'{"id":"one","request":{"model":"m","messages":[{"content":"%b"}]}}'


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (rb"cut \ud83d", "cut \ufffd"),
        (rb"\uD83D\uDE00 \ude00\ud83d", "\U0001f600 \ufffd\ufffd"),
        (rb"\\ud83d", r"\ud83d"),
        (b"a\nb\tc\x01", "a\nb\tc\x01"),
        (b"a\xffb", "a\ufffdb"),
        (b"caf\xe9", "caf\ufffd"),
        ("é😀".encode(), "é😀"),
    ],
)
def test_strings_that_are_not_quite_json(raw: bytes, read: str) -> None:
    assert content(TEMPLATE % raw) == read


WHOLE = TEMPLATE % "é😀".encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + WHOLE,
        WHOLE + b"\0",
        WHOLE + b"\0\0\r\n",
        b"\0 " + WHOLE,
        WHOLE.decode().encode("utf-16"),
        b"\xfe\xff" + WHOLE.decode().encode("utf-16-be"),
        WHOLE.decode().encode("utf-32"),
    ],
)
def test_what_surrounds_a_job(data: bytes) -> None:
    assert decode_job(data) == decode_job(WHOLE)


@pytest.mark.parametrize("tail", [b"x", b"}", b"{}", b"\0x", b"\xff", b","])
def test_what_stands_behind_a_job_makes_it_invalid(tail: bytes) -> None:
    with pytest.raises(InvalidJob):
        decode_job(WHOLE + tail)
    assert read_job_id(WHOLE + tail) == "one"


def test_halves_of_an_emoji_anywhere() -> None:
    data = (
        rb'{"id":"one","metadata":{"a\ud83d":"b\udc00"},"speech":{"language":"en"},'
        rb'"request":{"model":"m\ud800","messages":[{"\udfff":["\ud83d"]}]}}'
    )
    decoded = decode_job(data)
    assert decoded.metadata == {"a\ufffd": "b\ufffd"}
    assert decoded.request["model"] == "m\ufffd"
    assert decoded.request["messages"] == [{"\ufffd": ["\ufffd"]}]
    encode(decoded).decode()


OPTIONAL = (
    "session", "supersede", "deadline_ms", "keepalive_ms", "on_restart", "speech",
    "metadata",
)  # fmt: skip


@pytest.mark.parametrize("name", [*OPTIONAL, "later"])
def test_null_counts_as_absent(name: str) -> None:
    assert decode_job(job(**{name: None})) == decode_job(job())


@pytest.mark.parametrize("name", ["id", "request"])
def test_null_is_missing_where_it_is_required(name: str) -> None:
    with pytest.raises(InvalidJob, match=f"missing required field `{name}`"):
        decode_job(job(**{name: None}))


def test_null_in_the_request_is_the_backends() -> None:
    request = {**REQUEST, "stop": None}
    assert decode_job(job(request=request, session=None)).request == request


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (',"request":{"temperature":%s}', "request.temperature"),
        (',"request":{"a":[1,{"b":%s}]}', r"request\.a\[1\]\.b"),
        (',"metadata":{"a":%s}', "metadata.a"),
        (',"deadline_ms":%s', "deadline_ms"),
        (',"speech":{"min_chars":%s}', "speech.min_chars"),
    ],
)
def test_numbers_that_json_cannot_have(number: str, fields: str, named: str) -> None:
    data = ('{"id":"one"' + fields % number + "}").encode()
    with pytest.raises(InvalidJob, match=f"{named} must be a finite number"):
        decode_job(data)
    assert read_job_id(data) == "one"


HOSTILE = {
    "arrays": b"[]",
    "open arrays": b"[",
    "objects": b'{"id":"x"},',
    "strings": b'"a",',
    "open strings": b'["',
    "escaped quotes": rb"\"",
    "backslashes": b"\\",
    "control characters": b"a\x01",
    "halves": rb"\ud83d",
    "colons": b":",
    "keys": b'{"a":',
    "not UTF-8": b"\xff",
    "numbers": b"1e999,",
}


@pytest.mark.parametrize("text", [b'{"x":', b'{"x":"', b'{"id":"one","request":'])
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_work_is_linear_in_the_job(text: bytes, unit: bytes) -> None:
    def seconds(size: int) -> float:
        data = text + unit * (size // len(unit))
        began = time.process_time()
        with pytest.raises(InvalidJob):
            decode_job(data)
        read_job_id(data)
        return time.process_time() - began

    # Quadratic would be sixteen times as much; what is measured is also noise.
    short = min(seconds(100_000) for _ in range(3))
    long = min(seconds(400_000) for _ in range(3))
    assert long < 10 * short + 0.005


def test_long_names_do_not_multiply() -> None:
    """The path to a bad number is put together once, not at every value."""
    name = "n" * 50_000
    items = "1," * 50_000
    data = f'{{"id":"one","request":{{"{name}":[{items}1]}},"x":NaN}}'.encode()
    began = time.process_time()
    with pytest.raises(InvalidJob):
        decode_job(data)
    assert time.process_time() - began < 1.0
