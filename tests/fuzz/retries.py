"""Requests whose backends break and are asked again, with their right ends.

The invariant: text that stands is never said twice, and never lost. A backend that
goes on where the text stopped adds to it, one that begins anew replaces it (a
``restart``), and an answer that is whole is never asked for again.

`retry_of` makes the request of a seed: up to three calls, each the stream of an
`Attempt` that says so many words and then ends, or breaks. `right_ends` follows the
calls as ``docs/design.md`` says ("When a backend fails").
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.fuzz.answers import Call, CallPiece, Piece, Record, Say, Verdict
from tests.fuzz.checks import check
from tests.fuzz.framing import Framing, unreadable
from tests.fuzz.served import End, Request, Script, Served
from tests.fuzz.streams import cut_into_reads
from tests.fuzz.styles import STYLES, Style
from tests.fuzz.words import Look, Speaker, Word, joined

Rng = random.Random

#: How a call breaks, and the code that a request fails with if it was the last one.
BREAKS: dict[str, str] = {
    "eof": "backend_protocol",
    "protocol": "backend_protocol",
    "reset": "backend_unavailable",
    "silence": "backend_timeout",
    "reported": "backend_error",
    "reason": "backend_error",
    "final": "backend_error",  # an error that no retry gets past
}

#: How a call that is asked to continue a text does so.
WAYS = ("continues", "continues", "repeats", "repeats partly", "says its beginning")

RETRIES = 2

CALL = Call("call_1", "look", "{}")


@dataclass
class Attempt:
    """One call: what it says, and how it ends. ``end`` is "whole", or a break's."""

    way: str
    end: str
    texts: list[str] = field(default_factory=list)
    reasoning: str = ""
    tool: bool = False
    skipped: int = 0
    #: Completion tokens that it reports, 0 where it does not.
    tokens: int = 0
    #: How the connection ends behind a whole answer.
    tail: End = "eof"

    @property
    def text(self) -> str:
        return "".join(self.texts)


@dataclass
class Retried:
    """A request of several calls."""

    seed: int
    request: Request
    attempts: list[Attempt]
    max_tokens: int | None

    def describe(self) -> str:
        """The request, for whoever has to find out what is wrong with it."""
        request = self.request
        lines = [
            f"seed {self.seed}, continues {request.can_continue}, on_restart "
            f"{request.on_restart}, max_tokens {self.max_tokens}"
        ]
        for attempt, script in zip(self.attempts, request.scripts, strict=True):
            body = b"".join(data for _, data in script.reads)
            lines += [f"{attempt}", f"  end {script.end}, {body!r}"]
        return "\n".join(lines)

    def problems(self, served: Served) -> list[str]:
        """What is wrong, one sentence each."""
        least: list[str] | None = None
        for right in right_ends(self):
            found = check(served, [right.verdict]) + _asked(served, right.bodies)
            if least is None or len(found) < len(least):
                least = found
            if not least:
                return []
        return least or ["there is no right end"]

    def simpler(self) -> Iterator[Retried]:
        """Requests that are simpler by one step: none are tried."""
        yield from ()


def retry_of(seed: int) -> Retried:
    """The request of a seed, always the same."""
    rng = random.Random(f"{seed} retried")
    speaker = Speaker(rng)
    can_continue = rng.random() < 0.7
    attempts: list[Attempt] = []
    while len(attempts) <= RETRIES:
        attempts.append(_attempt(rng, speaker, attempts, can_continue))
    max_tokens = rng.choice([None, None, 10, 40])
    fields = {} if max_tokens is None else {"max_tokens": max_tokens}
    request = Request(
        [_script(rng, attempt) for attempt in attempts],
        fields,
        can_continue=can_continue,
        on_restart="restart" if rng.random() < 0.85 else "fail",
        retry_budget=RETRIES,
    )
    return Retried(seed, request, attempts, max_tokens)


