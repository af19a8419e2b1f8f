"""``python -m tests.fuzz``: streams of backends, mutated, read by the bridge.

Prints what was wrong with the first of them, with seeds, and exits with 1 then.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.fuzz.checks import check
from tests.fuzz.served import Server
from tests.fuzz.streams import Stream, simpler, stream_of
from tests.fuzz.styles import STYLES

#: So many streams that went wrong are shown.
SHOWN = 10

#: In so many steps at most a stream is made simpler.
STEPS = 40


def _kind(problems: list[str]) -> str:
    """What makes two problems the same."""
    return " ".join(word for word in problems[0].split() if word.isalpha())[:30]


def _simplest(
    server: Server, stream: Stream, problems: list[str]
) -> tuple[Stream, list[str]]:
    """A simpler stream that goes wrong too, and what is wrong with it."""
    for _ in range(STEPS):
        for simpler_one in simpler(stream):
            found = check(server.serve(simpler_one.request), simpler_one.verdicts)
            if found and _kind(found) == _kind(problems):
                stream, problems = simpler_one, found
                break
        else:
            break
    return stream, problems


def main(arguments: list[str]) -> int:
    """Run as the command line asks; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument("--style", choices=STYLES, default=None)
    parser.add_argument("--shown", type=int, default=SHOWN, metavar="N")
    options = parser.parse_args(arguments)
    ends: Counter[str] = Counter()
    wrong = 0
    begun = time.monotonic()
    with Server() as server:
        for number in range(options.count):
            seed = options.seed * 1_000_000_000 + number
            stream = stream_of(seed, options.style)
            served = server.serve(stream.request)
            problems = check(served, stream.verdicts)
            terminal = served.terminal
            end = terminal.type if terminal is not None else "no end"
            ends[end] += 1
            if problems:
                wrong += 1
                if wrong <= options.shown:
                    stream, problems = _simplest(server, stream, problems)
                    print(stream.describe())
                    print("WRONG", *problems, sep="\n  ", end="\n\n")
    seconds = time.monotonic() - begun
    print(f"{options.count} streams, {options.count / seconds:.0f} a second: ", end="")
    print(", ".join(f"{count} {end}" for end, count in ends.most_common()), end="; ")
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
