"""What real backends send, from their bytes to the request's log."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.config import Secret
from tests.plain_client import (
    Json,
    PlainClient,
    assert_whole,
    plain_client,
    request,
    text_of,
)
from tests.scripted import DONE, Call, End, ScriptedBackend, event, finish
from tests.servers import NatsServer, running_service

HELLO = event("Hel") + event("lo.")
USAGE = event({"choices": [], "usage": {"completion_tokens": 2}})


class Setting:
    """A bridge between a plain client and a scripted backend."""

    def __init__(self, bus: PlainClient, backend: ScriptedBackend) -> None:
        self.bus = bus
        self.backend = backend

    async def ask(self, **fields: Any) -> tuple[Json, list[Json]]:
        await self.bus.submit("one", request(**fields.pop("request", {})), **fields)
        end = await self.bus.ended("one")
        log = await self.bus.log("one")
        assert_whole(log)
        assert log[-1] == end
        await self.bus.settled()
        return end, log


@contextlib.asynccontextmanager
async def bridge(
    nats_server: NatsServer, prefix: str, *script: Call, **settings: Any
) -> AsyncIterator[Setting]:
    async with (
        ScriptedBackend(*script) as backend,
        running_service(nats_server.url, backend.url, prefix=prefix, **settings),
        plain_client(nats_server.url, prefix) as bus,
    ):
        yield Setting(bus, backend)


def resumptions(log: list[Json]) -> list[str]:
    return [e["mode"] for e in log if e["type"] == "resumed"]


@pytest.mark.parametrize("transport", ["slim", "httpx"])
@pytest.mark.parametrize("end", ["whole", "cut", "reset", "silence"])
@pytest.mark.parametrize("continues", ["none", "final_message"])
async def test_behind_a_finish_reason_every_end_is_one(
    nats_server: NatsServer, prefix: str, transport: str, end: Any, continues: str
) -> None:
    async with bridge(
        nats_server,
        prefix,
        Call([HELLO, finish(), b": ping\n\n"], end),
        backend_transport=transport,
        backend_continue=continues,
    ) as s:
        completed, log = await s.ask()
    assert (completed["type"], completed["finish_reason"]) == ("completed", "stop")
    assert completed["text"] == text_of(log) == "Hello."
    assert resumptions(log) == []
    assert len(s.backend.requests) == 1


async def test_text_and_usage_behind_a_finish_reason_are_taken(
    nats_server: NatsServer, prefix: str
) -> None:
    pieces = [event("Hel"), finish(), event("lo"), finish(), event("."), USAGE]
    async with bridge(nats_server, prefix, Call(pieces, "silence")) as s:
        completed, _ = await s.ask()
    assert (completed["text"], completed["finish_reason"]) == ("Hello.", "stop")
    assert completed["usage"] == {"completion_tokens": 2}


async def test_a_backend_that_repeats_its_key_does_not_make_it_public(
    nats_server: NatsServer, prefix: str
) -> None:
    key = "sk-proj/0123456789"
    # Messages are cut off, here inside the key.
    cut = event({"error": "x" * 470 + f" Bearer {key}"})
    words = b"data: " + b"x" * 180 + f" Bearer {key}\n\n".encode()
    bodies = [event({"error": {"message": f"wrong key {key}."}}), cut, words + DONE]
    for number, body in enumerate(bodies):
        async with bridge(
            nats_server,
            f"{prefix}{number}",
            Call([body]),
            backend_api_key=Secret(key),
            retry_budget=0,
        ) as s:
            failed, log = await s.ask()
        assert failed["type"] == "failed"
        assert "***" in failed["error"]["message"]
        assert key[:8] not in repr(log)


async def test_words_that_may_be_the_answers_are_in_the_event_and_in_no_log(
    nats_server: NatsServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    lost = b'data: {"choices":[{"delta":{"content":"It is not safe\n\n'
    async with bridge(nats_server, prefix, Call([lost, DONE]), retry_budget=0) as s:
        failed, _ = await s.ask()
    assert "It is not safe" in failed["error"]["message"]
    assert "backend_protocol" in failed["error"]["code"]
    assert "1 record was skipped" in caplog.text
    assert "It is not safe" not in caplog.text


async def test_a_last_record_needs_no_end(nats_server: NatsServer, prefix: str) -> None:
    stop = finish().rstrip()
    cases: list[tuple[bytes, End]] = [
        (stop, "silence"),
        (stop, "whole"),
        (DONE.rstrip(), "silence"),
    ]
    for body, end in cases:
        number = f"{prefix}{end}{len(body)}"
        async with bridge(nats_server, number, Call([HELLO + body], end)) as s:
            completed, _ = await s.ask()
        assert (completed["type"], completed["text"]) == ("completed", "Hello.")
        assert len(s.backend.requests) == 1


async def test_done_without_a_reason_is_unknown_and_without_a_delta_no_answer(
    nats_server: NatsServer, prefix: str
) -> None:
    async with bridge(nats_server, prefix, Call([HELLO, DONE])) as s:
        completed, _ = await s.ask()
    assert (completed["text"], completed["finish_reason"]) == ("Hello.", "unknown")
    async with bridge(nats_server, f"{prefix}b", Call([DONE]), retry_budget=0) as s:
        failed, _ = await s.ask()
    assert failed["error"]["code"] == "backend_protocol"


@pytest.mark.parametrize("end", ["whole", "cut", "reset"])
async def test_an_end_without_a_reason_is_never_complete(
    nats_server: NatsServer, prefix: str, end: Any
) -> None:
    # As many deltas as tokens were asked for: that proves nothing.
    call = Call([event("a")] * 20, end)
    async with bridge(nats_server, prefix, call, retry_budget=0) as s:
        failed, _ = await s.ask(request={"max_tokens": 20})
    assert failed["type"] == "failed"
    assert failed["error"]["code"] in ("backend_protocol", "backend_unavailable")
    assert failed["text"] == "a" * 20


@pytest.mark.parametrize("text", [[], ["It is "]])
@pytest.mark.parametrize("reason", ["abort", "error", "network_error"])
async def test_a_finish_reason_may_say_a_failure(
    nats_server: NatsServer, prefix: str, reason: str, text: list[str]
) -> None:
    call = Call([*map(event, text), finish(reason), DONE])
    async with bridge(nats_server, prefix, call, retry_budget=0) as s:
        failed, _ = await s.ask()
    assert failed["error"]["code"] == "backend_error"
    assert reason in failed["error"]["message"]
    assert failed["text"] == "".join(text)


async def test_what_means_nothing_is_told_in_the_error(
    nats_server: NatsServer, prefix: str
) -> None:
    strange = event({"output": [{"said": "Something of another API."}]})
    call = Call([strange, DONE])
    async with bridge(nats_server, prefix, call, retry_budget=0) as s:
        failed, _ = await s.ask()
    assert failed["error"]["code"] == "backend_protocol"
    assert "Something of another API." in failed["error"]["message"]


# Continuing


BREAK = Call([event("It is "), event("not ")], "reset")


@pytest.mark.parametrize(
    ("rest", "text", "modes"),
    [
        (["safe", "."], "It is not safe.", ["continue"]),
        (["It is not safe."], "It is not safe.", ["continue", "restart"]),
        (["It ", "is ", "not ", "safe."], "It is not safe.", ["continue", "restart"]),
        ([" It is not", " so."], " It is not so.", ["continue", "restart"]),
        (["It ", "was."], "It is not It was.", ["continue"]),
        (["It"], "It is not It", ["continue"]),
    ],
)
async def test_a_continuation_that_repeats_the_text_is_a_restart(
    nats_server: NatsServer, prefix: str, rest: list[str], text: str, modes: list[str]
) -> None:
    again = Call([*map(event, rest), finish(), DONE])
    async with bridge(
        nats_server, prefix, BREAK, again, backend_continue="final_message"
    ) as s:
        completed, log = await s.ask()
    assert completed["text"] == text_of(log) == text
    assert resumptions(log) == modes


async def test_where_it_must_not_be_restarted_that_is_a_failure(
    nats_server: NatsServer, prefix: str
) -> None:
    again = Call([event("It is not safe."), finish()])
    async with bridge(
        nats_server, prefix, BREAK, again, backend_continue="final_message"
    ) as s:
        failed, log = await s.ask(on_restart="fail")
    assert failed["error"]["code"] == "backend_protocol"
    assert failed["text"] == text_of(log) == "It is not "


@pytest.mark.parametrize(
    ("usage", "asked"),
    [({"completion_tokens": 3}, [10, 7]), (None, [10, 10]), ({}, [10, 10])],
)
async def test_only_reported_tokens_are_taken_off_the_limit(
    nats_server: NatsServer, prefix: str, usage: Any, asked: list[int]
) -> None:
    first = Call([*[event("ab")] * 12, event({"choices": [], "usage": usage})], "reset")
    then = Call([event("c"), finish("length")])
    async with bridge(
        nats_server, prefix, first, then, backend_continue="final_message"
    ) as s:
        completed, _ = await s.ask(request={"max_tokens": 10})
    assert completed["text"] == "ab" * 12 + "c"
    assert [r["max_tokens"] for r in s.backend.requests] == asked


async def test_reported_tokens_prove_that_only_the_end_is_missing(
    nats_server: NatsServer, prefix: str
) -> None:
    usage = event({"choices": [], "usage": {"completion_tokens": 10}})
    async with bridge(
        nats_server,
        prefix,
        Call([event("ab"), usage], "reset"),
        backend_continue="final_message",
    ) as s:
        completed, _ = await s.ask(request={"max_tokens": 10})
    assert (completed["text"], completed["finish_reason"]) == ("ab", "length")
    assert len(s.backend.requests) == 1


# What cannot be read


async def test_what_cannot_be_read_is_told_once_and_void_with_its_text(
    nats_server: NatsServer, prefix: str
) -> None:
    broken = b'data: {"choices": [{"index": 0, "delta": {"content": "lo\n\n'
    first = Call([event("Hel"), broken, event("."), broken], "reset")
    then = Call([event("Hel"), broken, event("."), finish()])
    async with bridge(nats_server, prefix, first, then) as s:
        completed, log = await s.ask()
    assert (completed["text"], completed["skipped_records"]) == ("Hel.", 1)
    assert sum(e["count"] for e in log if e["type"] == "skipped") == 3
    assert resumptions(log) == ["restart"]


async def test_what_a_call_could_not_read_is_void_where_it_left_nothing_else(
    nats_server: NatsServer, prefix: str
) -> None:
    then = Call([HELLO, finish()])
    async with bridge(
        nats_server, prefix, Call([b"data: {broken\n\n"], "reset"), then
    ) as s:
        completed, log = await s.ask()
    assert completed["text"] == "Hello."
    assert "skipped_records" not in completed
    assert resumptions(log) == ["restart"]


async def test_a_read_of_thousands_of_records_is_taken_whole_and_in_order(
    nats_server: NatsServer, prefix: str
) -> None:
    words = [f"{n} " for n in range(4000)]
    body = b"".join(event(word) + b"data: {broken\n\n" for word in words)
    async with bridge(nats_server, prefix, Call([body + finish() + DONE])) as s:
        completed, log = await s.ask()
    assert completed["text"] == text_of(log) == "".join(words)
    assert completed["skipped_records"] == 4000
    assert sum(e["count"] for e in log if e["type"] == "skipped") == 4000


async def test_tool_calls_have_the_contracts_form(
    nats_server: NatsServer, prefix: str
) -> None:
    def piece(**call: Any) -> bytes:
        return event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})

    long = "n" * 300
    pieces = [
        piece(index=0, id="c1", function={"name": "get_"}),
        piece(index=0, function={"name": "time", "arguments": ""}),
        piece(index=0, function={"arguments": '{"a":'}),
        piece(index=0, function={"arguments": "1}"}),
        piece(index=0, id="c2", function={"name": long, "arguments": "{}"}),
        piece(index=7, id="c3", function={"name": "last"}),
        finish("tool_calls"),
    ]
    async with bridge(nats_server, prefix, Call(pieces)) as s:
        completed, log = await s.ask()
    deltas = [
        (e["index"], e.get("call_id"), e.get("name"), e.get("arguments"))
        for e in log
        if e["type"] == "tool_call"
    ]
    assert deltas == [
        (0, "c1", "get_time", '{"a":'),
        (0, None, None, "1}"),
        (1, "c2", long, None),
        (1, None, None, "{}"),
        (2, "c3", "last", None),
    ]
    assert completed["tool_calls"] == [
        {"index": 0, "call_id": "c1", "name": "get_time", "arguments": '{"a":1}'},
        {"index": 1, "call_id": "c2", "name": long, "arguments": "{}"},
        {"index": 2, "call_id": "c3", "name": "last"},
    ]


@pytest.mark.parametrize(
    "content_type", [b"", b"text/plain", b"application/json", b"text/event-stream, a"]
)
async def test_a_stream_is_read_whatever_its_label(
    nats_server: NatsServer, prefix: str, content_type: bytes
) -> None:
    call = Call([HELLO[:3], HELLO[3:], finish() + DONE], content_type=content_type)
    async with bridge(nats_server, prefix, call) as s:
        completed, _ = await s.ask()
    assert completed["text"] == "Hello."
