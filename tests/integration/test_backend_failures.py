"""What a request comes to when its backend misbehaves, over both transports."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from bridge.config import BackendSettings, Secret
from bridge.simulator import Behaviour, Simulator, text_for
from tests.plain_client import (
    Json,
    PlainClient,
    assert_whole,
    plain_client,
    quiet_port,
    request,
    text_of,
)
from tests.servers import NatsServer, running_service

TRANSPORTS = ("slim", "httpx")

#: Timeouts that a test can wait for, and that a busy machine does not reach.
SHORT = {"first_token_timeout_s": 1.0, "idle_timeout_s": 1.0}


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as simulator:
        yield simulator


class Setting:
    """A bridge between a plain client and the simulator."""

    def __init__(self, bus: PlainClient, simulator: Simulator) -> None:
        self.bus = bus
        self.simulator = simulator

    async def ask(self, id: str = "one", **behaviour: Any) -> tuple[Json, list[Json]]:
        """Have one request served by a simulator that behaves so: its end, its log."""
        await self.bus.submit(id, request(simulate=behaviour))
        event = await self.bus.ended(id)
        log = await self.bus.log(id)
        assert_whole(log)
        assert log[-1] == event
        await self.bus.settled()
        return event, log

    def served(self) -> int:
        """How many requests the simulator has seen."""
        return len(self.simulator.requests)


@contextlib.asynccontextmanager
async def bridge(
    nats_server: NatsServer, prefix: str, simulator: Simulator, **settings: Any
) -> AsyncIterator[Setting]:
    async with (
        running_service(nats_server.url, simulator.url, prefix=prefix, **settings),
        plain_client(nats_server.url, prefix) as bus,
    ):
        yield Setting(bus, simulator)


@pytest_asyncio.fixture(params=TRANSPORTS)
async def setting(
    nats_server: NatsServer,
    prefix: str,
    simulator: Simulator,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Setting]:
    async with bridge(
        nats_server, prefix, simulator, backend_transport=request.param, **SHORT
    ) as setting:
        yield setting


WHOLE = text_for(request())

FORMATS: dict[str, Json] = {
    "plain": {},
    "byte by byte": {"pieces": 1},
    "odd pieces": {"pieces": [7, 1, 300]},
    "ndjson": {"ndjson": True},
    "ndjson in pieces": {"ndjson": True, "pieces": [3, 11]},
    "not streaming": {"no_stream": True},
    "not streaming, in pieces": {"no_stream": True, "pieces": [5, 64]},
}


@pytest.mark.parametrize("behaviour", FORMATS.values(), ids=FORMATS.keys())
async def test_formats(setting: Setting, behaviour: Json) -> None:
    event, log = await setting.ask(**behaviour)
    assert event["type"] == "completed"
    assert event["finish_reason"] == "length"
    assert event["text"] == text_of(log) == WHOLE
    assert event["usage"]["completion_tokens"] == 20
    assert "partial" not in event["usage"]
    assert event["backend"] == "default"
    tokens = [e for e in log if e["type"] == "token"]
    assert len(tokens) == (1 if behaviour.get("no_stream") else 20)


async def test_reasoning_is_kept_apart(setting: Setting) -> None:
    event, log = await setting.ask(reasoning=5)
    reasoning = [e["text"] for e in log if e["type"] == "reasoning"]
    assert len(reasoning) == 5
    assert event["reasoning"] == "".join(reasoning)
    assert event["text"] == text_of(log)
    kinds = [e["type"] for e in log]
    assert kinds.index("token") > kinds.index("reasoning")


async def test_tool_calls_are_assembled(setting: Setting) -> None:
    tools = [{"type": "function", "function": {"name": "lookup", "parameters": {}}}]
    body = request(tools=tools, simulate={"tool_call": True}, max_tokens=400)
    await setting.bus.submit("one", body)
    event = await setting.bus.ended("one")
    log = await setting.bus.log("one")
    assert_whole(log)
    parts = [e for e in log if e["type"] == "tool_call"]
    assert event["finish_reason"] == "tool_calls"
    [call] = event["tool_calls"]
    assert call["name"] == "lookup"
    assert call["call_id"] == parts[0]["call_id"]
    assert call["arguments"] == "".join(e.get("arguments") or "" for e in parts)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_refusal_is_final(setting: Setting, status: int) -> None:
    event, log = await setting.ask(status=status)
    assert event["type"] == "failed"
    assert event["error"]["code"] == "backend_rejected"
    assert event["error"]["status"] == status
    assert event["error"]["retryable"] is False
    assert "The simulator was told" in event["error"]["message"]
    assert [e["type"] for e in log] == ["started", "failed"]
    assert setting.served() == 1
    assert not await setting.bus.dead()


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503, 504, 529])
async def test_a_passing_failure_is_retried(setting: Setting, status: int) -> None:
    event, log = await setting.ask(status=status, fail_times=1)
    assert event["type"] == "completed"
    assert event["text"] == WHOLE
    assert setting.served() == 2
    assert [e["type"] for e in log].count("started") == 1
    assert not [e for e in log if e["type"] == "resumed"]


async def test_5xx_to_the_end(setting: Setting) -> None:
    event, _ = await setting.ask(status=503)
    assert event["error"]["code"] == "backend_unavailable"
    assert event["error"]["status"] == 503
    assert event["error"]["retryable"] is True
    assert setting.served() == 3  # retry_budget 2


async def test_429_waits_as_long_as_asked(setting: Setting) -> None:
    started = time.monotonic()
    event, _ = await setting.ask(status=429, retry_after_s=1, fail_times=1)
    assert event["type"] == "completed"
    assert time.monotonic() - started >= 1.0
    first, second = setting.simulator.requests
    assert second.received_at - first.received_at >= 1.0


async def test_429_to_the_end(setting: Setting) -> None:
    event, _ = await setting.ask(status=429, retry_after_s=0.01)
    assert event["error"]["code"] == "rate_limited"
    assert event["error"]["status"] == 429
    assert event["error"]["retryable"] is True


async def test_429_past_the_deadline_fails_at_once(setting: Setting) -> None:
    body = request(simulate={"status": 429, "retry_after_s": 3600})
    await setting.bus.submit("one", body, deadline_ms=20_000)
    event = await setting.bus.ended("one")
    assert event["error"]["code"] == "rate_limited"
    assert setting.served() == 1


async def test_a_reset_instead_of_an_answer(setting: Setting) -> None:
    event, _ = await setting.ask(refuse=True, fail_times=1)
    assert event["text"] == WHOLE
    event, _ = await setting.ask("two", refuse=True)
    assert event["error"]["code"] == "backend_unavailable"
    assert "status" not in event["error"]


async def test_nobody_listens(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    backend = f"http://127.0.0.1:{quiet_port()}/v1"
    async with (
        running_service(nats_server.url, backend, prefix=prefix),
        plain_client(nats_server.url, prefix) as bus,
    ):
        for id in ("one", "two"):
            await bus.submit(id)
            event = await bus.ended(id)
            assert event["error"]["code"] == "backend_unavailable"
            assert "cannot be reached" in event["error"]["message"]
            assert_whole(await bus.log(id))


@pytest.mark.parametrize("hang", ["before_head", "after_head"])
async def test_silence_from_the_start(setting: Setting, hang: str) -> None:
    event, log = await setting.ask(hang=hang)
    assert event["error"]["code"] == "backend_timeout"
    assert event["error"]["retryable"] is True
    assert [e["type"] for e in log] == ["started", "failed"]
    record = setting.simulator.requests[0]
    await setting.simulator.wait_closed(record)
    assert setting.served() == 1  # there is nobody else to ask


async def test_a_stall_in_the_middle(setting: Setting) -> None:
    event, log = await setting.ask(stall_after=5, times=1)
    assert event["type"] == "completed"
    assert event["text"] == WHOLE
    [resumed] = [e for e in log if e["type"] == "resumed"]
    assert resumed["after"] == 6
    assert (resumed["mode"], resumed["reason"]) == ("restart", "backend_failure")
    assert setting.simulator.requests[0].closed_at is not None
    assert event["usage"]["partial"] is True


async def test_a_slow_but_steady_stream_is_no_stall(setting: Setting) -> None:
    # 20 tokens in 4 s: longer than both timeouts together
    event, _ = await setting.ask(tokens_per_second=5)
    assert event["text"] == WHOLE


FAILURES: dict[str, tuple[Json, str]] = {
    "reset": ({"reset_after": 4}, "backend_unavailable"),
    "an end without a reason": ({"end_after": 4}, "backend_protocol"),
    "a line of 10 MB": ({"huge_line_after": 4}, "backend_protocol"),
    "ndjson line of 10 MB": (
        {"huge_line_after": 4, "ndjson": True},
        "backend_protocol",
    ),
    "body of 10 MB": ({"huge_line_after": 4, "no_stream": True}, "backend_protocol"),
    "half a body": ({"malformed_after": 4, "no_stream": True}, "backend_protocol"),
    "an empty stream": ({"end_after": 0}, "backend_protocol"),
    "reset at once": ({"reset_after": 0}, "backend_unavailable"),
}


@pytest.mark.parametrize(("behaviour", "code"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_broken_answer_is_asked_for_again(
    setting: Setting, behaviour: Json, code: str
) -> None:
    event, log = await setting.ask(**behaviour, times=1)
    assert event["type"] == "completed", event
    assert event["text"] == WHOLE
    tokens = [e for e in log if e["type"] == "token"]
    resumed = [e for e in log if e["type"] == "resumed"]
    begun = len(tokens) > 20 or any(e["type"] == "skipped" for e in log)
    assert len(resumed) == begun
    assert setting.served() == 2


@pytest.mark.parametrize(("behaviour", "code"), FAILURES.values(), ids=FAILURES.keys())
async def test_a_broken_answer_every_time(
    setting: Setting, behaviour: Json, code: str
) -> None:
    event, _ = await setting.ask(**behaviour)
    assert event["type"] == "failed"
    assert event["error"]["code"] == code
    assert event["error"]["retryable"] is True
    assert setting.served() == 3


async def test_the_partial_text_stands_where_a_restart_is_not_wanted(
    setting: Setting,
) -> None:
    body = request(simulate={"reset_after": 4})
    await setting.bus.submit("one", body, on_restart="fail")
    event = await setting.bus.ended("one")
    log = await setting.bus.log("one")
    assert_whole(log)
    assert event["error"]["code"] == "backend_unavailable"
    assert event["text"]
    assert WHOLE.startswith(event["text"])
    assert setting.served() == 1


async def test_a_record_that_cannot_be_read_is_passed_over_and_told(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    event, log = await setting.ask(malformed_after=4)
    assert (event["text"], event["skipped_records"]) == (WHOLE, 1)
    assert len([e for e in log if e["type"] == "token"]) == 20
    assert [e["count"] for e in log if e["type"] == "skipped"] == [1]
    said = [r for r in caplog.records if "cannot be read" in r.getMessage()]
    assert len(said) == 1


async def test_or_it_ends_the_request_where_the_settings_say_so(
    nats_server: NatsServer, prefix: str, simulator: Simulator
) -> None:
    async with bridge(
        nats_server, prefix, simulator, unreadable_records="fail", retry_budget=0
    ) as setting:
        event, log = await setting.ask(malformed_after=4)
    assert event["error"]["code"] == "backend_protocol"
    assert "cannot be read" in event["error"]["message"]
    assert event["text"] == text_of(log)
    assert WHOLE.startswith(event["text"])


async def test_an_error_object_in_the_stream(setting: Setting) -> None:
    event, _ = await setting.ask(error_after=4, times=1)
    assert event["type"] == "completed"
    event, _ = await setting.ask("two", error_after=4)
    assert event["error"]["code"] == "backend_error"
    assert "simulated error" in event["error"]["message"]


async def test_no_usage_is_no_estimate(setting: Setting) -> None:
    event, _ = await setting.ask(usage=False)
    assert event["type"] == "completed"
    assert not {"completion_tokens", "prompt_tokens"} & set(event.get("usage") or {})


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_text_over_the_limit(
    nats_server: NatsServer, prefix: str, simulator: Simulator, transport: str
) -> None:
    async with bridge(
        nats_server,
        prefix,
        simulator,
        backend_transport=transport,
        max_text_bytes=500,
        retry_budget=0,
    ) as setting:
        await setting.bus.submit("one", request(max_tokens=50_000))
        event = await setting.bus.ended("one")
        log = await setting.bus.log("one")
        assert_whole(log)
        assert event["error"]["code"] == "backend_protocol"
        assert "500" in event["error"]["message"]
        await simulator.wait_closed(simulator.requests[0])


async def test_models_have_routes(nats_server: NatsServer, prefix: str) -> None:
    async with (
        Simulator(models=["small"]) as one,
        Simulator(models=["large", "huge"]) as two,
    ):
        routes = [
            BackendSettings(name="one", url=one.url, models=["small"]),
            BackendSettings(name="two", url=two.url, models=["large", "huge"]),
        ]
        async with (
            running_service(nats_server.url, "", prefix=prefix, backends=routes),
            plain_client(nats_server.url, prefix) as bus,
        ):
            for model, name in (("small", "one"), ("huge", "two")):
                await bus.submit(model, request(model=model))
                event = await bus.ended(model)
                assert event["type"] == "completed"
                assert event["backend"] == name
            await bus.submit("none", request(model="tiny"))
            event = await bus.ended("none")
            assert event["error"]["code"] == "unknown_model"
            for word in ("tiny", "small", "large", "huge"):
                assert word in event["error"]["message"]
            assert_whole(await bus.log("none"))


async def test_another_backend_steps_in(nats_server: NatsServer, prefix: str) -> None:
    async with Simulator() as good:
        routes = [
            BackendSettings(name="away", url=f"http://127.0.0.1:{quiet_port()}/v1"),
            BackendSettings(name="good", url=good.url),
        ]
        async with (
            running_service(nats_server.url, "", prefix=prefix, backends=routes),
            plain_client(nats_server.url, prefix) as bus,
        ):
            await bus.submit("one")
            event = await bus.ended("one")
            assert event["type"] == "completed"
            assert event["backend"] == "good"


AILMENTS: dict[str, Json] = {
    "rate limited": {"status": 429, "retry_after_s": 60},
    "408": {"status": 408},
    "503": {"status": 503},
    "refused": {"refuse": True},
    "no head": {"hang": "before_head"},
    "no first token": {"hang": "after_head"},
    "a stall": {"stall_after": 3},
    "a reset": {"reset_after": 3},
    "an end without a reason": {"end_after": 3},
    "an error": {"error_after": 3},
    "a line of 10 MB": {"huge_line_after": 3},
}


@pytest.mark.parametrize("ailment", AILMENTS.values(), ids=AILMENTS.keys())
async def test_who_has_failed_a_request_is_not_asked_before_the_others(
    nats_server: NatsServer, prefix: str, ailment: Json
) -> None:
    async with (
        Simulator(behaviour=Behaviour(**ailment)) as bad,
        Simulator() as good,
    ):
        routes = [
            BackendSettings(name="bad", url=bad.url),
            BackendSettings(name="good", url=good.url),
        ]
        async with (
            running_service(
                nats_server.url, "", prefix=prefix, backends=routes, **SHORT
            ),
            plain_client(nats_server.url, prefix) as bus,
        ):
            await bus.submit("one")
            event = await bus.ended("one")
            assert event["type"] == "completed"
            assert event["backend"] == "good"
            assert event["text"] == WHOLE
            assert_whole(await bus.log("one"))
        assert len(bad.requests) == len(good.requests) == 1


async def test_the_key_is_sent_and_never_told(
    nats_server: NatsServer, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with Simulator(api_key="s3cret-key") as simulator:
        for key, type in (("s3cret-key", "completed"), ("wr0ng-key", "failed")):
            async with (
                running_service(
                    nats_server.url,
                    simulator.url,
                    prefix=f"{prefix}{type}",
                    backend_api_key=Secret(key),
                ) as service,
                plain_client(nats_server.url, f"{prefix}{type}") as bus,
            ):
                await bus.submit("one")
                event = await bus.ended("one")
                assert event["type"] == type
                assert key not in repr(service) + repr(event)
    assert "-key" not in caplog.text


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("behaviour", [{}, {"no_stream": True}, {"reasoning": 3000}])
async def test_a_delta_larger_than_a_message_is_split_between_characters(
    tmp_path_factory: pytest.TempPathFactory,
    prefix: str,
    transport: str,
    behaviour: Json,
) -> None:
    server = NatsServer(tmp_path_factory.mktemp("small"), more="max_payload: 16384")
    server.start()
    try:
        async with (
            Simulator() as simulator,
            bridge(server, prefix, simulator, backend_transport=transport) as setting,
        ):
            body = request("grüße 😀", max_tokens=8000, simulate=behaviour)
            await setting.bus.submit("one", body)
            event = await setting.bus.ended("one")
            log = await setting.bus.log("one")
        assert_whole(log)
        assert event["type"] == "completed"
        assert event["text_omitted"] is True
        assert "text" not in event
        assert text_of(log) == text_for(body)
    finally:
        server.stop()


async def test_answers_that_are_no_completion(
    nats_server: NatsServer, prefix: str
) -> None:
    """A web server that is no LLM: HTML, a redirect, an empty 200."""
    heads = {
        "html": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
        b"Content-Length: 2\r\n\r\nhi",
        "redirect": b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        "no http": b"220 smtp.example.com ESMTP\r\n",
        "closes": b"",
        "empty json": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        b"Content-Length: 0\r\n\r\n",
        "gzip": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
    }
    for transport in TRANSPORTS:
        for n, (what, head) in enumerate(heads.items()):

            async def serve(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                head: bytes = head,
            ) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(head)
                await writer.drain()
                writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            name = f"{prefix}{transport}{n}"
            async with (
                running_service(
                    nats_server.url,
                    f"http://127.0.0.1:{port}/v1",
                    prefix=name,
                    backend_transport=transport,
                    retry_budget=0,
                ),
                plain_client(nats_server.url, name) as bus,
            ):
                await bus.submit("one")
                event = await bus.ended("one")
                assert event["type"] == "failed", what
                codes = ("backend_protocol", "backend_unavailable", "backend_rejected")
                assert event["error"]["code"] in codes, (what, event)
                assert_whole(await bus.log("one"))
            server.close()
            await server.wait_closed()


async def test_kept_connections_are_used_again(
    setting: Setting,
) -> None:
    for n in range(5):
        event, _ = await setting.ask(f"r{n}")
        assert event["type"] == "completed"
    setting.simulator.behaviour = Behaviour(first_token_ms=1)
    event, _ = await setting.ask("last")
    assert event["text"] == WHOLE
