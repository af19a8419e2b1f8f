"""When each token of an answer is due."""

from __future__ import annotations

import random

from bridge.simulator.behaviour import Behaviour


class Pace:
    """An absolute schedule: a late token does not delay the ones behind it.

    Times are in seconds on the clock of ``start``. ``seed`` decides the jitter.
    """

    def __init__(self, behaviour: Behaviour, start: float, seed: str) -> None:
        rate = behaviour.tokens_per_second
        self._first = behaviour.first_token_ms / 1000
        self._interval = 1 / rate if rate else 0.0
        self._jitter = behaviour.jitter
        self._start = start
        # An instance holds 2.5 KB of state: none where there is nothing to draw.
        self._random = random.Random(seed) if behaviour.jitter else None

    def __repr__(self) -> str:
        return f"<Pace from {self._start:.3f}, one each {self._interval * 1000:.1f} ms>"

    def due(self, index: int) -> float:
        """When token ``index`` is due; to be asked once per index, in order."""
        offset = 0.0
        if self._random is not None:
            offset = self._jitter * (self._random.random() - 0.5)
        if index:
            return self._start + self._first + (index + offset) * self._interval
        # The first token's offset moves all: the others keep their distance to it.
        self._start += self._first * offset
        return self._start + self._first

    def shift(self, seconds: float) -> None:
        """Let everything that is still to come be later by ``seconds``."""
        self._start += seconds
