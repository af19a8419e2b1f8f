"""Answers as backends stream them, mutated by structure, with their right ends.

The invariant: whatever a backend sends, the words of its answer come out in their
order, none is invented, none doubled, and what is missing is told (``skipped``), or
the request fails. Where a stream can be read, the request's end is known exactly:
its text, reasoning and tool calls, its finish reason or error, and that nothing was
told of.

`stream_of` makes the stream of a seed, always the same. An answer is drawn
(`tests.fuzz.words`), put into the records of one of many servers
(`tests.fuzz.styles`), mutated record by record, framed (`tests.fuzz.framing`), cut
into reads, and ended in one of many ways. What it means is added up from the records
(`tests.fuzz.answers`), never from the bytes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.fuzz.answers import Piece, Record, Say, Verdict, expected
from tests.fuzz.checks import check
from tests.fuzz.framing import EVENT_LABELS, Frame, Framing, unreadable
from tests.fuzz.served import MAX_PAYLOAD, End, Request, Script, Served
from tests.fuzz.styles import STYLES, Style, error_records, failing_reason
from tests.fuzz.words import Bits, Look, Speaker, Word, encode, joined

Rng = random.Random


@dataclass
class Stream:
    """A stream and the ends that are right for it."""

    seed: int
    style: str
    tags: list[str]
    request: Request
    verdicts: list[Verdict]
    draft: Draft

    def describe(self) -> str:
        """The stream, for whoever has to find out what is wrong with it."""
        lines = [f"seed {self.seed}, {self.style}, {', '.join(self.tags) or 'plain'}"]
        for script in self.request.scripts:
            body = b"".join(data for _, data in script.reads)
            lines.append(f"content type {script.content_type!r}")
            lines.append(f"body {body!r}")
            reads = [(gap, len(data)) for gap, data in script.reads]
            lines.append(f"reads {reads if len(reads) < 30 else len(reads)}")
            lines.append(f"end {script.end}")
        return "\n".join(lines)

    def problems(self, served: Served) -> list[str]:
        """What is wrong, one sentence each."""
        return check(served, self.verdicts)

    def simpler(self) -> Iterator[Stream]:
        """Streams that are simpler by one step, simplest first."""
        draft = self.draft
        # With one delta left, what repeats the answer could be another one.
        for size in (8, 4, 2, 1) if "recap" not in draft.tags else ():
            for at in range(0, len(draft.records), size):
                records = draft.records[:at] + draft.records[at + size :]
                if records:
                    yield finish(replace(draft, records=records), self.seed, self.style)
        if draft.end != "eof" and not draft.cut:
            yield finish(replace(draft, end="eof"), self.seed, self.style)
        if draft.congested:
            yield finish(replace(draft, congested=0), self.seed, self.style)
        if not draft.at_once:
            yield finish(replace(draft, at_once=True), self.seed, self.style)
        plain = Framing("events", "text/event-stream", Look())
        if draft.framing != plain and not draft.whole:
            yield finish(replace(draft, framing=plain), self.seed, self.style)


@dataclass
class Draft:
    """A stream that is being made."""

    rng: Rng
    style: Style
    speaker: Speaker
    records: list[Record] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    end: End = "eof"
    whole: bool = False
    fail_unreadable: bool = False
    #: Reads come one behind the other; else some come late.
    hurried: bool = True
    #: The body comes in one read.
    at_once: bool = False
    framing: Framing = field(default_factory=lambda: Framing("", "", Look()))
    #: Cut the body somewhere.
    cut: bool = False
    #: The log is congested at every so many deltas.
    congested: int = 0
    max_record_bytes: int = 1 << 20
    max_payload: int = MAX_PAYLOAD
    think_tags: bool = False
    #: So many bytes outside of the words are others.
    damage: int = 0

    def word_records(self) -> list[int]:
        """The positions of records that say text or reasoning."""
        return [n for n, record in enumerate(self.records) if record.says]


def stream_of(seed: int, style: str | None = None) -> Stream:
    """The stream of a seed."""
    rng = random.Random(seed)
    name = style or rng.choice(STYLES)
    draft = Draft(rng, Style(rng, name), Speaker(rng))
    if rng.random() < 0.06:
        _whole_body(draft)
    else:
        _answer(draft)
        for mutate, chance in MUTATIONS:
            if rng.random() < chance:
                mutate(draft)
    if draft.style.reason_everywhere:
        draft.tags.append("reason everywhere")
        for record in draft.records:
            if not record.unreadable and record.reason is None and not record.done:
                record.reason = _everywhere(record)
    _deliver(draft)
    return finish(draft, seed, name)


def _deliver(draft: Draft) -> None:
    """Draw how the records are framed, and what happens to their bytes."""
    rng = draft.rng
    framing = draft.framing = Framing.any(rng, whole=draft.whole)
    if framing.kind == "documents":
        draft.fail_unreadable = False  # a document that is open may still be closed
    if rng.random() < 0.1 and draft.hurried:
        draft.congested = rng.choice([1, 3, 10])
        draft.tags.append("congested")
    if {"too long", "long words"} & set(draft.tags):
        framing.glued = 0.0
        framing.blank = framing.line  # where a line ends a record is guessed if short
    roll = rng.random()
    if roll < 0.12 and not (draft.whole or "too long" in draft.tags):
        draft.cut = True
        draft.tags.append("cut short")
        framing.glued = 0.0  # one of two in a line does not arrive by itself
    elif roll > 0.85:
        draft.damage = rng.choice([1, 1, 1, 2, 5])
        draft.tags.append("damaged")


def _answer(draft: Draft) -> None:
    rng, style, speaker = draft.rng, draft.style, draft.speaker
    records = draft.records
    records += style.head()
    if rng.random() < 0.3:
        thoughts = [Say("reasoning", _word(draft)) for _ in range(rng.randrange(1, 5))]
        records += [style.say(say) for say in thoughts]
    texts = [Say("text", _word(draft)) for _ in range(rng.randrange(0, 8))]
    records += [style.say(say) for say in texts]
    if rng.random() < 0.25:
        records += style.calls(speaker, 0, rng.randrange(1, 4))
    if rng.random() < 0.02:
        draft.tags.append("long")
        records += [style.say(Say("text", _word(draft))) for _ in range(300)]
    records.append(style.reason(rng.choice(["stop", "stop", "length", "tool_calls"])))
    if rng.random() < 0.5:
        records.append(style.usage())
    records.append(Record(None))


def _everywhere(record: Record) -> str | None:
    """The finish reason that a record carries beside its words."""
    return "stop" if b'"finish_reason":"stop"' in _json(record) else None


def _json(record: Record) -> bytes:
    return joined(encode(record.value, Look()))


def _word(draft: Draft) -> str:
    if draft.rng.random() < 0.05:
        return draft.speaker.white()
    return draft.speaker.word()


def _whole_body(draft: Draft) -> None:
    """A completion that was not streamed."""
    rng, speaker = draft.rng, draft.speaker
    draft.whole = True
    draft.tags.append("whole")
    texts = [speaker.word() for _ in range(rng.randrange(1, 4))]
    says = [Say("text", text) for text in texts]
    content = rng.choice(
        [
            Word("".join(texts)),
            [{"type": "text", "text": Word(text)} for text in texts],
        ]
    )
    message = {"role": "assistant", "content": content, "refusal": None}
    if rng.random() < 0.3:
        thought = speaker.word()
        says.append(Say("reasoning", thought))
        message["reasoning_content"] = Word(thought)
    choice = {"index": 0, "message": message, "logprobs": None}
    reason = None
    if rng.random() < 0.8:
        reason = choice["finish_reason"] = rng.choice(["stop", "length"])
    usage = None
    value: dict[str, Any] = {
        "id": "x",
        "object": "chat.completion",
        "choices": [choice],
    }
    if rng.random() < 0.7:
        usage = value["usage"] = {"prompt_tokens": 3, "completion_tokens": 4}
    draft.records.append(Record(value, says, reason=reason, usage=usage))
    draft.end = rng.choice(["eof", "eof", "eof", "reset", "silence"])


# Mutations, each by its chance


def _tag(mutate: Callable[[Draft], None]) -> Callable[[Draft], None]:
    def tagged(draft: Draft) -> None:
        draft.tags.append(mutate.__name__.strip("_").replace("_", " "))
        mutate(draft)

    return tagged


@_tag
def _duplicated(draft: Draft) -> None:
    """A chunk comes twice, and so do its words."""
    records = draft.records
    # All that was thought so far may come once more in a message.
    positions = [n for n in draft.word_records() if records[n].says[0].kind == "text"]
    if positions and draft.style.name != "perplexity":
        at = draft.rng.choice(positions)
        draft.records.insert(at, draft.records[at])


@_tag
def _pings(draft: Draft) -> None:
    for _ in range(draft.rng.randrange(1, 4)):
        at = draft.rng.randrange(len(draft.records))
        draft.records.insert(at, draft.style.ping())


@_tag
def _junk_records(draft: Draft) -> None:
    """Records that no reader can read."""
    rng = draft.rng
    for _ in range(rng.choice([1, 1, 2, 12])):
        at = rng.randrange(len(draft.records))
        draft.records.insert(at, Record(unreadable(rng), unreadable=True))
    draft.fail_unreadable = rng.random() < 0.2


def _single(draft: Draft) -> list[int]:
    """The positions of records with words that nothing repeats."""
    records = draft.records
    if {"recap", "other choice"} & set(draft.tags):
        return []
    return [
        n
        for n in draft.word_records()
        if records.count(records[n]) == 1 and not records[n].says[0].text.isspace()
    ]


@_tag
def _destroyed(draft: Draft) -> None:
    """A record is cut in its JSON, which another one follows."""
    rng = draft.rng
    records = draft.records
    positions = _single(draft)
    if not positions:
        return
    at = rng.choice(positions)
    record = records[at]
    data = _json(record)
    cut = data[: rng.randrange(1, len(data))]
    draft.records[at] = Record(Bits(cut), record.says, unreadable=True)
    draft.fail_unreadable = rng.random() < 0.1


@_tag
def _deep(draft: Draft) -> None:
    """A record is nested deeper than any parser goes."""
    positions = _single(draft)
    if not positions:
        return
    record = draft.records[draft.rng.choice(positions)]
    if isinstance(record.value, dict):
        record.value["deep"] = Bits(b"[" * 3000 + b"]" * 3000)
        record.unreadable = True


@_tag
def _error(draft: Draft) -> None:
    at = draft.rng.randrange(len(draft.records) + 1)
    draft.records.insert(at, error_records(draft.style, draft.speaker))


@_tag
def _failing_reason(draft: Draft) -> None:
    rng = draft.rng
    at = rng.randrange(len(draft.records))
    say = Say("text", draft.speaker.word()) if rng.random() < 0.5 else None
    draft.records.insert(at, failing_reason(draft.style, say))


@_tag
def _text_behind_the_reason(draft: Draft) -> None:
    at = next(n for n, r in enumerate(draft.records) if r.reason is not None) + 1
    for _ in range(draft.rng.randrange(1, 4)):
        say = Say("text", _word(draft))
        draft.records.insert(at, draft.style.say(say))
        at += 1


@_tag
def _records_behind_done(draft: Draft) -> None:
    say = Say("text", draft.speaker.word())
    draft.records += [draft.style.say(say), Record(None)]


@_tag
def _early_usage(draft: Draft) -> None:
    at = draft.rng.randrange(len(draft.records))
    draft.records.insert(at, draft.style.usage())


@_tag
def _no_done(draft: Draft) -> None:
    kept = [record for record in draft.records if not record.done]
    draft.records = kept or [draft.style.ping()]
    draft.end = draft.rng.choice(["eof", "reset", "protocol", "silence", "pings"])


@_tag
def _no_reason(draft: Draft) -> None:
    kept = [r for r in draft.records if r.reason is None or r.says or r.calls]
    draft.records = kept or draft.records


@_tag
def _other_choice(draft: Draft) -> None:
    """Another choice says something, which is not the answer's."""
    rng, style = draft.rng, draft.style
    first = next((n for n, r in enumerate(draft.records) if r.says or r.calls), None)
    if first is None:
        return
    value = style.chunk({"content": "of another choice"})
    value["choices"][0] |= {"index": style.index + 1, "finish_reason": None}
    if isinstance(draft.records[first].value, dict) and style.oddness == 0:
        at = rng.randrange(first + 1, len(draft.records) + 1)
        draft.records.insert(at, Record(value, may_tell=True))


