"""The four streams and the lanes' consumers: what they must be, and making them so.

``docs/protocol.md``, section 1. What a deployment may choose (storage, replicas,
sizes) is used when a stream is made and never held against one that stands; what a
promise rests on is compared, and a difference stops the start.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from bridge.bus.api import CONSUMER_NOT_FOUND, ApiError, JetStream, setup_error
from bridge.config import BusSettings
from bridge.errors import ConnectionLost, SetupError, StreamUnavailable
from bridge.subjects import Subjects

log = logging.getLogger(__name__)

NANOSECONDS = 1_000_000_000

#: Pull requests that may wait at a consumer: one or two of each replica and lane.
MAX_WAITING = 4096

#: Repeats of a job are recognised by ``Nats-Msg-Id`` for so long, in seconds; what
#: this window lets through, the claim finds in the log.
DUPLICATE_WINDOW_S = 120.0

#: The longest deadline is this part of the log's age: a log outlives its request.
DEADLINE_OF_LOG = 1 / 2

#: How much longer than the longest deadline a job is kept, in seconds, so that it is
#: there when a worker has to say that it is over.
JOB_OUTLIVES_S = 60.0

Setup = Literal["create", "update", "verify"]


class StreamNames(msgspec.Struct, frozen=True):
    """The names of one prefix's streams."""

    jobs: str
    tokens: str
    control: str
    dead: str

    @classmethod
    def of(cls, settings: BusSettings, prefix: str) -> StreamNames:
        """The names from the settings, or derived from ``prefix``."""
        base = prefix.upper()
        return cls(
            jobs=settings.jobs_stream_name or f"{base}_JOBS",
            tokens=settings.tokens_stream_name or f"{base}_TOKENS",
            control=settings.control_stream_name or f"{base}_CONTROL",
            dead=settings.dead_stream_name or f"{base}_DEAD",
        )


class Lane(msgspec.Struct, frozen=True):
    """A lane and how long its jobs stay claimed without a sign of life, in s."""

    name: str
    ack_wait_s: float


class Blueprint(msgspec.Struct):
    """One stream: the whole configuration, and the keys that promises rest on.

    ``min_age_s`` is how long its messages have to be kept at least, ``min_age_why``
    what for.
    """

    config: dict[str, Any]
    required: tuple[str, ...]
    min_age_s: float = 0.0
    min_age_why: str = ""

    @property
    def name(self) -> str:
        """The stream's name."""
        return str(self.config["name"])

    def differences(self, standing: dict[str, Any]) -> dict[str, str]:
        """What of ``standing`` breaks a promise: key -> "is …, must be …"."""
        found = {}
        for key in self.required:
            is_, must = standing.get(key), self.config[key]
            if key == "subjects":
                is_, must = sorted(is_ or []), sorted(must)
            if not _same(is_, must):
                found[key] = f"{key} is {is_!r}, must be {must!r}"
        age = int(standing.get("max_age") or 0)  # 0 is for ever
        if 0 < age < _nanoseconds(self.min_age_s):
            found["max_age"] = (
                f"max_age is {age / NANOSECONDS:,g} s, must be at least "
                f"{self.min_age_s:,g} s ({self.min_age_why})"
            )
        return found


def _same(left: Any, right: Any) -> bool:
    # The server leaves out what is false or zero.
    return (left or None) == (right or None)


def blueprints(
    settings: BusSettings, subjects: Subjects, lanes: list[Lane]
) -> list[Blueprint]:
    """The streams of one prefix."""
    names = StreamNames.of(settings, subjects.prefix)
    common = {
        "storage": settings.stream_storage,
        "num_replicas": settings.stream_replicas,
    }
    jobs = {
        **common,
        "name": names.jobs,
        "description": "tokenbridge: generation jobs",
        "subjects": [subjects.lane(lane.name) for lane in lanes],
        "retention": "workqueue",
        "discard": "new",
        "max_msg_size": settings.max_job_bytes,
        "max_msgs": settings.jobs_max_count,
        "max_bytes": settings.jobs_max_bytes or -1,
        "max_age": _nanoseconds(settings.jobs_max_age_s),
        # The server takes no window that is longer than the age.
        "duplicate_window": _nanoseconds(
            min(DUPLICATE_WINDOW_S, settings.jobs_max_age_s)
        ),
    }
    tokens = {
        **common,
        "name": names.tokens,
        "description": "tokenbridge: the logs of requests",
        "subjects": [subjects.all_tokens, subjects.all_speech],
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": -1,
        "max_age": _nanoseconds(settings.tokens_max_age_s),
        "max_bytes": settings.tokens_max_bytes or -1,
        "allow_direct": True,
        "allow_batched": True,
    }
    control = {
        **common,
        "name": names.control,
        "description": "tokenbridge: cancels of requests and sessions",
        "subjects": list(subjects.kept_control),
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_age": _nanoseconds(settings.tokens_max_age_s),
        "allow_direct": True,
    }
    dead = {
        **common,
        "name": names.dead,
        "description": "tokenbridge: jobs that could not be served",
        "subjects": [subjects.all_dead],
        "retention": "limits",
        "discard": "old",
        "max_age": _nanoseconds(settings.dead_max_age_s),
        "max_bytes": settings.dead_max_bytes or -1,
    }
    return [
        Blueprint(
            jobs,
            ("subjects", "retention", "discard", "max_msg_size"),
            min_age_s=settings.tokens_max_age_s * DEADLINE_OF_LOG + JOB_OUTLIVES_S,
            min_age_why="the longest deadline, half of tokens_max_age_s, and "
            f"{JOB_OUTLIVES_S:g} s",
        ),
        Blueprint(
            tokens,
            (
                "subjects",
                "retention",
                "discard",
                "max_msgs_per_subject",
                "allow_direct",
                "allow_batched",
            ),
            min_age_s=settings.tokens_max_age_s,
            min_age_why="tokens_max_age_s",
        ),
        Blueprint(
            control,
            ("subjects", "retention", "max_msgs_per_subject", "allow_direct"),
            min_age_s=settings.tokens_max_age_s,
            min_age_why="tokens_max_age_s",
        ),
        Blueprint(dead, ("subjects", "retention")),
    ]


