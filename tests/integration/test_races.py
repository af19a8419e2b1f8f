"""The races of the log, one by one, on a real server.

Each was met while the design was measured, and each is brought about here on purpose.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from bridge.bus.batch import (
    MAX_REPAIRS,
    Answer,
    Op,
    Verdict,
    batch_id,
    older_batches,
    parse_answer,
)
from bridge.bus.cell import Cell
from bridge.bus.jobs import Delivery
from bridge.bus.refusals import Fenced, LogGone, StartRefused
from bridge.bus.streams import Lane
from bridge.bus.writer import LogWriter, WriterState
from bridge.errors import StreamUnavailable
from bridge.events import (
    Completed,
    Handover,
    Job,
    JobIdentity,
    Resumed,
    Started,
    Timings,
    encode,
)
from bridge.generation.claim import Found, claim, read_history
from bridge.sequence import Numbering
from bridge.simulator import Simulator
from tests.chaos import logs
from tests.chaos.processes import until
from tests.chaos.scene import job, undisturbed
from tests.servers import NatsServer, running_service

ID = "one"
JOB = JobIdentity(7, 1_700_000_000_123_456_789)
OTHER = JobIdentity(8, 1_700_000_000_123_456_790)


@pytest.fixture
async def cell(nats_server: NatsServer, prefix: str) -> AsyncIterator[Cell]:
    """A worker's cell with its streams."""
    async with open_cell(nats_server.url, prefix) as opened:
        yield opened


@pytest.fixture
async def other(
    nats_server: NatsServer, prefix: str, cell: Cell
) -> AsyncIterator[Cell]:
    """Another worker's, on a connection of its own."""
    async with open_cell(nats_server.url, prefix) as opened:
        yield opened


class open_cell:  # noqa: N801 - a context manager
    """A cell that writes logs, and sweeps as a worker does."""

    def __init__(self, nats_url: str, prefix: str) -> None:
        self._connected = logs.connected(nats_url, prefix)

    async def __aenter__(self) -> Cell:
        cell = await self._connected.__aenter__()
        await cell.ensure([Lane("default", 2.0)], "create")
        await cell.open()
        self._sweeping = asyncio.create_task(self._sweep(cell))
        return cell

    async def __aexit__(self, *error: Any) -> None:
        self._sweeping.cancel()
        await self._connected.__aexit__(*error)

    async def _sweep(self, cell: Cell) -> None:
        while True:
            await asyncio.sleep(0.1)
            cell.sweep(cell.now())


class Attempt:
    """One attempt at the log of request `ID`."""

    def __init__(
        self,
        cell: Cell,
        attempt: int = 1,
        stored: int = 0,
        last_seq: int = 0,
        job: JobIdentity = JOB,
        text: str = "x",
        id: str = ID,
    ) -> None:
        self.owned = True
        self.text = text
        self.numbering = Numbering(id, attempt, stored)
        self.writer = LogWriter(
            cell,
            tenant="default",
            id=id,
            job=job,
            attempt=attempt,
            stored=stored,
            stored_speech=0,
            last_seq=last_seq,
            owned=lambda: self.owned,
        )

    def tokens(self, count: int) -> None:
        for _ in range(count):
            self.writer.append(self.numbering.token(self.text))

    def resume(self, after: int) -> None:
        id, seq, attempt = self.numbering.next()
        event = Resumed(
            id, seq, attempt, after=after, mode="continue", reason="takeover"
        )
        self.writer.append(encode(event))

    async def end(self) -> None:
        id, seq, attempt = self.numbering.next()
        event = Completed(
            id,
            seq,
            attempt,
            finish_reason="stop",
            timings=Timings(),
            backend="none",
            metadata={},
        )
        async with asyncio.timeout(20):
            await self.writer.commit(encode(event))

    async def proven(self) -> None:
        async with asyncio.timeout(20):
            await self.writer.prove_start()


def delivery(attempt: int) -> Delivery:
    return Delivery("", b"", "", "default", JOB.stream_seq, attempt, JOB.stored_ns)


async def log_of(cell: Cell, id: str = ID) -> list[logs.Event]:
    return await logs.read(cell, id)


async def takes_over(cell: Cell, attempt: int = 2) -> Attempt:
    """Claim the log for a later attempt, and prove its start."""
    while True:
        found = await claim(cell, "default", delivery(attempt), Job(ID, {}))
        assert found.found is Found.TAKEOVER
        history = found.history
        taken = Attempt(cell, attempt, history.seq, history.last_stream_seq)
        taken.resume(history.seq)
        try:
            await taken.proven()
        except StartRefused:
            taken.writer.close()
        else:
            return taken


