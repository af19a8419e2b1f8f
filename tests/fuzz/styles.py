"""How servers put an answer into records: fields, places, neighbours.

A `Style` is one server's habits, drawn once for a stream. Its records say what they
are given to say; everything around it is drawn anew for each.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from tests.fuzz.answers import CallPiece, Record, Say
from tests.fuzz.words import Bits, Speaker, Word

STYLES = (
    "openai", "vllm", "sglang", "llamacpp", "azure", "openrouter", "gemini", "ollama",
    "litellm", "perplexity", "deepseek", "mistral", "bare",
)  # fmt: skip

Rng = random.Random
Value = Any


def nothing(rng: Rng) -> Value:
    """What servers send where there is nothing."""
    return rng.choice([None, None, "", [], {}])


def no_error(rng: Rng) -> Value:
    """An error that is none: neither words nor a code other than 0."""
    return rng.choice(
        [None, "", {}, [], 0, False, {"code": 0, "message": ""}, {"code": None}]
    )


_JUNK: list[Value] = [
    None, True, False, 0, 1, -1, 1.5, 10**30, float("inf"), float("-inf"), float("nan"),
    "", "x", "some words", [], [1], ["a", None], [[]], {}, {"a": "b"}, {"text": 1},
    {"content": "no"}, {"text": "no"}, {"delta": {"content": "no"}}, "half \ud83d",
    "\ude00 half", "a\0b", "data: [DONE]", "}]}", '"', "\\", "assistant",
    Bits(b'"invalid \xff\xfe utf-8"'), Bits(b'"cut \xf0\x9f"'), Bits(b'"raw \t\x01"'),
    Bits(b"-Infinity"), Bits(b"1e999"), Bits(b"[" * 40 + b"]" * 40),
    Bits(b'{"a":1,"a":2}'),
]  # fmt: skip


def junk(rng: Rng) -> Value:
    """Any JSON value, and some that only lenient parsers take."""
    return rng.choice(_JUNK)


#: Stands for all of the text so far.
RECAP = Bits(b'""')

#: Names that hold no words, by where they stand.
_TOP = ("id", "created", "model", "system_fingerprint", "service_tier", "provider",
        "timings", "prompt_token_ids", "citations", "obfuscation", "x_groq", "status",
        "prompt_filter_results", "search_results", "version", "seed")  # fmt: skip
_CHOICE = ("logprobs", "stop_reason", "matched_stop", "content_filter_results",
           "content_filter_offsets", "token_ids", "seed",
           "prompt_token_ids")  # fmt: skip
_DELTA = ("role", "name", "id", "type", "annotations", "citations",
          "provider_specific_fields", "model", "created", "signature", "language",
          "metadata", "index", "phase", "recipient")  # fmt: skip
_EMPTY_DELTA = ("tool_calls", "function_call", "refusal", "audio", "reasoning_details",
                "annotations", "reasoning", "reasoning_content", "thinking",
                "content")  # fmt: skip
_NO_INDEX: list[Value] = [None, "0", {}, [], False, 0.0, "zero", Bits(b"NaN")]


class Style:
    """One server's habits in one stream."""

    def __init__(self, rng: Rng, name: str) -> None:
        self.rng = rng
        self.name = name
        self.index = rng.choice([0, 0, 0, 0, 1, 3])
        #: How often a record is odd: its words elsewhere, its neighbours replaced.
        self.oddness = rng.choice([0.0, 0.0, 0.1, 0.5, 1.0])
        self.reason_everywhere = rng.random() < 0.04
        self.shuffled = rng.random() < 0.2
        self.no_error = rng.random() < 0.1
        self.thoughts = rng.choice(["reasoning_content", "reasoning", "both"])
        #: How a server repeats the whole answer beside its deltas.
        self.trims = rng.random() < 0.15
        self._call_index = rng.choice([0, 0, 1, 5])

    # Records

    def head(self) -> list[Record]:
        """What comes before the first word."""
        rng, records = self.rng, []
        if self.name == "azure":
            filtered = {"prompt_index": 0, "content_filter_results": {"hate": "safe"}}
            value = self._top([], prompt_filter_results=[filtered])
            records.append(Record(value))
        if rng.random() < 0.7:
            delta = {"role": "assistant", "content": rng.choice(["", None])}
            records.append(Record(self.chunk(delta)))
        return records

    def chunk(self, delta: Value, **choice: Value) -> dict[str, Value]:
        """A chunk with one choice."""
        return self._top([self._choice(delta, **choice)])

    def say(self, say: Say) -> Record:
        """A record that says one word."""
        word = Word(say.text)
        odd = self.rng.random() < self.oddness
        if say.kind == "text":
            place = self.rng.choice(PLACES) if odd else _content
        else:
            place = self.rng.choice(THOUGHT_PLACES) if odd else _thought
        value = place(self, word)
        if odd and self.rng.random() < 0.6:
            value = self._replace_neighbours(value)
        # A record that is its own choice has fields around it that may be words.
        may_tell = odd and isinstance(value, dict) and not value.get("choices")
        return Record(self._shuffle(value), [say], may_tell=may_tell)

    def reason(self, reason: str) -> Record:
        """The record that ends the answer."""
        rng = self.rng
        delta = rng.choice(
            [{}, {"content": ""}, {"content": None}, {"role": "assistant"}]
        )
        choice: dict[str, Value] = {"finish_reason": reason}
        if self.name == "openrouter" or rng.random() < 0.1:
            choice["native_finish_reason"] = rng.choice([reason, "end_turn", "STOP"])
        if rng.random() < 0.1:
            choice["stop_reason"] = rng.choice([128009, "</s>", None])
        value = self.chunk(delta, **choice)
        if self.name == "perplexity":
            value["choices"][0]["message"] = self._message(RECAP)
        elif rng.random() < 0.05:
            del value["choices"][0]["delta"]
        return Record(value, reason=reason)

    def usage(self) -> Record:
        """The record that counts the tokens."""
        rng = self.rng
        usage = {
            "prompt_tokens": rng.randrange(100),
            "completion_tokens": rng.randrange(100),
            "prompt_tokens_details": rng.choice([None, {"cached_tokens": 3}]),
        }
        if rng.random() < 0.15:
            value = self.chunk({}, usage=usage)
        else:
            choices = rng.choice([[], [], [], [self._choice({})], None])
            value = self._top(choices, usage=usage)
        return Record(value, usage=usage)

    def ping(self) -> Record:
        """A record that says nothing, and is known to."""
        rng = self.rng
        values: list[Value] = [
            {}, {"type": "ping"}, {"choices": []}, self.chunk({}), self.chunk(None),
            self.chunk({"content": ""}), self.chunk({"content": None}), [],
            self._top([]), {"object": "ping", "id": "x"},
        ]  # fmt: skip
        return Record(rng.choice(values), event=rng.choice(["", "", "ping"]))

    def recap(self) -> Record:
        """A record that repeats the whole answer behind it."""
        choice = self._choice({}, message=self._message(RECAP))
        if not (self.oddness or self.trims) and self.rng.random() < 0.3:
            del choice["delta"]  # only what says exactly the same is a repetition
        return Record(self._top([choice]))

    def repeat(self, records: list[Record]) -> None:
        """Fill in the text so far where a record repeats it."""
        text = ""
        for record in records:
            if not record.unreadable:
                text += "".join(s.text for s in record.says if s.kind == "text")
            message = _message_of(record.value)
            if message is not None and isinstance(message["content"], Bits | Recap):
                message["content"] = Recap(text.strip() if self.trims else text)

    # Parts

    def _top(self, choices: Value, **more: Value) -> dict[str, Value]:
        rng, name = self.rng, self.name
        if name == "bare":
            return {"choices": choices, **more}
        value: dict[str, Value] = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1764270000,
            "model": "m",
            "choices": choices,
        }
        if name in ("openai", "azure", "ollama"):
            value["system_fingerprint"] = rng.choice(["fp_44709d6fcb", None])
            value["service_tier"] = "default"
        if name in ("vllm", "sglang", "deepseek", "openai"):
            value["usage"] = None
        if name == "openai":
            value["obfuscation"] = "aB3x"
        if name == "openrouter":
            value["provider"] = "Some Provider"
        if name == "llamacpp":
            value["timings"] = {"predicted_ms": 3.5}
        if name == "perplexity":
            value["citations"] = ["https://example.com/"]
            value["search_results"] = [
                {"title": "A page", "url": "https://example.com"}
            ]
        if self.no_error:
            value["error"] = no_error(rng)
        return {**value, **more}

    def _choice(self, delta: Value, **more: Value) -> dict[str, Value]:
        rng, name = self.rng, self.name
        value: dict[str, Value] = {"index": self.index, "delta": delta}
        if self.reason_everywhere:
            value["finish_reason"] = "stop"
        elif rng.random() < 0.8:
            value["finish_reason"] = rng.choice([None, None, None, "", "null"])
        if name in ("openai", "vllm", "llamacpp", "azure", "deepseek"):
            value["logprobs"] = None
        if name == "openrouter":
            value["native_finish_reason"] = None
        if name == "sglang":
            value["matched_stop"] = None
        if name == "vllm":
            value["token_ids"] = None
        if name == "azure":
            value["content_filter_results"] = {"hate": {"severity": "safe"}}
            value["content_filter_offsets"] = {"check_offset": 1}
        return {**value, **more}

    def _delta(self, **said: Value) -> dict[str, Value]:
        """A delta with what this server puts beside its words."""
        rng, name = self.rng, self.name
        delta: dict[str, Value] = {}
        if name in (
            "openrouter",
            "ollama",
            "sglang",
            "perplexity",
            "mistral",
            "gemini",
        ):
            delta["role"] = "assistant"
        delta |= said
        if name == "sglang":
            delta = {"reasoning_content": None, "tool_calls": None, **delta}
        if name == "vllm" and rng.random() < 0.5:
            delta.setdefault("tool_calls", [])
        if name == "litellm":
            delta = {
                "provider_specific_fields": None, "function_call": None,
                "tool_calls": None, "audio": None, "refusal": None, **delta,
            }  # fmt: skip
        if name in ("deepseek", "openrouter"):
            delta.setdefault("reasoning_content", None)
            delta.setdefault("content", rng.choice([None, ""]))
        return delta

    def _message(self, content: Value) -> dict[str, Value]:
        return {"role": "assistant", "content": content}

    def _replace_neighbours(self, value: Value) -> Value:
        """Other fields of the record by any JSON value, on each of its levels."""
        rng = self.rng
        if not isinstance(value, dict):
            return value
        for _ in range(rng.choice([1, 1, 2, 4])):
            value[rng.choice(_TOP)] = junk(rng)
        if rng.random() < 0.2:
            value["object"] = rng.choice([None, 1, [], "chat.completion", {}])
        if rng.random() < 0.2:
            value["error"] = no_error(rng)
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else [choices]:
            if isinstance(choice, dict) and choice.keys() & {
                "delta",
                "message",
                "text",
            }:
                self._replace_in_choice(choice)
        return value

    def _replace_in_choice(self, choice: dict[str, Value]) -> None:
        rng = self.rng
        for _ in range(rng.choice([0, 1, 2])):
            choice[rng.choice(_CHOICE)] = junk(rng)
        if self.index == 0 and rng.random() < 0.3:
            choice["index"] = rng.choice(_NO_INDEX)
            if rng.random() < 0.3:
                del choice["index"]
        if rng.random() < 0.2 and not self.reason_everywhere:
            choice["finish_reason"] = rng.choice([None, "", [], {}, False, 0, "none"])
        if rng.random() < 0.2:
            choice["native_finish_reason"] = rng.choice([None, "", "none", [], {}])
        delta = choice.get("delta", choice.get("message"))
        if not isinstance(delta, dict):
            return
        for _ in range(rng.choice([0, 1, 2])):
            delta[rng.choice(_DELTA)] = junk(rng)
        for _ in range(rng.choice([0, 1, 2])):
            delta.setdefault(rng.choice(_EMPTY_DELTA), nothing(rng))

    def _shuffle(self, value: Value) -> Value:
        if not self.shuffled or not isinstance(value, dict):
            return value
        items = list(value.items())
        self.rng.shuffle(items)
        return {
            name: [self._shuffle(choice) for choice in item]
            if isinstance(item, list) and name == "choices"
            else item
            if name == "tool_calls"  # their order says which comes first
            else self._shuffle(item)
            for name, item in items
        }

    # Tool calls

    def calls(self, speaker: Speaker, first_key: int, count: int) -> list[Record]:
        """The records of some tool calls."""
        rng = self.rng
        calls = [_Call(rng, speaker, first_key + n) for n in range(count)]
        way = self.name if self.name == "gemini" else rng.choice(sorted(CALL_WAYS))
        if way == "function_call" and (count > 1 or first_key):
            way = "standard"
        make = CALL_WAYS.get(way, _whole_calls)
        return make(self, calls)

    def call_index(self, key: int) -> int:
        """The index that this server gives a call."""
        return self._call_index + key