def consumer(subjects: Subjects, lane: Lane) -> dict[str, Any]:
    """The configuration of a lane's durable consumer."""
    return {
        "durable_name": lane.name,
        "name": lane.name,
        "description": f"tokenbridge: the jobs of lane {lane.name}",
        "filter_subject": subjects.lane(lane.name),
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "replay_policy": "instant",
        "ack_wait": _nanoseconds(lane.ack_wait_s),
        "max_deliver": -1,
        "max_ack_pending": -1,
        "max_waiting": MAX_WAITING,
    }


CONSUMER_REQUIRED = (
    "filter_subject",
    "ack_policy",
    "ack_wait",
    "max_deliver",
    "max_ack_pending",
)


def consumer_differences(wanted: dict[str, Any], standing: dict[str, Any]) -> list[str]:
    """What of a standing consumer breaks a promise."""
    return [
        f"{key} is {standing.get(key)!r}, must be {wanted[key]!r}"
        for key in CONSUMER_REQUIRED
        if standing.get(key) != wanted[key]
    ]


async def ensure(
    jetstream: JetStream,
    settings: BusSettings,
    subjects: Subjects,
    lanes: list[Lane],
    setup: Setup,
) -> None:
    """Make the streams and consumers, or make sure of those that stand.

    Raises `SetupError` saying what differs and what to do; `ConnectionLost` and
    `StreamUnavailable` where NATS is not ready yet and trying again may help.
    """
    for blueprint in blueprints(settings, subjects, lanes):
        await _ensure_stream(jetstream, blueprint, setup)
    names = StreamNames.of(settings, subjects.prefix)
    for lane in lanes:
        await _ensure_consumer(jetstream, names.jobs, consumer(subjects, lane), setup)


async def missing(jetstream: JetStream, names: StreamNames) -> list[str]:
    """The names of the streams that are not there now."""
    found = []
    for name in _each(names):
        try:
            await jetstream.call(f"STREAM.INFO.{name}")
        except StreamUnavailable:
            found.append(name)
    return found


def _each(names: StreamNames) -> Iterator[str]:
    yield from (names.jobs, names.tokens, names.control, names.dead)


async def _ensure_stream(
    jetstream: JetStream, blueprint: Blueprint, setup: Setup
) -> None:
    name = blueprint.name
    try:
        info = await jetstream.call(f"STREAM.INFO.{name}")
    except StreamUnavailable as error:
        if not error.gone:
            raise
        if setup == "verify":
            raise SetupError(
                f"stream {name} is missing; make it, or start with "
                'stream_setup = "create"'
            ) from error
        await _make(jetstream, f"STREAM.CREATE.{name}", blueprint.config, name)
        log.info("made stream %s", name)
        return
    standing = info["config"]
    found = blueprint.differences(standing)
    if not found:
        return
    if setup != "update":
        raise SetupError(
            f"stream {name} stands with settings that break what is promised: "
            f"{'; '.join(found.values())}. Correct it, or start once with "
            'stream_setup = "update"'
        )
    wanted = {**standing, **{key: blueprint.config[key] for key in found}}
    await _make(jetstream, f"STREAM.UPDATE.{name}", wanted, name)
    log.info("updated stream %s: %s", name, "; ".join(found.values()))


async def _ensure_consumer(
    jetstream: JetStream, stream: str, wanted: dict[str, Any], setup: Setup
) -> None:
    name = wanted["durable_name"]
    what = f"consumer {name} of stream {stream}"
    create = f"CONSUMER.DURABLE.CREATE.{stream}.{name}"
    try:
        info = await jetstream.call(f"CONSUMER.INFO.{stream}.{name}")
    except ApiError as error:
        if error.err_code != CONSUMER_NOT_FOUND:
            raise
        if setup == "verify":
            raise SetupError(
                f'{what} is missing; make it, or start with stream_setup = "create"'
            ) from error
        body = {"stream_name": stream, "config": wanted}
        await _make(jetstream, create, body, what)
        log.info("made %s", what)
        return
    found = consumer_differences(wanted, info["config"])
    if not found:
        return
    if setup != "update":
        raise SetupError(
            f"{what} stands with settings that break what is promised: "
            f"{'; '.join(found)} (durations in ns). Correct it, or start once with "
            'stream_setup = "update"'
        )
    changed = {key: wanted[key] for key in CONSUMER_REQUIRED}
    body = {"stream_name": stream, "config": {**info["config"], **changed}}
    await _make(jetstream, create, body, what)
    log.info("updated %s: %s", what, "; ".join(found))


async def _make(
    jetstream: JetStream, subject: str, body: dict[str, Any], what: str
) -> None:
    try:
        await jetstream.call(subject, body)
    except ApiError as error:
        raise setup_error(f"{what} cannot be made", error) from error
    except ConnectionLost as error:
        # A server tells a missing permission to the connection, not to the request.
        raise setup_error(
            f"{what} could not be made: NATS did not answer; has this user the "
            "permission to make streams?",
            error,
        ) from error


def _nanoseconds(seconds: float) -> int:
    return round(seconds * NANOSECONDS)
