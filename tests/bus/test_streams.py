"""The streams: made as the protocol says, compared, corrected, or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge.bus import streams
from bridge.bus.api import JetStream
from bridge.bus.connection import Connection
from bridge.bus.streams import Blueprint, Lane, StreamNames
from bridge.config import BusSettings, Secret
from bridge.errors import SetupError, StreamUnavailable
from bridge.subjects import Subjects
from tests.servers import NatsServer

HOUR_NS = 3600 * 10**9
LANES = [Lane("default", 10.0), Lane("voice", 3.0)]


class Setting:
    """One prefix on one connection."""

    def __init__(self, connection: Connection, settings: BusSettings, prefix: str):
        self.jetstream = JetStream(connection)
        self.settings = settings
        self.subjects = Subjects(prefix)
        self.names = StreamNames.of(settings, prefix)

    async def ensure(self, setup: streams.Setup, lanes: list[Lane] = LANES) -> None:
        await streams.ensure(self.jetstream, self.settings, self.subjects, lanes, setup)

    async def config(self, name: str) -> dict[str, Any]:
        info = await self.jetstream.call(f"STREAM.INFO.{name}")
        config: dict[str, Any] = info["config"]
        return config

    async def consumer(self, lane: str) -> dict[str, Any]:
        info = await self.jetstream.call(f"CONSUMER.INFO.{self.names.jobs}.{lane}")
        config: dict[str, Any] = info["config"]
        return config

    async def change(self, name: str, **changes: Any) -> None:
        """Make the stream anew with other settings."""
        config = {**(await self.config(name)), **changes}
        await self.jetstream.call(f"STREAM.DELETE.{name}")
        await self.jetstream.call(f"STREAM.CREATE.{name}", config)


@pytest.fixture
def setting(connection: Connection, bus_settings: BusSettings, prefix: str) -> Setting:
    return Setting(connection, bus_settings, prefix)


async def test_made_as_the_protocol_says(setting: Setting, prefix: str) -> None:
    await setting.ensure("create")
    jobs = await setting.config(f"{prefix.upper()}_JOBS")
    assert sorted(jobs["subjects"]) == [
        f"{prefix}.jobs.*.default",
        f"{prefix}.jobs.*.voice",
    ]
    assert jobs["retention"] == "workqueue"
    assert jobs["discard"] == "new"
    assert jobs["max_msg_size"] == 512 * 1024
    tokens = await setting.config(f"{prefix.upper()}_TOKENS")
    assert sorted(tokens["subjects"]) == [
        f"{prefix}.speech.*.*",
        f"{prefix}.tokens.*.*",
    ]
    assert tokens["retention"] == "limits"
    assert tokens["allow_direct"] is True
    assert tokens["allow_batched"] is True
    assert tokens["max_age"] == HOUR_NS
    control = await setting.config(f"{prefix.upper()}_CONTROL")
    assert sorted(control["subjects"]) == [
        f"{prefix}.control.*.request.*",
        f"{prefix}.control.*.session.*",
    ]
    assert control["max_msgs_per_subject"] == 1
    dead = await setting.config(f"{prefix.upper()}_DEAD")
    assert dead["subjects"] == [f"{prefix}.dead.*"]
    assert dead["max_age"] == 7 * 24 * HOUR_NS
    for lane, seconds in (("default", 10), ("voice", 3)):
        consumer = await setting.consumer(lane)
        assert consumer["filter_subject"] == f"{prefix}.jobs.*.{lane}"
        assert consumer["ack_policy"] == "explicit"
        assert consumer["ack_wait"] == seconds * 10**9
        assert consumer["max_deliver"] == -1
        assert consumer["max_ack_pending"] == -1
    for setup in ("create", "verify", "update"):
        await setting.ensure(setup)
    assert await streams.missing(setting.jetstream, setting.names) == []


async def test_what_a_deployment_may_choose(
    connection: Connection, bus_settings: BusSettings, prefix: str
) -> None:
    chosen = msgspec.structs.replace(
        bus_settings,
        stream_storage="memory",
        tokens_max_age_s=7200.0,
        jobs_max_count=7,
        jobs_max_age_s=3660.0,  # half the log's age and a minute
        max_job_bytes=1000,
        jobs_stream_name=f"{prefix}-queue",
    )
    setting = Setting(connection, chosen, prefix)
    await setting.ensure("create")
    jobs = await setting.config(f"{prefix}-queue")
    assert (jobs["storage"], jobs["max_msgs"]) == ("memory", 7)
    assert jobs["max_msg_size"] == 1000
    assert jobs["max_age"] == 3660 * 10**9
    tokens = await setting.config(f"{prefix.upper()}_TOKENS")
    assert tokens["max_age"] == 2 * HOUR_NS
    # Storage, counts and a longer age are never held against what stands.
    default = msgspec.structs.replace(
        bus_settings, max_job_bytes=1000, jobs_stream_name=f"{prefix}-queue"
    )
    await Setting(connection, default, prefix).ensure("verify")


MINUTE = {"max_age": 60 * 10**9, "duplicate_window": 60 * 10**9}

BROKEN: dict[str, tuple[str, dict[str, Any], str]] = {
    "tokens without batches": ("tokens", {"allow_batched": False}, "allow_batched"),
    "tokens without direct get": ("tokens", {"allow_direct": False}, "allow_direct"),
    "tokens that discard new": ("tokens", {"discard": "new"}, "discard"),
    "tokens kept for a minute": ("tokens", MINUTE, "max_age"),
    "tokens, a few each": ("tokens", {"max_msgs_per_subject": 10}, "max_msgs_per"),
    "jobs with a limit lower": ("jobs", {"max_msg_size": 100}, "max_msg_size"),
    "jobs kept for a minute": (
        "jobs",
        MINUTE,
        "max_age is 60 s, must be at least 1,860 s (the longest deadline",
    ),
    "jobs that discard old": ("jobs", {"discard": "old"}, "discard"),
    "control with a history": ("control", {"max_msgs_per_subject": 5}, "per_subject"),
    "control kept for a minute": ("control", MINUTE, "max_age"),
}


@pytest.mark.parametrize(
    ("stream", "changes", "named"), BROKEN.values(), ids=BROKEN.keys()
)
async def test_a_setting_that_breaks_a_promise(
    setting: Setting, stream: str, changes: dict[str, Any], named: str
) -> None:
    await setting.ensure("create")
    name = getattr(setting.names, stream)
    await setting.change(name, **changes)
    for setup in ("create", "verify"):
        with pytest.raises(SetupError) as caught:
            await setting.ensure(setup)
        message = str(caught.value)
        assert name in message
        assert named in message
        assert 'stream_setup = "update"' in message
    await setting.ensure("update")
    await setting.ensure("verify")


async def test_a_retention_that_no_update_changes(setting: Setting) -> None:
    await setting.ensure("create")
    await setting.change(setting.names.jobs, retention="limits")
    for setup in ("create", "verify", "update"):
        with pytest.raises(SetupError, match=setting.names.jobs) as caught:
            await setting.ensure(setup)
    assert "retention" in str(caught.value)


async def test_a_new_lane_needs_the_update(setting: Setting) -> None:
    await setting.ensure("create", LANES[:1])
    with pytest.raises(SetupError, match="subjects"):
        await setting.ensure("create", LANES)
    await setting.ensure("update", LANES)
    await setting.ensure("verify", LANES)
    assert (await setting.consumer("voice"))["ack_wait"] == 3 * 10**9


async def test_a_consumer_with_another_ack_wait(setting: Setting) -> None:
    await setting.ensure("create")
    slower = [Lane("default", 20.0), LANES[1]]
    for setup in ("create", "verify"):
        with pytest.raises(SetupError) as caught:
            await setting.ensure(setup, slower)
        assert "ack_wait is 10000000000, must be 20000000000" in str(caught.value)
        assert "consumer default" in str(caught.value)
    await setting.ensure("update", slower)
    assert (await setting.consumer("default"))["ack_wait"] == 20 * 10**9
    await setting.ensure("verify", slower)


@pytest.mark.parametrize("key", ["max_deliver", "max_ack_pending"])
async def test_a_consumer_with_a_limit(setting: Setting, key: str) -> None:
    await setting.ensure("create")
    config = {**(await setting.consumer("voice")), key: 5}
    body = {"stream_name": setting.names.jobs, "config": config}
    create = f"CONSUMER.DURABLE.CREATE.{setting.names.jobs}.voice"
    await setting.jetstream.call(create, body)
    with pytest.raises(SetupError, match=f"{key} is 5, must be -1"):
        await setting.ensure("create")
    await setting.ensure("update")
    assert (await setting.consumer("voice"))[key] == -1


async def test_verify_makes_nothing(setting: Setting) -> None:
    with pytest.raises(SetupError, match=f"{setting.names.jobs} is missing"):
        await setting.ensure("verify")
    missing = await streams.missing(setting.jetstream, setting.names)
    assert len(missing) == 4
    await setting.ensure("create", LANES)
    await setting.jetstream.call(f"CONSUMER.DELETE.{setting.names.jobs}.voice")
    with pytest.raises(SetupError, match="consumer voice"):
        await setting.ensure("verify")


async def test_missing_names_what_is_gone(setting: Setting) -> None:
    await setting.ensure("create")
    await setting.jetstream.call(f"STREAM.DELETE.{setting.names.dead}")
    missing = await streams.missing(setting.jetstream, setting.names)
    assert missing == [setting.names.dead]


async def test_two_bridges_at_once(setting: Setting) -> None:
    await asyncio.gather(*(setting.ensure("create") for _ in range(4)))
    await setting.ensure("verify")


async def test_subjects_that_another_stream_has(setting: Setting, prefix: str) -> None:
    other = f"{prefix.upper()}_OTHER"
    config = {"name": other, "subjects": [f"{prefix}.tokens.>"]}
    await setting.jetstream.call(f"STREAM.CREATE.{other}", config)
    with pytest.raises(SetupError, match="overlap"):
        await setting.ensure("create")


@pytest.fixture
def restricted_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server with one user who may make streams and one who may not."""
    server = NatsServer(
        tmp_path / "nats",
        more="""authorization { users: [
            {user: "admin", password: "a"}
            {user: "bridge", password: "b", permissions: {publish: {deny: [
                "$JS.API.STREAM.CREATE.>"
                "$JS.API.STREAM.UPDATE.>"
                "$JS.API.STREAM.DELETE.>"
                "$JS.API.CONSUMER.CREATE.>"
                "$JS.API.CONSUMER.DURABLE.CREATE.>"
            ]}}}
        ]}""",
    )
    server.start()
    yield server
    server.stop()


