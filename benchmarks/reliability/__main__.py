"""``python -m benchmarks.reliability``: the table of targets, some minutes."""

from __future__ import annotations

import argparse
import asyncio
import sys

from benchmarks.reliability.cost import memory, price
from benchmarks.reliability.neighbours import HEALTHY, neighbours
from benchmarks.reliability.silence import (
    ACK_WAIT_S,
    handover,
    percentile,
    restart,
    takeover,
)

WHAT = ("takeover", "handover", "restart", "memory", "price", "neighbours")


async def _line(what: str, rounds: int) -> str:
    if what == "neighbours":
        return " |\n| ".join(
            f"longest turn beside {HEALTHY} requests, {name} | {1000 * longest:.0f} ms "
            f"| {end}"
            for name, (longest, end) in (await neighbours()).items()
        )
    if what == "memory":
        return f"memory per running request of 2,000 tokens | {await memory():.0f} KiB"
    if what == "price":
        plain, logged = await price(rounds)
        return (
            f"the log per token, over a plain publish | {logged - plain:.2f} µs "
            f"({plain:.2f} -> {logged:.2f})"
        )
    measure = {"takeover": takeover, "handover": handover, "restart": restart}[what]
    found = [1000 * seconds for seconds in await measure(rounds)]
    text = f"p50 {percentile(found, 0.5):.0f} ms, p99 {percentile(found, 0.99):.0f} ms"
    names = {
        "takeover": f"kill -9 to the next token, ack_wait {ACK_WAIT_S:g} s",
        "handover": "handover to the next token",
        "restart": "NATS back to the next token",
    }
    return f"{names[what]} | {text}, n {len(found)}"


def main(arguments: list[str]) -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability")
    parser.add_argument("what", nargs="*", choices=[[], *WHAT], metavar="WHAT")
    parser.add_argument("--rounds", type=int, default=8, metavar="N")
    options = parser.parse_args(arguments)
    for what in options.what or WHAT:
        print(f"| {asyncio.run(_line(what, options.rounds))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
