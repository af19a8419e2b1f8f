"""Runs of the fuzzer: the request of each seed, served and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from tests.fuzz.retries import retry_of
from tests.fuzz.served import Request, Served, Server
from tests.fuzz.streams import stream_of

#: Of so many requests one is of several calls.
RETRIED = 8

#: In so many steps at most a request is made simpler.
STEPS = 40


class Case(Protocol):
    """A request that knows its right ends."""

    @property
    def request(self) -> Request: ...

    def describe(self) -> str: ...

    def problems(self, served: Served) -> list[str]: ...

    def simpler(self) -> Iterator[Case]: ...


def case_of(seed: int, style: str | None = None) -> Case:
    """The request of a seed, always the same."""
    if seed % RETRIED == RETRIED - 1 and style is None:
        return retry_of(seed)
    return stream_of(seed, style)


@dataclass
class Report:
    """What became of the requests; ``wrong`` has a text for each that went wrong."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.ends.values())

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in self.ends.most_common())
        return f"{self.count} requests: {ends}; {len(self.wrong)} wrong"


def run(
    seeds: Iterable[int],
    style: str | None = None,
    told: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Serve and judge the request of each seed; ``told`` after each."""
    report = Report()
    with Server() as server:
        for seed in seeds:
            case = case_of(seed, style)
            served = server.serve(case.request)
            problems = case.problems(served)
            report.ends[_end(served)] += 1
            if problems:
                report.wrong.append(_simplest(server, case, problems))
            told(report)
    return report


def _end(served: Served) -> str:
    terminal = served.terminal
    if terminal is None:
        return "without an end"
    skipped = " with records skipped" if terminal.skipped_records else ""
    return f"{terminal.type}{skipped}"


def _simplest(server: Server, case: Case, problems: list[str]) -> str:
    """The simplest request found that goes wrong in the same way, in words."""
    for _ in range(STEPS):
        for simpler in case.simpler():
            found = simpler.problems(server.serve(simpler.request))
            if found and _kind(found) == _kind(problems):
                case, problems = simpler, found
                break
        else:
            break
    return "\n  ".join([case.describe(), "wrong:", *problems])


def _kind(problems: list[str]) -> str:
    """What makes two problems the same: the words before what was said."""
    return " ".join(word for word in problems[0].split() if word.isalpha())[:30]
