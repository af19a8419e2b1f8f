"""A worker dies in the middle of a text, or its backend does, and the text goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path

from bridge.simulator import Simulator
from tests.chaos import logs
from tests.chaos.logs import Event, text_of
from tests.chaos.scene import ACK_WAIT_S, job, kinds, only, scene, stalling, undisturbed
from tests.servers import NatsServer, running_service

TOOL = {"type": "function", "function": {"name": "look_up"}}


async def test_a_killed_workers_requests_go_on(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    schema = {"response_format": {"type": "json_object"}}
    plain = job(150, 100, simulate=stalling())
    structured = job(80, 100, simulate=stalling(), request=schema)
    reasoning = job(40, 100, simulate={"reasoning": 60, **stalling()})
    calling = job(
        100,
        100,
        simulate={"tool_call": True, **stalling(6)},
        request={"tools": [TOOL]},
    )
    once = job(80, 100, simulate=stalling(), request=schema, on_restart="fail")
    everything = (plain, structured, reasoning, calling, once)
    async with scene(tmp_path, nats_server.url, prefix) as s:
        await s.start(s.first)
        for one in everything:
            await s.submit(one)
        await s.start(s.second)
        await s.tokens(plain["id"], 20)
        await s.tokens(once["id"], 20)
        assert all(len(s.live[one["id"]]) > 3 for one in everything)
        s.first.kill()
        killed = time.monotonic()
        found = {one["id"]: await s.ended(one["id"]) for one in everything}
        await s.job_is_settled()
        at = next(at for at, e in s.live[plain["id"]] if e["type"] == "resumed")
        continued = [r for r in s.simulator.requests if r.continued]
    for events in found.values():
        assert only(events, "resumed")["reason"] == "takeover"
    _is_continued(found[plain["id"]], plain)
    # Its lease may have been renewed right before; generous, for the machine is busy.
    assert ACK_WAIT_S / 3 < at - killed < 2 * ACK_WAIT_S + 3
    # The backend was asked for the rest, and in the words that vLLM wants.
    (record,) = continued
    after = only(found[plain["id"]], "resumed")["after"]
    assert after == 21
    assert record.body is not None
    assert record.body["add_generation_prompt"] is False
    for one in (structured, reasoning):
        _is_restarted(found[one["id"]], one)
    call = found[calling["id"]][-1]["tool_calls"][0]
    assert (call["name"], call["arguments"][:1]) == ("look_up", "{")
    failed = found[once["id"]][-1]
    assert failed["type"] == "failed"
    assert "not to restart" in failed["error"]["message"]


def _is_continued(events: list[Event], wanted: Event) -> None:
    assert kinds(events) == ["started", "token", "resumed", "token", "completed"]
    assert only(events, "resumed")["mode"] == "continue"
    assert text_of(events) == events[-1]["text"] == undisturbed(wanted)
    assert events[-1]["attempt"] > events[0]["attempt"]
    # What the dead worker's call was billed nobody knows.
    assert events[-1]["usage"]["partial"] is True


def _is_restarted(events: list[Event], wanted: Event) -> None:
    assert only(events, "resumed")["mode"] == "restart"
    assert events[-1]["type"] == "completed"
    assert text_of(events) == events[-1]["text"] == undisturbed(wanted)


async def test_a_backend_that_cannot_continue_starts_anew(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    wanted = job(100, 100, simulate=stalling())
    once = job(100, 100, simulate=stalling(), on_restart="fail")
    async with scene(tmp_path, nats_server.url, prefix, backend_continue="none") as s:
        await s.start(s.first)
        await s.submit(wanted)
        await s.submit(once)
        await s.start(s.second)
        await s.tokens(wanted["id"], 10)
        await s.tokens(once["id"], 10)
        s.first.kill()
        events = await s.ended(wanted["id"])
        failed = (await s.ended(once["id"]))[-1]
        assert not any(record.continued for record in s.simulator.requests)
    _is_restarted(events, wanted)
    assert (failed["type"], failed["error"]["code"]) == ("failed", "internal")


async def test_what_has_ended_is_only_acknowledged(
    nats_server: NatsServer, prefix: str
) -> None:
    wanted = job(5, 1000)
    async with (
        Simulator() as simulator,
        running_service(nats_server.url, simulator.url, prefix=prefix),
        logs.connected(nats_server.url, prefix) as cell,
    ):
        await logs.submit(cell, wanted)
        before = await logs.ended(cell, wanted["id"])
        # The same job with another sequence, as if its acknowledgement was lost.
        subject = cell.subjects.job("default", "default")
        await cell.connection.request(subject, json.dumps(wanted).encode())
        await logs.settled(cell)
        after = await logs.read(cell, wanted["id"])
    assert after == before
    assert len(simulator.requests) == 1


async def test_a_backend_that_drops_is_continued_within_the_attempt(
    nats_server: NatsServer, prefix: str
) -> None:
    last_word = job(30, 500, simulate={"end_after": 30, "times": 1})
    twice = job(60, 500, simulate={"reset_after": 10, "times": 2})
    ever = job(60, 500, simulate={"reset_after": 10})
    early = job(20, 500, simulate={"refuse": True, "fail_times": 1})
    async with (
        Simulator() as simulator,
        running_service(
            nats_server.url,
            simulator.url,
            prefix=prefix,
            backend_continue="final_message",
        ),
        logs.connected(nats_server.url, prefix) as cell,
    ):
        found = {}
        for one in (twice, ever, early, last_word):
            await logs.submit(cell, one)
            found[one["id"]] = await logs.ended(cell, one["id"])
        await logs.settled(cell)
        asked = [record.continued for record in simulator.requests]
    for events in found.values():
        assert logs.faults_of_log(events) == []
        assert {event["attempt"] for event in events} == {1}
    events = found[twice["id"]]
    resumed = [event for event in events if event["type"] == "resumed"]
    assert [(r["mode"], r["reason"]) for r in resumed] == [
        ("continue", "backend_failure")
    ] * 2
    assert text_of(events) == events[-1]["text"] == undisturbed(twice)
    # Over its budget of two retries it fails, with all that has come.
    events = found[ever["id"]]
    assert events[-1]["error"]["code"] == "backend_unavailable"
    assert events[-1]["error"]["retryable"] is True
    assert sum(event["type"] == "token" for event in events) == 30
    assert undisturbed(ever).startswith(events[-1]["text"])
    # Before the first delta nobody sees it.
    assert kinds(found[early["id"]]) == ["started", "token", "completed"]
    # All deltas had come, and only the end was lost: it is asked for.
    end = found[last_word["id"]][-1]
    assert (end["finish_reason"], end["text"]) == ("stop", undisturbed(last_word))
    again = [False, True, True]
    assert asked == [*again, *again, False, False, False, True]
