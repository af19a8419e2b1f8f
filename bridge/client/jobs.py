"""A job from what a caller has: a prompt, or the whole body of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bridge.events import Job, OnRestart, encode
from bridge.intake import decode_job
from bridge.speech.options import speech_options


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
    no model.
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
    if prompt is None and not context:
        raise ValueError("give a prompt, or a request")
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
    """A job that a bridge will take.

    Raises `InvalidJob`, whose message names the field, and `TypeError` where the
    request holds something that has no form in JSON.
    """
    job = Job(
        id=id,
        request=request,
        session=session,
        supersede=supersede,
        deadline_ms=deadline_ms,
        keepalive_ms=keepalive_ms,
        on_restart=on_restart,
        speech=speech if isinstance(speech, bool) else _checked(speech),
        metadata=dict(metadata or {}),
    )
    # The bridge's own check, so that a mistake is the caller's exception and not an
    # event of the request.
    return decode_job(encode(job))


def _checked(speech: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(speech)
    speech_options(options)
    return options
