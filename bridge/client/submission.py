"""Publishing a job until JetStream says that it is stored, or why it is not."""

from __future__ import annotations

import asyncio

import msgspec

from bridge.bus.api import (
    MAXIMUM_MESSAGES_EXCEEDED,
    MESSAGE_SIZE_EXCEEDED,
    ApiError,
    JetStream,
)
from bridge.bus.cell import Cell
from bridge.bus.commands import TooLarge
from bridge.errors import (
    BusError,
    ConnectionLost,
    JobRefused,
    JobTooLarge,
    NotPermitted,
    QueueFull,
    StreamUnavailable,
    UnknownLane,
)
from bridge.events import UNREADABLE, Job, encode

#: How long one try waits for JetStream's answer, in seconds.
ANSWER_S = 1.0

#: Between two tries, in seconds: first, and at most.
RETRY_FIRST_S = 0.05
RETRY_LAST_S = 0.5

#: For so long a subject that nobody answers on may be a stream between two leaders,
#: where JetStream cannot be asked, in seconds.
LEADERLESS_S = 2.0

#: JetStream's codes for a stream, an account or a server that is full.
FULL = frozenset({MAXIMUM_MESSAGES_EXCEEDED, 10002, 10023, 10028, 10047, 10122})

#: The bridge's own limit may be lower than the stream's, but never the server's.
SUBJECT_BYTES = 256


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = "unknown error"


class _Answer(msgspec.Struct):
    stream: str = ""
    duplicate: bool = False
    error: _Error | None = None


_decoder = msgspec.json.Decoder(_Answer)


async def submit_job(
    cell: Cell, tenant: str, lane: str, job: Job, *, timeout_s: float
) -> bool:
    """Publish ``job`` until it is stored; whether JetStream had it already.

    Tries again while NATS is away or the stream has no leader: the message id makes
    that safe. Raises `JobRefused` and its kinds, and `ConnectionLost` after
    ``timeout_s``: then the job may be stored or not. May be cancelled.
    """
    subject = cell.subjects.job(tenant, lane)
    payload = encode(job)
    headers = {"Nats-Msg-Id": f"{tenant}/{job.id}"}
    loop = asyncio.get_running_loop()
    begun_at, delay = loop.time(), RETRY_FIRST_S
    answer_s = min(ANSWER_S, timeout_s)
    while True:
        try:
            message = await cell.connection.request(
                subject, payload, timeout_s=answer_s, headers=headers
            )
            return _stored(message.data, job)
        except TooLarge as error:
            raise JobTooLarge(
                f"job {job.id} has {len(payload)} bytes, over the NATS server's "
                f"max_payload of {cell.connection.max_payload}: shorten its messages"
            ) from error
        except StreamUnavailable as error:
            reason: BusError = error
            tried_s = loop.time() - begun_at
            if await _lane_is_unknown(cell.jetstream, subject, tried_s):
                raise UnknownLane(
                    f"no stream takes jobs on {subject}: is lane {lane!r} one of the "
                    "bridge's lanes, and has a bridge with this prefix ever run? "
                    "tokenbridge check tells"
                ) from error
        except NotPermitted as error:
            raise JobRefused(
                f"job {job.id} was not taken on {subject}: {error}"
            ) from error
        except ConnectionLost as error:
            reason = error
        if loop.time() - begun_at + delay > timeout_s:
            raise ConnectionLost(
                f"JetStream did not say within {timeout_s:g} s whether job {job.id} is "
                f"stored ({reason}); submitting it again under the same id is safe"
            ) from reason
        await asyncio.sleep(delay)
        delay = min(delay * 2, RETRY_LAST_S)


def _stored(data: bytes, job: Job) -> bool:
    try:
        answer = _decoder.decode(data)
    except UNREADABLE as error:
        raise ConnectionLost("JetStream's answer to a job is none") from error
    if answer.error is not None:
        raise _refusal(answer.error, job)
    if not answer.stream:
        # Another client listens there: that is no promise that the job is kept.
        raise ConnectionLost("what answered to a job is not JetStream")
    return answer.duplicate


def _refusal(error: _Error, job: Job) -> JobRefused | BusError:
    said = f"{error.description} ({error.err_code or error.code})"
    if error.err_code == MESSAGE_SIZE_EXCEEDED:
        return JobTooLarge(
            f"job {job.id} exceeds the limit for jobs: {said}. Shorten its messages, "
            "or raise max_job_bytes where the bridge makes its streams"
        )
    if error.err_code in FULL:
        return QueueFull(f"the queue of jobs is full: {said}. Try again later")
    if error.code == 503:
        return StreamUnavailable(f"the stream of jobs is not available: {said}")
    return JobRefused(f"JetStream did not take job {job.id}: {said}")


async def _lane_is_unknown(jetstream: JetStream, subject: str, tried_s: float) -> bool:
    """Whether nobody answers on ``subject`` since no stream captures it."""
    try:
        answer = await jetstream.call("STREAM.NAMES", {"subject": subject})
        return not answer.get("streams")
    except (ApiError, BusError):
        # No permission to ask, or no JetStream at all.
        return tried_s > LEADERLESS_S
