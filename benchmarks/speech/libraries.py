"""Libraries for sentence boundaries, on whole texts: what they find, what a call costs.

``python -m benchmarks.speech.libraries``, with whichever of sentencex, pysbd, blingfire
and syntok can be imported. None of them streams; this is what chose sentencex.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.speech.corpus import languages, texts

Split = Callable[[str], list[str]]

#: A stop is looked at with about this much before it.
TAIL = "Dr. Smith, who lives in St. Louis, paid $3.50 for the coffee. Wh"
CALLS = 300


def _sentencex(language: str) -> Split:
    segment: Any = importlib.import_module("sentencex").segment
    return lambda text: list(segment(language, text))


def _pysbd(language: str) -> Split:
    module = importlib.import_module("pysbd")
    segmenter = module.Segmenter(language=language, clean=False)
    return lambda text: list(segmenter.segment(text))


def _blingfire(language: str) -> Split:
    split: Any = importlib.import_module("blingfire").text_to_sentences
    return lambda text: str(split(text)).split("\n")


def _syntok(language: str) -> Split:
    module = importlib.import_module("syntok.segmenter")

    def split(text: str) -> list[str]:
        return [
            "".join(token.spacing + token.value for token in sentence)
            for paragraph in module.analyze(text)
            for sentence in paragraph
        ]

    return split


LIBRARIES: dict[str, Callable[[str], Split]] = {
    "sentencex": _sentencex,
    "pysbd": _pysbd,
    "blingfire": _blingfire,
    "syntok": _syntok,
}


def _ends(parts: list[str]) -> set[int]:
    ends, at = set(), 0
    for part in parts:
        at += sum(map(str.isalnum, part))
        ends.add(at)
    return ends


def quality(load: Callable[[str], Split], language: str) -> tuple[float, float] | None:
    """Precision and recall on the corpus' texts, or `None` where it is not covered."""
    right = cuts = marks = 0
    for marked in texts(language):
        try:
            found = _ends(load(marked.language)(marked.text))
        except (ValueError, KeyError):
            return None
        total = sum(map(str.isalnum, marked.text))
        wanted = {sum(map(str.isalnum, marked.text[:end])) for end in marked.ends}
        found -= {0, total}
        right += len(found & wanted)
        cuts += len(found)
        marks += len(wanted)
    return right / max(1, cuts), right / max(1, marks)


def cost(split: Split, text: str, calls: int) -> float:
    """Microseconds of CPU of a call."""
    split(text)
    start = time.thread_time()
    for _ in range(calls):
        split(text)
    return (time.thread_time() - start) / calls * 1e6


def main() -> int:
    """Print a line for each library and language."""
    for name, load in LIBRARIES.items():
        try:
            split = load("en")
        except ImportError:
            print(f"{name}: not installed")
            continue
        grown = " ".join(text.text for text in texts("answer")) * 3
        print(
            f"{name}: {cost(split, TAIL, CALLS):.1f} µs for {len(TAIL)} characters, "
            f"{cost(split, grown, 20):.0f} µs for {len(grown)}"
        )
        for language in languages():
            reached = quality(load, language)
            shown = (
                "not covered" if reached is None else "{:.2f} / {:.2f}".format(*reached)
            )
            print(f"  {language:9} {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
