"""OpenAI's chat completions: a response's records to deltas.

One object per response, however the body is framed::

    for record in decoder.receive_data(data):
        deltas = response.receive(record)
    ...
    for record in decoder.receive_eof():
        deltas = response.receive(record)
    deltas = response.receive_eof(whole=decoder.whole)
    response.failure, response.finish_reason, response.usage

A token takes a short way: one strict decode, whose success says that there are no
other words in its record. Every other record is searched for words (`openai_words`),
errors (`openai_errors`) and tool calls (`tool_calls`). Requests are in
`openai_request`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any

import msgspec

from bridge.decoders import COMMENT, Record
from bridge.dialects import (
    Delta,
    FullText,
    ReasoningDelta,
    TextDelta,
    ToolCallPart,
)
from bridge.dialects.openai_chunks import Chunk, ChunkChoice, decode_chunk
from bridge.dialects.openai_errors import (
    ERROR_NAME,
    error_in,
    error_instead,
    printable,
)
from bridge.dialects.openai_words import (
    MAX_ARRAYS,
    MAX_ITEMS,
    NO_WORDS,
    Done,
    TooMuch,
    Unreadable,
    Where,
    Words,
    first_words,
    has_words,
    read_values,
    words_of,
)
from bridge.dialects.tool_calls import ToolCalls, unknown_fields
from bridge.errors import (
    BackendProtocolError,
    BackendReportedError,
    GenerationError,
    shorten,
)
from bridge.thoughts import Kind, Part, ThoughtSplitter

#: ``usage`` and the finish reason ride in the terminal event, which has to fit into
#: one NATS message (1 MiB by default) beside the text. Real ones have a few hundred
#: bytes; a larger usage is left out, a longer reason cut.
MAX_USAGE_BYTES = 16 * 1024
MAX_USAGE_CONTAINERS = 100  # so that it cannot be nested too deep to be encoded
MAX_FINISH_REASON_CHARS = 100

#: The finish reason of an answer whose backend says none.
UNKNOWN = "unknown"

NO_COMPLETION = "the backend's answer is no chat completion"
NO_END = "the backend's stream ended with neither a finish_reason nor [DONE]"

#: What msgspec raises for a record that cannot be read: no JSON or a wrong type,
#: invalid UTF-8 in a string, or nesting deeper than the interpreter's recursion limit.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

#: Finish reasons that say nothing, and those that say that generating has failed:
#: vLLM's abort, OpenRouter's error, DeepSeek's lack of resources, Zhipu's network.
_NO_REASONS = frozenset({"", "null", "none"})
_FAILURES = re.compile(
    r"abort(?:ed)?|fail(?:ed|ure)?|crash(?:ed)?|interrupt(?:ed|ion)?|cancell?ed"
    r"|time_?out|timed_out|overloaded|unavailable|disconnect(?:ed)?"
    r"|insufficient_system_resources?|.*(?:error|exception)(?:ed)?"
)

_FIRST_HALVES = frozenset(map(chr, range(0xD800, 0xDC00)))
_SURROGATE = re.compile("[\ud800-\udfff]")

#: What a choice is recognised by where it is not an element of ``choices``.
_CHOICE_NAMES = ("delta", "message", "text")


class Recap(Enum):
    """Whether a message says again what deltas said."""

    NONE = "none"
    POSSIBLE = "possible"  # it comes after deltas
    CERTAIN = "certain"  # it comes together with a delta


class OpenAIResponse:
    """Reads one response. Not for concurrent use.

    - ``finish_reason``: the backend's, ``None`` until it says one.
    - ``usage``: as the backend reports it, whole; of several, the last.
    - ``done``: nothing more is read: the backend said so, or it failed.
    - ``failure``: why the answer is none, as soon as that is known. What was said
      before it has been given.
    - ``said``: whether there was any delta.
    - ``notes``: how many finish reasons and usages came, so that a caller can see that
      something did.
    - ``skipped``: how many records with words, or with what may be some, could not be
      read. With ``fail_unreadable`` the first is a failure.
    - ``first_skipped``: why the first of them was, with nothing of its content.

    With ``think_tags``, thoughts that the text begins with are reasoning.
    """

    __slots__ = (
        "_by_message",
        "_calls",
        "_choice",
        "_fail_unreadable",
        "_halves",
        "_meaningless",
        "_plain",
        "_reasoned",
        "_splitter",
        "done",
        "failure",
        "finish_reason",
        "first_skipped",
        "notes",
        "said",
        "skipped",
        "usage",
    )

    def __init__(
        self, *, fail_unreadable: bool = False, think_tags: bool = False
    ) -> None:
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.done = False
        self.failure: GenerationError | None = None
        self.said = False
        self.notes = 0
        self.skipped = 0
        self.first_skipped = ""
        self._fail_unreadable = fail_unreadable
        #: The index of the choice that is read: the first that was seen.
        self._choice: int | None = None
        self._calls = ToolCalls()
        #: The first half of a surrogate pair, by what it belongs to.
        self._halves: dict[str, str] = {}
        self._reasoned = False
        #: Whether messages bring the text, instead of deltas.
        self._by_message = False
        self._meaningless = ""
        self._splitter = ThoughtSplitter() if think_tags else None
        #: Whether a token may take the short way.
        self._plain = self._splitter is None

    def __repr__(self) -> str:
        return (
            f"<OpenAIResponse finish_reason={self.finish_reason!r} "
            f"done={self.done} skipped={self.skipped}>"
        )

    def receive(self, record: Record) -> Sequence[Delta]:
        """Take one record; return the deltas in it, in order, often none.

        Raises nothing: look at ``failure`` afterwards.
        """
        if self.done:
            return ()
        try:
            chunk = decode_chunk(record.data)
        except _UNREADABLE:
            return self._receive_other(record)
        choices = chunk.choices
        if not self._plain or record.event != "message" or len(choices) != 1:
            return self._receive_other(record)
        choice = choices[0]
        if choice.index != self._choice and not self._choose(choice.index):
            return self._receive_other(record)
        delta = choice.delta
        content = delta.content
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning and (
            content or (delta.reasoning and delta.reasoning != reasoning)
        ):
            return self._receive_other(record)
        if choice.finish_reason or choice.native_finish_reason or chunk.usage:
            if self._calls.begun:
                return self._receive_other(record)
            self._take_notes(chunk, choice)
        if content:
            self.said = True
            return (TextDelta(content),)
        if not reasoning:
            return ()
        self.said = self._reasoned = True
        return (ReasoningDelta(reasoning),)

    def _take_notes(self, chunk: Chunk, choice: ChunkChoice) -> None:
        """What ends an answer, or counts it, is in a chunk."""
        self._take_usage(chunk.usage)
        self._take_reason(choice.finish_reason)
        self._take_reason(choice.native_finish_reason, native=True)

    def receive_eof(self, *, whole: bool = False) -> Sequence[Delta]:
        """Say that the records have ended; return what was held back.

        Also where the connection broke, once there is a finish reason. ``whole``: the
        body was a single document. Sets ``failure`` if the response is not complete;
        without one there is a ``finish_reason``.
        """
        if self.failure is not None:
            return ()
        deltas: list[Delta] = []
        self._end_halves(deltas)
        if self._splitter is not None:
            self._add(deltas, _deltas_of(self._splitter.receive_eof()))
        self._add(deltas, self._calls.flush())
        ended = self.done or self.finish_reason is not None or (whole and self.said)
        self.done = True
        if not ended:
            self._fail_protocol(NO_COMPLETION if whole else NO_END)
        elif not self.said and (self._meaningless or self.finish_reason is None):
            self._fail_protocol("the backend's stream ended without an answer")
        self.finish_reason = self.finish_reason or UNKNOWN
        return deltas

    def _fail_protocol(self, what: str) -> None:
        notes = [what]
        if self.skipped:
            records = "record was" if self.skipped == 1 else "records were"
            notes.append(f"{self.skipped} {records} skipped: {self.first_skipped}")
        words = "" if self.said else printable(self._meaningless)
        self._fail(BackendProtocolError(printable("; ".join(notes)), words=words))

    def _fail(self, failure: GenerationError) -> None:
        self.done = True
        if self.failure is None:
            self.failure = failure

    # Records that are not a token

    def _receive_other(self, record: Record) -> Sequence[Delta]:
        deltas: list[Delta] = []
        for value in read_values(record.data):
            if self.done:
                break
            if record.event == COMMENT:
                if isinstance(value, Unreadable) or has_words(value):
                    self._skip(value, "it is a comment", len(record.data))
            elif isinstance(value, Done):
                self.done = True
            else:
                self._receive_value(value, record, deltas, MAX_ARRAYS)
        if record.event == "error" and self.failure is None:
            self._skip("", "an error without a word", len(record.data))
        splitting = self._splitter is not None and not self._splitter.passes
        self._plain = not (self._halves or splitting)
        return deltas

    def _receive_value(
        self, value: Any, record: Record, deltas: list[Delta], arrays: int
    ) -> None:
        if isinstance(value, list) and arrays and record.event != "error":
            for item in value[:MAX_ITEMS]:
                if not self.done:
                    self._receive_value(item, record, deltas, arrays - 1)
            if len(value) > MAX_ITEMS:
                self._skip(value, f"it has more than {MAX_ITEMS} items", 0)
            return
        text = value.text if isinstance(value, Unreadable) else value
        error = error_in(text, record.event)
        if isinstance(value, dict):
            try:
                self._receive_object(value, error, record, deltas)
            except TooMuch as too_much:
                self._skip(value, str(too_much), len(record.data))
        elif error is None and (isinstance(value, Unreadable) or has_words(value)):
            reason = value.reason if isinstance(value, Unreadable) else "it is no chunk"
            self._skip(value, reason, len(record.data))
        if error is not None:
            self.failure = None  # what the error says is more than what it led to
            self._fail(error)

    def _receive_object(
        self,
        value: dict[str, Any],
        error: BackendReportedError | None,
        record: Record,
        deltas: list[Delta],
    ) -> None:
        self._take_usage(value.get("usage"))
        inner = _wrapped_in(value)
        if inner is not None:
            self._receive_object(inner, error or error_in(inner), record, deltas)
            return
        choices = _choices_in(value)
        if len(choices) > MAX_ITEMS:
            raise TooMuch(f"there are more than {MAX_ITEMS} choices in it")
        read = False
        for choice in choices:
            if isinstance(choice, dict) and self._is_mine(choice):
                read = self._receive_choice(choice, deltas) or read
            elif has_words(choice):
                self._skip(choice, "it is of another choice", len(record.data))
                read = True
        if read or error is not None or self.failure is not None:
            return
        instead = error_instead(value) if not choices else None
        if instead is not None:
            self._fail(instead)
        elif has_words({k: v for k, v in value.items() if k != "usage"}):
            self._skip(value, "it has no choice with words", len(record.data))

    def _is_mine(self, choice: dict[str, Any]) -> bool:
        """Whether this is the choice that is read: the first index that is seen."""
        index = choice.get("index")
        if isinstance(index, str) and index.isascii() and index.isdigit():
            index = int(index[:18])
        return type(index) is not int or self._choose(index)

    def _choose(self, index: int | None) -> bool:
        """Whether this index is read; the first one is, from now on."""
        if self._choice is None:
            self._choice = index
        return index == self._choice

    def _tell_hidden(self, choice: dict[str, Any]) -> None:
        """A choice without words may have some under a name that mostly has none."""
        said = [_without_errors(choice.get(name)) for name in _CHOICE_NAMES]
        if has_words(said, Where.CHOICE):
            self._skip(choice, "a choice has words in unknown fields", len(str(choice)))

    def _receive_choice(self, choice: dict[str, Any], deltas: list[Delta]) -> bool:
        """Read one choice; whether anything was in it that means something."""
        before = self.notes, self.skipped
        self._take_usage(choice.get("usage"))
        words = self._take_words(choice, deltas)
        for name, value in choice.items():
            if name in _CHOICE_NAMES or name.lower() in NO_WORDS:
                continue
            if ERROR_NAME.fullmatch(name) is None and has_words(value):
                self._skip(value, "a choice has unknown fields", len(str(value)))
        for part in (choice, choice.get("delta"), choice.get("message")):
            error = error_in(part) if isinstance(part, dict) else None
            if error is not None:
                self._fail(error)
        self._take_reason(choice.get("finish_reason"))
        self._take_reason(choice.get("native_finish_reason"), native=True)
        if not words and (self.notes, self.skipped) == before:
            self._tell_hidden(choice)
        return words or (self.notes, self.skipped) != before

    def _take_words(self, choice: dict[str, Any], deltas: list[Delta]) -> bool:
        """Take what a choice says, each thing once; whether there is any."""
        recap = Recap.NONE
        if choice.get("delta") is not None:
            recap = Recap.CERTAIN
        elif self.said and (not self._by_message or choice.get("finish_reason")):
            recap = Recap.POSSIBLE
        said = words_of(_without_errors(choice.get("delta")))
        whole = words_of(_without_errors(choice.get("message")))
        beside = words_of(choice.get("text")).text
        self._take_reasoning(said, whole, recap, deltas)
        self._take_text(said.text, deltas)
        if whole.text != said.text:
            self._take_text(whole.text, deltas, recap)
        if whole and recap is Recap.NONE:
            self._by_message = True
        if beside not in (said.text, whole.text):
            self._take_text(beside, deltas)
        for calls, again in ((said.calls, Recap.NONE), (whole.calls, recap)):
            for position, call in enumerate(calls):
                if not (again is not Recap.NONE and self._calls.knows(call.get("id"))):
                    self._take_call(call, position, deltas)
        return bool(said or whole or beside)

    def _take_call(
        self, call: dict[str, Any], position: int, deltas: list[Delta]
    ) -> None:
        try:
            self._add(deltas, self._calls.receive(call, position))
        except ValueError as error:
            self._skip(call, str(error), 0)
        for name, value in unknown_fields(call):
            # Arguments may be an object, without any string in it.
            is_object = isinstance(value, dict | list) and bool(value)
            if name not in NO_WORDS and (is_object or has_words(value)):
                self._skip(value, "a tool call has unknown fields", 0)
                return

    def _take_reasoning(
        self, said: Words, whole: Words, recap: Recap, deltas: list[Delta]
    ) -> None:
        text = self._joined("reasoning", said.reasoning)
        if text:
            self._add(deltas, [ReasoningDelta(text)])
        if whole.reasoning != said.reasoning:
            recap = recap if self._reasoned or text else Recap.NONE
            if self._repeats(recap, "reasoning", whole.reasoning):
                self._repeat(whole.reasoning, deltas, recap, reasoning=True)
            elif text := self._joined("reasoning", whole.reasoning):
                self._add(deltas, [ReasoningDelta(text)])
        self._reasoned = self._reasoned or bool(said.reasoning or whole.reasoning)

    def _take_text(
        self, text: str, deltas: list[Delta], recap: Recap = Recap.NONE
    ) -> None:
        if self._repeats(recap, "text", text):
            self._repeat(text, deltas, recap)
            return
        text = self._joined("text", text)
        if text and self._splitter is not None:
            self._add(deltas, _deltas_of(self._splitter.receive(text)))
        elif text:
            self._add(deltas, [TextDelta(text)])

    def _repeats(self, recap: Recap, kind: str, text: str) -> bool:
        """Whether a message is to be compared with what was said of its kind.

        Where half of a pair waits, or ends it, it is a delta unless it is beside one.
        """
        if recap is Recap.POSSIBLE:
            return kind not in self._halves and text[-1:] not in _FIRST_HALVES
        return recap is Recap.CERTAIN

    def _repeat(
        self, text: str, deltas: list[Delta], recap: Recap, *, reasoning: bool = False
    ) -> None:
        # Half of a pair at the end is held back in what is repeated, too.
        text = _well_formed(text[:-1] if text[-1:] in _FIRST_HALVES else text)
        certain = recap is Recap.CERTAIN
        thoughts = text if reasoning else ""
        if self._splitter is not None and not reasoning:
            text, thoughts = _split(text)
            certain = certain or bool(thoughts)
        if thoughts:
            self._add(deltas, [FullText(thoughts, certain=certain, reasoning=True)])
        if text and not reasoning:
            self._add(deltas, [FullText(text, certain=certain)])

    def _add(self, deltas: list[Delta], more: Iterable[Delta]) -> None:
        for delta in more:
            self.said = True
            deltas.append(self._mended(delta))

    def _mended(self, delta: Delta) -> Delta:
        """A tool call's strings, without halves of surrogate pairs."""
        if not isinstance(delta, ToolCallPart):
            return delta
        arguments = delta.arguments
        if arguments is not None:
            arguments = self._joined(f"tool {delta.index}", arguments)
        return ToolCallPart(
            delta.index,
            _well_formed(delta.call_id) if delta.call_id else None,
            _well_formed(delta.name) if delta.name else None,
            arguments,
        )

    # Surrogate pairs that a server cuts between two deltas

    def _joined(self, kind: str, text: str) -> str:
        """``text`` behind what was held back of its kind, as well-formed Unicode."""
        if not text:
            return text
        text = self._halves.pop(kind, "") + text
        if text[-1] in _FIRST_HALVES:
            self._halves[kind] = text[-1]
            text = text[:-1]
        return _well_formed(text)

    def _end_halves(self, deltas: list[Delta]) -> None:
        """No other half comes: each is U+FFFD."""
        for kind in self._halves:
            if kind == "reasoning":
                deltas.append(ReasoningDelta("\ufffd"))
            elif kind == "text":
                deltas.append(TextDelta("\ufffd"))
            else:
                index = int(kind.removeprefix("tool "))
                deltas.append(ToolCallPart(index, arguments="\ufffd"))
        self._halves.clear()

    # What is said beside the words

    def _skip(self, value: Any, reason: str, size: int) -> None:
        """Count what cannot be read."""
        self.skipped += 1
        if not self._meaningless:
            self._meaningless = first_words(value) or "nothing that can be read"
        if not self.first_skipped:
            self.first_skipped = f"{shorten(reason, 200)} ({size} bytes)"
        if self._fail_unreadable:
            self._fail_protocol("the backend sent a record that cannot be read")

    def _take_reason(self, value: Any, *, native: bool = False) -> None:
        """A finish reason; one that says that generating failed is a failure."""
        reason = _reason_in(value)
        if not reason:
            return
        self.notes += 1
        if _FAILURES.fullmatch(reason.lower()):
            self._fail(
                BackendReportedError(
                    f"the backend ended the text with finish_reason {reason!r}",
                    retryable=True,
                )
            )
        if not native or self.finish_reason is None:
            self.finish_reason = reason

    def _take_usage(self, usage: Any) -> None:
        if not isinstance(usage, dict) or not usage:
            return
        self.notes += 1
        try:
            encoded = msgspec.json.encode(usage)
        except (RecursionError, UnicodeEncodeError, msgspec.MsgspecError):
            return
        containers = encoded.count(b"{") + encoded.count(b"[")
        if len(encoded) <= MAX_USAGE_BYTES and containers <= MAX_USAGE_CONTAINERS:
            self.usage = usage


