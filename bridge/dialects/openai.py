"""OpenAI's chat completions: a response's records to deltas.

One object per response, chosen by how the body is read (`response_for`): a stream of
chunks (`OpenAIStream`), or one whole message from a backend that does not stream
(`OpenAIMessage`). Both are used alike::

    for record in decoder.receive_data(data):
        deltas = response.receive(record)
    ...
    for record in decoder.receive_eof():
        deltas = response.receive(record)
    response.receive_eof()
    response.finish_reason, response.usage

Requests and error answers are in `openai_request` and `openai_errors`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from bridge.decoders import Record
from bridge.decoders.content import ContentKind
from bridge.dialects import Delta, ReasoningDelta, TextDelta
from bridge.dialects.openai_chunks import (
    Body,
    BodyChoice,
    Chunk,
    ChunkChoice,
    ToolCallIndex,
    deltas_of,
)
from bridge.dialects.openai_errors import reported_error
from bridge.errors import BackendProtocolError, BackendReportedError, shorten

_DONE = b"[DONE]"

#: ``usage`` and the finish reason ride in the terminal event, which has to fit into
#: one NATS message (1 MiB by default) beside the text. Real ones have a few hundred
#: bytes; a larger usage is left out, a longer reason cut.
MAX_USAGE_BYTES = 16 * 1024
MAX_USAGE_CONTAINERS = 100  # so that it cannot be nested too deep to be encoded
MAX_FINISH_REASON_CHARS = 100

#: What msgspec raises for a record that cannot be read: no JSON or a wrong type,
#: invalid UTF-8 in a string, or nesting deeper than the interpreter's recursion limit.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_decode_chunk = msgspec.json.Decoder(Chunk).decode
_decode_body = msgspec.json.Decoder(Body).decode
_decode_any = msgspec.json.Decoder().decode


class OpenAIResponse(ABC):
    """What streamed and whole responses have in common. Not for concurrent use.

    - ``finish_reason``: the backend's, ``None`` until it says one.
    - ``usage``: as the backend reports it, whole; of several, the last.
    - ``done``: the backend said that nothing more comes; whatever does is ignored.
    - ``skipped``: how many malformed records were passed over.
    - ``first_malformed``: why the first of them was, with nothing of its content.
    """

    __slots__ = (
        "_tools",
        "done",
        "finish_reason",
        "first_malformed",
        "skipped",
        "usage",
    )

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.done = False
        self.skipped = 0
        self.first_malformed = ""
        self._tools: ToolCallIndex | None = None

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} finish_reason={self.finish_reason!r} "
            f"done={self.done} skipped={self.skipped}>"
        )

    @abstractmethod
    def receive(self, record: Record) -> Sequence[Delta]:
        """Take one record; return the deltas in it, in order, often none.

        Raises `BackendReportedError` where the record carries an error, and
        `BackendProtocolError` where it breaks the protocol beyond skipping it.
        """

    @abstractmethod
    def receive_eof(self) -> None:
        """Say that the records have ended.

        Raises `BackendProtocolError` if the response is not complete.
        """

    def _take_choice(self, choice: ChunkChoice | BodyChoice) -> list[Delta]:
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason[:MAX_FINISH_REASON_CHARS]
        if self.finish_reason == "error":
            # OpenRouter and vLLM end a choice so when generating it failed.
            raise BackendReportedError(
                "the backend ended the text with finish_reason 'error'", retryable=True
            )
        message = choice.delta if isinstance(choice, ChunkChoice) else choice.message
        if message is None:
            return []
        if self._tools is None and message.tool_calls:
            self._tools = ToolCallIndex()
        return deltas_of(message, self._tools)

    def _take_usage(self, usage: dict[str, Any] | None) -> None:
        if not usage:
            return
        try:
            encoded = msgspec.json.encode(usage)
        except RecursionError:
            return
        containers = encoded.count(b"{") + encoded.count(b"[")
        if len(encoded) <= MAX_USAGE_BYTES and containers <= MAX_USAGE_CONTAINERS:
            self.usage = usage


class OpenAIStream(OpenAIResponse):
    """The chunks of a streamed response, to the last one and ``[DONE]``."""

    __slots__ = ("_understood",)

    def __init__(self) -> None:
        super().__init__()
        self._understood = False

    def receive(self, record: Record) -> Sequence[Delta]:
        """Take one record; return the deltas in it, in order, often none.

        A malformed record is skipped and counted. Only the choice of index 0 is read.
        Raises `BackendReportedError` for an ``error``, or a record of event ``error``.
        """
        if self.done:
            return ()
        try:
            chunk = _decode_chunk(record.data)
        except _UNREADABLE as error:
            return self._receive_unreadable(record, error)
        self._understood = True
        choices = chunk.choices
        # A token: one choice with a piece of text, and nothing else in the chunk.
        if (
            choices
            and len(choices) == 1
            and not (chunk.usage or chunk.error)
            and record.event == "message"
        ):
            choice = choices[0]
            delta = choice.delta
            if delta is not None and not (
                choice.finish_reason or choice.index or delta.tool_calls
            ):
                content = delta.content
                reasoning = delta.reasoning_content or delta.reasoning
                if not reasoning:
                    if type(content) is str:
                        return (TextDelta(content),) if content else ()
                elif not content:
                    return (ReasoningDelta(reasoning),)
        return self._receive_chunk(record, chunk)

    def receive_eof(self) -> None:
        """Say that the records have ended.

        Raises `BackendProtocolError` if neither a finish reason nor ``[DONE]`` was
        seen, or nothing that came could be read. With ``[DONE]`` alone the finish
        reason is ``stop``.
        """
        if self.finish_reason is None:
            if not self.done:
                raise BackendProtocolError(
                    "the backend's stream ended with neither a finish_reason nor "
                    f"[DONE]{self._skipped_note()}"
                )
            if self.skipped and not self._understood:
                raise BackendProtocolError(
                    "nothing in the backend's stream could be read"
                    f"{self._skipped_note()}"
                )
            self.finish_reason = "stop"

    def _skipped_note(self) -> str:
        if not self.skipped:
            return ""
        records = "record was" if self.skipped == 1 else "records were"
        return f"; {self.skipped} malformed {records} skipped: {self.first_malformed}"

    def _receive_chunk(self, record: Record, chunk: Chunk) -> Sequence[Delta]:
        if chunk.error or record.event == "error":
            _raise_if_error(record)
            raise reported_error({"error": chunk.error})
        self._take_usage(chunk.usage)
        if chunk.choices is None:
            _raise_if_error(record)
            return ()
        deltas: list[Delta] = []
        for choice in chunk.choices:
            if not choice.index:
                deltas += self._take_choice(choice)
        return deltas

    def _receive_unreadable(self, record: Record, error: Exception) -> Sequence[Delta]:
        data = record.data
        _raise_if_error(record)
        if data.strip() == _DONE:
            self.done = True
            return ()
        if isinstance(error, UnicodeDecodeError):
            # WHATWG reads an event stream with "UTF-8 decode", which replaces.
            text = data.decode("utf-8", "replace")
            return self.receive(Record(text.encode(), record.event, record.id))
        self.skipped += 1
        if not self.first_malformed:
            self.first_malformed = f"{shorten(str(error), 200)} ({len(data)} bytes)"
        return ()


class OpenAIMessage(OpenAIResponse):
    """A response that was not streamed: one record, the whole message."""

    __slots__ = ()

    def receive(self, record: Record) -> Sequence[Delta]:
        """Take the body; return its reasoning, text and tool calls, each as one delta.

        Raises `BackendReportedError` for a body with an ``error``, and
        `BackendProtocolError` for one that is no chat completion.
        """
        if self.done:
            return ()
        try:
            body = _decode_body(record.data.decode("utf-8", "replace"))
        except _UNREADABLE as error:
            _raise_if_error(record)
            raise BackendProtocolError(
                "the backend's answer is no chat completion: "
                f"{shorten(str(error), 200)}"
            ) from error
        if body.error or not body.choices:
            _raise_if_error(record)
        choice = next((c for c in body.choices or () if not c.index), None)
        if choice is None or choice.message is None:
            raise BackendProtocolError("the backend's answer has no message in choices")
        deltas = self._take_choice(choice)
        self._take_usage(body.usage)
        self.finish_reason = self.finish_reason or "stop"
        self.done = True
        return deltas

    def receive_eof(self) -> None:
        """Say that the body has ended.

        Raises `BackendProtocolError` if it was empty.
        """
        if not self.done:
            raise BackendProtocolError("the backend's answer is empty")


def response_for(kind: ContentKind) -> OpenAIResponse:
    """A new response, to be fed by the decoder of the same kind."""
    return OpenAIMessage() if kind == "json" else OpenAIStream()


def _raise_if_error(record: Record) -> None:
    """Raise what a record reports: by its event, ``error``, or older vLLM's ``object``.

    It may be plain text, or JSON that is otherwise no chunk.
    """
    text = record.data.decode("utf-8", "replace")
    try:
        value = _decode_any(text)
    except _UNREADABLE:
        value = None
    if record.event == "error" or (
        isinstance(value, dict)
        and (value.get("error") or value.get("object") == "error")
    ):
        raise reported_error(value or text)
