"""The requests of a chaos run: each with a story of its own, all from one seed."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from bridge.simulator import text_for
from tests.chaos.logs import Event

TOOL = {"type": "function", "function": {"name": "look_up"}}


class Order(NamedTuple):
    """One request: its job, when it is submitted, and what may become of it.

    ``at_s`` counts from the start of the run, ``cancel_s`` from the submission.
    ``doubled``: submitted twice without an id that JetStream could know it by.
    """

    kind: str
    job: Event
    at_s: float
    ends: frozenset[str]
    cancel_s: float | None = None
    doubled: bool = False

    @property
    def id(self) -> str:
        return str(self.job["id"])

    @property
    def text(self) -> str:
        """The text that it has where nothing disturbs it."""
        return text_for(self.job["request"])


COMPLETED = frozenset({"completed"})

#: How often each kind comes, in a hundred.
SHARES = {
    "plain": 42,
    "spoken": 8,
    "reset once": 10,
    "reset twice": 5,
    "refused first": 5,
    "schema": 10,
    "reasoning": 5,
    "tool call": 4,
    "must not restart": 3,
    "cancelled": 4,
    "submitted twice": 4,
}


def orders(count: int, seconds: float, chance: random.Random) -> list[Order]:
    """So many requests, spread over so many seconds, in the order of their time."""
    kinds = chance.choices(list(SHARES), list(SHARES.values()), k=count)
    # Every kind is there, however few there are.
    kinds[: len(SHARES)] = list(SHARES)[:count]
    times = sorted(chance.uniform(0, seconds) for _ in range(count))
    chance.shuffle(kinds)
    return [
        _order(kind, number, at_s, chance)
        for number, (kind, at_s) in enumerate(zip(kinds, times, strict=True))
    ]


def _order(kind: str, number: int, at_s: float, chance: random.Random) -> Order:
    tokens = chance.randint(30, 300)
    simulate: dict[str, Any] = {
        "tokens": tokens,
        "tokens_per_second": chance.choice([20, 40, 60, 100]),
        "first_token_ms": chance.choice([0, 50, 200]),
        **_faults(kind, tokens, chance),
    }
    request: dict[str, Any] = {
        "model": "simulator",
        "messages": [{"role": "user", "content": f"chaos {number}"}],
        "simulate": simulate,
    }
    job: Event = {"id": f"chaos-{number}", "request": request}
    if kind in ("schema", "must not restart"):
        request["response_format"] = {"type": "json_object"}
    if kind == "tool call":
        request["tools"] = [TOOL]
    if kind == "spoken":
        job["speech"] = True
    ends = COMPLETED
    if kind == "must not restart":
        job["on_restart"] = "fail"
        ends = ends | {"failed"}
    cancel_s = chance.uniform(0, 3) if kind == "cancelled" else None
    if cancel_s is not None:
        ends = ends | {"cancelled"}
    return Order(kind, job, at_s, ends, cancel_s, kind == "submitted twice")


def _faults(kind: str, tokens: int, chance: random.Random) -> dict[str, Any]:
    if kind.startswith("reset"):
        times = 1 if kind == "reset once" else 2
        return {"reset_after": chance.randint(0, tokens // 3), "times": times}
    if kind == "refused first":
        return {"refuse": True, "fail_times": 1}
    if kind == "reasoning":
        return {"reasoning": chance.randint(10, 60)}
    return {"tool_call": True} if kind == "tool call" else {}