def _choices_in(value: dict[str, Any]) -> list[Any]:
    """The choices of a record: an array, one or a table of them, or the record."""
    choices = value.get("choices")
    if isinstance(choices, list):
        return choices
    if isinstance(choices, dict):
        names = (*_CHOICE_NAMES, "finish_reason", "index")
        if any(name in choices for name in names):
            return [choices]
        return list(choices.values())
    if choices is not None and has_words(choices):
        return [choices]
    # A ``message`` that is a string is an error's.
    if isinstance(value.get("message"), dict) or "delta" in value or "text" in value:
        return [value]
    return []


def _wrapped_in(value: dict[str, Any]) -> dict[str, Any] | None:
    """The record that a gateway has put into an envelope, if it has."""
    if any(name in value for name in ("choices", *_CHOICE_NAMES)):
        return None
    for inner in value.values():
        if isinstance(inner, dict) and ("choices" in inner or "delta" in inner):
            return inner
    return None


def _without_errors(message: Any) -> Any:
    """A message without the fields that report an error instead of being said."""
    if not isinstance(message, dict):
        return message
    return {k: v for k, v in message.items() if ERROR_NAME.fullmatch(k) is None}


def _deltas_of(parts: Iterable[Part]) -> Iterator[TextDelta | ReasoningDelta]:
    """A text's parts as deltas, without the marks between them."""
    for part in parts:
        if part.kind is Kind.TEXT:
            yield TextDelta(part.text)
        elif part.kind is Kind.THOUGHT:
            yield ReasoningDelta(part.text)


def _split(text: str) -> tuple[str, str]:
    """A whole text without its thoughts, and the thoughts."""
    splitter = ThoughtSplitter()
    parts = [*splitter.receive(text), *splitter.receive_eof()]
    said = "".join(part.text for part in parts if part.kind is Kind.TEXT)
    return said, "".join(part.text for part in parts if part.kind is Kind.THOUGHT)


def _reason_in(value: Any) -> str:
    """A finish reason; empty for what says none."""
    if isinstance(value, dict):
        value = value.get("type") or value.get("reason")
    if isinstance(value, int) and not isinstance(value, bool) and value:
        value = str(value)
    if not isinstance(value, str) or value.strip().lower() in _NO_REASONS:
        return ""
    return _well_formed(value.strip()[:MAX_FINISH_REASON_CHARS])


def _well_formed(text: str) -> str:
    """``text`` with surrogate pairs joined, and U+FFFD for halves of one."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
