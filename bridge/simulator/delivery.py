"""One answer, delivered: streamed or whole, at its pace, with its faults."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from bridge.simulator.behaviour import Behaviour
from bridge.simulator.body import Body, Pacer, reset
from bridge.simulator.chunks import Chunks, error_object, whole_message
from bridge.simulator.pace import Pace
from bridge.simulator.records import Outcome, RequestLog, RequestRecord
from bridge.simulator.script import Fault, Script, faults_of

_ERROR_MESSAGE = "The simulated model ran into a simulated error."


class Delivery:
    """The delivery of one `Script`; `run` is called once."""

    def __init__(
        self,
        request: web.Request,
        record: RequestRecord,
        log: RequestLog,
        script: Script,
        behaviour: Behaviour,
        created: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._record = record
        self._log = log
        self._script = script
        self._behaviour = behaviour
        self._created = created
        self._pace = Pace(behaviour, record.received_at, record.key)
        self._generated = 0
        self._faults = faults_of(behaviour, script.length)

    async def run(self) -> web.StreamResponse:
        """Deliver the answer and record its outcome.

        Raises `ConnectionError` where the client went away; is cancelled then too.
        """
        if self._behaviour.hang == "before_head":
            self._pace.shift(await self._silence(self._behaviour.hang_s))
        if self._script.chat.stream and not self._behaviour.no_stream:
            return await self._stream()
        return await self._answer_whole()

    async def _silence(self, seconds: float | None) -> float:
        started = self._loop.time()
        if seconds is None:
            await self._loop.create_future()  # Ends when the client goes away.
        else:
            await asyncio.sleep(seconds)
        return self._loop.time() - started

    # -- streamed ---------------------------------------------------------------

    async def _stream(self) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Cache-Control": "no-cache"})
        response.content_type = (
            "application/x-ndjson" if self._behaviour.ndjson else "text/event-stream"
        )
        response.charset = "utf-8"
        body = await self._open(response)
        options = self._script.chat.stream_options
        wants_usage = options is not None and options.include_usage
        chunks = Chunks(
            self._record.id,
            self._created,
            self._script.chat.model,
            ndjson=self._behaviour.ndjson,
            include_usage=wants_usage and self._behaviour.usage,
        )
        body.write(chunks.role())
        pacer = Pacer(body, self._script.frames(chunks), self._pace, self._sent_one)
        if self._behaviour.hang == "after_head":
            pacer.shift(await self._silence(self._behaviour.hang_s))
        for after, fault in self._faults:
            await pacer.send_until(after)
            outcome = await self._strike(fault, body, chunks, pacer)
            if outcome is not None:
                self._log.end(self._record, outcome)
                return response
        await pacer.send_until(self._script.length)
        body.write(chunks.finish(self._script.finish_reason))
        if wants_usage and self._script.usage is not None:
            body.write(chunks.usage(self._script.usage))
        body.write(chunks.done())
        await body.close()
        self._log.end(self._record, "completed")
        return response

    async def _open(self, response: web.StreamResponse) -> Body:
        transport = self._request.transport
        writer = await response.prepare(self._request)
        if transport is None or writer is None:
            raise ConnectionResetError("the client went away before the answer")
        self._record.status = response.status
        chunked = response.headers.get("Transfer-Encoding") == "chunked"
        pieces = self._behaviour.piece_sizes
        return Body(transport, writer, chunked=chunked, pieces=pieces)

    def _sent_one(self) -> None:
        record = self._record
        record.tokens_sent += 1
        if record.tokens_sent == 1:
            record.first_token_at = self._loop.time()
        if self._log.watched:
            self._log.notify()

    async def _strike(
        self, fault: Fault, body: Body, chunks: Chunks, pacer: Pacer
    ) -> Outcome | None:
        """Let one fault happen; returns the outcome where it ends the answer."""
        match fault:
            case "malformed":
                body.write(chunks.malformed())
            case "huge":
                await body.write_large(chunks.huge(self._behaviour.huge_line_bytes))
            case "stall":
                body.flush()
                pacer.shift(await self._silence(self._behaviour.stall_s))
            case "error":
                body.write(chunks.error(_ERROR_MESSAGE) + chunks.done())
                await body.close()
                return "errored"
            case "end":
                await body.close()
                return "ended"
            case "reset":
                body.flush()
                await body.drain()
                body.reset()
                return "reset"
        return None

    # -- whole ------------------------------------------------------------------

    async def _answer_whole(self) -> web.StreamResponse:
        if self._behaviour.hang == "after_head":
            self._pace.shift(await self._silence(self._behaviour.hang_s))
        padding = broken = False
        for after, fault in self._faults:
            await self._generate(after)
            match fault:
                case "malformed":
                    broken = True
                case "huge":
                    padding = True
                case "stall":
                    self._pace.shift(await self._silence(self._behaviour.stall_s))
                case _:
                    return await self._end_whole(fault)
        await self._generate(self._script.length)
        whole = self._whole(self._script.finish_reason)
        if padding:
            whole["padding"] = "x" * self._behaviour.huge_line_bytes
        data = msgspec.json.encode(whole)
        return await self._send_whole(data[: len(data) // 2] if broken else data)

    async def _end_whole(self, fault: Fault) -> web.StreamResponse:
        if fault == "reset":
            if self._request.transport is not None:
                reset(self._request.transport)
            self._log.end(self._record, "reset")
            return web.Response()  # Goes nowhere, but aiohttp wants one.
        if fault == "error":
            data = msgspec.json.encode(error_object(500, _ERROR_MESSAGE))
            return await self._send_whole(data, 500, "errored")
        data = msgspec.json.encode(self._whole(None))
        return await self._send_whole(data, 200, "ended")

    async def _generate(self, count: int) -> None:
        """Wait until token ``count`` of the answer is due."""
        due = 0.0
        for index in range(self._generated, count):
            due = self._pace.due(index)
        self._generated = count
        await asyncio.sleep(due - self._loop.time())

    def _whole(self, finish_reason: str | None) -> dict[str, Any]:
        return whole_message(
            self._record.id,
            self._created,
            self._script.chat.model,
            self._script.message(self._generated),
            finish_reason,
            self._script.usage if finish_reason is not None else None,
        )

    async def _send_whole(
        self, data: bytes, status: int = 200, outcome: Outcome = "completed"
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        response.content_type = "application/json"
        response.content_length = len(data)
        body = await self._open(response)
        await body.write_large(data)
        await body.close()
        if status == 200:
            self._record.first_token_at = self._loop.time()
            self._record.tokens_sent = self._generated
        self._log.end(self._record, outcome)
        return response
