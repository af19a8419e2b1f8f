"""A job's request to the body of a chat completion, from the start or continued.

Continuing is vLLM's and SGLang's extension of the API: the text so far is an
assistant message at the end of ``messages``, ``continue_final_message`` leaves it open
and ``add_generation_prompt`` is off, so that the model goes on inside it.
"""

from __future__ import annotations

from typing import Any

import msgspec

#: Fields that constrain the text by a grammar. A grammar starts anew with the request,
#: so the rest of a text cannot be asked for under it: vLLM, SGLang, llama.cpp.
_GRAMMAR_FIELDS = frozenset(
    {"structured_outputs", "grammar", "json_schema", "regex", "ebnf", "structural_tag"}
)
_GRAMMAR_PREFIX = "guided_"

_encode = msgspec.json.Encoder().encode


def request_body(
    request: dict[str, Any], *, prefix: str | None = None, spent_tokens: int = 0
) -> bytes:
    """The body to send: ``request`` with the bridge's fields overwritten, as JSON.

    ``prefix`` is the text that stands already, to be continued; ``None`` or empty
    starts from the beginning. ``spent_tokens``, its length in tokens, is taken off
    ``max_tokens`` and ``max_completion_tokens`` (not below 1) and ``min_tokens``.
    ``request`` is left as it is; what the bridge does not know is passed on.
    """
    body = dict(request)
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    _reduce(body, ("max_tokens", "max_completion_tokens"), spent_tokens, least=1)
    _reduce(body, ("min_tokens",), spent_tokens, least=0)
    if prefix:
        body["messages"] = _continued(request, prefix)
        body["continue_final_message"] = True
        body["add_generation_prompt"] = False
    return _encode(body)


def can_continue(request: dict[str, Any]) -> bool:
    """Whether the rest of this request's text can be asked for by a prefix.

    Not under a grammar or schema, with a tool call that is forced, with beam search,
    or with an echo of the prompt. That no tool call is under way is the caller's to
    know, and so is whether the backend continues at all.
    """
    return not (
        _is_structured(request)
        or _forces_tool(request)
        or request.get("use_beam_search")
        or request.get("echo")
        or not _is_extensible(request)
    )


def token_limit(request: dict[str, Any]) -> int | None:
    """The most tokens that the request asks for, ``None`` where it does not say."""
    for key in ("max_completion_tokens", "max_tokens"):
        value = request.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _reduce(
    body: dict[str, Any], keys: tuple[str, ...], spent: int, *, least: int
) -> None:
    for key in keys:
        value = body.get(key)
        if spent > 0 and isinstance(value, int) and not isinstance(value, bool):
            body[key] = max(value - spent, least)


def _continued(request: dict[str, Any], prefix: str) -> list[Any]:
    messages = list(request.get("messages") or ())
    if _is_open(request) and _is_extensible(request):
        last = dict(messages[-1])
        content = last.get("content")
        if isinstance(content, list):
            last["content"] = [*content, {"type": "text", "text": prefix}]
        else:
            last["content"] = (content or "") + prefix
        messages[-1] = last
    else:
        messages.append({"role": "assistant", "content": prefix})
    return messages


def _is_open(request: dict[str, Any]) -> bool:
    """Whether the request itself leaves an assistant message to be continued."""
    messages = request.get("messages") or [None]
    return (
        bool(request.get("continue_final_message"))
        and isinstance(messages[-1], dict)
        and messages[-1].get("role") == "assistant"
    )


def _is_extensible(request: dict[str, Any]) -> bool:
    if not _is_open(request):
        return True
    content = request["messages"][-1].get("content")
    return content is None or isinstance(content, str | list)


def _is_structured(request: dict[str, Any]) -> bool:
    response_format = request.get("response_format")
    if response_format and response_format != {"type": "text"}:
        return True
    return any(
        value not in (None, False, "", {}, [])
        for key, value in request.items()
        if key in _GRAMMAR_FIELDS or key.startswith(_GRAMMAR_PREFIX)
    )


def _forces_tool(request: dict[str, Any]) -> bool:
    """By ``tool_choice``, or its predecessor ``function_call``."""
    return any(
        request.get(key) not in (None, "none", "auto")
        for key in ("tool_choice", "function_call")
    )
