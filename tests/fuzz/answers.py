"""What a backend's records mean: the fuzzer's own reading of a stream.

A `Record` is a JSON value together with what it says. `expected` adds up the records
that arrive whole, and the way their stream ends, to the verdicts that are right. It
looks at no bytes, so it shares no mistake with the bridge's decoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tests.fuzz.served import End


class Say(NamedTuple):
    """A piece of text or reasoning."""

    kind: str  # "text" or "reasoning"
    text: str


class CallPiece(NamedTuple):
    """A piece of a tool call: what is known of the call behind it, more arguments."""

    key: int
    id: str | None
    name: str | None
    arguments: str


@dataclass
class Record:
    """One record, and what it says. ``value`` is None for ``[DONE]``."""

    value: Any
    says: list[Say] = field(default_factory=list)
    calls: list[CallPiece] = field(default_factory=list)
    reason: str | None = None
    usage: dict[str, Any] | None = None
    #: The code and the words of an error that it reports.
    error: tuple[str, str] | None = None
    event: str = ""
    #: It cannot be read, or not surely: its words are there, or it is told of.
    unreadable: bool = False
    #: It may be told of, although it says nothing.
    may_tell: bool = False
    #: It is a plain text, which no brackets delimit.
    plain: bool = False

    @property
    def done(self) -> bool:
        return self.value is None

    @property
    def speaks(self) -> bool:
        return bool(self.says or self.calls)


class Piece(NamedTuple):
    """Text that is to come; where it is ``optional``, or its record is told of."""

    kind: str
    text: str
    optional: bool


@dataclass
class Call:
    """A tool call as far as it came."""

    id: str | None
    name: str | None
    arguments: str = ""


@dataclass
class Verdict:
    """One right end of a request."""

    status: str
    codes: frozenset[str] = frozenset()
    pieces: list[Piece] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    #: None where any is right.
    reason: str | None = None
    usage: dict[str, Any] | None = None
    at_least_skipped: int = 0
    #: None where any number is right.
    at_most_skipped: int | None = 0
    #: What the error's message has to hold.
    words: str = ""
    #: The arguments of all calls, piece by piece, where only they are compared.
    arguments: list[str] = field(default_factory=list)
    loose_arguments: bool = False
    #: A damaged record may say again what others said.
    recapped: bool = False


BACKEND_PROTOCOL = frozenset({"backend_protocol"})

_CUT = {
    "eof": BACKEND_PROTOCOL,
    "protocol": BACKEND_PROTOCOL,
    "reset": frozenset({"backend_unavailable"}),
    "silence": frozenset({"backend_timeout"}),
    "pings": frozenset({"backend_timeout"}),
}


def _take(record: Record, verdict: Verdict, calls: dict[int, Call]) -> None:
    for say in record.says:
        verdict.pieces.append(Piece(say.kind, say.text, record.unreadable))
    for piece in record.calls:
        call = calls.setdefault(piece.key, Call(piece.id, piece.name))
        call.id, call.name = piece.id or call.id, piece.name or call.name
        call.arguments += piece.arguments
    if record.reason is not None:
        verdict.reason = record.reason
    if record.usage is not None:
        verdict.usage = record.usage
    if record.unreadable and not record.speaks:
        verdict.at_least_skipped += 1
    if record.unreadable or record.may_tell:
        verdict.at_most_skipped = None


def expected(
    records: Sequence[Record], end: End, *, whole: bool = False, fail: bool = False
) -> list[Verdict]:
    """The verdicts that are right for records that arrive whole, and then ``end``.

    ``whole``: they may be the one document of a body. ``fail``: an unreadable record
    fails the request.
    """
    verdict = Verdict("completed")
    calls: dict[int, Call] = {}
    verdicts: list[Verdict] = []
    for record in records:
        fails = fail and (record.unreadable or record.may_tell)
        if fails:
            verdicts.append(_unreadable(verdict))
            if record.unreadable and not record.speaks:
                return verdicts
        _take(record, verdict, calls)
        if fails:
            verdicts.append(_unreadable(verdict))
        if record.error is not None:
            code, words = record.error
            return [*verdicts, _failed(verdict, frozenset({code}), words)]
        if record.done:
            break
    verdict.calls = list(calls.values())
    done = any(record.done for record in records)
    return verdicts + _ended(verdict, end, done=done, whole=whole)


def _unreadable(verdict: Verdict) -> Verdict:
    """The request fails by a record that cannot be read."""
    return replace(_failed(verdict, BACKEND_PROTOCOL), at_most_skipped=None)


def _ended(verdict: Verdict, end: End, *, done: bool, whole: bool) -> list[Verdict]:
    """The verdicts on a stream that reported no error."""
    said = bool(verdict.pieces or verdict.calls)
    verdicts = []
    if done or verdict.reason is not None:
        if said or verdict.reason is not None:
            verdicts.append(replace(verdict, reason=verdict.reason or "unknown"))
        if not verdict.calls and all(piece.optional for piece in verdict.pieces):
            verdicts.append(_failed(verdict, BACKEND_PROTOCOL))
        return verdicts
    if whole and said and end == "eof":
        verdicts.append(replace(verdict, reason="unknown"))
    return [*verdicts, _failed(verdict, _CUT[end])]


def _failed(verdict: Verdict, codes: frozenset[str], words: str = "") -> Verdict:
    return Verdict(
        "failed",
        codes,
        list(verdict.pieces),
        usage=verdict.usage,
        at_least_skipped=verdict.at_least_skipped,
        at_most_skipped=verdict.at_most_skipped,
        words=words,
    )
