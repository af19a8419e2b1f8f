"""The words of a record that is not what the API's reference says.

Servers and gateways put the words of an answer at other places, in other types, and
into JSON that no strict parser takes. `read_values` parses what can be parsed,
`words_of` finds every word below a ``delta`` or ``message``: each string that is not
under a name that is known to hold none. All of it is linear in the record's size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from typing import Any

import msgspec

from bridge.dialects.tool_calls import calls_in
from bridge.errors import shorten


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Names below which there are no words of the answer.
NO_WORDS = _names(
    """
    annotations audio_content base_resp cache_control channel citations
    content_filter_offsets content_filter_results conversation_id created created_at
    data date detail encrypted encrypted_content event expires_at ext extra_content
    file finish_details finish_reason finishreason format hidden_states id image
    image_url images index input_audio input_sensitive lang language logprobs
    matched_stop matched_tokens media_type meta metadata mime_type model name
    native_finish_reason object obfuscation output_sensitive phase prefix
    prompt_filter_results prompt_token_ids provider provider_specific_fields recipient
    references request_id role search_results seed service_tier session_id signature
    sources status stop_reason stop_sequence system_fingerprint thought_signature time
    timestamp token_ids tool_call_id trace_id type uri url usage version video_url
    weight x_groq
    """
)

#: Of these, the names whose objects and arrays hold no words either. Under the
#: others, an object is unexpected.
_NO_OBJECTS = _names(
    """
    annotations audio base_resp cache_control citations content_filter_offsets
    content_filter_results ext extra_content file finish_details hidden_states image
    image_url images input_audio logprobs matched_stop matched_tokens meta metadata
    prompt_filter_results prompt_token_ids provider_specific_fields references
    search_results sources stop_reason token_ids usage video_url x_groq
    """
)

#: Names whose strings are mostly no words, and may be where there are none elsewhere.
_DOUBTFUL = frozenset({"data", "detail", "prefix"})

#: Names of tool calls, and ``type`` of content parts that are one.
TOOL_CALLS = frozenset({"tool_calls", "tool_call", "function_call", "function_calls"})
_TOOL_TYPES = TOOL_CALLS | {"tool_use", "function", "server_tool_use"}

#: What an object is a tool call by, whatever its name.
_CALL = frozenset({"name", "arguments"})

#: A number directly under one of these was meant to be a string.
_TEXT_NAMES = frozenset({"content", "text", "value"})

#: How much of a record a message repeats, in characters.
MAX_FIRST_WORDS = 200

#: How often a record is searched for another value behind one that cannot be read.
MAX_UNREADABLE = 16

#: What one record is searched through at most, so that none holds up the others for
#: longer than some milliseconds: values, choices and tool calls, and strings.
MAX_ITEMS = 1000
MAX_STRINGS = 20_000

#: A shorter record cannot have too many values to be made into objects at once.
LONG_BYTES = 64 * 1024

#: How deep records inside arrays are looked at: ``[[{…}]]`` is one more than needed.
MAX_ARRAYS = 2

#: Python converts no more digits than 4,300 by default.
MAX_DIGITS = 1000

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_WORD = re.compile(r"[^\W_]")
_LABEL = re.compile(r"\s*(?:data:\s*)*", re.IGNORECASE)
_DONE = re.compile(r"(?:data:\s*)*\[DONE\]", re.IGNORECASE)
_PING = re.compile(r"\W*(?:ping|heartbeat|keep[-_ ]?alive)\W*", re.IGNORECASE)
_NEXT = re.compile(r"[{\[]")
_NEXT_LINE = re.compile(r"[\r\n][ \t]*(?:data:[ \t]*)*(?=[{\[])", re.IGNORECASE)
_REASONING = re.compile(r"reason|think|thought", re.IGNORECASE)

_Leaf = tuple[bool, str] | list[dict[str, Any]]

_decode_any = msgspec.json.Decoder().decode


def _integer(digits: str) -> int | float:
    """An integer; one of thousands of digits is no more than a number that is large."""
    return int(digits) if len(digits) < MAX_DIGITS else float(digits)


_lenient = json.JSONDecoder(strict=False, parse_int=_integer)


class Where(Enum):
    """What is searched for words under names that mostly have none.

    In a record, an object under the name of a string may be a record itself.
    """

    RECORD = "record"
    CHOICE = "choice"


class TooMuch(Exception):
    """A record has more in it than is looked at."""


class Done:
    """Stands for ``[DONE]``."""


class Unreadable:
    """Stands for what is no JSON; ``text`` is its beginning, ``reason`` why."""

    def __init__(self, text: str, reason: str) -> None:
        self.text = text
        self.reason = reason


DONE = Done()


def read_values(data: bytes) -> Iterator[Any]:
    """The JSON values in a record, with `DONE` and `Unreadable` among them.

    Where the strict parser fails, infinities, raw control characters, halves of
    surrogate pairs, invalid UTF-8, byte order marks and several values are taken.
    """
    if len(data) > LONG_BYTES and _count_values(data) > MAX_STRINGS:
        text = data[: 2 * MAX_FIRST_WORDS].decode("utf-8", "replace")
        yield Unreadable(text, f"there are more than {MAX_STRINGS} values in it")
        return
    try:
        value = _decode_any(data)
        yield DONE if value == "[DONE]" else value
        return
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = data.decode("utf-8", "replace").strip(" \t\r\n\0\ufeff")
    if not text or _PING.fullmatch(text):
        return
    if _DONE.fullmatch(text) or text == "[DONE":
        yield DONE
        return
    yield from _lenient_values(text)


def _count_values(data: bytes) -> int:
    """About how many values a document has, before they are made."""
    outside = _STRING.sub(b"", data)
    return sum(map(outside.count, (b",", b"[", b"{")))


def _lenient_values(text: str) -> Iterator[Any]:
    begin = _NEXT.search(text)
    if begin is None:
        yield Unreadable(text, "it is no JSON")
        return
    at, end, unreadable = begin.start(), 0, 0
    for _ in range(MAX_ITEMS):
        if _WORD.search(_LABEL.sub("", text[end:at])):
            yield Unreadable(text[end:at], "it is no JSON")
        if _DONE.match(text, at):
            yield DONE
            return
        try:
            value, end = _lenient.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            # What cannot be read ends where a line begins another value.
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "depth"
            yield Unreadable(text[at:], reason)
            unreadable += 1
            found = _NEXT_LINE.search(text, at)
            if found is None or unreadable == MAX_UNREADABLE:
                return
            at = end = found.end()
        else:
            yield value
            following = _NEXT.search(text, end)
            at = following.start() if following is not None else len(text)
            if following is None:
                if _WORD.search(text, end):
                    yield Unreadable(text[end:], "it is no JSON")
                return
    yield Unreadable(text[at:], f"there are more than {MAX_ITEMS} values in it")


class Words:
    """What is said below one ``delta`` or ``message``."""

    __slots__ = ("calls", "reasoning", "text")

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.calls: list[dict[str, Any]] = []

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.calls)


def words_of(message: Any) -> Words:
    """Every word below a ``delta``, ``message`` or ``text``, in the record's order.

    Fields that say the same are taken once: vLLM sends the same reasoning under two
    names, OpenRouter as a string and as an array of details. Raises `TooMuch`.
    """
    words = Words()
    texts: list[str] = []
    reasonings: list[str] = []
    fields = message.items() if isinstance(message, dict) else [("content", message)]
    for name, value in fields:
        found: list[tuple[bool, str]] = []
        for leaf in _leaves(name, value):
            if isinstance(leaf, list):
                words.calls += leaf
            else:
                found.append(leaf)
        for into, thought in ((texts, False), (reasonings, True)):
            said = "".join(text for is_thought, text in found if is_thought is thought)
            if said and said not in into:
                into.append(said)
    if len(words.calls) > MAX_ITEMS:
        raise TooMuch(f"there are more than {MAX_ITEMS} tool calls in it")
    words.text = "".join(texts)
    words.reasoning = "".join(reasonings)
    return words


def _leaves(name: str, value: Any, where: Where | None = None) -> Iterator[_Leaf]:
    """The strings below a field, each with whether it is a thought; and tool calls.

    ``where``: also under names that mostly have none. Raises `TooMuch`.
    """
    looked_at = 0
    stack: list[tuple[str, Any, bool]] = [(name, value, False)]
    while stack:
        name, value, thought = stack.pop()
        looked_at += 1
        if looked_at > MAX_STRINGS:
            raise TooMuch(f"there are more than {MAX_STRINGS} values in it")
        key = name.lower()
        thought = thought or _REASONING.search(key) is not None
        if key in NO_WORDS and not (where and _may_have_words(key, value, where)):
            continue
        if key in TOOL_CALLS:
            yield calls_in(value)
        elif isinstance(value, list):
            stack += [(name, item, thought) for item in reversed(value)]
        elif isinstance(value, dict):
            kind = value.get("type")
            kind = kind if isinstance(kind, str) else ""
            if kind in _TOOL_TYPES or value.keys() >= _CALL:
                yield [value]
                continue
            if "redacted" in kind:
                continue
            thought = thought or _REASONING.search(kind) is not None
            stack += [(key, item, thought) for key, item in reversed(value.items())]
        else:
            yield thought, _said(key, value)


def _may_have_words(key: str, value: Any, where: Where) -> bool:
    """Whether there may be words under a name that mostly has none."""
    if isinstance(value, str) or where is Where.CHOICE:
        return key in _DOUBTFUL and isinstance(value, str)
    if isinstance(value, dict) and not {"choices", "delta"}.isdisjoint(value):
        return True
    return key not in _NO_OBJECTS


def _said(key: str, value: Any) -> str:
    """What a string says, or a number where a string should be."""
    if isinstance(value, str):
        return value
    return str(value) if key in _TEXT_NAMES and type(value) in (int, float) else ""


def strings_in(value: Any, where: Where = Where.RECORD) -> Iterator[str]:
    """Every string below ``value`` that may be a word, white space aside."""
    for leaf in _leaves("", value, where):
        if isinstance(leaf, list):
            yield from ("(a tool call)" for _ in leaf)
        elif leaf[1].strip():
            yield leaf[1]


def has_words(value: Any, where: Where = Where.RECORD) -> bool:
    """Whether there is any string below ``value`` that may be a word."""
    try:
        return any(True for _ in strings_in(value, where))
    except TooMuch:
        return True


def first_words(value: Any) -> str:
    """What a value that means nothing here says, for a message about it."""
    if isinstance(value, Unreadable):
        return shorten(value.text[: 2 * MAX_FIRST_WORDS], MAX_FIRST_WORDS)
    said = ""
    with suppress(TooMuch):
        for text in strings_in(value):
            said = f"{said} {text[: 2 * MAX_FIRST_WORDS]}".strip()
            if len(said) > MAX_FIRST_WORDS:
                break
    return shorten(said, MAX_FIRST_WORDS)