async def test_a_user_who_may_not_make_streams(
    restricted_server: NatsServer, prefix: str
) -> None:
    admin = BusSettings(
        nats_url=restricted_server.url, nats_user="admin", nats_password=Secret("a")
    )
    bridge = BusSettings(
        nats_url=restricted_server.url, nats_user="bridge", nats_password=Secret("b")
    )
    both = [Connection(admin, name="admin"), Connection(bridge, name="bridge")]
    for connection in both:
        await connection.connect()
    makes, uses = (Setting(c, admin, prefix) for c in both)
    with pytest.raises(SetupError, match="permission"):
        await uses.ensure("create")
    await makes.ensure("create")
    await uses.ensure("create")
    await uses.ensure("verify")
    await makes.jetstream.call(f"CONSUMER.DELETE.{makes.names.jobs}.voice")
    with pytest.raises(SetupError, match=r"consumer voice.*permission"):
        await uses.ensure("create")
    for connection in both:
        await connection.close()


async def test_an_account_without_jetstream_is_not_ready_yet(
    tmp_path: Path, prefix: str
) -> None:
    server = NatsServer(
        tmp_path / "nats",
        more="""accounts { plain: { users: [{user: "u", password: "p"}] } }""",
    )
    server.start()
    settings = BusSettings(
        nats_url=server.url, nats_user="u", nats_password=Secret("p")
    )
    connection = Connection(settings, name="test")
    await connection.connect()
    try:
        with pytest.raises(StreamUnavailable):
            await Setting(connection, settings, prefix).ensure("create")
    finally:
        await connection.close()
        server.stop()


