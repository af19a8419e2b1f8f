"""pySBD's Golden Rules: hard sentences in 23 languages, written by others.

They are not in the package: clone pySBD's repository and pass its ``tests/lang``. Many
are lists written in one line, which no model writes; they show where the limits are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speech.corpus import Text

_NAME = re.compile(r"GOLDEN_([A-Z]{2})_RULES_TEST_CASES")


def golden(folder: Path) -> dict[str, list[Text]]:
    """The texts by language, those left out whose sentences are not their parts."""
    found: dict[str, list[Text]] = {}
    for path in sorted(folder.glob("test_*.py")):
        for language, text, sentences in _cases(path):
            ends = _ends(text, sentences)
            if ends is not None:
                found.setdefault(language, []).append(Text(language, text, ends))
    return found


def _cases(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign) or not isinstance(
            node.targets[0], ast.Name
        ):
            continue
        name = _NAME.fullmatch(node.targets[0].id)
        if name and isinstance(node.value, ast.List):
            for case in node.value.elts:
                text, sentences = _literals(case)
                yield name[1].lower(), text, sentences


def _literals(case: ast.expr) -> tuple[str, list[str]]:
    """A pair, or ``pytest.param(text, sentences, marks=…)``."""
    parts = case.args if isinstance(case, ast.Call) else getattr(case, "elts", [])
    text, sentences = (ast.literal_eval(part) for part in parts[:2])
    return str(text), list(sentences)


def _ends(text: str, sentences: list[str]) -> list[int] | None:
    ends, at = [], 0
    for sentence in sentences:
        start = text.find(sentence.strip(), at)
        if start < 0:
            return None
        at = start + len(sentence.strip())
        ends.append(at)
    return ends[:-1]
