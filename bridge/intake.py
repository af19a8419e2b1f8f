"""A job as it comes in: read and checked, or refused with the field's name.

``docs/protocol.md``, section 2. The SDK asks here before it sends a job, the bridge
when it claims one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bridge.errors import InvalidJob, shorten
from bridge.events import UNREADABLE, Job
from bridge.subjects import InvalidToken, check_token

#: Upper bound of what a producer may ask for in milliseconds: 1 day. Anything longer
#: than the log's age is refused by the worker; this only keeps the arithmetic sane.
MAX_MILLISECONDS = 86_400_000

#: Metadata rides in two events of every request, so it is kept small: 4 KiB.
MAX_METADATA_BYTES = 4096


class _IdOnly(msgspec.Struct):
    id: str


_job_decoder = msgspec.json.Decoder(Job)
_id_decoder = msgspec.json.Decoder(_IdOnly)


def read_job_id(data: bytes) -> str | None:
    """The id of a job that may be invalid otherwise, or ``None``."""
    try:
        return check_token(_id_decoder.decode(data).id, "id")
    except (InvalidToken, *UNREADABLE):
        return None


def decode_job(data: bytes) -> Job:
    """Read and check a job (section 2).

    Raises `InvalidJob`, whose message names the field.
    """
    try:
        job = _job_decoder.decode(data)
    except UNREADABLE as error:
        raise InvalidJob(f"the job is not valid: {shorten(str(error))}") from error
    _check_names(job)
    _check_durations(job)
    _check_request(job.request)
    if len(msgspec.json.encode(job.metadata)) > MAX_METADATA_BYTES:
        raise InvalidJob(f"metadata is larger than {MAX_METADATA_BYTES} bytes")
    return job


def _check_names(job: Job) -> None:
    try:
        check_token(job.id, "id")
        if job.session is not None:
            check_token(job.session, "session")
    except InvalidToken as error:
        raise InvalidJob(str(error)) from error
    if job.supersede and job.session is None:
        raise InvalidJob("supersede needs a session")


def _check_durations(job: Job) -> None:
    for name in ("deadline_ms", "keepalive_ms"):
        value = getattr(job, name)
        if value is not None and not 1 <= value <= MAX_MILLISECONDS:
            raise InvalidJob(f"{name} must be between 1 and {MAX_MILLISECONDS}")


def _check_request(request: dict[str, Any]) -> None:
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidJob("request.model must be a non-empty string")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidJob("request.messages must be a non-empty array")
    if not all(isinstance(message, dict) for message in messages):
        raise InvalidJob("request.messages must hold objects")
    n = request.get("n", 1)
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n != 1):
        raise InvalidJob("request.n must be 1: one job is one text")
