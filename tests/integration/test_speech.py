"""Segments beside the tokens: numbered on their own, in the same log's batch."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import pytest_asyncio

from bridge.events import SpeechSegment, decode_speech
from bridge.service import Service
from bridge.simulator import Behaviour, Simulator, text_for
from bridge.speech import spoken
from tests.cable import Cable
from tests.plain_client import (
    Json,
    PlainClient,
    assert_whole,
    plain_client,
    request,
    story,
    text_of,
)
from tests.replicas import (
    SPEECH_TERMINAL,
    Listener,
    cancel_session,
    lanes,
    owner,
    pause,
    replicas,
    resume,
    speech_log,
)
from tests.servers import NatsServer, running_service

LONG = request(max_tokens=5000)

CONTINUES: dict[str, Any] = {"backend_continue": "final_message"}


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(behaviour=Behaviour(tokens_per_second=100)) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def services(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> AsyncIterator[list[Service]]:
    async with replicas(
        nats_server.url,
        simulator.url,
        prefix,
        lanes=lanes("default", "a"),
        ack_wait_s=0.5,
        **CONTINUES,
    ) as services:
        yield services


@pytest_asyncio.fixture
async def bus(
    nats_server: NatsServer, prefix: str, services: list[Service]
) -> AsyncIterator[PlainClient]:
    async with plain_client(nats_server.url, prefix) as client:
        yield client


@pytest_asyncio.fixture
async def listener(bus: PlainClient) -> Listener:
    listener = Listener(bus)
    await listener.listen()
    return listener


def standing(log: list[Json]) -> list[Json]:
    """The segments of a speech log that a later ``restart`` does not void."""
    segments: list[Json] = []
    for event in log:
        if event["type"] == "segment":
            segments.append(event)
        elif event["type"] == "resumed" and event["mode"] == "restart":
            segments.clear()
    return segments


def assert_speech(speech: list[Json], tokens: list[Json], end: str) -> None:
    """Numbered, one terminal event, ranges in order that are what their tokens say."""
    assert [event["seq"] for event in speech] == list(range(1, len(speech) + 1))
    ends = [e["type"] for e in speech if e["type"] in SPEECH_TERMINAL]
    assert ends == [end] == [speech[-1]["type"]]
    attempts = [event["attempt"] for event in speech]
    assert attempts == sorted(attempts)
    places = _places(tokens)
    text = text_of(tokens)
    at = 0
    for segment in standing(speech):
        start, until = segment["start"], segment["end"]
        assert at <= start < until <= len(text)
        # Between two segments there is nothing that could be said.
        assert not any(c.isalnum() for c in text[at:start]), text[at:start]
        at = until
        assert places[segment["first"]][0] <= start < places[segment["first"]][1]
        assert places[segment["last"]][0] < until <= places[segment["last"]][1]
        words = "".join(filter(str.isalnum, segment["text"]))
        assert words == "".join(filter(str.isalnum, text[start:until]))


def _places(tokens: list[Json]) -> dict[int, tuple[int, int]]:
    """The range of each token in the text that stands."""
    places: dict[int, tuple[int, int]] = {}
    at = 0
    for event in tokens:
        if event["type"] == "token":
            places[event["seq"]] = (at, at + len(event["text"]))
            at += len(event["text"])
        elif event["type"] == "resumed" and event["mode"] == "restart":
            places.clear()
            at = 0
    return places


async def ended(bus: PlainClient, id: str, speech_end: str) -> list[Json]:
    """Wait for the end; the speech log, checked against the tokens' own."""
    await bus.ended(id)
    await bus.settled()
    tokens = await bus.log(id)
    assert_whole(tokens)
    speech = await speech_log(bus, id)
    assert_speech(speech, tokens, speech_end)
    return speech


