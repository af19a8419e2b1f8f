"""A job from what a caller has: a prompt, or the whole body of a request."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.errors import InvalidJob
from bridge.events import Job, OnRestart, encode
from bridge.intake import decode_job
from bridge.speech.options import speech_options
from bridge.subjects import InvalidToken, check_token

#: The deadline of a job whose caller names none, in milliseconds: it is always sent, so
#: that a reader knows how long there is to wait.
DEFAULT_DEADLINE_MS = 600_000


def make_request(
    prompt: str | None,
    request: Mapping[str, Any] | None,
    *,
    model: str | None,
    default_model: str | None,
    system: str | None,
    context: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of a chat completion.

    Raises `ValueError` for a call that gives both a prompt and a request, neither, or
    no model, and `TypeError` for a prompt or system message that is no text.
    """
    if request is None:
        body: dict[str, Any] = {"messages": _messages(prompt, system, context)}
    elif prompt is not None or system is not None or context:
        raise ValueError(
            "request is the whole body: give prompt, system and context, or request"
        )
    else:
        body = dict(request)
    if model is not None:
        body["model"] = model
    elif "model" not in body and default_model is not None:
        body["model"] = default_model
    if "model" not in body:
        raise ValueError("which model? Give model=… here, or to the Client")
    body.update(parameters)
    return body


def _messages(
    prompt: str | None, system: str | None, context: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    for name, text in (("prompt", prompt), ("system", system)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{name} must be a str, not {type(text).__name__}")
    if prompt is None and not context:
        raise ValueError("give a prompt, or a request")
    if not all(isinstance(message, Mapping) for message in context):
        raise TypeError("context must be a sequence of messages, each a mapping")
    messages = [dict(message) for message in context]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    if prompt is not None:
        messages.append({"role": "user", "content": prompt})
    return messages


def make_job(
    id: str,
    request: dict[str, Any],
    *,
    session: str | None,
    supersede: bool,
    deadline_ms: int | None,
    keepalive_ms: int | None,
    on_restart: OnRestart,
    speech: bool | Mapping[str, Any],
    metadata: Mapping[str, str] | None,
) -> Job:
    """A job that a bridge will take; half emoji in it are U+FFFD.

    Raises `InvalidJob`, whose message names the field, and `TypeError` or `ValueError`
    where the request holds something that has no form in JSON.
    """
    try:
        check_token(id, "id")
        job = Job(
            id=id,
            request=_json(request, "request"),
            session=session,
            supersede=supersede,
            deadline_ms=DEFAULT_DEADLINE_MS if deadline_ms is None else deadline_ms,
            keepalive_ms=keepalive_ms,
            on_restart=on_restart,
            speech=speech if isinstance(speech, bool) else _checked(speech),
            metadata=_json(metadata or {}, "metadata"),
        )
        # The bridge's own check, so that a mistake is the caller's exception and not an
        # event of the request.
        return decode_job(encode(job))
    except (InvalidToken, UnicodeEncodeError) as error:
        raise InvalidJob(str(error)) from error
    except RecursionError as error:
        raise InvalidJob("the request is nested too deeply") from error


def _checked(speech: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = _json(speech, "speech")
    speech_options(options)
    return options


def _json(value: Any, name: str) -> Any:
    """``value`` as JSON has it, its texts well formed; ``name`` is its path.

    The encoder would send bytes as base64 and an infinity as null: neither is what the
    caller meant.
    """
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, Mapping):
        return {
            well_formed(key) if isinstance(key, str) else key: _json(
                each, f"{name}.{key}"
            )
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_json(each, f"{name}[{at}]") for at, each in enumerate(value)]
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, which has no form in JSON")
    return value


def well_formed(text: str) -> str:
    """``text`` with its surrogate halves joined, and U+FFFD for a lone one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