# Starting


async def test_a_stale_start_is_refused_and_stores_nothing(
    cell: Cell, other: Cell
) -> None:
    first, second = Attempt(cell), Attempt(other, 2)
    first.tokens(3)
    await first.proven()
    # It had looked at the log before the first event was in it.
    second.tokens(5)
    with pytest.raises(StartRefused, match="10071"):
        await second.proven()
    await first.end()
    assert [event["seq"] for event in await log_of(cell)] == [1, 2, 3, 4]


async def test_the_first_answer_to_a_start_proves_nothing(
    cell: Cell, other: Cell
) -> None:
    answers: list[tuple[Op, Answer]] = []
    first = Attempt(cell)
    first.tokens(1)
    await first.proven()
    name = batch_id(JOB, 2, 0)
    other.batches.listen(name, lambda op, answer: answers.append((op, answer)))
    reply = f"{other.batches.reply_head(name)}1.{Op.START:d}.$FI"
    subject = other.subjects.tokens("default", ID)
    stale = {"Nats-Expected-Last-Subject-Sequence": "0"}
    other.connection.publish(subject, b"{}", reply, stale)
    other.batches.send(Op.PING, name, 1)
    await until(lambda: len(answers) >= 3, "three answers")
    assert [(op, answer.verdict) for op, answer in answers] == [
        (Op.START, Verdict.ALIVE),
        (Op.START, Verdict.REFUSED),
        (Op.PING, Verdict.UNKNOWN),
    ]
    assert len(await log_of(cell)) == 1


async def test_of_many_starts_at_once_one_holds(
    nats_server: NatsServer, prefix: str, cell: Cell
) -> None:
    attempts = [Attempt(cell, number) for number in range(1, 9)]
    for attempt in attempts:
        attempt.tokens(20)
    proofs = await asyncio.gather(
        *(attempt.proven() for attempt in attempts), return_exceptions=True
    )
    winners = [a for a, proof in zip(attempts, proofs, strict=True) if proof is None]
    assert len(winners) == 1
    assert all(isinstance(p, StartRefused) for p in proofs if p is not None)
    await winners[0].end()
    assert [event["seq"] for event in await log_of(cell)] == list(range(1, 22))


async def test_a_repeat_with_the_same_attempt_takes_no_log_for_its_own(
    cell: Cell, other: Cell
) -> None:
    """Another job of the same id is on its first delivery, too."""
    first = Attempt(cell)
    first.tokens(3)
    await first.proven()
    repeat = Attempt(other, job=OTHER, text="y")
    repeat.tokens(1)
    # As if the refusal had come behind the ping's answer, or with the old connection.
    repeat.writer.attach()
    with pytest.raises(StartRefused):
        await repeat.proven()
    await first.end()
    assert [event["seq"] for event in await log_of(cell)] == [1, 2, 3, 4]


async def test_a_start_whose_proof_was_lost_is_known_again(cell: Cell) -> None:
    attempt = Attempt(cell)
    attempt.tokens(1)
    attempt.writer.attach()
    await attempt.proven()
    attempt.tokens(3)
    await attempt.end()
    assert [event["seq"] for event in await log_of(cell)] == [1, 2, 3, 4, 5]


# Fencing


async def test_two_open_batches_interleave_until_the_older_is_closed(
    cell: Cell, other: Cell
) -> None:
    stale = Attempt(cell)
    stale.tokens(3)
    await stale.proven()
    taken = await takes_over(other)
    # The stale worker knows of nothing and goes on.
    stale.tokens(10)
    taken.tokens(2)
    await taken.end()
    with pytest.raises(Fenced, match="attempt 2"):
        await stale.end()
    events = await log_of(cell)
    assert logs.faults_of_log(events) == []
    assert [event["attempt"] for event in events] == [1, 1, 1, 2, 2, 2, 2]


async def test_what_the_log_refuses_is_only_seen_live(cell: Cell, other: Cell) -> None:
    seen: list[int] = []

    def received(message: Msg) -> None:
        seen.append(json.loads(message.data)["seq"])

    stale = Attempt(cell)
    stale.tokens(2)
    await stale.proven()
    taken = await takes_over(other)
    subject = other.subjects.tokens("default", ID)
    await other.connection.subscribe(subject, received)
    await other.connection.flush()
    stale.tokens(4)
    await until(lambda: len(seen) >= 4, "four events live")
    assert seen == [3, 4, 5, 6]
    await taken.end()
    assert [event["attempt"] for event in await log_of(cell)] == [1, 1, 2, 2]