@_tag
def _cut_emoji(draft: Draft) -> None:
    """A character is cut between two deltas, or its half is all that comes."""
    rng, style = draft.rng, draft.style
    kind = rng.choice(["text", "text", "reasoning"])
    first = Say(kind, draft.speaker.word() + "\ud83d")
    second = Say(kind, rng.choice(["\ude00", "\ude00!", "", "no half"]))
    at = rng.randrange(len(draft.records))
    draft.records.insert(at, style.say(first))
    if rng.random() < 0.3:
        at += 1
        draft.records.insert(at, style.ping())
    if second.text:
        draft.records.insert(at + 1, style.say(second))


@_tag
def _recap(draft: Draft) -> None:
    """The whole answer comes once more behind its words."""
    if not draft.word_records() or draft.style.name == "perplexity":
        return
    if "cut emoji" in draft.tags:
        return  # half a character is not the same as U+FFFD
    at = max(draft.word_records()) + 1
    texts = [s for r in draft.records for s in r.says if s.kind == "text"]
    if len(texts) > 1:
        draft.records.insert(at, draft.style.recap())


@_tag
def _named_events(draft: Draft) -> None:
    """Events have names, as those of other APIs do."""
    name = draft.rng.choice(["delta", "message", "completion", "chunk"])
    for record in draft.records:
        record.event = record.event or ("" if record.done else name)


