"""Bytes on the wire: framing, pieces, backpressure, resets."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bridge.simulator import Simulator, text_for

Connect = Callable[[], Awaitable[Any]]
Ask = Callable[..., dict[str, Any]]


async def read_chunks(connection: Any) -> list[bytes]:
    chunks = []
    while chunk := await connection.chunk():
        chunks.append(chunk)
    return chunks


async def test_one_write_and_one_chunk_per_token(connect: Connect, ask: Ask) -> None:
    connection = await connect()
    await connection.post(ask(stream=True, max_tokens=20))
    await connection.head()
    chunks = await read_chunks(connection)
    assert len(chunks) == 1 + 20 + 2  # the role, the tokens, the end and [DONE]
    assert all(chunk.endswith(b"\n\n") for chunk in chunks)


@pytest.mark.parametrize("pieces", [1, 7, [3, 5], [1, 400, 2], 4096, 1_000_000])
async def test_the_body_is_cut_into_pieces(
    connect: Connect, ask: Ask, pieces: Any
) -> None:
    connection = await connect()
    request = ask(stream=True, max_tokens=25)
    await connection.post(request | {"simulate": {"pieces": pieces}})
    await connection.head()
    chunks = await read_chunks(connection)
    sizes = itertools.cycle([pieces] if isinstance(pieces, int) else pieces)
    *full, last = chunks
    for chunk in full:
        assert len(chunk) == next(sizes)
    assert 0 < len(last) <= next(sizes)
    events = b"".join(chunks).decode().split("\n\n")
    texts = [
        json.loads(event.removeprefix("data: "))["choices"][0]["delta"].get("content")
        for event in events[:-2]
    ]
    assert "".join(text for text in texts if text) == text_for(request)


async def test_pieces_of_an_answer_that_is_not_streamed(
    connect: Connect, ask: Ask
) -> None:
    connection = await connect()
    request = ask()
    await connection.post(request | {"simulate": {"pieces": 10}})
    head = await connection.head()
    (length,) = (
        int(line.split(b":")[1])
        for line in head.splitlines()
        if line.lower().startswith(b"content-length")
    )
    whole = json.loads(await connection.reader.readexactly(length))
    assert whole["choices"][0]["message"]["content"] == text_for(request)


async def test_an_http_1_0_client_reads_until_the_close(
    connect: Connect, ask: Ask
) -> None:
    connection = await connect()
    await connection.post(ask(stream=True, max_tokens=3), version="1.0")
    head = await connection.head()
    assert b"chunked" not in head.lower()
    body = await connection.reader.read()
    assert body.startswith(b"data: ")
    assert body.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_does_not_read_stops_the_tokens(
    simulator: Simulator, connect: Connect, ask: Ask
) -> None:
    connection = await connect()
    connection.writer.transport.pause_reading()
    await connection.post(ask(stream=True, max_tokens=100_000))

    before = -1
    record = await simulator.wait_for(lambda record: record.tokens_sent > 0)
    while record.tokens_sent != before:  # until the sockets' buffers are full
        before = record.tokens_sent
        await asyncio.sleep(0.3)
    assert record.tokens_sent < 100_000

    connection.writer.transport.resume_reading()
    await connection.head()
    assert len(await read_chunks(connection)) == 100_003
    assert record.outcome == "completed"


async def test_what_came_before_a_reset_arrives(connect: Connect, ask: Ask) -> None:
    connection = await connect()
    simulate = {"reset_after": 5, "pieces": 1000}
    await connection.post(ask(stream=True, simulate=simulate))
    await connection.head()
    body = b"".join([await connection.chunk() for _ in range(2)])
    assert body.count(b"data: ") == 6
    assert body.endswith(b"\n\n")
    with pytest.raises(ConnectionResetError):
        await connection.chunk()