async def test_a_stale_repair_starts_nothing_on_a_log_that_moved(
    cell: Cell, other: Cell
) -> None:
    stale = Attempt(cell)
    stale.tokens(3)
    await stale.proven()
    # Its batch breaks, and while it finds out another worker takes over: the name of
    # its next batch is none that could have been closed.
    await other.batches.close([batch_id(JOB, 1, 0)])
    taken = await takes_over(other)
    taken.tokens(1)
    with pytest.raises(Fenced):
        await stale.end()
    assert stale.writer.repairs <= 1
    await taken.end()
    assert logs.faults_of_log(await log_of(cell)) == []


async def test_a_start_between_closing_and_reading_is_found_by_the_reading(
    cell: Cell, other: Cell
) -> None:
    """A stale worker opens its next batch right after its older ones were closed."""
    stale = Attempt(cell)
    stale.tokens(3)
    await stale.proven()
    await other.batches.close(older_batches([JOB], 2))
    history = await read_history(other, "default", ID)
    stale.tokens(1)
    await until(lambda: stale.writer.repairs == 1, "the repair")
    await until(lambda: stale.writer.state is WriterState.OPEN, "its proof")
    late = Attempt(other, 2, history.seq, history.last_stream_seq)
    late.resume(history.seq)
    with pytest.raises(StartRefused):
        await late.proven()
    taken = await takes_over(other)
    stale.tokens(1)
    await taken.end()
    events = await log_of(cell)
    assert logs.faults_of_log(events) == []
    assert [event["attempt"] for event in events] == [1, 1, 1, 1, 2, 2]


