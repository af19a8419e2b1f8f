"""The bytes of an OpenAI-style answer: chunks, frames, whole messages, errors."""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.encode

#: OpenAI's ``type`` of an error by HTTP status; others are ``server_error`` from 500
#: and ``invalid_request_error`` below.
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    408: "timeout_error",
    429: "rate_limit_error",
}


def error_object(
    status: int, message: str, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """An error as OpenAI's API words it."""
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    kind = _ERROR_TYPES.get(status, fallback)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def usage_object(prompt: int, completion: int, reasoning: int) -> dict[str, Any]:
    """A ``usage`` object; ``completion`` includes the reasoning."""
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def whole_message(
    id: str,
    created: int,
    model: str,
    message: dict[str, Any],
    finish_reason: str | None,
    usage: dict[str, Any] | None,
) -> dict[str, Any]:
    """A ``chat.completion`` object: the answer that is not streamed."""
    whole: dict[str, Any] = {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": None} | message,
                "logprobs": None,
                "finish_reason": finish_reason,
            }
        ],
    }
    if usage is not None:
        whole["usage"] = usage
    return whole


class Chunks:
    """The records of one streamed answer, each framed for its content type.

    With ``ndjson`` a record is a line, else an event of WHATWG's event streams.
    ``include_usage`` puts ``"usage": null`` into every chunk but the last, as OpenAI
    does.
    """

    def __init__(
        self, id: str, created: int, model: str, *, ndjson: bool, include_usage: bool
    ) -> None:
        self._before, self._after = (b"", b"\n") if ndjson else (b"data: ", b"\n\n")
        self._ndjson = ndjson
        head = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._head = self._before + _encode(head)[:-1]
        null_usage = b',"usage":null' if include_usage else b""
        self._tail = null_usage + b"}" + self._after
        self._content_head = self._head + b',"choices":[{"index":0,"delta":{"content":'
        self._content_tail = b'},"logprobs":null,"finish_reason":null}]' + self._tail

    def content(self, text: str) -> bytes:
        """A token of the text: the frequent one, so made of prepared parts."""
        return self._content_head + _encode(text) + self._content_tail

    def role(self) -> bytes:
        """The first chunk, which carries no token."""
        return self._delta({"role": "assistant", "content": ""})

    def reasoning(self, text: str) -> bytes:
        """A token of the reasoning, under vLLM's and DeepSeek's name for it."""
        return self._delta({"reasoning_content": text})

    def tool_call(self, call_id: str, name: str) -> bytes:
        """The chunk that opens a tool call."""
        function = {"name": name, "arguments": ""}
        call = {"index": 0, "id": call_id, "type": "function", "function": function}
        return self._delta({"tool_calls": [call]})

    def arguments(self, text: str) -> bytes:
        """A token of the tool call's arguments."""
        call = {"index": 0, "function": {"arguments": text}}
        return self._delta({"tool_calls": [call]})

    def finish(self, reason: str) -> bytes:
        """The chunk that says why the answer ends."""
        return self._delta({}, reason)

    def usage(self, usage: dict[str, Any]) -> bytes:
        """The last chunk where usage was asked for; it has no choices."""
        return (
            self._head + b',"choices":[],"usage":' + _encode(usage) + b"}" + self._after
        )

    def done(self) -> bytes:
        """What follows the last chunk; NDJSON knows no such record."""
        return b"" if self._ndjson else b"data: [DONE]\n\n"

    def error(self, message: str) -> bytes:
        """An error object in a chunk's place."""
        return self._before + _encode(error_object(500, message)) + self._after

    def malformed(self) -> bytes:
        """A record that breaks off in the middle of its JSON."""
        return self._content_head + b'"brok' + self._after

    def huge(self, size: int) -> bytes:
        """A chunk without a token whose line is ``size`` bytes long, or a little over.

        The padding is in a field that nobody knows: a reader that takes lines of
        that length finds nothing wrong with it.
        """
        head = self._head + b',"choices":[],"padding":"'
        end = b'"' + self._tail
        padding = max(0, size - len(head) - len(end) + len(self._after))
        return head + b"x" * padding + end

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._head + b',"choices":' + _encode([choice]) + self._tail
