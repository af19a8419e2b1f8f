"""An endless, deterministic text in tokens, from a seed."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from functools import lru_cache

from bridge.simulator.corpus import ENGLISH, NAMES, OTHERS

#: Where nobody says how long an answer is, it ends with the first sentence that
#: reaches a length drawn from this range, in tokens.
SHORTEST, LONGEST = 40, 105

#: One sentence in so many is in another language or carries emoji.
_OTHERS_EVERY = 5

#: Words of up to so many letters are one token, as the common words of a BPE
#: vocabulary are; longer ones are cut into even pieces of at most `_PIECE_CHARS`.
_WHOLE_WORD_CHARS = 8
_PIECE_CHARS = 6

#: Scripts from here on (CJK, Kana, Hangul) are written without spaces.
_FIRST_IDEOGRAPH = "\u2e80"

_TOKEN = re.compile(
    r"""
      \n+              # a paragraph's end
    | \ ?[^\W\d_]+     # a word, with the space before it
    | \ ?\d{1,3}       # a number, three digits at a time
    | \ ?[^\w\s]       # punctuation, a symbol, a combining mark
    | .                # whatever is left, so that nothing is lost
    """,
    re.VERBOSE | re.DOTALL,
)


def tokenize(text: str) -> list[str]:
    """Cut ``text`` much as a BPE tokenizer would; joined, the pieces are ``text``."""
    tokens: list[str] = []
    for token in _TOKEN.findall(text):
        if len(token) <= _WHOLE_WORD_CHARS and token[-1] < _FIRST_IDEOGRAPH:
            tokens.append(token)
        else:
            tokens.extend(_pieces(token))
    return tokens


def _pieces(word: str) -> list[str]:
    longest = _PIECE_CHARS if word[-1] < _FIRST_IDEOGRAPH else 2
    size = math.ceil(len(word) / math.ceil(len(word) / longest))
    return [word[at : at + size] for at in range(0, len(word), size)]


@lru_cache(maxsize=2048)  # Sentences without a number recur in most texts.
def _tokens_of(sentence: str) -> tuple[str, ...]:
    return tuple(tokenize(sentence))


class Story:
    """The tokens of one text, made as far as somebody reads.

    The same ``seed`` gives the same text on every machine: of `random.Random` only
    ``random()`` is used, whose sequence Python keeps for a given seed.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._tokens: list[str] = []
        self._sentences = self._write()
        target = SHORTEST + self._below(LONGEST - SHORTEST + 1)
        while len(self._tokens) < target:
            self._more()
        #: Tokens up to the sentence's end at which the text may end by itself.
        self.natural_length = len(self._tokens)

    def __repr__(self) -> str:
        return f"<Story {len(self._tokens)} tokens so far>"

    def __getitem__(self, index: int) -> str:
        while len(self._tokens) <= index:
            self._more()
        return self._tokens[index]

    def tokens(self, start: int, stop: int) -> list[str]:
        """The tokens from ``start`` up to, not including, ``stop``."""
        while len(self._tokens) < stop:
            self._more()
        return self._tokens[start:stop]

    def _more(self) -> None:
        self._tokens.extend(_tokens_of(next(self._sentences)))

    def _below(self, limit: int) -> int:
        return int(self._random.random() * limit)

    def _write(self) -> Iterator[str]:
        english = self._walk(ENGLISH)
        others = self._walk(OTHERS)
        separator = ""
        while True:
            for _ in range(3 + self._below(3)):
                other = self._below(_OTHERS_EVERY) == 0
                yield separator + self._fill(next(others if other else english))
                separator = " "
            separator = "\n\n"

    def _walk(self, sentences: tuple[str, ...]) -> Iterator[str]:
        """Every sentence once in a shuffled order, then again in another."""
        while True:
            order = list(sentences)
            for last in range(len(order) - 1, 0, -1):
                other = self._below(last + 1)
                order[last], order[other] = order[other], order[last]
            yield from order

    def _fill(self, sentence: str) -> str:
        if "{" not in sentence:
            return sentence
        hour, minute = 1 + self._below(11), 5 * self._below(12)
        half = "a.m." if self._below(2) else "p.m."
        number = 2 + self._below(28)
        return sentence.format(
            name=NAMES[self._below(len(NAMES))],
            n=number,
            clock=f"{hour}:{minute:02} {half}",
            price=f"{number % 9 + 1}.{minute:02}",
            decimal=f"{number}.{hour}",
            percent=f"{number}.{minute // 6} %",
            thousands=f"{number},{100 + minute * 16}",
            year=1800 + self._below(300),
        )