@_tag
def _too_long(draft: Draft) -> None:
    """A record is longer than the limit, which ends the stream."""
    if "long words" in draft.tags:
        return
    draft.max_record_bytes = 20_000
    draft.end = "eof"  # where the limit is met with the next read at the latest
    say = Say("text", draft.speaker.word())
    record = draft.style.say(say)
    record.error = ("backend_protocol", TOO_LONG)
    record.says = []
    if isinstance(record.value, dict):
        record.value["obfuscation"] = "x" * 25_000
        draft.records.insert(draft.rng.randrange(len(draft.records)), record)


@_tag
def _long_words(draft: Draft) -> None:
    """Words are longer than an event may be, and are split."""
    rng, style = draft.rng, draft.style
    if "too long" in draft.tags:
        return
    draft.max_payload = 9000
    for _ in range(rng.randrange(1, 3)):
        fill = rng.choice(["é\n😀\0 ", "long ", "\x01", '\\"'])
        text = draft.speaker.word() + fill * rng.randrange(500, 4000)
        say = Say(rng.choice(["text", "text", "reasoning"]), text)
        draft.records.insert(rng.randrange(len(draft.records)), style.say(say))


@_tag
def _thoughts_split_off(draft: Draft) -> None:
    """Thoughts in the text are moved: where the words are, the marks say."""
    draft.think_tags = True


