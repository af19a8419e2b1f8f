"""Answers over real connections: streamed and whole, and every fault of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from bridge.simulator import Simulator, text_for, tokens_for

Ask = Callable[..., dict[str, Any]]
Stream = Callable[..., Awaitable[Any]]
PATH = "/chat/completions"


async def test_a_stream_from_role_to_done(ask: Ask, stream: Stream) -> None:
    got = await stream(ask())
    assert got.status == 200
    assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert got.tokens == tokens_for(ask())
    assert got.finish_reason == "stop"
    assert got.done
    assert got.chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert len({chunk["id"] for chunk in got.chunks}) == 1
    assert {chunk["object"] for chunk in got.chunks} == {"chat.completion.chunk"}
    assert all("usage" not in chunk for chunk in got.chunks)


async def test_usage_comes_last_where_asked_for(ask: Ask, stream: Stream) -> None:
    got = await stream(ask(stream_options={"include_usage": True}, max_tokens=9))
    *others, last = got.chunks
    assert all(chunk["usage"] is None for chunk in others)
    assert last["choices"] == []
    usage = last["usage"]
    assert usage["completion_tokens"] == 9
    assert usage["total_tokens"] == usage["prompt_tokens"] + 9
    assert got.finish_reason == "length"


async def test_usage_may_be_kept_back(ask: Ask, stream: Stream) -> None:
    options = {"include_usage": True}
    got = await stream(ask(stream_options=options, simulate={"usage": False}))
    assert all("usage" not in chunk for chunk in got.chunks)


async def test_a_whole_answer(client: httpx.AsyncClient, ask: Ask) -> None:
    response = await client.post(PATH, json=ask())
    whole = response.json()
    assert response.headers["content-type"] == "application/json"
    assert whole["object"] == "chat.completion"
    (choice,) = whole["choices"]
    assert choice["message"] == {"role": "assistant", "content": text_for(ask())}
    assert choice["finish_reason"] == "stop"
    assert whole["usage"]["completion_tokens"] == len(tokens_for(ask()))


async def test_stop_and_limit(ask: Ask, stream: Stream) -> None:
    full = text_for(ask(max_tokens=50))
    stop = full[60:64]
    got = await stream(ask(max_tokens=50, stop=stop))
    assert got.text == full[: full.index(stop)]
    assert got.finish_reason == "stop"


async def test_a_reset_stream_is_continued_to_the_same_text(
    simulator: Simulator, ask: Ask, stream: Stream
) -> None:
    request = ask(simulate={"reset_after": 10, "times": 3})
    text = ""
    for attempt in range(4):
        message = {"role": "assistant", "content": text}
        again = request
        if text:
            again = request | {
                "messages": [*request["messages"], message],
                "continue_final_message": True,
                "add_generation_prompt": False,
            }
        got = await stream(again)
        text += got.text
        assert (got.error is None) == (attempt == 3)
    assert text == text_for(ask())
    outcomes = [record.outcome for record in simulator.requests]
    assert outcomes == ["reset"] * 3 + ["completed"]
    assert [r.continued for r in simulator.requests] == [False, True, True, True]
    assert len({record.key for record in simulator.requests}) == 1


@pytest.mark.parametrize("after", [0, 1, 17])
async def test_a_reset(ask: Ask, stream: Stream, after: int) -> None:
    got = await stream(ask(simulate={"reset_after": after}))
    assert isinstance(got.error, httpx.ReadError)
    assert got.tokens == tokens_for(ask())[:after]


@pytest.mark.parametrize("after", [0, 17])
async def test_a_clean_end_that_says_nothing(
    simulator: Simulator, ask: Ask, stream: Stream, after: int
) -> None:
    got = await stream(ask(simulate={"end_after": after}))
    assert got.error is None
    assert got.tokens == tokens_for(ask())[:after]
    assert got.finish_reason is None
    assert not got.done
    assert simulator.requests[0].outcome == "ended"


async def test_a_fault_that_the_answer_does_not_reach(ask: Ask, stream: Stream) -> None:
    got = await stream(ask(max_tokens=5, simulate={"reset_after": 6}))
    assert got.text == text_for(ask(max_tokens=5))
    assert got.done


async def test_a_malformed_record(ask: Ask, stream: Stream) -> None:
    got = await stream(ask(simulate={"malformed_after": 4}))
    assert len(got.malformed) == 1
    assert got.text == text_for(ask())
    assert got.done


async def test_an_error_object(ask: Ask, stream: Stream) -> None:
    got = await stream(ask(simulate={"error_after": 4}))
    assert got.tokens == tokens_for(ask())[:4]
    assert got.chunks[-1]["error"]["type"] == "server_error"
    assert got.finish_reason is None


async def test_a_huge_line(ask: Ask, stream: Stream) -> None:
    got = await stream(ask(simulate={"huge_line_after": 4}))
    assert max(len(line) for line in got.raw.split(b"\n")) == 10_000_000
    assert got.text == text_for(ask())
    got = await stream(ask(simulate={"huge_line_after": 0, "huge_line_bytes": 5000}))
    assert max(len(line) for line in got.raw.split(b"\n")) == 5000


@pytest.mark.parametrize(
    "simulate",
    [
        {"hang": "before_head", "hang_s": 0.2},
        {"hang": "after_head", "hang_s": 0.2},
        {"stall_after": 5, "stall_s": 0.2},
        {"first_token_ms": 200},
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_silence_that_ends(
    client: httpx.AsyncClient,
    simulator: Simulator,
    ask: Ask,
    stream: Stream,
    simulate: dict[str, Any],
    streamed: bool,
) -> None:
    request = ask(simulate=simulate)
    if streamed:
        assert (await stream(request)).text == text_for(ask())
    else:
        whole = (await client.post(PATH, json=request)).json()
        assert whole["choices"][0]["message"]["content"] == text_for(ask())
    (record,) = simulator.requests
    assert record.ended_at is not None
    assert record.ended_at - record.received_at >= 0.19


async def test_the_pace_holds_also_across_a_stall(
    simulator: Simulator, ask: Ask, stream: Stream
) -> None:
    pace = {"first_token_ms": 100, "tokens_per_second": 100, "jitter": 0.5}
    stall = {"stall_after": 10, "stall_s": 0.2}
    got = await stream(ask(max_tokens=41, simulate=pace | stall))
    assert len(got.tokens) == 41
    (record,) = simulator.requests
    assert record.first_token_at is not None
    assert record.ended_at is not None
    assert record.ended_at - record.first_token_at >= 0.55


async def test_a_whole_answer_takes_its_time(
    client: httpx.AsyncClient, simulator: Simulator, ask: Ask
) -> None:
    pace = {"first_token_ms": 50, "tokens_per_second": 100}
    await client.post(PATH, json=ask(max_tokens=21, simulate=pace))
    (record,) = simulator.requests
    assert record.ended_at is not None
    assert record.ended_at - record.received_at >= 0.24
    assert record.tokens_sent == 21


async def test_json_although_a_stream_was_asked_for(ask: Ask, stream: Stream) -> None:
    got = await stream(ask(simulate={"no_stream": True}))
    assert got.headers["content-type"] == "application/json"
    (whole,) = got.chunks
    assert whole["choices"][0]["message"]["content"] == text_for(ask())


async def test_ndjson(ask: Ask, stream: Stream) -> None:
    got = await stream(ask(simulate={"ndjson": True}))
    assert got.headers["content-type"].startswith("application/x-ndjson")
    assert got.text == text_for(ask())
    assert got.finish_reason == "stop"
    assert b"data:" not in got.raw
    assert b"[DONE]" not in got.raw


async def test_reasoning_first(
    client: httpx.AsyncClient, ask: Ask, stream: Stream
) -> None:
    options = {"include_usage": True}
    got = await stream(ask(stream_options=options, simulate={"reasoning": 12}))
    reasoning = got.deltas("reasoning_content")
    assert len(reasoning) == 12
    assert got.text == text_for(ask())
    usage = got.chunks[-1]["usage"]
    assert usage["completion_tokens"] == 12 + len(got.tokens)
    whole = (await client.post(PATH, json=ask(simulate={"reasoning": 12}))).json()
    message = whole["choices"][0]["message"]
    assert message["reasoning_content"] == "".join(reasoning)


async def test_a_tool_call(client: httpx.AsyncClient, ask: Ask, stream: Stream) -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    request = ask(tools=tools, simulate={"tool_call": True})
    got = await stream(request)
    calls = [part for (part,) in got.deltas("tool_calls")]
    assert calls[0]["function"]["name"] == "weather"
    arguments = "".join(call["function"]["arguments"] for call in calls)
    assert got.finish_reason == "tool_calls"
    assert got.text == ""
    whole = (await client.post(PATH, json=request)).json()
    (call,) = whole["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "weather", "arguments": arguments}
    assert whole["choices"][0]["message"]["content"] is None


async def test_faults_of_whole_answers(client: httpx.AsyncClient, ask: Ask) -> None:
    async def post(**simulate: Any) -> httpx.Response:
        return await client.post(PATH, json=ask(simulate=simulate))

    with pytest.raises(httpx.ReadError):
        await post(reset_after=3)
    response = await post(error_after=3)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    (choice,) = (await post(end_after=3)).json()["choices"]
    assert choice["finish_reason"] is None
    assert choice["message"]["content"] == "".join(tokens_for(ask())[:3])
    with pytest.raises(ValueError):
        (await post(malformed_after=3)).json()
    response = await post(huge_line_after=3, huge_line_bytes=200_000)
    assert len(response.content) > 200_000
    assert response.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "simulate",
    [
        {"hang": "before_head"},
        {"hang": "after_head"},
        {"first_token_ms": 60_000},
        {"stall_after": 3},
        {"tokens_per_second": 0.01},
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("abort", [True, False])
async def test_a_clients_close_is_seen_at_once(
    simulator: Simulator,
    connect: Any,
    ask: Ask,
    simulate: dict[str, Any],
    streamed: bool,
    abort: bool,
) -> None:
    connection = await connect()
    await connection.post(ask(stream=streamed, simulate=simulate))
    record = await simulator.wait_for(lambda record: record.key != "")
    before = asyncio.get_running_loop().time()
    if abort:
        connection.writer.transport.abort()
    else:
        await connection.close()
    closed_at = await simulator.wait_closed(record)
    assert closed_at >= before
    assert closed_at - before < 2
    assert record.outcome == "client_closed"
    assert simulator.active == 0


async def test_a_close_is_seen_in_the_middle_of_a_fast_stream(
    simulator: Simulator, connect: Any, ask: Ask
) -> None:
    connection = await connect()
    request = ask(stream=True, max_tokens=100_000)
    await connection.post(request | {"simulate": {"tokens_per_second": 2000}})
    record = await simulator.wait_for(lambda record: record.tokens_sent > 5)
    await connection.close()
    await simulator.wait_closed(record)
    sent = record.tokens_sent
    await asyncio.sleep(0.05)
    assert record.tokens_sent == sent


async def test_a_client_that_neither_reads_nor_stays(
    simulator: Simulator, connect: Any, ask: Ask
) -> None:
    connection = await connect()
    connection.writer.transport.pause_reading()
    await connection.post(ask(stream=True, max_tokens=100_000))
    record = await simulator.wait_for(lambda record: record.tokens_sent > 1000)
    connection.writer.transport.abort()
    await simulator.wait_closed(record)
