"""``python -m benchmarks``: run the scenarios, show the figures, judge them."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import uvloop
from rich.console import Console

from benchmarks import report
from benchmarks.contenders import (
    BRIDGE,
    BUILD,
    CONTENDERS,
    DEFAULT,
    Contender,
    Unavailable,
)
from benchmarks.load import Wrong
from benchmarks.processes import ProcessDied, raise_file_limit, wait_for_calm
from benchmarks.rig import NotReady
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.steady import QUICK, Effort, Figures

#: No single measurement takes longer; what does is a hang.
LIMIT_S = 150.0

Rounds = dict[str, dict[str, list[Figures]]]


class Step(NamedTuple):
    """One measurement."""

    round: int
    scenario: Scenario
    contender: Contender


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, short windows")
    parser.add_argument("--rounds", type=int, help="default: 3, with --quick 1")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(SCENARIOS),
        metavar="NAME",
        help=f"a scenario, may be repeated: {', '.join(SCENARIOS)}",
    )
    parser.add_argument(
        "--contender",
        action="append",
        choices=list(CONTENDERS),
        metavar="NAME",
        help=f"a contender, may be repeated: {', '.join(CONTENDERS)}",
    )
    parser.add_argument(
        "--calm",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="before each measurement, wait up to so long for an idle machine",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=BUILD / "results.json",
        metavar="FILE",
        help="where the figures go (default: %(default)s)",
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the sweep (needs matplotlib)"
    )
    parser.add_argument(
        "--from-json",
        type=Path,
        metavar="FILE",
        help="measure nothing: show and plot what an earlier run wrote",
    )
    return parser.parse_args(arguments)


def available(console: Console, names: Sequence[str]) -> list[Contender]:
    """The contenders that can run here; a line for each that cannot."""
    found = []
    for name in names:
        try:
            found.append(CONTENDERS[name]())
        except Unavailable as error:
            console.print(f"[yellow]skipped {name}[/]: {error}")
    return found


async def measure_one(
    scenario: Scenario, contender: Contender, effort: Effort
) -> Figures | str:
    """One scenario's figures, or what went wrong."""
    try:
        async with asyncio.timeout(LIMIT_S):
            return await scenario.run(contender, effort)
    except TimeoutError:
        return f"took more than {LIMIT_S:.0f} s"
    except (Wrong, ProcessDied, NotReady, Unavailable) as error:
        return str(error)


async def measure(
    console: Console, plan: Sequence[Step], effort: Effort, calm_s: float
) -> tuple[Rounds, list[str]]:
    """Take the plan's steps; return the figures, and what went wrong."""
    results: Rounds = {}
    problems = []
    for round, scenario, contender in plan:
        if calm_s:
            await asyncio.to_thread(wait_for_calm, calm_s)
        begun = time.monotonic()
        where = f"{scenario.name}/{contender.name}"
        figures = await measure_one(scenario, contender, effort)
        if isinstance(figures, str):
            problems.append(f"{where}: {figures}")
            console.print(f"[red]failed[/] {problems[-1]}", highlight=False)
            continue
        rounds = results.setdefault(scenario.name, {})
        rounds.setdefault(contender.name, []).append(figures)
        name, value = next(iter(figures.items()))
        console.print(
            f"[dim]round {round}[/] {where}: {name} {report.number(value)}"
            f" [dim]({time.monotonic() - begun:.0f} s)[/]",
            highlight=False,
        )
    return results, problems


def plan(
    scenarios: Sequence[Scenario], contenders: Sequence[Contender], rounds: int
) -> list[Step]:
    """What is measured in which order: the contenders take turns, every round."""
    return [
        Step(round, scenario, contender)
        for round in range(1, rounds + 1)
        for scenario in scenarios
        if round == 1 or not scenario.once
        for contender in contenders
        if scenario.takes(contender)
    ]


async def run(console: Console, options: argparse.Namespace) -> tuple[Rounds, int]:
    """Measure what was asked for, write the JSON file; return the figures."""
    effort = QUICK if options.quick else Effort()
    rounds = options.rounds or (1 if options.quick else 3)
    contenders = available(console, options.contender or DEFAULT)
    scenarios = [SCENARIOS[name] for name in options.only or SCENARIOS]
    # SIGTERM unwinds like Ctrl-C does, so that no process stays behind.
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    steps = plan(scenarios, contenders, rounds)
    results, problems = await measure(console, steps, effort, options.calm)
    names = [contender.name for contender in contenders]
    report.write_json(
        options.json,
        results,
        problems,
        {"rounds": rounds, "quick": options.quick, "contenders": names},
    )
    return results, len(problems)


def show(console: Console, results: Rounds) -> None:
    report.print_figures(console, results)
    if any(BRIDGE in contenders for contenders in results.values()):
        report.print_targets(console, results)
    if disturbed := report.disturbed(results):
        console.print("[yellow]The machine was not quiet, so read with care:[/]")
        for line in disturbed:
            console.print(f"  {line}", highlight=False)


def main() -> int:
    options = parse()
    console = Console()
    problems = 0
    if options.from_json:
        results: Rounds = json.loads(options.from_json.read_text())["rounds"]
    else:
        raise_file_limit()
        try:
            results, problems = uvloop.run(run(console, options))
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.print("interrupted")
            return 130
        console.print(f"written to {options.json}", highlight=False)
    show(console, results)
    if options.plot:
        from benchmarks import plot

        plot.draw(options.plot, results)
        console.print(f"drawn to {options.plot}", highlight=False)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