async def test_a_request_that_is_spoken_to_its_end(
    bus: PlainClient, listener: Listener
) -> None:
    body = request(max_tokens=120)
    await bus.submit("one", body, speech=True)
    speech = await ended(bus, "one", "end")
    segments = standing(speech)
    assert len(segments) >= 3
    kinds = await listener.order("one")
    assert listener.speech("one") == speech
    # Nothing is lost from the tokens' own subject, and all that has a sound is said.
    text = text_for(body)
    assert text_of(await bus.log("one")) == text
    assert not any(c.isalnum() for c in text[segments[-1]["end"] :])
    assert kinds.index(("speech", "end")) < kinds.index(("tokens", "completed"))
    # The first sentence is at the speech engine while the second is being written.
    first = kinds.index(("speech", "segment"))
    assert kinds[first:].count(("tokens", "token")) > 60


async def test_a_request_that_does_not_ask_for_it(
    bus: PlainClient, listener: Listener
) -> None:
    await bus.submit("one", request(max_tokens=60))
    await bus.submit("two", request(max_tokens=60), speech=False)
    for id in ("one", "two"):
        assert {kind for kind, _ in await listener.order(id)} == {"tokens"}


async def test_a_cancel_comes_before_the_tokens_terminal_event(
    bus: PlainClient, listener: Listener, simulator: Simulator
) -> None:
    await bus.submit("one", LONG, speech={"language": "en"}, session="call")
    await listener.segments("one", 3)
    await cancel_session(bus, "call")
    speech = await ended(bus, "one", "cancelled")
    assert speech[-1]["reason"] == "barge-in"
    order = await listener.order("one")
    assert order[-2:] == [("speech", "cancelled"), ("tokens", "cancelled")]
    assert listener.speech("one") == speech
    # What was said becomes the message that belongs into the history.
    segments = [decode_speech(json.dumps(e).encode()) for e in standing(speech)]
    said = [s for s in segments if isinstance(s, SpeechSegment)]
    text = text_of(await bus.log("one"))
    assert spoken(text, said, 2) == text[: said[1].end]


async def test_a_request_that_fails(bus: PlainClient, listener: Listener) -> None:
    body = request(max_tokens=200, simulate={"error_after": 40})
    await bus.submit("one", body, speech=True, on_restart="fail")
    speech = await ended(bus, "one", "failed")
    assert speech[-1]["code"] == (await bus.ended("one"))["error"]["code"]
    order = await listener.order("one")
    assert order[-2:] == [("speech", "failed"), ("tokens", "failed")]


async def test_a_request_that_never_started(
    bus: PlainClient, simulator: Simulator
) -> None:
    await bus.cancel("one")
    await bus.submit("one", speech=True)
    speech = await ended(bus, "one", "cancelled")
    assert len(speech) == 1
    assert not simulator.requests


async def test_a_takeover_cuts_on_where_the_stored_segments_end(
    bus: PlainClient, services: list[Service], listener: Listener
) -> None:
    body = story(300)
    await bus.submit("one", body, speech=True)
    await listener.segments("one", 3)
    owner(services).stop()
    speech = await ended(bus, "one", "end")
    assert text_of(await bus.log("one")) == text_for(body)
    (at,) = [n for n, e in enumerate(speech) if e["type"] == "resumed"]
    resumed = speech[at]
    assert (resumed["after"], resumed["mode"]) == (at, "continue")
    assert resumed["reason"] == "takeover"
    assert {e["attempt"] for e in speech[at:]} == {resumed["attempt"]}
    # A tokens' reader is told of it first.
    kinds = await listener.order("one")
    assert kinds.index(("tokens", "resumed")) < kinds.index(("speech", "resumed"))