async def test_an_owner_that_repairs_behind_the_closing_is_closed_again(
    cell: Cell, other: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two owners live: a server that was killed forgot that the lease was renewed.

    The older one opens its next batch behind the closing and before the reading: a
    start on what was read then holds, and so would the older one's batch.
    """
    stale = Attempt(cell)
    stale.tokens(3)
    await stale.proven()
    close, rounds = other.batches.close, 0

    async def closes(batches: list[str]) -> None:
        nonlocal rounds
        rounds += 1
        await close(batches)
        if rounds <= 3:
            stale.tokens(1)
            await until(lambda: stale.writer.repairs == rounds, "a repair")
            await until(lambda: stale.writer.state is WriterState.OPEN, "its proof")

    monkeypatch.setattr(other.batches, "close", closes)
    taken = await takes_over(other)
    monkeypatch.undo()
    assert rounds == 4
    for _ in range(5):
        stale.tokens(1)
        taken.tokens(1)
    await taken.end()
    with pytest.raises(Fenced):
        await stale.end()
    events = await log_of(cell)
    assert logs.faults_of_log(events) == []
    assert [event["attempt"] for event in events] == [1] * 6 + [2] * 7


async def test_an_owner_learns_of_its_successor_though_it_has_nothing_to_say(
    cell: Cell, other: Cell
) -> None:
    """After a reconnect, for then a job may have been delivered again."""
    stale, quiet = Attempt(cell), Attempt(cell, job=OTHER, id="two")
    for attempt in (stale, quiet):
        attempt.tokens(3)
        await attempt.proven()
    for listener in cell.connection.on_reconnected:
        listener()
    await until(lambda: stale.writer.repairs == 1, "the repair")
    await until(lambda: stale.writer.state is not WriterState.REPAIRING, "its end")
    stale.tokens(1)
    taken = await takes_over(other)
    await until(lambda: stale.writer.state is WriterState.FAILED, "the fence", 5)
    quiet.tokens(1)
    await quiet.end()
    await taken.end()
    assert logs.faults_of_log(await log_of(cell)) == []
    assert logs.holes(await log_of(cell, "two")) == 0


async def test_a_newer_attempt_that_comes_in_between_is_left_alone(
    cell: Cell, other: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Attempt(cell)
    first.tokens(3)
    await first.proven()
    close = other.batches.close
    newer: list[Attempt] = []

    async def closes(batches: list[str]) -> None:
        await close(batches)
        newer.append(await takes_over(cell, 3))

    monkeypatch.setattr(other.batches, "close", closes)
    found = await claim(other, "default", delivery(2), Job(ID, {}))
    assert found.found is Found.NEWER
    await newer[0].end()
    assert logs.faults_of_log(await log_of(cell)) == []


async def test_an_equal_or_higher_attempt_is_left_alone(cell: Cell) -> None:
    taken = Attempt(cell, 3)
    taken.tokens(1)
    await taken.proven()
    for attempt in (1, 2, 3):
        found = await claim(cell, "default", delivery(attempt), Job(ID, {}))
        assert found.found is Found.NEWER
    # Nothing of it was closed on the way.
    taken.tokens(1)
    await taken.end()
    assert taken.writer.repairs == 0


async def test_a_writer_without_its_lease_repairs_nothing(
    cell: Cell, other: Cell
) -> None:
    attempt = Attempt(cell)
    attempt.tokens(3)
    await attempt.proven()
    attempt.owned = False
    await other.batches.close([batch_id(JOB, 1, 0)])
    with pytest.raises(Fenced, match="lease"):
        await attempt.end()
    assert [event["seq"] for event in await log_of(cell)] == [1, 2, 3]


# Closing and asking


async def test_closing_unknown_batches_is_answered_and_harmless(cell: Cell) -> None:
    attempt = Attempt(cell, 4)
    attempt.tokens(2)
    await attempt.proven()
    await cell.batches.close(older_batches([JOB, OTHER], 4))
    await cell.batches.close(older_batches([JOB, OTHER], 4))
    await attempt.end()
    assert attempt.writer.repairs == 0


async def test_pings_and_closings_are_neither_stored_nor_seen(
    cell: Cell, other: Cell
) -> None:
    seen: list[bytes] = []

    def received(message: Msg) -> None:
        seen.append(message.data)

    pattern = f"{cell.subjects.prefix}.tokens.default.*"
    await other.connection.subscribe(pattern, received)
    await other.connection.flush()
    attempt = Attempt(cell)
    attempt.tokens(2)
    await attempt.proven()
    for _ in range(5):
        attempt.writer.ping()
    await cell.batches.close([batch_id(JOB, 1, 7)])
    await attempt.end()
    await until(lambda: len(seen) >= 3, "three events live")
    assert all(seen)
    info = await cell.jetstream.call(f"STREAM.INFO.{cell.names.tokens}")
    assert info["state"]["messages"] == len(seen) == 3


def test_an_empty_answer_is_no_stream_or_no_leader() -> None:
    assert parse_answer(b"").verdict is Verdict.UNAVAILABLE
    assert parse_answer(b"{").verdict is Verdict.BROKEN


# Repairing


async def test_a_broken_batch_is_repaired_before_the_end(
    cell: Cell, other: Cell
) -> None:
    attempt = Attempt(cell)
    attempt.tokens(10)
    await attempt.proven()
    await other.batches.close([batch_id(JOB, 1, 0)])
    attempt.tokens(10)
    # The canary's ping tells, though nothing is waiting for an answer.
    await until(lambda: attempt.writer.repairs == 1, "a repair in the middle")
    attempt.tokens(10)
    await attempt.end()
    events = await log_of(cell)
    assert [event["seq"] for event in events] == list(range(1, 32))


async def test_an_answer_to_the_commit_that_is_lost_repeats_nothing(
    cell: Cell,
) -> None:
    attempt = Attempt(cell)
    attempt.tokens(5)
    await attempt.proven()
    ending = asyncio.create_task(attempt.end())
    await asyncio.sleep(0)
    # As if the connection had come back right behind the commit.
    attempt.writer.attach()
    await ending
    assert [event["seq"] for event in await log_of(cell)] == list(range(1, 7))


async def test_an_event_lost_on_the_way_is_sent_again_in_order(cell: Cell) -> None:
    attempt = Attempt(cell)
    attempt.tokens(5)
    await attempt.proven()
    attempt.writer.detach()
    attempt.tokens(5)  # kept, not sent
    attempt.writer.attach()
    attempt.tokens(5)
    await attempt.end()
    assert [event["seq"] for event in await log_of(cell)] == list(range(1, 17))


async def test_a_repair_may_begin_with_speech(cell: Cell, other: Cell) -> None:
    attempt = Attempt(cell)
    attempt.tokens(3)
    await attempt.proven()
    attempt.writer.detach()
    attempt.writer.append_speech(
        b'{"type":"segment","id":"one","seq":1,"attempt":1,"text":"x"}'
    )
    attempt.tokens(1)
    attempt.writer.attach()
    await attempt.end()
    assert [event["seq"] for event in await log_of(cell)] == list(range(1, 6))
    spoken = [m async for m in cell.read_speech("default", ID)]
    assert len(spoken) == 1
    assert attempt.writer.repairs == 1


async def test_repairs_are_bounded_so_that_a_successor_can_name_them(
    cell: Cell, other: Cell
) -> None:
    attempt = Attempt(cell)
    attempt.tokens(1)
    await attempt.proven()
    for repair in range(MAX_REPAIRS):
        await other.batches.close([batch_id(JOB, 1, repair)])
        attempt.tokens(1)
        attempt.writer.ping()
        await until(lambda: attempt.writer.repairs > repair, "a repair")  # noqa: B023
        await until(lambda: attempt.writer.state is WriterState.OPEN, "its proof")
    await other.batches.close([batch_id(JOB, 1, MAX_REPAIRS)])
    with pytest.raises(Fenced, match="more than 7 times"):
        await attempt.end()
    taken = await takes_over(other)
    await taken.end()
    assert logs.faults_of_log(await log_of(cell)) == []


async def test_proven_events_that_vanish_are_a_takeover_not_a_hole(
    cell: Cell, other: Cell
) -> None:
    attempt = Attempt(cell)
    attempt.tokens(200)
    await attempt.proven()
    await until(lambda: "unproven=8" in repr(attempt.writer), "most are proven")
    # What a server that lost its last seconds does, for one request.
    last = await cell.last_stored("default", ID)
    assert last is not None
    for back in range(20):
        await cell.jetstream.call(
            f"STREAM.MSG.DELETE.{cell.names.tokens}", {"seq": last.seq - back}
        )
    await other.batches.close([batch_id(JOB, 1, 0)])
    attempt.tokens(1)
    with pytest.raises(Fenced, match="lost"):
        await attempt.end()
    taken = await takes_over(other)
    taken.tokens(3)
    await taken.end()
    events = await log_of(cell)
    assert logs.faults_of_log(events) == []
    assert events[180]["after"] == 180


async def test_a_log_whose_stream_is_gone_fails_at_once(cell: Cell) -> None:
    attempt = Attempt(cell)
    attempt.tokens(100)
    await attempt.proven()
    await cell.jetstream.call(f"STREAM.DELETE.{cell.names.tokens}")
    with pytest.raises(LogGone):
        async with asyncio.timeout(5):
            await attempt.end()
    with pytest.raises(StreamUnavailable):
        async with asyncio.timeout(1):
            await cell.batches.close(["1-1-0"])


async def test_a_log_that_was_made_anew_is_gone_too(cell: Cell) -> None:
    attempt = Attempt(cell)
    attempt.tokens(100)
    await attempt.proven()
    await cell.jetstream.call(f"STREAM.DELETE.{cell.names.tokens}")
    await cell.ensure([Lane("default", 2.0)], "create")
    with pytest.raises(LogGone):
        await attempt.end()


# Claiming and reading


async def test_history_reaches_the_leaders_last_event(cell: Cell) -> None:
    attempt = Attempt(cell)
    for burst in range(1, 11):
        attempt.tokens(300)
        history = await read_history(cell, "default", ID)
        last = await cell.last_event("default", ID)
        assert last is not None
        assert history.seq <= last.seq <= burst * 300
    await attempt.end()
    history = await read_history(cell, "default", ID)
    assert history.seq == 3001
    assert len(history.text) == 3000


async def test_a_handover_is_gone_on_with_by_the_next(cell: Cell, other: Cell) -> None:
    attempt = Attempt(cell)
    attempt.tokens(3)
    await attempt.proven()
    await attempt.writer.commit(encode(Handover(*attempt.numbering.next())))
    found = await claim(other, "default", delivery(2), Job(ID, {}))
    assert found.found is Found.TAKEOVER
    assert found.history.handovers == 1
    taken = await takes_over(other)
    await taken.end()
    assert logs.faults_of_log(await log_of(cell)) == []


async def test_a_job_is_not_taken_for_one_of_a_stream_that_was_made_again(
    cell: Cell,
) -> None:
    first, second = job(), job()
    stream = cell.names.jobs
    seq = await logs.submit(cell, first)
    stored = await cell.jetstream.message(stream, seq)
    assert stored is not None
    delivered = Delivery(
        stored.subject, stored.data, "", "default", seq, 1, stored.stored_ns
    )
    assert await cell.job_is_stored(delivered.identity)
    await cell.jetstream.call(f"STREAM.DELETE.{stream}")
    await cell.ensure([Lane("default", 2.0)], "create")
    assert not await cell.job_is_stored(delivered.identity)
    # It counts from 1 again: an acknowledgement would remove another job.
    assert await logs.submit(cell, second) == seq
    assert not await cell.job_is_stored(delivered.identity)


async def begun_for(cell: Cell, original: JobIdentity) -> Attempt:
    """A log that was begun for a job, and goes on."""
    attempt = Attempt(cell, job=original)
    id, seq, number = attempt.numbering.next()
    started = Started(
        id, seq, number, v=1, model="m", created=0, queue_ms=0, metadata={},
        job=original.stream_seq, job_time=str(original.stored_ns),
    )  # fmt: skip
    attempt.writer.append(encode(started))
    await attempt.proven()
    return attempt


async def stored_job(cell: Cell) -> JobIdentity:
    seq = await logs.submit(cell, job())
    stored = await cell.jetstream.message(cell.names.jobs, seq)
    assert stored is not None
    return JobIdentity(seq, stored.stored_ns)


@pytest.mark.parametrize("off_ns", [0, 1, -1, 999, -60 * 10**9])
async def test_a_repeat_is_told_from_another_lifes_job_by_its_time(
    cell: Cell, other: Cell, off_ns: int
) -> None:
    """The original's place in the stream may be another job's by now."""
    stored = await stored_job(cell)
    original = stored._replace(stored_ns=stored.stored_ns + off_ns)
    first = await begun_for(cell, original)
    repeat = Delivery("", b"", "", "default", stored.stream_seq + 1, 2, 5)
    found = await claim(other, "default", repeat, Job(ID, {}))
    assert found.found is (Found.STANDS if off_ns == 0 else Found.TAKEOVER)
    # What was taken over is closed by its name.
    first.tokens(1)
    first.writer.ping()
    repairs = 0 if off_ns == 0 else 1
    await until(lambda: first.writer.repairs == repairs, "the log is repaired")


async def test_the_same_sequence_at_another_time_is_no_redelivery(
    cell: Cell, other: Cell
) -> None:
    """It may not go on as its own: the original is still there to end."""
    stored = await stored_job(cell)
    await begun_for(cell, stored)
    later = Delivery("", b"", "", "default", stored.stream_seq, 2, stored.stored_ns + 1)
    found = await claim(other, "default", later, Job(ID, {}))
    assert found.found is Found.STANDS
    same = later._replace(stored_ns=stored.stored_ns)
    found = await claim(other, "default", same, Job(ID, {}))
    assert found.found is Found.TAKEOVER


async def test_jobs_submitted_twice_are_served_once(
    nats_server: NatsServer, prefix: str
) -> None:
    wanted = [job(20, 200) for _ in range(60)]
    async with (
        Simulator() as simulator,
        running_service(nats_server.url, simulator.url, prefix=prefix),
        running_service(nats_server.url, simulator.url, prefix=prefix),
        logs.connected(nats_server.url, prefix) as reader,
    ):
        subject = reader.subjects.job("default", "default")
        for number, one in enumerate(wanted):
            data = json.dumps(one).encode()
            for _ in range(1 + (number % 3 == 0)):
                # Without Nats-Msg-Id the stream keeps both.
                reader.connection.publish(subject, data)
        for one in wanted:
            events = await logs.ended(reader, one["id"])
            assert logs.faults_of_log(events) == []
            assert events[-1]["text"] == undisturbed(one)
        stream = reader.names.jobs

        async def queued() -> int:
            info = await reader.jetstream.call(f"STREAM.INFO.{stream}")
            return int(info["state"]["messages"])

        async with asyncio.timeout(20):
            while await queued():
                await asyncio.sleep(0.05)
        for one in wanted:
            assert logs.faults_of_log(await logs.read(reader, one["id"])) == []
        assert len(simulator.requests) == len(wanted)


async def test_more_batches_than_the_server_allows_only_wait(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, batches=3)
    server.start()
    wanted = [job(20, 100) for _ in range(10)]
    try:
        async with (
            Simulator() as simulator,
            running_service(server.url, simulator.url, prefix="llm"),
            logs.connected(server.url, "llm") as reader,
        ):
            for one in wanted:
                await logs.submit(reader, one)
            for one in wanted:
                events = await logs.ended(reader, one["id"])
                assert logs.faults_of_log(events) == []
                assert events[-1]["text"] == undisturbed(one)
                assert events[-1]["attempt"] == 1
    finally:
        server.kill()
