"""The marked texts, and how they come as a stream of deltas.

``corpus/<language>.txt`` was used to find the rules; ``corpus/unseen`` was written
after them, and no rule was changed for it. Texts stand between lines of ``===``; ``¦``
stands where a sentence (in Markdown also a heading, an item, a row) begins and the one
before it has ended.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

MARK = "¦"

#: Texts in English under another name: heavily marked up, and two ordinary answers.
#: The languages' own are dense with what is hard.
ENGLISH = ("markdown", "answer")

#: What GPT-style tokenizers split text into first: a word with the space before it, up
#: to three digits, a run of punctuation, white space.
_PRETOKENS = re.compile(
    r"'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+|\d{1,3}| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s"
)

#: The longest piece of a word that is one token, as it is on average: Latin words are
#: mostly whole, other scripts are cut into a few characters.
_LATIN, _OTHER, _WIDE = 8, 3, 2
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")


class Text(NamedTuple):
    """A text and the offsets where its sentences end, the last one left out."""

    language: str
    text: str
    ends: list[int]


def languages(part: str = "") -> list[str]:
    """The corpus' languages, and what is marked up, or ordinary, in English last.

    ``part``: ``unseen``, or the one that the rules were made with.
    """
    if part:
        return sorted(path.stem for path in (_folder() / part).glob("*.txt"))
    names = sorted(path.stem for path in _folder().glob("*.txt"))
    return [name for name in names if name not in ENGLISH] + list(ENGLISH)


def texts(language: str, part: str = "") -> list[Text]:
    """The texts of ``language``."""
    raw = (_folder() / part / f"{language}.txt").read_text(encoding="utf-8")
    return [_marked(language, part.strip("\n")) for part in raw.split("\n===\n")]


def _folder() -> Path:
    return Path(__file__).parent / "corpus"


def _marked(language: str, raw: str) -> Text:
    parts = raw.split(MARK)
    ends, at = [], 0
    for part in parts[:-1]:
        at += len(part)
        ends.append(at)
    return Text("en" if language in ENGLISH else language, "".join(parts), ends)


def deltas(text: str) -> list[str]:
    """``text`` as tokens of about the size that byte-pair encodings give."""
    found: list[str] = []
    for token in _PRETOKENS.findall(text):
        size = len(token)
        if not token.isascii():
            size = _WIDE if _CJK.search(token) else _OTHER
        size = _LATIN if max(map(ord, token)) < 0x250 else size
        found.extend(token[at : at + size] for at in range(0, len(token), size))
    assert "".join(found) == text
    return found