async def test_segments_are_the_same_as_undisturbed(
    bus: PlainClient, services: list[Service], listener: Listener
) -> None:
    """With a pause that is longer than the takeover, the cuts are the text's own."""
    body = story(300)
    options = {"flush_after_ms": 60_000}
    await bus.submit("calm", body, speech=options)
    await bus.submit("one", body, speech=options)
    await listener.segments("one", 3)
    for service in services[:2]:
        service.stop()
    texts = []
    for id in ("calm", "one"):
        speech = await ended(bus, id, "end")
        texts.append([(s["text"], s["start"], s["end"]) for s in standing(speech)])
    assert len(texts[0]) > 5
    assert texts[0][-1] == texts[1][-1]
    assert "".join(t for t, _, _ in texts[0]) == "".join(t for t, _, _ in texts[1])


async def test_a_handover(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    settings: dict[str, Any] = {"drain_timeout_s": 0.0, **CONTINUES}
    async with plain_client(nats_server.url, prefix) as bus:
        listener = Listener(bus)
        await listener.listen()
        body = story(300)
        async with replicas(
            nats_server.url, simulator.url, prefix, count=2, **settings
        ) as services:
            await bus.submit("one", body, speech=True)
            await listener.segments("one", 2)
            owner(services).drain()
            speech = await ended(bus, "one", "end")
        (resumed,) = [e for e in speech if e["type"] == "resumed"]
        assert (resumed["mode"], resumed["reason"]) == ("continue", "handover")
        assert text_of(await bus.log("one")) == text_for(body)


async def test_a_restart_voids_what_was_said(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    """A backend that cannot continue: the text, and so the segments, begin anew."""
    async with plain_client(nats_server.url, prefix) as bus:
        listener = Listener(bus)
        await listener.listen()
        async with replicas(
            nats_server.url, simulator.url, prefix, count=2, ack_wait_s=0.5
        ) as services:
            await bus.submit("one", request(max_tokens=200), speech=True)
            await listener.segments("one", 2)
            owner(services).stop()
            speech = await ended(bus, "one", "end")
        (resumed,) = [e for e in speech if e["type"] == "resumed"]
        assert resumed["mode"] == "restart"
        assert standing(speech)[0]["start"] == 0


async def test_a_backend_that_breaks_off_and_is_continued(
    bus: PlainClient, listener: Listener
) -> None:
    body = story(200, reset_after=70, times=1)
    await bus.submit("one", body, speech=True)
    speech = await ended(bus, "one", "end")
    (resumed,) = [e for e in speech if e["type"] == "resumed"]
    assert (resumed["mode"], resumed["reason"]) == ("continue", "backend_failure")
    assert text_of(await bus.log("one")) == text_for(body)


@pytest.mark.parametrize("way", ["cancel", "deadline"])
async def test_a_dead_workers_request_that_is_not_gone_on_with(
    nats_server: NatsServer, prefix: str, simulator: Simulator, way: str
) -> None:
    """Its terminal event is the first thing that the next owner writes."""
    settings: dict[str, Any] = {"ack_wait_s": 0.5, **CONTINUES}
    deadline: dict[str, Any] = {"deadline_ms": 1500} if way == "deadline" else {}
    async with plain_client(nats_server.url, prefix) as bus:
        listener = Listener(bus)
        await listener.listen()
        async with running_service(
            nats_server.url, simulator.url, prefix=prefix, **settings
        ):
            await bus.submit("one", LONG, speech=True, **deadline)
            await listener.segments("one", 2)
        if way == "cancel":
            await bus.cancel("one")
        else:
            await _until_past(bus, "one", 1500)
        async with running_service(
            nats_server.url, simulator.url, prefix=prefix, **settings
        ):
            end = "cancelled" if way == "cancel" else "failed"
            await ended(bus, "one", end)


async def _until_past(bus: PlainClient, id: str, deadline_ms: int) -> None:
    created = (await bus.log(id))[0]["created"]
    while time.time() * 1000 < created + deadline_ms + 50:
        await asyncio.sleep(0.05)


async def test_an_outage_of_nats_in_the_middle(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    """The batch is begun anew, wherever it broke, with segments among the events."""
    async with (
        Cable(nats_server.port) as cable,
        running_service(
            cable.url, simulator.url, prefix=prefix, ack_wait_s=20, **CONTINUES
        ),
        plain_client(nats_server.url, prefix) as bus,
    ):
        listener = Listener(bus)
        await listener.listen()
        body = request(max_tokens=400)
        await bus.submit("one", body, speech=True)
        for count in (1, 3, 5, 7):
            await listener.segments("one", count)
            await cable.pull()
            await cable.plug_in()
        speech = await ended(bus, "one", "end")
        assert text_of(await bus.log("one")) == text_for(body)
        assert not [e for e in speech if e["type"] == "resumed"]


async def test_a_pause_of_the_backend_lets_go_what_is_speakable(
    bus: PlainClient, listener: Listener
) -> None:
    body = request(max_tokens=40, simulate={"stall_after": 12, "stall_s": 1.5})
    await bus.submit("one", body, speech={"flush_after_ms": 200})
    segments = await listener.segments("one", 1)
    assert segments[0]["end"] <= len(text_of(bus.live["one"]))
    await bus.seen("one", "token", 12)
    speech = await ended(bus, "one", "end")
    assert standing(speech)[0] == segments[0]


async def test_options_that_are_wrong_make_the_job_invalid(bus: PlainClient) -> None:
    await bus.submit("one", speech={"max_chars": 3})
    event = await bus.ended("one")
    assert event["error"]["code"] == "invalid_job"
    assert "speech.max_chars" in event["error"]["message"]
    assert await speech_log(bus, "one") == []


async def test_a_superseded_one_in_the_queue(
    bus: PlainClient, simulator: Simulator
) -> None:
    await pause(bus, "a")
    await bus.submit("old", LONG, lane="a", session="call", speech=True)
    await bus.submit("new", LONG, session="call", supersede=True, speech=True)
    await bus.seen("new", "token")
    await resume(bus, "a")
    await bus.ended("old")
    speech = await speech_log(bus, "old")
    assert [e["type"] for e in speech] == ["cancelled"]
    await bus.cancel("new")
    await ended(bus, "new", "cancelled")


# A text that is made to hold the loop


@asynccontextmanager
async def backend_saying(text: str) -> AsyncIterator[str]:
    """A backend that answers everybody with one delta."""
    chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    body = "".join(f"data: {json.dumps(one)}\n\n" for one in (chunk, end))
    answer = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        "Connection: close\r\n\r\n" + body + "data: [DONE]\n\n"
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST"):
                writer.write(answer.encode())
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def test_what_waits_to_be_cut_is_said_before_the_end(
    nats_server: NatsServer, prefix: str
) -> None:
    text = "a|" * 30_000 + "\n\nThis is the end of it. Good bye."
    async with (
        backend_saying(text) as url,
        running_service(nats_server.url, url, prefix=prefix),
        plain_client(nats_server.url, prefix) as bus,
    ):
        listener = Listener(bus)
        await listener.listen()
        await bus.submit("one", request(), speech=True)
        speech = await ended(bus, "one", "end")
        said = [segment["text"] for segment in standing(speech)]
        assert " ".join(said).endswith("This is the end of it. Good bye.")
        kinds = await listener.order("one")
        assert kinds.index(("speech", "end")) < kinds.index(("tokens", "completed"))
        assert kinds[-1] == ("tokens", "completed")


async def test_a_cancel_does_not_wait_for_what_waits_to_be_cut(
    nats_server: NatsServer, prefix: str
) -> None:
    text = "The sea is wide. " * 40_000
    async with (
        backend_saying(text) as url,
        running_service(nats_server.url, url, prefix=prefix),
        plain_client(nats_server.url, prefix) as bus,
    ):
        listener = Listener(bus)
        await listener.listen()
        await bus.submit("one", request(), speech=True)
        await listener.segments("one", 1)
        await bus.cancel("one", "barge-in")
        speech = await ended(bus, "one", "cancelled")
        assert speech[-1]["reason"] == "barge-in"
        assert speech[-2]["end"] < len(text)
