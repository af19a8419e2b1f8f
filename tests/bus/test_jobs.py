"""Pulls that never ask for too much, deliveries read, messages settled."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.msg import Msg

from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.jobs import (
    PULL_BATCH,
    PULL_GRACE_S,
    Delivery,
    LanePull,
    parse_delivery,
    settle,
)
from bridge.job import Settlement
from tests.plain_client import eventually

REPLIES = {
    "$JS.ACK.S.C.3.17.9.1700000000123456789.5": (3, 17, 1700000000123456789),
    "$JS.ACK.S.C.3.17.9.1700000000123456788.5": (3, 17, 1700000000123456788),
    "$JS.ACK._.acc.S.C.1.2.3.1500000001.0": (1, 2, 1500000001),
    "$JS.ACK.hub.acc.S.C.1.2.3.1500000001.0.token": (1, 2, 1500000001),
}


def message(reply: str) -> Msg:
    return Msg(cast("Any", None), "llm.jobs.t.default", reply, b"data")


@pytest.mark.parametrize(("reply", "numbers"), REPLIES.items())
def test_a_reply_says_which_delivery_it_is(
    reply: str, numbers: tuple[int, int, int]
) -> None:
    delivery = parse_delivery(message(reply), "default")
    assert delivery is not None
    assert (delivery.attempt, *delivery.identity) == numbers
    assert delivery.stored_at == pytest.approx(numbers[2] / 1e9)
    assert delivery.reply == reply
    assert delivery.lane == "default"
    assert delivery.data == b"data"


@pytest.mark.parametrize(
    ("headers", "message_id"),
    [(None, ""), ({}, ""), ({"A": "b"}, ""), ({"Nats-Msg-Id": "t/one"}, "t/one")],
)
def test_a_delivery_has_the_id_of_its_message(
    headers: dict[str, str] | None, message_id: str
) -> None:
    reply = next(iter(REPLIES))
    delivered = Msg(cast("Any", None), "llm.jobs.t.default", reply, b"data", headers)
    delivery = parse_delivery(delivered, "default")
    assert delivery is not None
    assert delivery.message_id == message_id


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "_INBOX.abc",
        "$JS.ACK",
        "$JS.ACK.S.C.x.17.9.1.5",
        "$JS.ACK.S.C.3.17.9",
        "$JS.NAK.S.C.3.17.9.1.5",
        "$JS.ACK.a.b.S.C.1.2.3",
    ],
)
def test_other_replies_are_no_jobs(reply: str) -> None:
    assert parse_delivery(message(reply), "default") is None


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_reply_is_too_odd(reply: str) -> None:
    parse_delivery(message(reply), "x")


# What the open pulls may still bring, against a server of which we know the truth


class Truth:
    """The pulls as a server has them, which serves them in turn or in order."""

    def __init__(self, lane: LanePull, sent: list[tuple[str, int]]) -> None:
        self.lane = lane
        self._sent = sent
        self._known = 0
        self.open: dict[str, int] = {}

    def asked(self) -> None:
        for token, jobs in self._sent[self._known :]:
            self.open[token] = jobs
        self._known = len(self._sent)

    def deliver(self, which: int) -> None:
        token = list(self.open)[which % len(self.open)]
        self.open[token] -= 1
        if not self.open[token]:
            del self.open[token]
        self.lane._received(message("$JS.ACK.S.C.1.2.3.1500000000.0"))

    def expire(self) -> None:
        token = next(iter(self.open))
        left = self.open.pop(token)
        status = Msg(
            cast("Any", None),
            f"inbox.{token}",
            "",
            b"",
            headers={"Status": "408", "Nats-Pending-Messages": str(left)},
        )
        self.lane._received(status)

    @property
    def left(self) -> int:
        return sum(self.open.values())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, PULL_BATCH)),
        st.tuples(st.just("deliver"), st.integers(0, 10)),
        st.tuples(st.just("expire"), st.just(0)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(STEPS)
def test_what_is_asked_for_is_never_believed_to_be_less(
    steps: list[tuple[str, int]],
) -> None:
    sent: list[tuple[str, int]] = []

    def publish(subject: str, payload: bytes, reply: str) -> None:
        sent.append((reply.rpartition(".")[2], json.loads(payload)["batch"]))

    lane = LanePull(
        cast("Connection", SimpleNamespace(publish=publish)),
        "S",
        "default",
        ack_wait_s=2.0,
        on_job=lambda _: None,
        on_change=lambda: None,
        now=lambda: 0.0,
    )
    truth = Truth(lane, sent)
    for step, number in steps:
        if step == "ask":
            lane.ask(number)
            truth.asked()
        elif truth.open:
            if step == "deliver":
                truth.deliver(number)
            else:
                truth.expire()
        assert lane.reserved == truth.left


# On the real server


class Setting:
    """One lane's pull, and what came of it."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.jobs: list[Delivery] = []
        self.changes = 0
        self.clock = time.monotonic
        self.skipped = 0.0
        self.pull = LanePull(
            cell.connection,
            cell.names.jobs,
            "default",
            ack_wait_s=2.0,
            on_job=self.jobs.append,
            on_change=self._changed,
            now=lambda: self.clock() + self.skipped,
        )

    def _changed(self) -> None:
        self.changes += 1

    async def submit(self, count: int) -> None:
        for n in range(count):
            subject = self.cell.subjects.job("t", "default")
            await self.cell.connection.request(subject, b"%d" % n)

    async def until(self, condition: Callable[[], bool]) -> None:
        async def holds() -> bool:
            return condition()

        await eventually(holds)

    async def info(self) -> dict[str, Any]:
        name = f"CONSUMER.INFO.{self.cell.names.jobs}.default"
        info: dict[str, Any] = await self.cell.jetstream.call(name)
        return info