@_tag
def _late(draft: Draft) -> None:
    """Reads come late, though not too late."""
    draft.hurried = False


MUTATIONS: list[tuple[Callable[[Draft], None], float]] = [
    (_text_behind_the_reason, 0.08),
    (_early_usage, 0.1),
    (_other_choice, 0.05),
    (_cut_emoji, 0.1),
    (_duplicated, 0.08),
    (_pings, 0.15),
    (_recap, 0.05),
    (_no_reason, 0.06),
    (_no_done, 0.3),
    (_records_behind_done, 0.05),
    (_junk_records, 0.06),
    (_destroyed, 0.06),
    (_deep, 0.02),
    (_error, 0.08),
    (_failing_reason, 0.06),
    (_late, 0.15),
    (_long_words, 0.02),
    (_too_long, 0.02),
    (_thoughts_split_off, 0.05),
    (_named_events, 0.04),
]


# From records to reads


def finish(draft: Draft, seed: int, name: str) -> Stream:
    """The stream of a draft; what is left to chance goes by the seed."""
    rng = random.Random(f"{seed} framed")
    framing = draft.framing
    records = _fit(draft, framing)
    if draft.damage:
        # Whether what is behind the end is read, damage decides.
        end_at = next((n for n, r in enumerate(records) if r.done), len(records))
        records = records[: end_at + 1]
    draft.style.repeat(records)
    frames = framing.frames(rng, records)
    end = draft.end
    if end == "pings" and framing.kind != "events":
        end = "silence"
    ends: list[End] = ["eof", "reset", "protocol", "silence"]
    if framing.kind == "documents" and any(r.unreadable for r in records):
        # What is behind an open document is read when the body ends.
        end, ends = "eof", ["eof"]
    if draft.damage:
        verdicts = [_damage(draft, rng, frames)]
    elif draft.cut:
        end = rng.choice(ends)
        verdicts = _cut_short(draft, rng, frames, end)
    else:
        verdicts = _verdicts(draft, [f.record for f in frames if f.record], end)
        if rng.random() < 0.3 and end != "pings":
            _leave_off_the_end(frames)
    verdicts = [_allowing(draft, verdict) for verdict in verdicts]
    body = b"".join(joined(frame.parts) for frame in frames)
    reads = [(0.0, body)] if draft.at_once else _reads(draft, rng, body)
    script = Script(
        framing.label,
        reads,
        end,
        max_record_bytes=draft.max_record_bytes,
        fail_unreadable=draft.fail_unreadable,
    )
    tags = [framing.kind, end, *draft.tags]
    request = Request(
        [script],
        congested=draft.congested,
        think_tags=draft.think_tags,
        max_payload=draft.max_payload,
    )
    return Stream(seed, name, tags, request, verdicts, draft)


