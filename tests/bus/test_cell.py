"""One prefix: its last events, dead letters, and control messages."""

from __future__ import annotations

import time
from functools import partial

from bridge.bus.cell import CANARY_EVERY_S, Cell
from bridge.bus.connection import Connection
from bridge.bus.streams import Lane
from bridge.bus.writer import LogWriter
from bridge.config import BusSettings
from bridge.events import Control, Handover, JobIdentity, encode
from bridge.subjects import ControlAddress
from tests.bus.written import end, numbered_job, token, writer_on
from tests.plain_client import eventually


async def test_the_last_event_of_a_log(cell: Cell) -> None:
    assert await cell.last_event("t", "one") is None
    assert await cell.last_stored("t", "one") is None
    event = Handover("one", 7, 2)
    cell.connection.publish(cell.subjects.tokens("t", "one"), encode(event))

    async def there() -> bool:
        return await cell.last_event("t", "one") == event

    await eventually(there)


async def test_whether_a_job_is_still_queued(cell: Cell) -> None:
    assert not await cell.job_is_stored(JobIdentity(1, 0))
    await cell.connection.request(cell.subjects.job("t", "default"), b"job")
    found = await cell.jetstream.message(cell.names.jobs, 1)
    assert found is not None
    stored = JobIdentity(1, found.stored_ns)
    assert await cell.job_is_stored(stored)
    assert not await cell.job_is_stored(stored._replace(stream_seq=2))
    for off in (-1, 1):
        other = stored._replace(stored_ns=stored.stored_ns + off)
        assert not await cell.job_is_stored(other)
    await cell.jetstream.call(f"STREAM.DELETE.{cell.names.jobs}")
    assert not await cell.job_is_stored(stored)


async def test_a_dead_letter_is_stored_once(cell: Cell) -> None:
    headers = {"Nats-Msg-Id": "dead/1", "Tokenbridge-Code": "invalid_job"}
    for _ in range(2):
        await cell.bury("t", b"\xff original", headers)
    found = await cell.jetstream.message(cell.names.dead, 1)
    assert found is not None
    assert (found.subject, found.data) == (cell.subjects.dead("t"), b"\xff original")
    assert await cell.jetstream.message(cell.names.dead, 2) is None
    await cell.bury("no.tenant", b"x", {})
    last = await cell.jetstream.message(cell.names.dead, 2)
    assert last is not None
    assert last.subject == cell.subjects.dead("_")


async def test_control_messages_are_heard_and_kept(cell: Cell) -> None:
    heard: list[tuple[ControlAddress, Control]] = []
    await cell.listen_control(lambda address, control: heard.append((address, control)))
    await cell.connection.flush()
    control = Control("cancel", "barge-in", 7)
    for kind in ("request", "session"):
        assert await cell.kept_control("t", kind, "one") is None
        cell.publish_control("t", kind, "one", control)

    async def kept() -> bool:
        found = [await cell.kept_control("t", k, "one") for k in ("request", "session")]
        return all(found)

    await eventually(kept)
    assert heard == [
        (ControlAddress("t", "request", "one"), control),
        (ControlAddress("t", "session", "one"), control),
    ]
    found = await cell.kept_control("t", "request", "one")
    assert found is not None
    assert found[0] == control
    assert abs(found[1] / 1e9 - time.time()) < 60
    assert await cell.kept_control("t", "request", "other") is None
    assert await cell.kept_control("other", "request", "one") is None


async def test_junk_on_control_subjects_is_passed_over(cell: Cell) -> None:
    heard: list[str] = []
    await cell.listen_control(lambda address, _: heard.append(address.name))
    subject = cell.subjects.control("t", "request", "junk")
    for data in (b"", b"no json", b"[]", b'{"action":"\xff"}', b"[" * 9999, b"{}"):
        cell.connection.publish(subject, data)
    cell.connection.publish(f"{cell.subjects.prefix}.control.t.other.x", b"{}")
    cell.publish_control("t", "request", "fine", Control("cancel"))

    async def came() -> bool:
        return bool(heard)

    await eventually(came)
    assert heard == ["fine"]
    assert await cell.kept_control("t", "request", "junk") is None


async def test_a_cell_shows_its_prefix(cell: Cell, prefix: str) -> None:
    assert repr(cell) == f"<Cell {prefix} logs=0>"
    assert await cell.missing_streams() == []


async def test_the_canary_is_a_log_that_is_open(
    connection: Connection, bus_settings: BusSettings, prefix: str
) -> None:
    """What is over, or was not begun, says nothing of the stream."""
    cell = Cell(connection, bus_settings, prefix, now=lambda: now)
    now = 100.0
    await cell.ensure([Lane("default", 2.0)], "create")
    await cell.open()
    over, idle = writer_on(cell), writer_on(cell, id="idle", job=numbered_job(2))
    await over.commit(end(1))
    running = writer_on(cell, id="running", job=numbered_job(3))
    later = writer_on(cell, id="later", job=numbered_job(4))
    for writer in (running, later):
        writer.append(token(1))
        await writer.prove_start()
    pinged: list[LogWriter] = []
    for writer in (over, idle, running, later):
        writer.ping = partial(pinged.append, writer)  # type: ignore[method-assign]
    for _ in range(3):
        now += CANARY_EVERY_S + 0.1
        cell.sweep(now)
    assert pinged == [running] * 3
    for writer in (over, idle, running, later):
        writer.close()