def _attempt(
    rng: Rng,
    speaker: Speaker,
    before: list[Attempt],
    can_continue: bool,
) -> Attempt:
    whole = rng.random() < (0.45 if len(before) < RETRIES else 0.7)
    end = "whole" if whole else rng.choice(sorted(BREAKS))
    attempt = Attempt(rng.choice(WAYS), end)
    attempt.tail = rng.choice(["eof", "eof", "reset", "protocol", "silence", "pings"])
    stands = "".join(a.text for a in before)
    if before and can_continue and attempt.way != "continues" and stands:
        text = (
            stands if attempt.way != "says its beginning" else _beginning(rng, stands)
        )
        if attempt.way == "repeats partly":
            text = _beginning(rng, stands) + speaker.word()
        else:
            text += "".join(speaker.word() for _ in range(rng.randrange(3)))
        attempt.texts = _pieces(rng, text)
    else:
        attempt.way = "continues"
        count = rng.randrange(0 if not whole else 1, 4)
        attempt.texts = [speaker.word() for _ in range(count)]
    if rng.random() < 0.1:
        attempt.reasoning = speaker.word()
    attempt.tool = rng.random() < 0.08
    attempt.skipped = rng.choice([0, 0, 0, 0, 1, 2])
    attempt.tokens = rng.choice([0, 0, 0, 5, 10])
    return attempt


def _beginning(rng: Rng, text: str) -> str:
    """The first part of a text, less than all of it but a word at least."""
    first = text.index("»") + 1
    return text[: rng.randrange(first, max(first + 1, len(text) - 3))]


def _pieces(rng: Rng, text: str) -> list[str]:
    size = rng.choice([1, 3, 10, 1000])
    return [text[at : at + size] for at in range(0, len(text), size)]


def _script(rng: Rng, attempt: Attempt) -> Script:
    style = Style(rng, rng.choice(STYLES))
    style.oddness, style.reason_everywhere, style.index = 0.0, False, 0
    records = style.head()
    if attempt.reasoning:
        records.append(style.say(Say("reasoning", attempt.reasoning)))
    records += [style.say(Say("text", text)) for text in attempt.texts]
    if attempt.tool:
        function = {"name": "look", "arguments": Word("{}")}
        call = {"index": 0, "id": "call_1", "function": function}
        piece = CallPiece(0, "call_1", "look", "{}")
        records.append(Record(style.chunk({"tool_calls": [call]}), calls=[piece]))
    for _ in range(attempt.skipped):
        at = rng.randrange(len(records) + 1)
        records.insert(at, Record(unreadable(rng), unreadable=True))
    if attempt.tokens:
        usage = {"completion_tokens": attempt.tokens}
        records.append(Record({"choices": [], "usage": usage}, usage=usage))
    end: End = attempt.tail
    if attempt.end == "whole":
        records.append(style.reason("stop"))
        if rng.random() < 0.5:
            records.append(Record(None))
    elif attempt.end in ("reported", "final"):
        code = 503 if attempt.end == "reported" else 400
        records.append(Record({"error": {"message": "it broke", "code": code}}))
    elif attempt.end == "reason":
        records.append(Record(style.chunk({}, finish_reason="error")))
    else:
        end = attempt.end  # type: ignore[assignment]
    style.repeat(records)
    framing = Framing("events", "text/event-stream", Look())
    body = b"".join(joined(f.parts) for f in framing.frames(rng, records))
    return Script("text/event-stream", cut_into_reads(rng, body), end)


@dataclass
class _State:
    """What stands between two calls."""

    text: str = ""
    reasoning: str = ""
    tool: bool = False
    skipped: int = 0
    #: Whether what was told of before is void, nobody can say.
    unsure: bool = False
    spent: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def begun(self) -> bool:
        return bool(self.text or self.reasoning or self.tool)


@dataclass
class _Right:
    """A right end: its verdict, and what the backends are to be asked."""

    verdict: Verdict
    bodies: list[dict[str, Any]]


def right_ends(retried: Retried) -> Iterator[_Right]:
    """The right ends of a request; several where a repetition is only likely."""
    yield from _follow(retried, _State(), 0, None)


