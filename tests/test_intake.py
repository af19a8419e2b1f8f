"""Jobs read, and refused with the field's name."""

from __future__ import annotations

import json
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
    ],
)
def test_the_id_of_a_job_that_is_not_valid(data: bytes, id: str | None) -> None:
    assert read_job_id(data) == id