# Without a server


def test_names_follow_the_prefix() -> None:
    names = StreamNames.of(BusSettings(), "llm")
    assert msgspec.structs.astuple(names) == (
        "LLM_JOBS",
        "LLM_TOKENS",
        "LLM_CONTROL",
        "LLM_DEAD",
    )
    assert StreamNames.of(BusSettings(dead_stream_name="Z"), "a-b").dead == "Z"
    assert StreamNames.of(BusSettings(), "a-b").jobs == "A-B_JOBS"


NS = 10**9


@pytest.mark.parametrize(
    ("standing", "differs"),
    [
        ({"a": 1, "max_age": 10 * NS}, []),
        ({"a": 1, "max_age": 11 * NS}, []),
        ({"a": 1}, []),  # no limit at all
        ({"a": 1, "max_age": -1}, []),
        ({"a": 1, "max_age": 10 * NS - 1}, ["max_age"]),
        ({"a": 2, "max_age": 9 * NS}, ["a", "max_age"]),
        ({"max_age": 10 * NS}, ["a"]),
        ({"a": 1, "other": 5}, []),
    ],
)
def test_differences(standing: dict[str, Any], differs: list[str]) -> None:
    # What a deployment sets is more than what is needed.
    config = {"name": "X", "a": 1, "max_age": 20 * NS, "off": False}
    blueprint = Blueprint(config, ("a", "off"), min_age_s=10, min_age_why="why")
    assert list(blueprint.differences(standing)) == differs