def _allowing(draft: Draft, verdict: Verdict) -> Verdict:
    if draft.think_tags:
        return _anywhere(verdict)
    if verdict.status == "failed" and (draft.cut or draft.framing.kind == "documents"):
        # A record whose end is missing was not given up when the stream fails.
        return replace(verdict, at_least_skipped=0)
    return verdict


def _anywhere(verdict: Verdict) -> Verdict:
    """The same words, though they may be text or thoughts, and without their marks."""
    pieces = [
        Piece(piece.kind, number, True)
        for piece in verdict.pieces
        if not piece.optional
        for number in re.findall("«[0-9]+»", piece.text)
    ]
    return Verdict("any", pieces=pieces, loose_arguments=True)


def _fit(draft: Draft, framing: Framing) -> list[Record]:
    """The records that this framing can hold."""
    records = draft.records
    if framing.label not in EVENT_LABELS[:3]:
        # A document has a limit of its own.
        records = [r for r in records if r.error is None or r.error[1] != TOO_LONG]
    compact = framing.look.indent is None
    if framing.kind != "events" or not framing.blank:
        # Documents have neither event names nor text without brackets.
        records = [r for r in records if not (r.plain or r.event)]
    if not compact or not framing.blank:
        # Where does one that is not closed end?
        records = [r for r in records if not r.unreadable]
    return records or [Record(None)]


def _verdicts(draft: Draft, records: list[Record], end: End) -> list[Verdict]:
    one = draft.whole or len(records) == 1
    return expected(records, end, whole=one, fail=draft.fail_unreadable)


def _leave_off_the_end(frames: list[Frame]) -> None:
    """The last line or event has no end."""
    last = frames[-1]
    if last.record is not None and not (last.record.plain or last.record.unreadable):
        last.parts.pop()


TOO_LONG = "more than 20000 bytes"

#: The halves of characters that `_cut_emoji` cuts.
_HALVES = "\ud83d\ude00"

#: What damage makes of a byte, besides any other byte.
_STRUCTURE = b'"\\{}[],:\n\r 0nx\0\xff'


