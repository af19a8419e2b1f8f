"""Precision and recall of cuts, and how early the first segment is.

``python -m benchmarks.speech.quality [--unseen | --golden FOLDER]``. Pipecat and
LiveKit are measured beside it where they can be imported (see `peers`).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.speech.corpus import Text, deltas, languages, texts
from benchmarks.speech.golden import golden
from benchmarks.speech.peers import Peer, Spoken, peers
from bridge.speech import Segment, Segmenter, SpeechOptions

#: Every sentence on its own and no early clause: what the peers do.
SENTENCES: dict[str, Any] = {"first_min_chars": 240, "min_chars": 1}
OURS: dict[str, dict[str, Any]] = {
    "tokenbridge": {},
    "tokenbridge, sentences": SENTENCES,
    "tokenbridge, sentences, auto": SENTENCES | {"language": "auto"},
}


class Gap(NamedTuple):
    """A cut: it lies between two counts of letters and digits of the text."""

    low: int
    high: int
    fed: int


class Score:
    """What one way of cutting reached on one or more texts."""

    def __init__(self) -> None:
        self.cuts = self.right = self.marks = self.found = 0
        self.texts = self.first_chars = self.first_tokens = 0
        self.late: list[int] = []

    def add(self, text: Text, gaps: list[Gap], fed: list[str], first: int) -> None:
        """Count the cuts of one text; ``first``: deltas fed at the first segment."""
        counts = _counts(text.text)
        marks = [counts[end] for end in text.ends]
        self.cuts += len(gaps)
        self.right += sum(any(g.low <= m <= g.high for m in marks) for g in gaps)
        self.marks += len(marks)
        for mark in marks:
            gap = next((g for g in gaps if g.low <= mark <= g.high), None)
            if gap is not None:
                self.found += 1
                self.late.append(max(0, gap.fed - _delta_of(mark, fed)))
        self.texts += 1
        self.first_tokens += first
        self.first_chars += len("".join(fed[:first]))

    def row(self) -> dict[str, float]:
        """The figures: shares, and means per text."""
        return {
            "precision": round(self.right / max(1, self.cuts), 3),
            "recall": round(self.found / max(1, self.marks), 3),
            "tokens_late": round(sum(self.late) / max(1, len(self.late)), 2),
            "first_tokens": round(self.first_tokens / max(1, self.texts), 1),
            "first_chars": round(self.first_chars / max(1, self.texts), 1),
        }


def _counts(text: str) -> list[int]:
    """How many letters and digits stand before each offset of ``text``."""
    counts = [0]
    for char in text:
        counts.append(counts[-1] + char.isalnum())
    return counts


def _delta_of(mark: int, fed: list[str]) -> int:
    """How many deltas it takes until ``mark`` letters and digits are there."""
    seen = 0
    for number, delta in enumerate(fed, 1):
        seen += sum(map(str.isalnum, delta))
        if seen >= mark:
            return number
    return len(fed)


def ours(options: SpeechOptions, fed: list[str]) -> list[tuple[Segment, int]]:
    """The segments of this project, each with the number of deltas fed before it."""
    segmenter = Segmenter(options)
    found: list[tuple[Segment, int]] = []
    for number, delta in enumerate(fed, 1):
        found += [(segment, number) for segment in segmenter.receive(number, delta)]
    return found + [(segment, len(fed)) for segment in segmenter.receive_eof()]


def _our_gaps(text: str, spoken: list[tuple[Segment, int]]) -> list[Gap]:
    counts = _counts(text)
    return [
        Gap(counts[one.end], counts[two.start], fed)
        for (one, fed), (two, _) in itertools.pairwise(spoken)
    ]


def _peer_gaps(spoken: Spoken) -> list[Gap]:
    gaps, at = [], 0
    for said, fed in spoken[:-1]:
        at += sum(map(str.isalnum, said))
        gaps.append(Gap(at, at, fed))
    return gaps


def measure(marked: list[Text], found: dict[str, Peer]) -> dict[str, Score]:
    """Cut the texts in every way there is."""
    scores = {name: Score() for name in [*OURS, *found]}
    for text in marked:
        fed = deltas(text.text)
        for name, settings in OURS.items():
            options = SpeechOptions(**{"language": text.language, **settings})
            spoken = ours(options, fed)
            gaps = _our_gaps(text.text, spoken)
            scores[name].add(text, gaps, fed, spoken[0][1])
        for name, peer in found.items():
            said = [s for s in asyncio.run(peer(text.language, fed)) if s[0].strip()]
            scores[name].add(text, _peer_gaps(said), fed, said[0][1])
    return scores


def table(rows: dict[str, dict[str, dict[str, float]]]) -> Iterable[str]:
    """A Markdown table: per language and way, the figures."""
    names = list(next(iter(rows.values())))
    yield "| language | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for language, scores in rows.items():
        cells = [
            f"{row['precision']:.2f} / {row['recall']:.2f} / {row['tokens_late']:.1f}"
            f" · {row['first_chars']:.0f} / {row['first_tokens']:.1f}"
            for row in scores.values()
        ]
        yield f"| {language} | " + " | ".join(cells) + " |"


def _total(parts: list[dict[str, Score]]) -> dict[str, dict[str, float]]:
    names = list(parts[0])
    sums = {name: Score() for name in names}
    for part in parts:
        for name in names:
            for field, value in vars(part[name]).items():
                setattr(sums[name], field, getattr(sums[name], field) + value)
    return {name: score.row() for name, score in sums.items()}


def show(marked: list[Text]) -> None:
    """Print how the texts are cut; ``!`` is before a wrong cut, ``+`` a missed one."""
    for text in marked:
        fed = deltas(text.text)
        settings = {"language": text.language, **SENTENCES}
        spoken = ours(SpeechOptions(**settings), fed)
        counts = _counts(text.text)
        marks = {counts[end]: end for end in text.ends}
        gaps = _our_gaps(text.text, spoken)
        for (segment, _), gap in zip(spoken, [*gaps, None], strict=True):
            right = gap is None or any(gap.low <= mark <= gap.high for mark in marks)
            print(" " if right else "!", segment.text)
        for mark, end in marks.items():
            if not any(gap.low <= mark <= gap.high for gap in gaps):
                print("+", text.text[max(0, end - 30) : end], "¦", text.text[end:][:20])
        print("---")


def main() -> int:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--cuts", metavar="LANGUAGE", help="show one language's cuts")
    parser.add_argument("--golden", type=Path, help="pySBD's tests/lang, instead")
    parser.add_argument("--unseen", action="store_true", help="corpus/unseen, instead")
    arguments = parser.parse_args()
    part = "unseen" if arguments.unseen else ""
    marked = {language: texts(language, part) for language in languages(part)}
    if arguments.golden:
        marked = golden(arguments.golden)
    if arguments.cuts:
        show(marked[arguments.cuts])
        return 0
    found = peers()
    scores = {language: measure(parts, found) for language, parts in marked.items()}
    rows = {
        language: {name: score.row() for name, score in of.items()}
        for language, of in scores.items()
    }
    rows["all"] = _total(list(scores.values()))
    print("\n".join(table(rows)))
    print("precision / recall / tokens late · characters / tokens to the first segment")
    if len(found) < 3:
        print("Pipecat or LiveKit is not installed: measured without.", file=sys.stderr)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
