"""What the simulator answers, endpoint by endpoint."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from bridge.simulator.behaviour import Behaviour, InvalidBehaviour
from bridge.simulator.body import reset
from bridge.simulator.chunks import error_object
from bridge.simulator.completion import ChatRequest, InvalidRequest, conversation_key
from bridge.simulator.delivery import Delivery
from bridge.simulator.records import (
    MAX_BODY_BYTES,
    FaultCount,
    RequestLog,
    RequestRecord,
)
from bridge.simulator.script import Script

#: Requests up to this size: the job limit of 512 KiB many times over.
MAX_REQUEST_BYTES = 16 << 20

#: In place of model names: any model is served.
ANY_MODEL = "*"


class Endpoints:
    """The handlers, and what they share: the log, the faults dealt so far."""

    def __init__(
        self,
        log: RequestLog,
        behaviour: Behaviour,
        models: Sequence[str],
        api_key: str | None,
    ) -> None:
        self.behaviour = behaviour
        self._log = log
        self._models = tuple(models)
        self._api_key = api_key
        self._failures = FaultCount()
        self._faults = FaultCount()
        self._numbers = itertools.count(1)
        self._answering: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def application(self) -> web.Application:
        """Make the application; one at a time may run."""
        self._stopping = False
        app = web.Application(
            client_max_size=MAX_REQUEST_BYTES,
            middlewares=[_errors_as_json, _require_key(self._api_key)],
        )
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/simulator/requests", self._list_requests)
        app.router.add_get("/healthz", _health)
        app.on_shutdown.append(self._abandon)
        return app

    async def _abandon(self, _: web.Application) -> None:
        self._stopping = True
        for task in self._answering:
            task.cancel()

    async def _list_models(self, _: web.Request) -> web.Response:
        names = [name for name in self._models if name != ANY_MODEL] or ["simulator"]
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "tokenbridge"}
            for name in names
        ]
        return _json({"object": "list", "data": models})

    async def _list_requests(self, request: web.Request) -> web.Response:
        return _json(self._log.to_dict(request.query.get("user")))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        record = RequestRecord(
            id=f"chatcmpl-{os.getpid():x}-{next(self._numbers):08x}",
            received_at=asyncio.get_running_loop().time(),
        )
        self._log.open(record)
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            return await self._answer(request, record)
        except asyncio.CancelledError:
            self._log.end(record, "stopped" if self._stopping else "client_closed")
            raise
        except ConnectionError:
            self._log.end(record, "client_closed")
            return web.Response()  # Goes nowhere, but aiohttp wants one.
        finally:
            self._answering.discard(task)
            # Whatever else was raised is aiohttp's 500, or its 413.
            self._log.end(record, "rejected")

    async def _answer(
        self, request: web.Request, record: RequestRecord
    ) -> web.StreamResponse:
        try:
            chat, body = _read(await request.read(), record)
            behaviour = self.behaviour
            if chat.simulate:
                behaviour = behaviour.override(chat.simulate)
        except (InvalidRequest, InvalidBehaviour) as error:
            return self._reject(record, 400, str(error))
        if ANY_MODEL not in self._models and chat.model not in self._models:
            message = f"The model {chat.model!r} does not exist."
            return self._reject(record, 404, message, code="model_not_found")
        record.key = conversation_key(body, continued=chat.continue_final_message)
        if (failure := self._failure(request, record, behaviour)) is not None:
            return failure
        if not self._faults_hit(record.key, behaviour):
            behaviour = behaviour.without_faults()
        script = Script(chat, record.key, behaviour)
        delivery = Delivery(
            request, record, self._log, script, behaviour, int(time.time())
        )
        return await delivery.run()

    def _reject(
        self,
        record: RequestRecord,
        status: int,
        message: str,
        *,
        code: str | None = None,
    ) -> web.Response:
        record.status = status
        self._log.end(record, "rejected")
        return _error(status, message, code=code)

    def _failure(
        self, request: web.Request, record: RequestRecord, behaviour: Behaviour
    ) -> web.Response | None:
        """The faults that come instead of an answer."""
        if behaviour.status is None and not behaviour.refuse:
            return None
        if not self._failures.take(record.key, behaviour.fail_times):
            return None
        if behaviour.refuse or behaviour.status is None:
            if request.transport is not None:
                reset(request.transport)
            self._log.end(record, "refused")
            return web.Response()  # Goes nowhere, but aiohttp wants one.
        record.status = behaviour.status
        self._log.end(record, "status")
        message = f"The simulator was told to answer {behaviour.status}."
        response = _error(behaviour.status, message)
        if behaviour.retry_after_s is not None:
            seconds = behaviour.retry_after_s
            response.headers["Retry-After"] = str(math.ceil(seconds))
            response.headers["Retry-After-Ms"] = str(round(seconds * 1000))
        return response

    def _faults_hit(self, key: str, behaviour: Behaviour) -> bool:
        if behaviour == behaviour.without_faults():
            return False
        return self._faults.take(key, behaviour.times)


def _read(data: bytes, record: RequestRecord) -> tuple[ChatRequest, Mapping[str, Any]]:
    """Read the request's body and note in ``record`` what is known of it."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    if len(data) <= MAX_BODY_BYTES:
        record.body = body
    chat = ChatRequest.of(body)
    record.model = chat.model
    record.user = chat.user
    record.stream = bool(chat.stream)
    record.continued = chat.continue_final_message
    record.max_tokens = chat.limit
    return chat, body


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


def _error(status: int, message: str, *, code: str | None = None) -> web.Response:
    return _json(error_object(status, message, code=code), status)


async def _health(_: web.Request) -> web.Response:
    return _json({"status": "ok"})


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give aiohttp's own refusals (404, 405, 413) the API's form."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _error(error.status, f"{error.reason}: {request.method} {request.path}")


def _require_key(api_key: str | None) -> Middleware:
    expected = f"Bearer {api_key}".encode()

    @web.middleware
    async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
        if api_key is not None and request.path != "/healthz":
            given = request.headers.get("Authorization", "")
            # aiohttp has read bytes that are no UTF-8 as surrogates.
            raw = given.encode(errors="surrogateescape")
            if not hmac.compare_digest(raw, expected):
                return _error(401, "Incorrect API key.", code="invalid_api_key")
        return await handler(request)

    return authorize
