"""What a chaos run came to: the table, and whether anything at all went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos import logs
from tests.chaos.load import Order
from tests.chaos.logs import Event
from tests.chaos.readers import Gap, Reader
from tests.chaos.stage import Fault, Stage

#: A reader's silence may begin so long before the fault that lengthens it, in s.
BEFORE_S = 0.1


@dataclass
class Verdict:
    """Counts, and a line for each thing that went wrong: there must be none."""

    jobs: int
    seconds: float
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    resumed: Counter[str] = field(default_factory=Counter)
    worst_gap_ms: dict[str, int] = field(default_factory=dict)
    events: int = 0
    segments: int = 0
    repairs: int = 0
    readers: int = 0
    truncated: int = 0
    lost: int = 0
    holes: int = 0
    repeats: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not (self.wrong or self.lost or self.holes or self.repeats)

    def table(self) -> str:
        """The figures as a Markdown table."""
        rows = [("what", "count"), ("---", "---:"), *self._rows()]
        return "\n".join(f"| {what} | {count} |" for what, count in rows)

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "jobs", f"{self.jobs}"
        yield "seconds", f"{self.seconds:.0f}"
        yield "events in the logs", f"{self.events}"
        yield "segments of speech", f"{self.segments}"
        for kind, count in sorted(self.faults.items()):
            yield f"fault: {kind}", f"{count}"
        for end, count in sorted(self.ends.items()):
            yield f"ended: {end}", f"{count}"
        for name in ("takeover", "handover", "backend_failure"):
            yield f"resumed: {name.replace('_', ' ')}", f"{self.resumed[name]}"
        yield "of these continued", f"{self.resumed['continue']}"
        yield "of these restarted", f"{self.resumed['restart']}"
        yield "repairs of batches", f"{self.repairs}"
        yield "live readers (SDK)", f"{self.readers}"
        yield "truncations that they saw", f"{self.truncated}"
        for kind, gap in sorted(self.worst_gap_ms.items()):
            yield f"worst gap, ms: {kind}", f"{gap}"
        yield "**lost**", f"**{self.lost}**"
        yield "**holes**", f"**{self.holes}**"
        yield "**repeats**", f"**{self.repeats}**"
        yield "**anything else wrong**", f"**{len(self.wrong)}**"


def judge(
    stage: Stage,
    orders: Sequence[Order],
    found: Mapping[str, list[Event]],
    readers: Sequence[Reader],
    unread: Sequence[Reader],
    seconds: float,
) -> Verdict:
    """Compare what there is with what there must be."""
    verdict = Verdict(len(orders), seconds, repairs=stage.repairs)
    verdict.faults.update(fault.kind for fault in stage.faults)
    for order in orders:
        _judge_log(verdict, order, found[order.id])
    for reader in readers:
        _judge_reader(verdict, reader, found[reader.order.id])
    verdict.wrong += [f"{reader!r} came to no end" for reader in unread]
    verdict.wrong += [f"a bridge ended with {c}" for c in stage.exits if c != 0]
    gaps = [gap for reader in readers for gap in reader.gaps]
    verdict.worst_gap_ms = _worst_gaps(gaps, stage.faults)
    return verdict


def judge_speech(
    verdict: Verdict,
    found: Mapping[str, list[Event]],
    spoken: Mapping[str, list[Event]],
) -> None:
    """Compare what was to be spoken with the text, where that was completed."""
    for id, events in spoken.items():
        if found[id] and found[id][-1]["type"] == "completed":
            text = logs.text_of(found[id])
            verdict.segments += sum(event["type"] == "segment" for event in events)
            verdict.wrong += [f"{id}: {w}" for w in logs.faults_of_speech(events, text)]


def _judge_log(verdict: Verdict, order: Order, events: list[Event]) -> None:
    verdict.events += len(events)
    verdict.holes += logs.holes(events)
    verdict.repeats += logs.repeats(events)
    if not events or events[-1]["type"] not in logs.TERMINAL:
        verdict.lost += 1
        verdict.wrong.append(f"{order.id} ({order.kind}) has no end")
        return
    end = events[-1]
    verdict.ends[end["type"]] += 1
    for event in events:
        if event["type"] == "resumed":
            verdict.resumed.update((event["reason"], event["mode"]))
    wrong = logs.faults_of_log(events)
    if end["type"] not in order.ends:
        wrong.append(f"it ended {end['type']}: {end.get('error')}")
    wrong += _wrong_text(order, events)
    verdict.wrong += [f"{order.id} ({order.kind}): {what}" for what in wrong]


def _wrong_text(order: Order, events: list[Event]) -> Iterator[str]:
    if order.kind == "tool call":
        if events[-1]["type"] == "completed" and not events[-1].get("tool_calls"):
            yield "its tool call is not there"
        return
    text, undisturbed = logs.text_of(events), order.text
    if events[-1]["type"] == "completed" and text != undisturbed:
        yield f"its text is {text[-40:]!r}, undisturbed {undisturbed[-40:]!r}"
    elif not undisturbed.startswith(text):
        yield "its text is no part of the undisturbed one"


def _judge_reader(verdict: Verdict, reader: Reader, events: list[Event]) -> None:
    verdict.readers += 1
    verdict.truncated += reader.truncated
    if reader.text is None or not events:
        return  # said elsewhere: it came to no end, or there is no log
    if reader.text != logs.text_of(events):
        verdict.wrong.append(f"{reader!r} has another text than the log")
    if reader.end != events[-1]["type"]:
        verdict.wrong.append(f"{reader!r}: the log ended {events[-1]['type']}")


def _worst_gaps(gaps: list[Gap], faults: list[Fault]) -> dict[str, int]:
    """The worst silence of each kind of fault, in milliseconds."""
    worst: dict[str, int] = {}
    for gap in gaps:
        begin = gap.begin - BEFORE_S
        kinds = {f.kind for f in faults if f.begin < gap.end and f.end > begin}
        if gap.backend_failed:
            kinds.add("backend reset")
        kind = " ".join(kinds) if len(kinds) == 1 else "several at once"
        if not kinds:
            kind = "none"
        worst[kind] = max(worst.get(kind, 0), round(gap.seconds * 1000))
    return worst
