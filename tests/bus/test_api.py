"""JetStream's answers as values and errors."""

from __future__ import annotations

import pytest

from bridge.bus.api import ApiError, JetStream, raise_for_error
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.errors import BusError, StreamUnavailable
from tests.plain_client import eventually


def test_an_answer_without_an_error_is_its_value() -> None:
    assert raise_for_error(b'{"a": 1}', "x") == {"a": 1}


@pytest.mark.parametrize("data", [b"no json", b"{", b"\xff"])
def test_an_answer_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(BusError):
        raise_for_error(data, "x")


def test_errors_are_told_apart() -> None:
    gone = b'{"error":{"code":404,"err_code":10059,"description":"stream not found"}}'
    with pytest.raises(StreamUnavailable) as caught:
        raise_for_error(gone, "STREAM.INFO.X")
    assert caught.value.gone
    assert "STREAM.INFO.X" in str(caught.value)
    away = b'{"error":{"code":503,"err_code":10008,"description":"no leader"}}'
    for data in (away, b""):
        with pytest.raises(StreamUnavailable) as caught:
            raise_for_error(data, "x")
        assert not caught.value.gone
    full = b'{"error":{"code":503,"err_code":10077,"description":"maximum messages"}}'
    with pytest.raises(BusError):
        raise_for_error(full, "x")
    other = b'{"error":{"code":400,"err_code":10071,"description":"wrong last"}}'
    with pytest.raises(ApiError) as refused:
        raise_for_error(other, "x")
    assert refused.value.err_code == 10071
    assert str(refused.value) == "wrong last (10071)"


async def test_messages_by_subject_and_by_sequence(cell: Cell) -> None:
    subject = cell.subjects.tokens("t", "one")
    stream = cell.names.tokens
    assert await cell.jetstream.last_message(stream, subject) is None
    assert await cell.jetstream.message(stream, 1) is None
    for data in (b"first", b"", b"\x00\xff last"):
        cell.connection.publish(subject, data)

    async def there() -> bool:
        last = await cell.jetstream.last_message(stream, subject)
        return last is not None and last.seq == 3

    await eventually(there)
    last = await cell.jetstream.last_message(stream, subject)
    assert last is not None
    assert (last.subject, last.data) == (subject, b"\x00\xff last")
    second = await cell.jetstream.message(stream, 2)
    assert second is not None
    assert second.data == b""
    assert second.stored_ns < last.stored_ns
    assert last.stored_ns - second.stored_ns < 60_000_000_000


async def test_a_stream_that_is_not_there(connection: Connection) -> None:
    jetstream = JetStream(connection)
    for call in (
        jetstream.last_message("NOWHERE", "a"),
        jetstream.message("NOWHERE", 1),
        jetstream.call("STREAM.INFO.NOWHERE"),
    ):
        with pytest.raises(StreamUnavailable) as caught:
            await call
        assert caught.value.gone
