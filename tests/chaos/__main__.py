"""``python -m tests.chaos``: requests on bridges that are killed, frozen, drained.

Prints a table, and exits with 1 on anything lost, repeated, missing or different.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Plan, run
from tests.chaos.verdict import Verdict

#: What goes wrong is told in so many lines; the rest is in the folder.
LINES = 40


def plan_of(arguments: list[str]) -> Plan:
    """The plan that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--requests", type=int, default=300, metavar="N")
    parser.add_argument("--seconds", type=float, default=90, metavar="S")
    parser.add_argument("--seed", type=int, default=None, metavar="K")
    parser.add_argument(
        "--cluster", action="store_true", help="three NATS servers, streams R3"
    )
    parser.add_argument(
        "--short", action="store_true", help="60 requests in 15 seconds"
    )
    options = parser.parse_args(arguments)
    requests, seconds = options.requests, options.seconds
    if options.short:
        requests, seconds = 60, 15
    seed = options.seed
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    return Plan(requests, seconds, seed, options.cluster)


def report(plan: Plan, verdict: Verdict) -> None:
    """Print what the run came to."""
    print(verdict.table())
    for line in verdict.wrong[:LINES]:
        print(f"wrong: {line}")
    if len(verdict.wrong) > LINES:
        print(f"… and {len(verdict.wrong) - LINES} more")
    print(f"seed {plan.seed}: {'passed' if verdict.passed else 'FAILED'}")


def main(arguments: list[str]) -> int:
    """Run once; the exit code."""
    plan = plan_of(arguments)
    servers = "three NATS servers" if plan.cluster else "one NATS server"
    print(
        f"chaos: {plan.requests} requests in {plan.seconds:g} s on {servers}, "
        f"seed {plan.seed}"
    )
    folder = Path(tempfile.mkdtemp(prefix="tokenbridge-chaos-"))
    kept = True
    try:
        verdict = asyncio.run(run(plan, folder))
        report(plan, verdict)
        kept = not verdict.passed
        return 0 if verdict.passed else 1
    finally:
        if kept:
            print(f"the logs of all processes are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