def _damage(draft: Draft, rng: Rng, frames: list[Frame]) -> Verdict:
    """Replace bytes that are no words', wherever: in names, brackets, line ends."""
    verdict = Verdict("any")
    damaged: set[int] = set()
    sizes = [
        (n, p, len(part))
        for n, frame in enumerate(frames)
        for p, (part, word) in enumerate(frame.parts)
        if part and not word
    ]
    for _ in range(draft.damage):
        number, position, size = rng.choices(sizes, [size for *_, size in sizes])[0]
        data = bytearray(frames[number].parts[position][0])
        data[rng.randrange(size)] = rng.choice([*_STRUCTURE, rng.randrange(256)])
        frames[number].parts[position] = (bytes(data), False)
        damaged |= {number, number + 1}
    for number, frame in enumerate(frames):
        record = frame.record
        if record is not None and record.done:
            break
        if record is not None:
            hit = number in damaged
            for kind, text in record.says:
                verdict.pieces.append(Piece(kind, text.strip(_HALVES), hit))
            # What a message without a delta repeats is not known to be a repetition.
            repeats = b'"message"' in joined(frame.parts)
            verdict.recapped |= repeats and (hit or draft.style.name != "perplexity")
            verdict.arguments += [piece.arguments for piece in record.calls]
            verdict.loose_arguments |= hit and bool(record.calls)
    return verdict


def _cut_short(
    draft: Draft, rng: Rng, frames: list[Frame], ending: End
) -> list[Verdict]:
    """Cut the body anywhere. What arrived whole counts; of the rest it is told."""
    number = rng.randrange(len(frames))
    last = frames[number]
    cut = rng.randrange(last.size)
    if draft.framing.look.indent is not None and last.begin < cut < last.end:
        cut = last.begin  # parts of a document on lines of their own may be read
    whole = [f.record for f in frames[:number] if f.record is not None]
    del frames[number + 1 :]
    begin, end, record = last.begin, last.end, last.record
    last.parts = [(joined(last.parts)[:cut], False)]
    if record is None or cut <= begin:
        # Nothing of a record, though perhaps a field's name, which may be told of.
        verdicts = _verdicts(draft, whole, ending)
        for verdict in verdicts:
            verdict.at_most_skipped = None
        return verdicts
    if cut >= end and not record.plain:
        return _verdicts(draft, [*whole, record], ending)
    lost = [say for say in record.says if not say.text.isspace()]
    if lost:
        half = Record(Bits(b""), lost, unreadable=True)
    else:
        half = Record(Bits(b""), may_tell=True)
    verdicts = _verdicts(draft, [*whole, half], ending)
    verdicts += _verdicts(draft, [*whole, record], ending)
    if record.error is not None:
        broken = Record(Bits(b""), error=(record.error[0], ""))
        verdicts += _verdicts(draft, [*whole, broken], ending)
    if record.error is not None or record.calls or draft.fail_unreadable:
        verdicts += _verdicts(draft, whole, ending)
    for verdict in verdicts:
        verdict.at_most_skipped = None
    return verdicts


def _reads(draft: Draft, rng: Rng, body: bytes) -> list[tuple[float, bytes]]:
    reads = cut_into_reads(rng, body)
    if draft.hurried or not reads:
        return reads
    gaps = [0.0] * len(reads)
    for gap in (1.3, 0.5):  # together less than what ends an answer
        gaps[rng.randrange(len(gaps))] += gap
    gaps[0] += rng.choice([0.0, 20.0])
    return [(gap, data) for gap, (_, data) in zip(gaps, reads, strict=True)]


def cut_into_reads(rng: Rng, body: bytes) -> list[tuple[float, bytes]]:
    """A body in reads that come at once: whole, byte by byte, or cut anywhere."""
    way = rng.randrange(5)
    if way == 0 or not body:
        pieces = [body]
    elif way == 1 and len(body) < 1500:
        pieces = [body[at : at + 1] for at in range(len(body))]
    else:
        mean = rng.choice([20, 60, 200, 1000])
        ends = sorted(rng.sample(range(1, len(body) + 1), len(body) // mean + 1))
        pieces = [
            body[a:b] for a, b in zip([0, *ends], [*ends, len(body)], strict=True)
        ]
    return [(0.0, piece) for piece in pieces if piece]
