"""What came out: tables for the terminal, and everything as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import beside_python
from benchmarks.targets import TARGETS, Results, Spread, Target, Verdict

#: Other processes with so much of a processor make a figure doubtful.
FOREIGN_CPUS = 0.2
#: So many deltas written late mean that the backend did not get its processor time.
LATE_WRITES = 0.05

_STYLES: dict[Verdict, str] = {
    "aim": "green",
    "must": "yellow",
    "missed": "bold red",
    "at least": "cyan",
    "not measured": "dim",
}


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    server = subprocess.run(
        [beside_python("nats-server"), "--version"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    packages = ("nats-py", "httpx", "uvloop", "msgspec")
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nats-server": server.stdout.strip(),
        "packages": {name: metadata.version(name) for name in packages},
    }


def summary(results: Results) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Median, least and greatest of every figure."""
    table: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for scenario, contenders in results.items():
        for contender, rounds in contenders.items():
            figures = table.setdefault(scenario, {}).setdefault(contender, {})
            for name in {name for figures in rounds for name in figures}:
                spread = Spread.of([r[name] for r in rounds if name in r])
                if spread is not None:
                    figures[name] = vars(spread)
    return table


def _target(target: Target, results: Results) -> dict[str, Any]:
    spread = Spread.of(target.values(results))
    return {
        "title": target.title.strip(),
        "scenario": target.of.scenario,
        "over": target.over and target.over.contender,
        "unit": target.unit,
        "must": target.must,
        "aim": target.aim,
        "value": spread and vars(spread),
        "verdict": target.verdict(results),
    }


def write_json(
    path: Path, results: Results, problems: list[str], options: dict[str, Any]
) -> None:
    """Write every figure of every round, and what follows from them."""
    report = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "options": options,
        "targets": [_target(target, results) for target in TARGETS],
        "summary": summary(results),
        "rounds": results,
        "problems": problems,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, sort_keys=False) + "\n")


def number(value: float) -> str:
    """Three digits or so, as a reader of a table wants them."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _shown(spread: Spread) -> str:
    if spread.low == spread.high:
        return number(spread.median)
    low, high = number(spread.low), number(spread.high)
    return f"{number(spread.median)} [dim]({low}–{high})[/dim]"


def print_figures(console: Console, results: Results) -> None:
    """Every scenario's figures, contenders side by side, median (least–greatest)."""
    for scenario, contenders in results.items():
        table = Table(title=scenario, title_justify="left", title_style="bold")
        table.add_column("figure")
        for contender in contenders:
            table.add_column(contender, justify="right")
        names = dict.fromkeys(n for rs in contenders.values() for r in rs for n in r)
        for name in names:
            cells = []
            for rounds in contenders.values():
                spread = Spread.of([r[name] for r in rounds if name in r])
                cells.append(_shown(spread) if spread else "–")
            table.add_row(name, *cells)
        console.print(table)


def print_targets(console: Console, results: Results) -> None:
    """The bridge against its targets."""
    table = Table(title="targets", title_justify="left", title_style="bold")
    table.add_column("figure")
    for column in ("must", "aim", "measured"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for target in TARGETS:
        sign = "≥" if target.higher_is_better else "≤"
        spread = Spread.of(target.values(results))
        verdict = target.verdict(results)
        table.add_row(
            target.title,
            f"{sign} {number(target.must)} {target.unit}",
            f"{sign} {number(target.aim)} {target.unit}",
            _shown(spread) if spread else "–",
            f"[{_STYLES[verdict]}]{verdict}[/]",
        )
    console.print(table)


def disturbed(results: Results) -> list[str]:
    """The measurements that something else on the machine got in the way of."""
    found = []
    for scenario, contenders in results.items():
        for contender, rounds in contenders.items():
            foreign = max((r.get("foreign_cpus", 0.0) for r in rounds), default=0.0)
            late = max((r.get("late_writes", 0.0) for r in rounds), default=0.0)
            if foreign > FOREIGN_CPUS or late > LATE_WRITES:
                found.append(
                    f"{scenario}/{contender}: up to {foreign:.1f} processors taken"
                    f" by others, {late:.0%} of the deltas written late"
                )
    return found
