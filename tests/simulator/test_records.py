import asyncio

import pytest

from bridge.simulator.records import FaultCount, RequestLog, RequestRecord


def record(id: str = "r1", user: str | None = None) -> RequestRecord:
    return RequestRecord(id=id, user=user, received_at=10.0)


async def test_the_first_outcome_counts() -> None:
    log = RequestLog()
    one = record()
    log.open(one)
    assert log.active == 1
    log.end(one, "reset")
    log.end(one, "client_closed")
    assert (one.outcome, one.closed_at, log.active) == ("reset", None, 0)


async def test_a_clients_close_has_a_time() -> None:
    log = RequestLog()
    one = record()
    log.open(one)
    log.end(one, "client_closed")
    assert one.closed_at == one.ended_at is not None


async def test_waiting_ends_with_the_change() -> None:
    log = RequestLog()
    one = record()
    log.open(one)
    waiting = asyncio.ensure_future(
        log.wait_until(lambda: one.outcome == "completed", 30)
    )
    while not log.watched:
        await asyncio.sleep(0)
    one.tokens_sent = 1
    log.notify()
    await asyncio.sleep(0)
    assert not waiting.done()
    log.end(one, "completed")
    await waiting
    assert not log.watched


async def test_waiting_in_vain_ends_and_leaves_nothing() -> None:
    log = RequestLog()
    with pytest.raises(TimeoutError):
        await log.wait_until(lambda: False, 0.01)
    assert not log.watched


async def test_json_has_unix_milliseconds_and_no_body() -> None:
    one = record()
    one.body = {"messages": []}
    fields = one.to_dict(1_700_000_000.0)
    assert fields["received_at_ms"] == 1_700_000_010_000.0
    assert fields["closed_at_ms"] is None
    assert "body" not in fields
    assert "received_at" not in fields


async def test_json_of_one_user() -> None:
    log = RequestLog()
    log.open(record("a", "x"))
    log.open(record("b", "y"))
    both, one = log.to_dict(None), log.to_dict("y")
    assert [fields["id"] for fields in both["requests"]] == ["a", "b"]
    assert [fields["id"] for fields in one["requests"]] == ["b"]
    assert both["active"] == 2


def test_faults_are_counted_by_conversation() -> None:
    count = FaultCount()
    assert [count.take("a", 2) for _ in range(4)] == [True, True, False, False]
    assert count.take("b", 1)
    assert not count.take("c", 0)
    assert all(count.take("a", None) for _ in range(5))


def test_old_conversations_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaultCount, "MAX_KEYS", 2)
    count = FaultCount()
    assert count.take("a", 1)
    assert count.take("b", 1)
    assert not count.take("a", 1)  # and is now the youngest
    assert count.take("c", 1)
    assert not count.take("a", 1)
    assert count.take("b", 1)