@pytest_asyncio.fixture
async def setting(cell: Cell) -> AsyncIterator[Setting]:
    setting = Setting(cell)
    await setting.pull.open()
    yield setting
    await setting.pull.close()


async def test_no_more_comes_than_was_asked_for(setting: Setting) -> None:
    await setting.submit(10)
    setting.pull.ask(3)
    assert setting.pull.reserved == 3
    await setting.until(lambda: len(setting.jobs) == 3)
    assert setting.pull.reserved == 0
    assert setting.changes == 1
    await setting.cell.connection.flush()
    assert len(setting.jobs) == 3
    assert [job.data for job in setting.jobs] == [b"0", b"1", b"2"]
    assert all(job.attempt == 1 for job in setting.jobs)
    assert (await setting.info())["num_pending"] == 7


async def test_several_pulls_add_up(setting: Setting) -> None:
    for jobs in (2, 3, 1):
        setting.pull.ask(jobs)
    assert setting.pull.reserved == 6
    await setting.submit(4)
    await setting.until(lambda: len(setting.jobs) == 4)
    assert setting.pull.reserved == 2
    await setting.submit(4)
    await setting.until(lambda: len(setting.jobs) == 6)
    assert setting.pull.reserved == 0
    await setting.cell.connection.flush()
    assert len(setting.jobs) == 6


async def test_a_pull_that_expires_is_told(setting: Setting) -> None:
    setting.pull.ask(5)
    await setting.until(lambda: setting.changes == 1)
    assert setting.pull.reserved == 0
    assert setting.pull.empty_handed
    setting.pull.ask(2)
    await setting.submit(1)
    await setting.until(lambda: len(setting.jobs) == 1)
    assert not setting.pull.empty_handed


async def test_a_large_wish_is_granted_in_parts(setting: Setting) -> None:
    setting.pull.ask(1000)
    assert setting.pull.reserved == PULL_BATCH


async def test_a_pull_without_a_word_is_forgotten(setting: Setting) -> None:
    setting.pull.ask(5)
    setting.pull.sweep(setting.clock())
    assert setting.pull.reserved == 5
    setting.pull.sweep(setting.clock() + 1.0 + PULL_GRACE_S + 0.1)
    assert setting.pull.reserved == 0
    assert setting.changes == 1


async def test_after_a_reset_nothing_is_open(setting: Setting) -> None:
    setting.pull.ask(5)
    setting.pull.reset()
    assert setting.pull.reserved == 0


async def test_closing_keeps_what_is_on_its_way(setting: Setting) -> None:
    await setting.submit(5)
    setting.pull.ask(5)
    await setting.pull.close()
    assert setting.pull.reserved == 0
    taken = len(setting.jobs)
    info = await setting.info()
    assert info["num_ack_pending"] == taken
    assert info["num_waiting"] == 0
    await setting.submit(1)
    await setting.cell.connection.flush()
    assert len(setting.jobs) == taken


async def test_a_missing_consumer_is_noticed_and_not_hammered(
    setting: Setting,
) -> None:
    name = f"CONSUMER.DELETE.{setting.cell.names.jobs}.default"
    await setting.cell.jetstream.call(name)
    setting.pull.ask(1)
    await setting.until(lambda: setting.pull.missing)
    assert setting.changes == 0
    assert setting.pull.reserved == 1


@pytest.mark.parametrize("how", list(Settlement))
async def test_settlements(setting: Setting, how: Settlement) -> None:
    await setting.submit(1)
    setting.pull.ask(1)
    await setting.until(lambda: len(setting.jobs) == 1)
    settle(setting.cell.connection, setting.jobs[0], how)
    stays = how in (Settlement.NAK, Settlement.NOTHING)

    async def left() -> int:
        info = await setting.cell.jetstream.call(
            f"STREAM.INFO.{setting.cell.names.jobs}"
        )
        return int(info["state"]["messages"])

    if not stays:

        async def gone() -> bool:
            return await left() == 0

        await eventually(gone)
        return
    if how is Settlement.NAK:
        setting.pull.ask(1)
        await setting.until(lambda: len(setting.jobs) == 2)
        again = setting.jobs[1]
        assert again.attempt == 2
        assert again.stream_seq == setting.jobs[0].stream_seq
    assert await left() == 1


async def test_settling_without_a_connection_is_no_error(
    cell: Cell, caplog: pytest.LogCaptureFixture
) -> None:
    connection = Connection(cell.settings, name="closed")
    delivery = Delivery("s", b"", "$JS.ACK.S.C.1.7.3.15.0", "default", 7, 1, 0)
    settle(connection, delivery, Settlement.ACK)
    assert "job 7 could not be settled" in caplog.text
    await asyncio.sleep(0)
