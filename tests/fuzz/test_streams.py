"""2,000 requests from streams that know their words; `tests.fuzz.streams` says how.

``make fuzz`` runs as many as one likes. What it finds is kept here by its seed only as
long as the generator draws the same stream for it, so a finding's smallest input
belongs into the tests of the module that was wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.events import AnyEvent, Completed, Skipped, Token
from tests.fuzz.__main__ import main
from tests.fuzz.run import case_of, run
from tests.fuzz.served import Request, Script, Served, Server
from tests.fuzz.streams import stream_of
from tests.fuzz.styles import STYLES
from tests.fuzz.virtual import Stuck, VirtualLoop

REQUESTS = 2000

#: A test's share of them.
SHARE = 250


@pytest.mark.parametrize("first", range(0, REQUESTS, SHARE))
def test_the_words_come_out_or_it_is_told(first: int) -> None:
    report = run(range(first, first + SHARE))
    assert report.count == SHARE
    assert not report.wrong, "\n\n".join(report.wrong[:5])


def test_streams_end_in_every_way() -> None:
    seen = run(range(SHARE)).ends
    assert min(seen[end] for end in ("completed", "failed")) > SHARE / 10
    assert min(seen[f"{end} with records skipped"] for end in ("completed", "failed"))


@pytest.mark.parametrize("style", STYLES)
def test_a_seed_always_gives_the_same_stream(style: str) -> None:
    for seed in range(20):
        one, other = stream_of(seed, style), stream_of(seed, style)
        assert one.request == other.request
        assert one.verdicts == other.verdicts
    assert case_of(7).describe() == case_of(7).describe()


def plain() -> tuple[Served, Callable[[list[AnyEvent]], list[str]]]:
    """A stream with words that ends well, and what is found wrong with a log of it."""
    seed = 0
    with Server() as server:
        while True:
            case = stream_of(seed)
            served = server.serve(case.request)
            end = served.terminal
            tokens = [e for e in served.events if isinstance(e, Token)]
            if isinstance(end, Completed) and len(tokens) > 2 and not end.tool_calls:
                break
            seed += 1
    assert case.problems(served) == []

    def found(events: list[AnyEvent]) -> list[str]:
        text = "".join(e.text for e in events if isinstance(e, Token))
        skipped = sum(e.count for e in events if isinstance(e, Skipped))
        numbered = [_numbered(event, number) for number, event in enumerate(events, 1)]
        end = replace_end(served.terminal, text, skipped)
        return case.problems(replace(served, events=numbered, terminal=end))

    return served, found


def _numbered(event: AnyEvent, seq: int) -> AnyEvent:
    event.seq = seq
    return event


def replace_end(end: object, text: str, skipped: int) -> Completed:
    assert isinstance(end, Completed)
    end.text, end.skipped_records = text, skipped
    return end


def tokens_of(events: list[AnyEvent]) -> list[int]:
    return [n for n, event in enumerate(events) if isinstance(event, Token)]


def lose(events: list[AnyEvent]) -> None:
    del events[tokens_of(events)[1]]


def double(events: list[AnyEvent]) -> None:
    at = tokens_of(events)[1]
    token = events[at]
    assert isinstance(token, Token)
    events.insert(at, Token(token.id, token.seq, token.attempt, token.text))


def swap(events: list[AnyEvent]) -> None:
    first, second = tokens_of(events)[:2]
    events[first], events[second] = events[second], events[first]


def invent(events: list[AnyEvent]) -> None:
    events.insert(1, Token("one", 0, 1, "invented"))


def tell(events: list[AnyEvent]) -> None:
    events.insert(1, Skipped("one", 0, 1, 1))


@pytest.mark.parametrize("mistake", [lose, double, swap, invent, tell])
def test_the_judge_sees_a_mistake(mistake: Callable[[list[AnyEvent]], None]) -> None:
    served, found = plain()
    events = list(served.events)
    assert found(list(events)) == []
    mistake(events)
    assert found(events)


def test_a_finding_is_made_simple_and_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = Served([], [], None, ["spoiled"], 0.0)
    monkeypatch.setattr(Server, "serve", lambda self, request: spoiled)
    assert main(["--count", "2", "--seed", "3"]) == 1
    told = capsys.readouterr().out
    assert "seed 3000000000, " in told
    assert "spoiled" in told
    assert "2 requests: 2 without an end; 2 wrong" in told


def test_time_is_virtual() -> None:
    script = Script("text/event-stream", [(3600.0, b": late\n\n")], "silence")
    with Server() as server:
        served = server.serve(Request([script]))
    assert served.terminal is not None
    assert 30 <= served.seconds < 31
    loop = VirtualLoop()
    with pytest.raises(Stuck):
        loop.run_until_complete(loop.create_future())
    loop.close()


def test_reads_are_cut_by_chance_and_nothing_is_lost_by_it() -> None:
    stream = stream_of(1)
    rng = random.Random(1)
    script = stream.request.scripts[0]
    body = b"".join(data for _, data in script.reads)
    assert body
    with Server() as server:
        ends = set()
        for _ in range(5):
            at = rng.randrange(len(body))
            reads = [(0.0, piece) for piece in (body[:at], body[at:]) if piece]
            served = server.serve(Request([replace(script, reads=reads)]))
            ends.add(repr(served.terminal))
    assert len(ends) == 1