def _follow(
    retried: Retried, state: _State, number: int, code: str | None
) -> Iterator[_Right]:
    request, limit = retried.request, retried.max_tokens
    if not state.begun:
        # What a call could not read is void where it left nothing else.
        state = replace(state, spent=0, skipped=0)
    continues = False
    if number and state.begun:
        loose = state.reasoning or state.tool
        continues = not loose and request.can_continue
        if not continues and request.on_restart == "fail":
            yield _Right(_failed(state, code or ""), state.bodies)
            return
        if not continues:
            state = _State(bodies=state.bodies)
    state = _ask(state, limit)
    attempt = retried.attempts[number]
    for after, broken in _hear(retried, state, attempt, continues):
        if attempt.end == "whole" and not broken:
            yield _Right(_completed(after, "stop"), after.bodies)
            continue
        failed = "backend_protocol" if broken else BREAKS[attempt.end]
        if limit is not None and after.begun and after.spent >= limit:
            # Usage proves it complete, whatever became of the connection.
            yield _Right(_completed(after, "length"), after.bodies)
            if failed != "backend_error":
                continue
        if number == RETRIES or (not broken and _is_final(attempt, after)):
            yield _Right(_failed(after, failed), after.bodies)
        else:
            yield from _follow(retried, after, number + 1, failed)


def _is_final(attempt: Attempt, after: _State) -> bool:
    """Whether no retry follows: one that was silent had all the time there was."""
    return attempt.end == "final" or (attempt.end == "silence" and not after.begun)


def _ask(state: _State, limit: int | None) -> _State:
    body: dict[str, Any] = {"prefix": state.text}
    if limit is not None:
        body["max_tokens"] = max(limit - state.spent, 1)
    return replace(state, bodies=[*state.bodies, body])


def _hear(
    retried: Retried, state: _State, attempt: Attempt, continues: bool
) -> Iterator[tuple[_State, bool]]:
    """What stands after a call, and whether the bridge broke it off itself."""
    # Only the tokens of what stands count.
    said = bool(attempt.text or attempt.reasoning or attempt.tool)
    spent = state.spent + attempt.tokens * said
    more = replace(
        state,
        reasoning=state.reasoning + attempt.reasoning,
        tool=state.tool or attempt.tool,
        skipped=state.skipped + attempt.skipped,
        spent=spent,
    )
    added = replace(more, text=state.text + attempt.text)
    held = replace(state, skipped=more.skipped)
    if continues and attempt.end != "whole":
        # It broke while it could still be a repetition: what it said is void.
        yield held, False
    if not continues or attempt.way == "continues" or not attempt.text:
        yield added, False
        return
    anew = replace(more, text=attempt.text, unsure=True)
    repeats = attempt.text.strip().startswith(state.text.strip())
    if retried.request.on_restart == "fail":
        yield state, True
        yield replace(held, unsure=True), True
    else:
        yield anew, False
        yield replace(anew, spent=attempt.tokens), False
    if not repeats:
        yield added, False


def _completed(state: _State, reason: str) -> Verdict:
    return replace(_verdict(state, "completed"), reason=reason)


def _failed(state: _State, code: str) -> Verdict:
    return replace(_verdict(state, "failed"), codes=frozenset({code}))


def _verdict(state: _State, status: str) -> Verdict:
    pieces = [Piece("text", state.text, False)]
    pieces.append(Piece("reasoning", state.reasoning, False))
    calls = [CALL] if state.tool else []
    return Verdict(
        status,
        pieces=pieces,
        calls=calls,
        at_least_skipped=0 if state.unsure else state.skipped,
        at_most_skipped=None if state.unsure else state.skipped,
    )


def _asked(served: Served, wanted: list[dict[str, Any]]) -> list[str]:
    asked = []
    for data in served.bodies:
        body = json.loads(data)
        last = body["messages"][-1]
        prefix = last["content"] if body.get("continue_final_message") else ""
        found = {"prefix": prefix}
        if "max_tokens" in body:
            found["max_tokens"] = body["max_tokens"]
        asked.append(found)
    return [] if asked == wanted else [f"backends were asked {asked}, not {wanted}"]
