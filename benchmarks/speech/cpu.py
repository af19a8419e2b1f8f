"""CPU per token of the segmenter, against the same loop without it.

``python -m benchmarks.speech.cpu [--rounds N]``. In one process, interleaved, thread
CPU time, the least of the rounds: what else the machine does only adds to it.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.speech.corpus import deltas, languages, texts
from bridge.speech import Segmenter, SpeechOptions

#: So many tokens per round and language, in requests of the corpus' texts joined.
TOKENS = 20_000


def _streams(language: str) -> tuple[str, list[list[str]]]:
    marked = texts(language)
    request = deltas("\n\n".join(text.text for text in marked))
    return marked[0].language, [request] * max(1, TOKENS // len(request))


def _without(streams: list[list[str]]) -> int:
    seen = 0
    for request in streams:
        for number, delta in enumerate(request, 1):
            seen += number if delta else 0
    return seen


def _with(streams: list[list[str]], options: SpeechOptions) -> int:
    seen = 0
    for request in streams:
        segmenter = Segmenter(options)
        receive = segmenter.receive
        for number, delta in enumerate(request, 1):
            seen += number if delta else 0
            for _ in receive(number, delta):
                seen += 1
        seen += len(segmenter.receive_eof())
    return seen


def measure(language: str, rounds: int) -> float:
    """Microseconds of CPU that a token costs more with the segmenter."""
    base, streams = _streams(language)
    options = SpeechOptions(language=base)
    tokens = sum(map(len, streams))
    more = []
    for _ in range(rounds):
        start = time.thread_time()
        _without(streams)
        between = time.thread_time()
        _with(streams, options)
        end = time.thread_time()
        more.append((end - between - (between - start)) / tokens * 1e6)
    return min(more)


def main() -> int:
    """Measure every language and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for language in languages():
        print(f"{language:10} {measure(language, arguments.rounds):5.2f} µs/token")
    return 0


if __name__ == "__main__":
    sys.exit(main())
