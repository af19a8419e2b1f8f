"""Whether a request ended as it should: its log against the verdicts that are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bridge.events import (
    AnyEvent,
    Completed,
    Failed,
    Reasoning,
    Resumed,
    Skipped,
    Token,
    ToolCall,
    ToolCallDelta,
)
from tests.fuzz.answers import Call, Piece, Verdict
from tests.fuzz.served import Served
from tests.fuzz.words import well_formed


class Log:
    """What a log says, added up as a reader does it."""

    def __init__(self, events: Sequence[AnyEvent]) -> None:
        self.tokens: list[str] = []
        self.thoughts: list[str] = []
        self.calls: dict[int, ToolCall] = {}
        #: Arguments in the order of their events.
        self.arguments: list[str] = []
        self.skipped = 0
        self.resumed: list[str] = []
        self.problems: list[str] = []
        for number, event in enumerate(events, 1):
            if (event.id, event.seq, event.attempt) != ("one", number, 1):
                self.problems.append(f"event {number} is {event}")
            self._take(event)
        self.text = "".join(self.tokens)
        self.reasoning = "".join(self.thoughts)

    def _take(self, event: AnyEvent) -> None:
        if isinstance(event, Token | Reasoning):
            if not event.text:
                self.problems.append(f"an empty delta: {event}")
            into = self.tokens if isinstance(event, Token) else self.thoughts
            into.append(event.text)
        elif isinstance(event, ToolCallDelta):
            self._call(event)
        elif isinstance(event, Skipped):
            self.skipped += event.count
            if event.count < 1:
                self.problems.append(f"{event}")
        elif isinstance(event, Resumed):
            self._resume(event)
        elif not isinstance(event, Completed | Failed):
            self.problems.append(f"unexpected: {event}")

    def _call(self, event: ToolCallDelta) -> None:
        call = self.calls.get(event.index)
        if call is None:
            if event.index != len(self.calls):
                self.problems.append(f"the next call is not {len(self.calls)}: {event}")
            call = ToolCall(event.index, event.call_id, event.name)
            self.calls[event.index] = call
        elif event.call_id is not None or event.name is not None:
            self.problems.append(f"an id or name in a later delta: {event}")
        call.arguments += event.arguments or ""
        self.arguments.append(event.arguments or "")

    def _resume(self, event: Resumed) -> None:
        self.resumed.append(event.mode)
        if event.after != event.seq - 1:
            self.problems.append(f"it goes on behind another event: {event}")
        if event.mode == "restart":
            self.tokens.clear()
            self.thoughts.clear()
            self.calls.clear()
            self.arguments.clear()
            self.skipped = 0


def check(served: Served, verdicts: Sequence[Verdict]) -> list[str]:
    """What is wrong, one sentence each; nothing where one of the verdicts is met."""
    problems = [*served.defects]
    log = Log(served.events)
    problems += log.problems
    terminal = served.terminal
    if terminal is None:
        return problems or ["there is no terminal event"]
    problems += _terminal_is_the_log(terminal, log)
    least: list[str] | None = None
    for verdict in verdicts:
        found = _against(terminal, log, verdict)
        if least is None or len(found) < len(least):
            least = found
    return problems + (least or [])


def _terminal_is_the_log(terminal: Completed | Failed, log: Log) -> list[str]:
    problems = []
    if terminal.text_omitted:
        return []
    if terminal.text != log.text:
        problems.append(f"the text is {terminal.text!r}, the tokens are {log.text!r}")
    if terminal.skipped_records != log.skipped:
        problems.append(
            f"skipped_records is {terminal.skipped_records}, the log has {log.skipped}"
        )
    if isinstance(terminal, Completed):
        if (terminal.reasoning or "") != log.reasoning:
            problems.append(
                f"reasoning {terminal.reasoning!r} is not {log.reasoning!r}"
            )
        if (terminal.tool_calls or []) != list(log.calls.values()):
            problems.append(f"tool calls {terminal.tool_calls} are not {log.calls}")
    return problems


def _damaged(terminal: Completed | Failed, log: Log, verdict: Verdict) -> list[str]:
    """Whether the words of a damaged stream are there, or it is told that not.

    Words of records that were damaged may be anywhere, other ones in their order, and
    no more often than they were sent.
    """
    everywhere = "\n".join([log.text, log.reasoning, *log.arguments])
    problems = [] if verdict.recapped else _too_often(everywhere, verdict.pieces)
    if log.skipped or terminal.type == "failed":
        return problems
    problems += _missing(log, everywhere, verdict.pieces)
    sent, came = "".join(verdict.arguments), "".join(log.arguments)
    if not verdict.loose_arguments and sorted(sent) != sorted(came):
        problems.append(f"arguments {came!r} are not {sent!r}")
    if sum(map(str.isalnum, everywhere)) < sum(map(str.isalnum, sent)):
        problems.append(f"arguments of {sent!r} are missing, and nothing tells of it")
    return problems


def _too_often(everywhere: str, pieces: list[Piece]) -> list[str]:
    hit = {piece.text for piece in pieces if piece.optional}
    counts = Counter(piece.text for piece in pieces if "«" in piece.text)
    return [
        f"{text!r} is there {everywhere.count(text)} times"
        for text, count in counts.items()
        if text not in hit and everywhere.count(text) > count
    ]


def _missing(log: Log, everywhere: str, pieces: list[Piece]) -> list[str]:
    problems = []
    said = {"text": log.text, "reasoning": log.reasoning}
    at = dict.fromkeys(said, 0)
    for kind, text, hit in pieces:
        text = well_formed(text)
        if text.isspace():
            continue  # it may be found anywhere
        found = said[kind].find(text, at[kind])
        if found >= 0:
            at[kind] = found + len(text)
        elif not (hit and text in everywhere):
            problems.append(f"{kind} {text!r} is missing, and nothing tells of it")
    return problems


def _against(terminal: Completed | Failed, log: Log, verdict: Verdict) -> list[str]:
    if verdict.status == "any":
        return _damaged(terminal, log, verdict)
    if terminal.type != verdict.status:
        return [f"{_end(terminal)}; right is {_wanted(verdict)}"] * 2
    problems = []
    missing = False
    for kind, said in (("text", log.text), ("reasoning", log.reasoning)):
        pieces = [piece for piece in verdict.pieces if piece.kind == kind]
        problem, some = _pieces(kind, said, pieces)
        if problem and terminal.type == "failed":
            # The half of a character that the failure cut off, or not.
            with_half, some = _pieces(kind, said + "\ufffd", pieces)
            problem = problem if with_half else []
        problems += problem
        missing = missing or some
    if missing and not log.skipped and terminal.type == "completed":
        problems.append("words are missing, and nothing tells of it")
    problems += _skipped(log, verdict)
    if isinstance(terminal, Completed):
        problems += _completed(terminal, verdict)
    else:
        problems += _failed(terminal, verdict)
    problems += _calls(log, verdict, whole=terminal.type == "completed")
    return problems


def _skipped(log: Log, verdict: Verdict) -> list[str]:
    most = verdict.at_most_skipped
    if log.skipped < verdict.at_least_skipped:
        return [f"{log.skipped} records told of, not {verdict.at_least_skipped}"]
    if most is not None and log.skipped > most:
        return [f"{log.skipped} records told of; at most {most} cannot be read"]
    return []


def _completed(terminal: Completed, verdict: Verdict) -> list[str]:
    problems = []
    if verdict.reason is not None and terminal.finish_reason != verdict.reason:
        problems.append(
            f"finish_reason {terminal.finish_reason!r} is not {verdict.reason!r}"
        )
    if verdict.usage is not None and terminal.usage != verdict.usage:
        problems.append(f"usage {terminal.usage} is not {verdict.usage}")
    return problems


def _failed(terminal: Failed, verdict: Verdict) -> list[str]:
    problems = []
    if terminal.error.code not in verdict.codes:
        problems.append(f"{_end(terminal)}; right is {_wanted(verdict)}")
    if verdict.words not in terminal.error.message:
        problems.append(f"{terminal.error.message!r} does not say {verdict.words!r}")
    return problems


def _end(terminal: Completed | Failed) -> str:
    if isinstance(terminal, Failed):
        return f"failed {terminal.error.code} ({terminal.error.message})"
    return f"completed {terminal.finish_reason}"


def _wanted(verdict: Verdict) -> str:
    return f"{verdict.status} {' or '.join(sorted(verdict.codes)) or verdict.reason}"


def _pieces(kind: str, said: str, pieces: list[Piece]) -> tuple[list[str], bool]:
    """What is wrong with a text, and whether optional pieces are missing."""
    if not any(piece.optional for piece in pieces):
        whole = well_formed("".join(piece.text for piece in pieces))
        return ([] if said == whole else [f"{kind} {said!r} is not {whole!r}"]), False
    at, missing = 0, False
    for piece in _merged(pieces):
        text = well_formed(piece.text)
        if said.startswith(text, at):
            at += len(text)
        elif piece.optional:
            missing = True
        else:
            return [f"{kind} {said!r} has not {text!r} at {at}"], missing
    if at < len(said):
        return [f"{kind} {said!r} has more than it should at {at}"], missing
    return [], missing


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Pieces that come for sure, joined: halves of a character may be in two."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and not (piece.optional or merged[-1].optional):
            merged[-1] = piece._replace(text=merged[-1].text + piece.text)
        else:
            merged.append(piece)
    return merged


def _calls(log: Log, verdict: Verdict, *, whole: bool) -> list[str]:
    if not whole:
        return []
    found = [
        Call(call.call_id, call.name, call.arguments) for call in log.calls.values()
    ]
    if found == verdict.calls:
        return []
    return [f"tool calls {found} are not {verdict.calls}"]