class Recap(Word):
    """All of the text so far."""

    __slots__ = ()


def _message_of(value: Value) -> dict[str, Value] | None:
    """The message of a chunk that also has room for a delta."""
    choices = value.get("choices") if isinstance(value, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    return message if isinstance(message, dict) and "content" in message else None


class _Call:
    def __init__(self, rng: Rng, speaker: Speaker, key: int) -> None:
        self.key = key
        self.id = "call_" + speaker.name() + "i" * rng.choice([0] * 9 + [300])
        self.name = "get_" + speaker.name() + "n" * rng.choice([0] * 9 + [280])
        fields = {speaker.name(): speaker.word() for _ in range(rng.randrange(3))}
        self.object: dict[str, Value] = {**fields, "n": rng.choice([1, None, [{}], ""])}
        self.arguments = json.dumps(self.object, ensure_ascii=rng.random() < 0.5)

    @property
    def encoded(self) -> str:
        """The arguments as the bridge encodes an object."""
        return json.dumps(self.object, ensure_ascii=False, separators=(",", ":"))

    def pieces(self, rng: Rng) -> list[str]:
        """The arguments in pieces."""
        size = rng.choice([1, 4, 4, 9, 1000])
        text = self.arguments
        return [text[at : at + size] for at in range(0, len(text), size)]


def _call_record(style: Style, pieces: Value, said: list[CallPiece]) -> Record:
    delta: dict[str, Value] = {"tool_calls": pieces}
    if style.rng.random() < 0.3:
        delta = style._delta(**delta)
    return Record(style._shuffle(style.chunk(delta)), calls=said)


def _standard_calls(style: Style, calls: list[_Call]) -> list[Record]:
    """OpenAI's: the first piece has index, id and name, the others an index."""
    rng, records = style.rng, []
    repeats = rng.choice(["", "", "", "id", "name", "both"])
    text_index = rng.random() < 0.1
    for call in calls:
        index: Value = style.call_index(call.key)
        index = str(index) if text_index else index
        head = rng.choice(["", None, ...])
        function = {"name": call.name, "arguments": head}
        if head is ...:
            del function["arguments"]
        first = {
            "index": index,
            "id": call.id,
            "type": "function",
            "function": function,
        }
        records.append(
            _call_record(style, [first], [CallPiece(call.key, call.id, call.name, "")])
        )
        for piece in call.pieces(rng):
            tail: dict[str, Value] = {
                "index": index,
                "function": {"arguments": Word(piece)},
            }
            if repeats in ("id", "both"):
                tail["id"] = call.id
            if repeats in ("name", "both"):
                tail["function"]["name"] = call.name
            elif rng.random() < 0.2:
                tail |= {"id": rng.choice([None, ""]), "type": "function"}
                tail["function"]["name"] = rng.choice([None, ""])
            records.append(
                _call_record(style, [tail], [CallPiece(call.key, None, None, piece)])
            )
    return records


def _one_index(style: Style, calls: list[_Call]) -> list[Record]:
    """A new id is a new call, whatever its index; tails have no id."""
    rng, records = style.rng, []
    index = rng.choice([0, None, ...])
    for call in calls:
        for number, piece in enumerate(call.pieces(rng)):
            part: dict[str, Value] = {
                "index": index,
                "function": {"arguments": Word(piece)},
            }
            if index is ...:
                del part["index"]
            if not number:
                part["id"] = call.id
                part["function"]["name"] = call.name
            name = None if number else call.name
            said = CallPiece(call.key, None if number else call.id, name, piece)
            records.append(_call_record(style, [part], [said]))
    return records


def _whole_calls(style: Style, calls: list[_Call]) -> list[Record]:
    """Gemini's and Ollama's: whole calls, with or without an index, one or more."""
    rng = style.rng
    index = rng.choice([None, 0, ..., "own"])
    as_object = rng.random() < 0.3
    custom = rng.random() < 0.15
    parts: list[dict[str, Value]] = []
    for call in calls:
        arguments: Value = call.object if as_object else Word(call.arguments)
        part: dict[str, Value] = {"id": call.id, "type": "function"}
        if custom:
            part |= {
                "type": "custom",
                "custom": {"name": call.name, "input": arguments},
            }
        else:
            part["function"] = {"name": call.name, "arguments": arguments}
        if index is not ...:
            part["index"] = style.call_index(call.key) if index == "own" else index
        parts.append(part)
    said = [
        CallPiece(c.key, c.id, c.name, c.encoded if as_object else c.arguments)
        for c in calls
    ]
    if rng.random() < 0.5:
        return [
            _call_record(style, [part], [piece])
            for part, piece in zip(parts, said, strict=True)
        ]
    if len(parts) == 1 and rng.random() < 0.5:
        return [_call_record(style, parts[0], said)]
    if rng.random() < 0.2:
        table = {str(number): part for number, part in enumerate(parts)}
        return [_call_record(style, table, said)]
    return [_call_record(style, parts, said)]


def _name_in_pieces(style: Style, calls: list[_Call]) -> list[Record]:
    """The name grows, by pieces or by repetition, until the arguments begin."""
    rng, records = style.rng, []
    grows = rng.random() < 0.5
    for call in calls:
        index = style.call_index(call.key)
        cut = rng.randrange(1, 5)
        parts = [call.name[:cut], call.name if grows else call.name[cut:]]
        for number, part in enumerate(parts):
            value: dict[str, Value] = {"index": index, "function": {"name": part}}
            if not number:
                value["id"] = call.id
            said = CallPiece(call.key, call.id, (part, call.name)[number], "")
            records.append(_call_record(style, [value], [said]))
        for piece in call.pieces(rng):
            value = {"index": index, "function": {"arguments": Word(piece)}}
            said = CallPiece(call.key, None, None, piece)
            records.append(_call_record(style, [value], [said]))
    return records


def _interleaved(style: Style, calls: list[_Call]) -> list[Record]:
    """Calls side by side, each piece with its id and index."""
    rng, records = style.rng, []
    heads = []
    for call in calls:
        function = {"name": call.name, "arguments": ""}
        heads.append(
            {"index": style.call_index(call.key), "id": call.id, "function": function}
        )
    said = [CallPiece(c.key, c.id, c.name, "") for c in calls]
    records.append(_call_record(style, heads, said))
    pieces = [(call, piece) for call in calls for piece in call.pieces(rng)]
    order = [call for call, _ in pieces]
    rng.shuffle(order)
    left = {call.key: [p for c, p in pieces if c is call] for call in calls}
    for call in order:
        piece = left[call.key].pop(0)
        part = {
            "index": style.call_index(call.key),
            "id": call.id,
            "function": {"arguments": Word(piece)},
        }
        records.append(
            _call_record(style, [part], [CallPiece(call.key, None, None, piece)])
        )
    return records


def _function_call(style: Style, calls: list[_Call]) -> list[Record]:
    """The predecessor of tool calls: one, without an id."""
    call, records = calls[0], []
    for number, piece in enumerate(call.pieces(style.rng)):
        function: dict[str, Value] = {"arguments": Word(piece)}
        if not number:
            function["name"] = call.name
        said = CallPiece(call.key, None, None if number else call.name, piece)
        chunk = style.chunk({"content": None, "function_call": function})
        records.append(Record(chunk, calls=[said]))
    return records


CALL_WAYS: dict[str, Callable[[Style, list[_Call]], list[Record]]] = {
    "standard": _standard_calls,
    "one index": _one_index,
    "whole": _whole_calls,
    "name in pieces": _name_in_pieces,
    "interleaved": _interleaved,
    "function_call": _function_call,
}

Place = Callable[[Style, Word], Value]


def _content(style: Style, word: Word) -> Value:
    value = style.chunk(style._delta(content=word))
    if style.name == "perplexity":
        value["choices"][0]["message"] = style._message(RECAP)
    return value


def _thought(style: Style, word: Word) -> Value:
    names = {"both": ["reasoning", "reasoning_content"]}.get(
        style.thoughts, [style.thoughts]
    )
    said: dict[str, Value] = dict.fromkeys(names, word)
    if style.name == "openrouter" and style.rng.random() < 0.7:
        detail = {"type": "reasoning.text", "text": word, "format": "x", "index": 0}
        said = {"reasoning": word, "reasoning_details": [detail]}
    if style.name == "mistral":
        part = {"type": "thinking", "thinking": [{"type": "text", "text": word}]}
        return style.chunk(style._delta(content=[part]))
    return style.chunk(style._delta(**said))


def _under_choices(make: Callable[[Word], Value]) -> Place:
    return lambda style, word: style.chunk({"content": make(word)})


def _choice_text(style: Style, word: Word) -> Value:
    choice = style._choice(None, text=word)
    del choice["delta"]
    return style._top([choice])


def _message_place(style: Style, word: Word) -> Value:
    choice = style._choice(None, message=style._message(word))
    del choice["delta"]
    return style._top([choice])


def _two_choices(style: Style, word: Word) -> Value:
    empty = style._choice({"content": ""})
    return style._top([empty, style._choice({"content": word})])


#: Where text was seen, or may be.
PLACES: list[Place] = [
    _content,
    _content,
    _choice_text,
    _message_place,
    _two_choices,
    lambda s, w: _drop_none(_choice_text(s, w), "logprobs"),
    lambda s, w: s.chunk({}, text=w),
    lambda s, w: s.chunk({"content": ""}, text=w),
    lambda s, w: s.chunk({"text": w}),
    lambda s, w: s.chunk({"refusal": w, "content": None}),
    lambda s, w: s.chunk({"whatever": w}),
    lambda s, w: s.chunk({"a": {"b": [{"c": w}]}}),
    lambda s, w: s.chunk(w),
    lambda s, w: s.chunk([{"content": w}]),
    lambda s, w: s.chunk({"content": w}, message=s._message("")),
    lambda s, w: s._top(s._choice({"content": w})),
    lambda s, w: s._top({"0": s._choice({"content": w})}),
    lambda s, w: [s.chunk({"content": w})],
    lambda s, w: [[s.chunk({"content": w})]],
    lambda s, w: {"delta": {"content": w}},
    lambda s, w: {"message": s._message(w), "done": False},
    lambda s, w: s._top(None, delta={"content": w}),
    _under_choices(lambda w: {"type": "text", "text": w}),
    _under_choices(lambda w: [{"type": "text", "text": w}]),
    _under_choices(lambda w: [{"type": "output_text", "text": {"value": w}}]),
    _under_choices(lambda w: {"text": {"value": w, "annotations": ["no"]}}),
    _under_choices(lambda w: {"value": w}),
    _under_choices(lambda w: [w]),
    _under_choices(lambda w: [[w]]),
    _under_choices(lambda w: [{"type": "refusal", "refusal": w}]),
    _under_choices(lambda w: [{"type": "text", "text": ""}, {"text": w}, {}]),
    _under_choices(lambda w: {"parts": [{"text": w}]}),
    _under_choices(lambda w: [{"type": "text", "text": w, "index": 3, "id": "a"}]),
]

#: The same for thoughts.
THOUGHT_PLACES: list[Place] = [
    _thought,
    _thought,
    lambda s, w: s.chunk({"reasoning": {"text": w}}),
    lambda s, w: s.chunk({"reasoning": {"content": w, "type": "text"}}),
    lambda s, w: s.chunk({"reasoning": [{"text": w}]}),
    lambda s, w: s.chunk({"reasoning": [w]}),
    lambda s, w: s.chunk({"reasoning_text": w}),
    lambda s, w: s.chunk({"thinking": w}),
    lambda s, w: s.chunk({"thought": w, "content": ""}),
    lambda s, w: s.chunk({"reasoning_details": [{"type": "reasoning.text",
                                                 "text": w}]}),
    lambda s, w: s.chunk({"reasoning_details": [{"type": "reasoning.summary",
                                                 "summary": w}]}),
    lambda s, w: s.chunk({"content": [{"type": "thinking", "thinking": w}]}),
    lambda s, w: s.chunk({"content": [{"type": "reasoning", "text": w}]}),
    lambda s, w: s.chunk({"thinking_blocks": [{"type": "thinking", "thinking": w,
                                               "signature": "no"}]}),
    lambda s, w: s._top([s._choice(None, message={"reasoning": w})]),
]  # fmt: skip


def _drop_none(value: Value, name: str) -> Value:
    value["choices"][0].pop(name, None)
    return value


def error_records(style: Style, speaker: Speaker) -> Record:
    """A record that reports an error, somewhere and under some name."""
    rng = style.rng
    words = f"the backend is {speaker.name()}"
    code = rng.choice([400, 429, 500, 503, "server_error", None])
    inner = {"message": words, "type": "some_error", "code": code}
    values: list[Value] = [
        {"error": inner},
        {"error": words},
        {"error": {"message": words}},
        {"error": [{"message": words}]},
        {"error": {"error": {"message": words}}},
        [{"error": inner}],
        {"object": "error", "message": words, "code": code},
        {"type": "error", "error": inner},
        {"choices": None, "error_type": "BadRequestError", "error_message": words},
        {"errors": [{"message": words}]},
        {"errorMessage": words, "errorCode": "x"},
        style._top([], error=inner),
        style._top([style._choice({"content": ""})], error=inner),
        style._top([style._choice({}, error=inner, finish_reason="error")]),
        style._top([{"index": style.index, "error": inner}]),
        style.chunk({"content": "", "error": words}),
        {"status": "error", "error": {"code": "x", "message": words}},
        {"detail": words, "status": 500},
        {"exception": words},
        {"message": words, "code": 500},
        {"base_resp": {"status_code": 1004, "status_msg": words}, "choices": None},
    ]
    error = ("backend_error", words)
    roll = rng.random()
    if roll < 0.15:
        return Record(rng.choice(values[:4]), error=error, event="error")
    if roll < 0.25:
        return Record(Bits(words.encode()), error=error, event="error", plain=True)
    return Record(rng.choice(values), error=error)


FAILING = (
    "abort", "error", "network_error", "insufficient_system_resource", "Error",
    "server_error", "internal_error", "timeout", "cancelled", "failed",
)  # fmt: skip


def failing_reason(style: Style, say: Say | None) -> Record:
    """A finish reason that says that generating failed, with or without a word."""
    rng = style.rng
    reason = rng.choice(FAILING)
    choice: dict[str, Value] = {"finish_reason": reason}
    if rng.random() < 0.3:
        native = rng.choice(["stop", None, "error", ...])
        choice = {"native_finish_reason": reason, "finish_reason": native}
        if native is ...:
            del choice["finish_reason"]
    delta = {"content": Word(say.text)} if say is not None else {}
    says = [say] if say is not None else []
    return Record(style.chunk(delta, **choice), says, error=("backend_error", ""))
