"""Jobs that cannot be served: told, kept, terminated; and the worker goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
import pytest_asyncio

from bridge.simulator import Simulator, text_for
from tests.plain_client import (
    Json,
    PlainClient,
    Stored,
    assert_whole,
    barrier,
    eventually,
    plain_client,
    request,
)
from tests.servers import NatsServer, running_service


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


@pytest_asyncio.fixture
async def bus(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> AsyncIterator[PlainClient]:
    async with (
        running_service(nats_server.url, simulator.url, prefix=prefix, slots=4),
        plain_client(nats_server.url, prefix) as client,
    ):
        yield client


async def buried(bus: PlainClient, count: int = 1, tenant: str = "default") -> Stored:
    """Wait for so many dead letters; return the last."""

    async def there() -> bool:
        return len(await bus.dead(tenant)) >= count

    await eventually(there)
    letters = await bus.dead(tenant)
    assert len(letters) == count
    return letters[-1]


async def assert_goes_on(bus: PlainClient) -> None:
    """The next job is served, and nothing is left in the queue."""
    await bus.submit("next")
    assert (await bus.ended("next"))["type"] == "completed"
    assert_whole(await bus.log("next"))
    await bus.settled()


def nested(depth: int) -> bytes:
    return (
        b'{"id":"deep","request":{"model":"m","messages":[{"role":"user","x":%s}]}}'
        % (b"[" * depth + b"]" * depth)
    )


NAMELESS = {
    "empty": b"",
    "no JSON": b"no json",
    "cut off before its id": b'{"request":{"id":"x"},"i',
    "not UTF-8": b'{"id":"\xff\xfe","request":{}}',
    "an array": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "no id": json.dumps({"request": request()}).encode(),
    "id is a number": json.dumps({"id": 7, "request": request()}).encode(),
    "id with a dot": json.dumps({"id": "a.b", "request": request()}).encode(),
    "id with a wildcard": json.dumps({"id": "a*", "request": request()}).encode(),
    "id with a space": json.dumps({"id": "a b", "request": request()}).encode(),
    "empty id": json.dumps({"id": "", "request": request()}).encode(),
    "long id": json.dumps({"id": "x" * 65, "request": request()}).encode(),
    "id with a newline": json.dumps({"id": "x\n", "request": request()}).encode(),
}


@pytest.mark.parametrize("data", NAMELESS.values(), ids=NAMELESS.keys())
async def test_without_a_readable_id_there_is_only_a_dead_letter(
    bus: PlainClient, simulator: Simulator, data: bytes
) -> None:
    stored = await bus.submit_bytes(data)
    letter = await buried(bus)
    assert letter.data == data
    assert letter.headers["Tokenbridge-Code"] == "invalid_job"
    assert letter.headers["Tokenbridge-Message"]
    assert letter.headers["Tokenbridge-Subject"] == f"{bus.prefix}.jobs.default.default"
    assert letter.headers["Tokenbridge-Job"] == str(stored.seq)
    assert letter.headers["Tokenbridge-Attempt"] == "1"
    await assert_goes_on(bus)
    assert list(bus.live) == ["next"]
    assert len(simulator.requests) == 1


def job(**fields: Any) -> Json:
    return {"id": "bad", "request": request(), **fields}


NAMED = {
    "unknown field": (job(colour="red"), "colour"),
    "no request": ({"id": "bad"}, "request"),
    "request is a text": (job(request="hello"), "request"),
    "no model": (job(request={"messages": [{}]}), "model"),
    "empty model": (job(request=request(model="")), "model"),
    "no messages": (job(request={"model": "m"}), "messages"),
    "empty messages": (job(request=request(messages=[])), "messages"),
    "messages are texts": (job(request=request(messages=["hi"])), "messages"),
    "n above 1": (job(request=request(n=2)), "n must be 1"),
    "n is true": (job(request=request(n=True)), "n must be 1"),
    "deadline is a text": (job(deadline_ms="soon"), "deadline_ms"),
    "deadline is 0": (job(deadline_ms=0), "deadline_ms"),
    "deadline is negative": (job(deadline_ms=-1), "deadline_ms"),
    "deadline is a fraction": (job(deadline_ms=1.5), "deadline_ms"),
    "deadline is huge": (job(deadline_ms=10**30), "deadline_ms"),
    "keepalive is 0": (job(keepalive_ms=0), "keepalive_ms"),
    "on_restart is unknown": (job(on_restart="maybe"), "on_restart"),
    "session with a dot": (job(session="a.b"), "session"),
    "supersede without session": (job(supersede=True), "session"),
    "supersede is a text": (job(session="s", supersede="yes"), "supersede"),
    "metadata is a text": (job(metadata="x"), "metadata"),
    "metadata holds a number": (job(metadata={"a": 1}), "metadata"),
    "metadata is large": (job(metadata={"a": "x" * 5000}), "metadata"),
}


@pytest.mark.parametrize(("body", "field"), NAMED.values(), ids=NAMED.keys())
async def test_with_an_id_the_reader_is_told_which_field(
    bus: PlainClient, simulator: Simulator, body: Json, field: str
) -> None:
    await bus.submit_bytes(json.dumps(body).encode())
    event = await bus.ended("bad")
    assert event["type"] == "failed"
    assert (event["seq"], event["attempt"]) == (1, 1)
    assert event["error"]["code"] == "invalid_job"
    assert event["error"]["retryable"] is False
    assert field in event["error"]["message"]
    letter = await buried(bus)
    assert json.loads(letter.data) == body
    assert field in letter.headers["Tokenbridge-Message"]
    assert_whole(await bus.log("bad"))
    await assert_goes_on(bus)
    assert len(simulator.requests) == 1


@pytest.mark.parametrize("depth", [5000, 100_000])
async def test_nesting_beyond_the_interpreters_depth(
    bus: PlainClient, depth: int
) -> None:
    data = nested(depth)
    for _ in range(5):  # more than there are slots
        await bus.submit_bytes(data)
    letter = await buried(bus, 5)
    assert letter.data == data
    await assert_goes_on(bus)


async def test_an_invalid_job_does_not_touch_a_log_that_has_something(
    bus: PlainClient,
) -> None:
    await bus.submit("bad")
    await bus.ended("bad")
    log = await bus.log("bad")
    await bus.submit_bytes(json.dumps(job(colour="red")).encode())
    await buried(bus)
    await assert_goes_on(bus)
    assert await bus.log("bad") == log


async def test_a_tenant_that_breaks_the_grammar(bus: PlainClient) -> None:
    tenants = ["a$b", "_", "ünïcode", "x" * 65, "y" * 300]
    for tenant in tenants:
        data = json.dumps({"id": "bad", "request": request()}).encode()
        await bus.submit_bytes(data, tenant=tenant)
    await bus.settled()
    letters = await bus.dead("_")
    assert len(letters) == len(tenants)
    assert all(
        letter.headers["Tokenbridge-Code"] == "invalid_job" for letter in letters
    )
    assert not bus.live["bad"]
    await assert_goes_on(bus)


async def test_long_subjects_do_not_make_dead_letters_repeats(bus: PlainClient) -> None:
    for _ in range(3):
        await bus.submit_bytes(b"no json", tenant="y" * 300)
    await bus.settled()
    assert len(await bus.dead("_")) == 3


async def test_a_subject_that_is_no_utf8(
    bus: PlainClient, nats_server: NatsServer
) -> None:
    """Any bytes but dots and spaces make a token; the bridge must survive them."""
    client = await nats.connect(nats_server.url)
    subject = f"{bus.prefix}.jobs.a".encode() + b"\xff\xfe.default"
    payload = b"no json"
    await client._send_publish(
        subject.decode("latin-1"), "", payload, len(payload), None
    )
    client._pending[-1] = client._pending[-1].replace(
        subject.decode("latin-1").encode(), subject
    )
    await barrier(client)
    await client.close()
    await assert_goes_on(bus)


async def test_headers_of_a_dead_letter_are_bounded(bus: PlainClient) -> None:
    field = "f" * 100_000
    await bus.submit_bytes(json.dumps({"id": "bad", field: 1, "request": {}}).encode())
    event = await bus.ended("bad")
    assert len(event["error"]["message"]) < 2000
    letter = await buried(bus)
    assert sum(len(k) + len(v) + 4 for k, v in letter.headers.items()) <= 4096


BIG_NUMBERS: Json = {"seed": 2**63, "logit_bias": {"5": -(2**70)}, "temperature": 1e300}


async def test_numbers_that_are_no_64_bits_do_not_end_in_a_defect(
    bus: PlainClient, simulator: Simulator
) -> None:
    await bus.submit("big", request(**BIG_NUMBERS))
    event = await bus.ended("big")
    await bus.settled()
    if event["type"] == "failed":
        assert event["error"]["code"] == "invalid_job"
    else:
        body = simulator.requests[0].body
        assert body is not None
        assert {key: body[key] for key in BIG_NUMBERS} == BIG_NUMBERS
    await assert_goes_on(bus)


async def test_what_the_bridge_does_not_know_is_passed_on(
    bus: PlainClient, simulator: Simulator
) -> None:
    extra: Json = {
        "logit_bias": {"5": 1.5},
        "zzz": [1, {"a": None}],
        "text": "\u0000é😀",
    }
    await bus.submit("one", request(stream=False, stream_options={"x": 1}, **extra))
    event = await bus.ended("one")
    assert event["text"] == text_for(request(**extra))
    body = simulator.requests[0].body
    assert body is not None
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert {key: body[key] for key in extra} == extra


async def test_a_job_as_large_as_a_message(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    """With its reasons it does not fit: it must not be tried again for ever."""
    async with (
        running_service(
            nats_server.url,
            simulator.url,
            prefix=prefix,
            slots=2,
            max_job_bytes=1 << 20,
        ),
        plain_client(nats_server.url, prefix) as bus,
    ):
        data = b"no json " * 131_060
        await bus.submit_bytes(data)
        letter = await buried(bus)
        assert data.startswith(letter.data)
        assert letter.headers["Tokenbridge-Cut-From-Bytes"] == str(len(data))
        await assert_goes_on(bus)


@pytest.mark.parametrize("stream", ["TOKENS", "CONTROL", "DEAD"])
async def test_a_stream_that_is_missing_is_made_again(
    bus: PlainClient, stream: str
) -> None:
    await bus.jetstream.delete_stream(f"{bus.prefix.upper()}_{stream}")
    await bus.submit_bytes(b'{"id":"bad"}')
    await bus.submit("good")
    assert (await bus.ended("good"))["type"] == "completed"
    await bus.settled()
    assert len(await bus.dead()) == 1
