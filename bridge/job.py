"""A job's life on a worker, as tables: states, transitions, settlement.

::

    DELIVERED ─start─▶ CLAIMED ─proven─▶ RUNNING ─end─▶ ENDING ─proven─▶ ENDED
        │ ▲ │             │                 │              │
        │ └─┼───again─────┴─────────────────┼──again───────┘
        │   └──end (never started)──▶ ENDING └─hand over─▶ HANDING_OVER ─proven─▶
        │                                                              GIVEN_BACK
        ├─hand over─▶ GIVEN_BACK   not begun: nothing was published; from ENDING: the
        │             log has its end, what the job supersedes is not stored yet
        ├─defect─▶ ENDING     also from CLAIMED, RUNNING, ENDING: `failed`, `internal`
        ├─stands─▶ STANDS     what is in the log already ends the job
        ├─bury───▶ BURIED     the job cannot be served, and is kept as a dead letter
        └─leave──▶ LEFT       from everywhere: the job is another worker's

What is published in CLAIMED, ENDING and HANDING_OVER may still be refused by the log;
only a proof leads on. Nothing but the last states settles a message, and the table
says how.
"""

from __future__ import annotations

from enum import Enum

from bridge.events import AnyEvent, Handover, ResumeReason


class State(Enum):
    """Where a delivered job is."""

    DELIVERED = "delivered"
    CLAIMED = "claimed"
    RUNNING = "running"
    ENDING = "ending"
    HANDING_OVER = "handing over"
    ENDED = "ended"
    GIVEN_BACK = "given back"
    STANDS = "stands"
    BURIED = "buried"
    LEFT = "left"


class Step(Enum):
    """What happens to a job."""

    START = "start"
    PROVEN = "proven"
    END = "end"
    HAND_OVER = "hand over"
    LOSE_LOG = "lose log"
    AGAIN = "again"
    STANDS = "stands"
    BURY = "bury"
    DEFECT = "defect"
    LEAVE = "leave"


class Settlement(Enum):
    """What becomes of a job's message; the value is JetStream's word for it."""

    ACK = b"+ACK"
    NAK = b"-NAK"
    TERM = b"+TERM"
    NOTHING = b""


TRANSITIONS: dict[State, dict[Step, State]] = {
    State.DELIVERED: {
        Step.START: State.CLAIMED,
        Step.END: State.ENDING,
        Step.HAND_OVER: State.GIVEN_BACK,
        Step.STANDS: State.STANDS,
        Step.BURY: State.BURIED,
        Step.DEFECT: State.ENDING,
        Step.LEAVE: State.LEFT,
    },
    State.CLAIMED: {
        Step.PROVEN: State.RUNNING,
        Step.AGAIN: State.DELIVERED,
        Step.DEFECT: State.ENDING,
        Step.LEAVE: State.LEFT,
    },
    State.RUNNING: {
        Step.END: State.ENDING,
        Step.HAND_OVER: State.HANDING_OVER,
        Step.LOSE_LOG: State.ENDING,
        Step.DEFECT: State.ENDING,
        Step.LEAVE: State.LEFT,
    },
    State.ENDING: {
        Step.PROVEN: State.ENDED,
        Step.AGAIN: State.DELIVERED,
        Step.HAND_OVER: State.GIVEN_BACK,
        Step.LOSE_LOG: State.ENDING,
        Step.DEFECT: State.ENDING,
        Step.LEAVE: State.LEFT,
    },
    State.HANDING_OVER: {
        Step.PROVEN: State.GIVEN_BACK,
        Step.LOSE_LOG: State.ENDING,
        Step.LEAVE: State.LEFT,
    },
    State.ENDED: {},
    State.GIVEN_BACK: {},
    State.STANDS: {},
    State.BURIED: {},
    State.LEFT: {},
}

#: How a job that came to a last state is settled. A worker that does not own the job
#: any more settles nothing: its ack would be accepted, and the job lost.
SETTLEMENTS: dict[State, Settlement] = {
    State.ENDED: Settlement.ACK,
    State.STANDS: Settlement.ACK,
    State.GIVEN_BACK: Settlement.NAK,
    State.BURIED: Settlement.TERM,
    State.LEFT: Settlement.NOTHING,
}


class IllegalStep(RuntimeError):
    """A step that the table does not know: a defect of the bridge."""


class Progress:
    """The one holder of a job's state."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = State.DELIVERED

    def __repr__(self) -> str:
        return f"<Progress {self._state.value}>"

    @property
    def state(self) -> State:
        """Where the job is."""
        return self._state

    @property
    def over(self) -> bool:
        """Whether a last state is reached."""
        return not TRANSITIONS[self._state]

    @property
    def settlement(self) -> Settlement:
        """How to settle the message; NOTHING while the job is not over."""
        return SETTLEMENTS.get(self._state, Settlement.NOTHING)

    def take(self, step: Step) -> State:
        """Take a step. Raises `IllegalStep`, and changes nothing then."""
        try:
            self._state = TRANSITIONS[self._state][step]
        except KeyError:
            raise IllegalStep(f"{step.value!r} while {self._state.value!r}") from None
        return self._state


class Look(Enum):
    """What the last event of a log says to the worker that was delivered the job."""

    EMPTY = "empty"  # start
    ENDED = "ended"  # acknowledge
    NEWER = "newer"  # an equal or higher attempt wrote it: leave
    OLDER = "older"  # a lower attempt wrote it: a repeat, or a takeover


def look(last: AnyEvent | None, attempt: int) -> Look:
    """Decide by the last event of the log (section 4, "Claim")."""
    if last is None:
        return Look.EMPTY
    if last.terminal:
        return Look.ENDED
    return Look.NEWER if last.attempt >= attempt else Look.OLDER


def deliveries(attempt: int, handovers: int) -> int:
    """How often a job was delivered, handovers not counted."""
    return attempt - handovers


def resume_reason(last: AnyEvent) -> ResumeReason:
    """Why another worker goes on: it was given the job, or it took it."""
    return "handover" if isinstance(last, Handover) else "takeover"
