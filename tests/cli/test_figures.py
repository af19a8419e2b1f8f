"""The line of figures: what is counted, and what is measured."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.cli.figures import Figures
from bridge.events import (
    AnyEvent,
    Cancelled,
    Completed,
    Reasoning,
    Started,
    Timings,
    Token,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def figures_of(events: Iterable[tuple[float, AnyEvent]]) -> Figures:
    """Feed events, each at its second after the beginning."""
    clock = Clock()
    figures = Figures(clock)
    for at, event in events:
        clock.now = 100.0 + at
        figures.take(event)
    return figures


STARTED = Started(
    id="a",
    seq=1,
    attempt=1,
    v=1,
    model="m",
    created=0,
    queue_ms=0,
    job=1,
    metadata={},
)


def token(seq: int) -> Token:
    return Token(id="a", seq=seq, attempt=1, text="x")


def completed(**more: int) -> Completed:
    return Completed(
        id="a",
        seq=9,
        attempt=1,
        finish_reason="stop",
        usage=dict(more) or None,
        timings=Timings(queue_ms=1, first_token_ms=20, total_ms=900),
        backend="b",
        metadata={},
    )


def test_tokens_first_token_and_pace() -> None:
    stream: list[tuple[float, AnyEvent]] = [
        (0.1, STARTED),
        (0.25, token(2)),
        (0.5, token(3)),
        (0.75, token(4)),
    ]
    figures = figures_of([*stream, (0.8, completed())])
    assert figures.line() == "3 tokens, first after 250 ms, 4.0 tokens/s, stop"
    assert repr(figures) == f"<Figures {figures.line()}>"


def test_what_the_backend_reports_counts_instead_of_the_deltas() -> None:
    stream = [(0.5, token(2)), (1.0, token(3))]
    figures = figures_of([*stream, (1.0, completed(completion_tokens=11))])
    assert figures.tokens == 11
    assert figures.line() == "11 tokens, first after 500 ms, 20.0 tokens/s, stop"


def test_reasoning_is_a_first_token_too() -> None:
    figures = figures_of([(0.2, Reasoning(id="a", seq=2, attempt=1, text="hm"))])
    assert figures.line() == "1 token, first after 200 ms"


def test_without_a_token_there_is_nothing_to_measure() -> None:
    end = Cancelled(
        id="a", seq=1, attempt=1, reason="x", timings=Timings(), metadata={}
    )
    assert figures_of([(0.1, end)]).line() == "0 tokens, cancelled"
    assert figures_of([]).line() == "0 tokens"
    assert figures_of([(0.1, end)]).logged_line() == "0 tokens, cancelled"


def test_tokens_that_come_at_once_have_no_pace() -> None:
    assert figures_of([(0.1, token(2)), (0.1, token(3))]).tokens_per_second is None


def test_of_a_log_the_bridges_own_times_count() -> None:
    figures = figures_of([(0.1, token(2)), (0.1, completed())])
    assert figures.logged_line() == "1 token, first after 20 ms, 900 ms in all, stop"
