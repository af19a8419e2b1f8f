"""The ends of a job: nothing goes out without a lease, and what an end waits for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bridge.backends.http import Backends
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.bus.jobs import Delivery
from bridge.bus.leases import Lease
from bridge.bus.refusals import Fenced, LogGone
from bridge.config import Settings
from bridge.errors import BackendTimeout, ConnectionLost
from bridge.events import Job, Terminal, Timings
from bridge.generation import ending as ending_module
from bridge.generation.account import Account
from bridge.generation.case import Case
from bridge.generation.claim import Claim, Found
from bridge.generation.dead import DeadLetters
from bridge.generation.ending import Ending
from bridge.generation.interrupt import Interrupt, Interruption, Kind
from bridge.generation.ownership import Ownership
from bridge.generation.record import Record, Writing
from bridge.generation.serving import Serving
from bridge.generation.superseding import Superseding
from bridge.generation.surroundings import Surroundings
from bridge.generation.voice import Spoken
from bridge.history import History
from bridge.job import Progress, State, Step
from bridge.metrics import Meters
from bridge.speech.options import SpeechOptions

ACK_WAIT_S = 10.0


class Scene:
    """A running job on a cell that is connected to nothing; its clock stands."""

    def __init__(self, *steps: Step) -> None:
        settings = Settings()
        self.now = 0.0
        self.cell = Cell(Connection(settings, name="test"), settings, "llm")
        self.delivery = Delivery("llm.jobs.t.d", b"{}", "", "default", 7, 1, 0)
        around = Surroundings(
            cell=self.cell,
            backends=Backends([], []),
            settings=settings,
            meters=Meters(),
            now=lambda: self.now,
            crowded=lambda: None,
            gone=self.gone,
        )
        lease = Lease(self.now, ACK_WAIT_S)
        ownership = Ownership(around, "t/one", lease, Interruption())
        self.progress = Progress()
        for step in steps or (Step.START, Step.PROVEN):
            self.progress.take(step)
        self.job = Job("one", {"model": "m"}, session="call", supersede=True)
        self.superseding = FakeSuperseding()
        self.case = Case(
            around=around,
            tenant="t",
            delivery=self.delivery,
            job=self.job,
            progress=self.progress,
            ownership=ownership,
            account=Account("t", 0, 0, around.meters, around.now),
            letters=DeadLetters(
                self.cell,
                "t",
                self.delivery,
                around.meters,
                check_lease=ownership.check,
                gone=self.gone,
            ),
            superseding=self.superseding,
        )
        self.ending = Ending(self.case)
        history = History()
        self.record = Record(
            Writing(
                cell=self.cell,
                tenant="t",
                id="one",
                delivery=self.delivery,
                metadata={},
                max_text_bytes=1000,
                now=around.now,
                owned=ownership.holds,
            ),
            history,
            Spoken(),
            SpeechOptions(),
        )

    async def gone(self) -> None:
        """Nothing to make again."""

    def lose_lease(self) -> None:
        self.now += ACK_WAIT_S + 1

    @property
    def published(self) -> list[tuple[str, str]]:
        """What the attempt has published so far: subject and type."""
        return [
            (subject.split(".")[1], json.loads(payload)["type"])
            for subject, payload in self.record.writer.tail.unproven
        ]


class FakeSuperseding(Superseding):
    """Stored, or not, as the test says."""

    def __init__(self) -> None:
        self.answer: bool = True
        self.asked = False

    async def stored(self) -> bool:
        self.asked = True
        return self.answer


def completed(scene: Scene) -> Terminal:
    return scene.record.completed(
        finish_reason="stop", usage={}, backend="b", timings=Timings()
    )


ENDS: dict[str, Callable[[Scene], Awaitable[None]]] = {
    "completed": lambda s: s.ending.end(s.record, completed(s)),
    "failed": lambda s: s.ending.fail(s.record, BackendTimeout("late")),
    "cancelled": lambda s: s.ending.stop(s.record, Interrupt(Kind.CANCELLED, "enough")),
    "deadline": lambda s: s.ending.stop(s.record, Interrupt(Kind.DEADLINE, "")),
    "drained": lambda s: s.ending.stop(s.record, Interrupt(Kind.DRAIN, "")),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_without_a_lease_nothing_goes_out(
    end: Callable[[Scene], Awaitable[None]],
) -> None:
    scene = Scene()
    scene.lose_lease()
    with pytest.raises(Fenced):
        await end(scene)
    assert scene.published == []
    assert scene.progress.state is State.RUNNING


async def test_without_a_lease_a_lost_log_is_no_business_of_ours() -> None:
    scene = Scene()
    scene.lose_lease()
    with pytest.raises(Fenced):
        await scene.ending.stop(scene.record, Interrupt(Kind.LOG_GONE, "gone"))
    assert scene.published == []


async def test_without_a_lease_nothing_is_begun() -> None:
    scene = Scene(Step.START, Step.AGAIN)
    serving = Serving(scene.case, scene.ending, lambda stop: None)
    scene.lose_lease()
    claim = Claim(Found.FRESH, History())
    with pytest.raises(Fenced):
        await serving.run(scene.job, claim, scene.record, float("inf"))
    assert scene.published == []
    assert scene.progress.state is State.DELIVERED


async def test_a_lease_that_ends_while_the_log_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()

    async def begin_anew(event: Terminal) -> None:
        scene.lose_lease()

    monkeypatch.setattr(scene.record, "begin_anew", begin_anew)
    with pytest.raises(Fenced):
        await scene.ending.stop(scene.record, Interrupt(Kind.LOG_GONE, "gone"))
    assert scene.published == []


WORDS = {
    "completed": [("speech", "end"), ("tokens", "completed")],
    "failed": [("speech", "failed"), ("tokens", "failed")],
    "cancelled": [("speech", "cancelled"), ("tokens", "cancelled")],
    "deadline": [("speech", "failed"), ("tokens", "failed")],
    "drained": [("tokens", "handover")],
}


@pytest.mark.parametrize("name", ENDS)
async def test_with_a_lease_speech_ends_before_the_text_once(name: str) -> None:
    scene = Scene()
    ending = asyncio.ensure_future(ENDS[name](scene))
    await asyncio.sleep(0)
    assert scene.published == WORDS[name]
    ending.cancel()
    await asyncio.wait([ending])


async def test_an_event_that_is_only_built_says_nothing() -> None:
    scene = Scene()
    completed(scene)
    scene.record.failed(
        BackendTimeout("x"), usage=None, backend=None, timings=Timings()
    )
    assert scene.published == []


# What an end waits for


async def committed(*_: Any) -> None:
    """As if the log had it."""


@pytest.mark.parametrize(
    ("stored", "lost", "state"),
    [
        (True, False, State.ENDED),
        (True, True, State.ENDED),
        (False, False, State.GIVEN_BACK),
        (False, True, State.ENDING),
    ],
)
async def test_an_end_is_settled_once_what_it_supersedes_is_stored(
    monkeypatch: pytest.MonkeyPatch, stored: bool, lost: bool, state: State
) -> None:
    scene = Scene()

    async def commit(event: Terminal) -> None:
        if lost:
            scene.lose_lease()

    monkeypatch.setattr(scene.record, "commit", commit)
    scene.superseding.answer = stored
    if state is State.ENDING:
        with pytest.raises(Fenced):
            await scene.ending.end(scene.record, completed(scene))
    else:
        await scene.ending.end(scene.record, completed(scene))
    assert scene.progress.state is state
    assert scene.superseding.asked


async def test_a_lone_event_whose_log_vanished_lost_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(Step.START, Step.AGAIN)

    async def commit(event: Terminal) -> None:
        raise LogGone("no stream")

    monkeypatch.setattr(scene.record, "commit", commit)
    with pytest.raises(LogGone):
        await scene.ending.fail(scene.record, BackendTimeout("late"))
    assert scene.progress.state is State.ENDING
    scene.progress.take(Step.AGAIN)  # to be claimed again


# Orphans


ORPHANS = {
    "running": [Step.START, Step.PROVEN],
    "ending": [Step.START, Step.PROVEN, Step.END],
    "handing over": [Step.START, Step.PROVEN, Step.HAND_OVER],
}


@pytest.mark.parametrize("steps", ORPHANS.values(), ids=ORPHANS.keys())
async def test_an_orphan_is_ended_wherever_its_request_stood(
    monkeypatch: pytest.MonkeyPatch, steps: list[Step]
) -> None:
    """A drain during a wipe, too: nobody else can end it."""
    scene = Scene(*steps)
    tries: list[Terminal] = []

    async def orphaned(*_: Any) -> bool:
        return True

    async def begin_anew(event: Terminal) -> None:
        tries.append(event)
        if len(tries) == 1:
            raise ConnectionLost("no leader yet")

    monkeypatch.setattr(ending_module, "is_orphaned", orphaned)
    monkeypatch.setattr(scene.record, "begin_anew", begin_anew)
    monkeypatch.setattr(scene.record, "commit", committed)
    scene.lose_lease()
    assert await scene.ending.end_orphan(scene.record, "one")
    assert len(tries) == 2
    assert tries[0].type == "failed"


@pytest.mark.parametrize("steps", [[], [Step.START]])
async def test_what_was_not_begun_is_no_orphan(steps: list[Step]) -> None:
    scene = Scene()
    scene.progress = Progress()
    case = scene.case._replace(progress=Progress())
    for step in steps:
        case.progress.take(step)
    assert not await Ending(case).end_orphan(scene.record, "one")


# Held until the start is proven


CANCEL = Interrupt(Kind.CANCELLED, "first")
CANCEL_2 = Interrupt(Kind.CANCELLED, "second")
DEADLINE = Interrupt(Kind.DEADLINE, "deadline")
DRAIN = Interrupt(Kind.DRAIN, "drain")
GONE = Interrupt(Kind.LOG_GONE, "gone")


@pytest.mark.parametrize(
    ("stops", "held"),
    [
        ([], None),
        ([CANCEL], CANCEL),
        ([CANCEL, CANCEL_2], CANCEL),
        ([DRAIN], DRAIN),
        ([DRAIN, CANCEL], CANCEL),
        ([CANCEL, DRAIN], CANCEL),
        ([DRAIN, DEADLINE], DEADLINE),
        ([DEADLINE, CANCEL], DEADLINE),
        ([GONE], None),
        ([GONE, DRAIN, GONE], DRAIN),
        ([GONE, CANCEL], CANCEL),
        ([CANCEL, GONE], CANCEL),
    ],
)
def test_what_waits_for_the_proof_of_a_start(
    stops: list[Interrupt], held: Interrupt | None
) -> None:
    scene = Scene()
    serving = Serving(scene.case, scene.ending, lambda stop: None)
    for stop in stops:
        serving.hold(stop)
    assert serving.held == held
