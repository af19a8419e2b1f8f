"""``python -m tests.fuzz``: streams of backends, mutated, read by the bridge.

Prints what went wrong, each with its seed and made as simple as it could be, and exits
with 1 then. The same seed gives the same streams.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.run import Report, run
from tests.fuzz.styles import STYLES

#: So many requests that went wrong are shown.
SHOWN = 10

#: Seeds of two runs do not meet before so many.
SEEDS = 1_000_000_000

PROGRESS_S = 5.0


def main(arguments: list[str]) -> int:
    """Run as the command line asks; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--only", type=int, metavar="K", help="the one of seed K")
    parser.add_argument("--style", choices=STYLES, help="all of one server's style")
    options = parser.parse_args(arguments)
    first = options.seed * SEEDS
    seeds = range(first, first + options.count)
    if options.only is not None:
        seeds = range(options.only, options.only + 1)
    begun = shown_at = time.monotonic()
    shown = 0

    def tell(report: Report) -> None:
        nonlocal shown, shown_at
        for text in report.wrong[shown:SHOWN]:
            print(text, end="\n\n", flush=True)
        shown = len(report.wrong)
        if time.monotonic() - shown_at > PROGRESS_S:
            shown_at = time.monotonic()
            print(report, flush=True)

    report = run(seeds, options.style, tell)
    rate = report.count / (time.monotonic() - begun)
    print(f"{report} ({rate:.0f} a second)")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
