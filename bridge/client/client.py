"""The SDK's front: submit, read and cancel requests from asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from bridge.client.attachment import Attachment
from bridge.client.cells import request_id
from bridge.client.jobs import make_job, make_request
from bridge.client.link import Link, bus_settings
from bridge.client.reader import Reader
from bridge.client.stream import Stream
from bridge.client.submission import submit_job
from bridge.config import NatsSettings
from bridge.errors import ConnectionLost
from bridge.events import Completed, Job, OnRestart
from bridge.subjects import check_tenant, check_token


class Client:
    """Submits, reads and cancels requests of a tokenbridge deployment.

    ::

        async with Client("nats://127.0.0.1:4222", model="llama3.2") as client:
            answer = await client.generate("Why is the sky blue?")
            print(answer.text)

    ``url`` is one NATS URL or several, separated by commas; ``settings`` has the rest
    (credentials, TLS, timeouts) and the streams' names where they are not the default
    ones. ``tenant``, ``lane`` and ``model`` are used where a call does not say
    otherwise. ``prefixes`` are the deployment's, in its order: `bridge.client.cells`.
    ``timeout_s`` is how long `submit` and `cancel` wait for JetStream.

    One client serves any number of requests at once, in one event loop. It reconnects
    for ever, and open streams go on where they were. After `close`, `connect` may be
    called again.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        tenant: str = "default",
        lane: str = "default",
        model: str | None = None,
        prefixes: Sequence[str] = ("llm",),
        settings: NatsSettings | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._settings = bus_settings(settings or NatsSettings(), url)
        self.tenant = check_tenant(tenant)
        self.lane = check_token(lane, "lane")
        self.model = model
        self._prefixes = [check_token(prefix, "prefix") for prefix in prefixes]
        if not self._prefixes:
            raise ValueError("a deployment has at least one prefix")
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._connecting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Client tenant={self.tenant} {self._link or 'not connected'}>"

    # The connection

    @property
    def connected(self) -> bool:
        """Whether NATS is connected now. While it is not, calls wait or fail."""
        return self._link is not None and self._link.connection.connected

    async def connect(self) -> None:
        """Connect; does nothing where it is done already.

        Tries each server once. Raises `ConnectionLost` where none can be reached, and
        `SetupError` where trying again would not help (refused credentials, a server
        too old, a certificate that cannot be read). May be cancelled.
        """
        async with self._connecting:
            if self._link is None:
                link = Link(self._settings, self._prefixes)
                await link.open()
                self._link = link

    async def close(self) -> None:
        """Leave what is open, then disconnect. Safe to call twice.

        Requests of streams with ``cancel_on_exit`` are cancelled; a stream that is
        still iterated raises `ConnectionLost`.
        """
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _linked(self) -> Link:
        if self._link is None:
            raise ConnectionLost(
                "the client is not connected: use `async with Client(…) as client`, or "
                "await client.connect() first"
            )
        return self._link

    # Requests

    async def submit(
        self,
        prompt: str | None = None,
        *,
        request: Mapping[str, Any] | None = None,
        model: str | None = None,
        system: str | None = None,
        context: Sequence[Mapping[str, Any]] = (),
        id: str | None = None,
        session: str | None = None,
        supersede: bool = False,
        deadline_ms: int | None = None,
        keepalive_ms: int | None = None,
        on_restart: OnRestart = "restart",
        speech: bool | Mapping[str, Any] = False,
        metadata: Mapping[str, str] | None = None,
        lane: str | None = None,
        tenant: str | None = None,
        **parameters: Any,
    ) -> str:
        """Queue a request and return its id once JetStream has stored the job.

        Either ``prompt``, with ``system`` and ``context`` (earlier messages, oldest
        first), or ``request``, the whole body of an OpenAI chat completion. Further
        keyword arguments (``temperature``, ``max_tokens``, ``tools``, …) go into the
        body as they are.

        - ``id``: 1 to 64 of ``A-Z a-z 0-9 _ -``, made up where it is not given. It is
          the idempotency key: submitting the same id again returns it, and generates
          nothing again.
        - ``session``, ``supersede``: the requests of one conversation, and whether
          this one ends the others.
        - ``deadline_ms``: from now; past it the request ends ``failed``. None is
          600,000: ten minutes.
        - ``keepalive_ms``: cancel when nobody has read for so long. Streams of this
          client keep it alive; after a bare `submit` somebody has to `join` with the
          same ``keepalive_ms`` in time.
        - ``on_restart``: ``fail`` where an answer must not be begun anew.
        - ``speech``: ask for segments to be spoken, ``True`` or options.
        - ``metadata``: strings, echoed in ``started`` and in the terminal event.

        Raises `JobTooLarge`, `QueueFull`, `UnknownLane` or another `JobRefused`, for a
        user without the right to publish there too; `ConnectionLost` when NATS did not
        say in time whether the job is stored (submitting the same id again is safe);
        `InvalidJob`, `ValueError` and `TypeError` for wrong arguments. Text is a
        ``str``; half an emoji in it becomes U+FFFD.
        """
        tenant = self._tenant(tenant)
        job = self._job(
            tenant, id, session, supersede,
            make_request(
                prompt, request, model=model, default_model=self.model, system=system,
                context=context, parameters=parameters,
            ),
            deadline_ms=deadline_ms, keepalive_ms=keepalive_ms, on_restart=on_restart,
            speech=speech, metadata=metadata,
        )  # fmt: skip
        await self._submit(self._linked(), tenant, lane, job)
        return job.id

    def stream(
        self,
        prompt: str | None = None,
        *,
        request: Mapping[str, Any] | None = None,
        model: str | None = None,
        system: str | None = None,
        context: Sequence[Mapping[str, Any]] = (),
        id: str | None = None,
        session: str | None = None,
        supersede: bool = False,
        deadline_ms: int | None = None,
        keepalive_ms: int | None = None,
        on_restart: OnRestart = "restart",
        speech: bool | Mapping[str, Any] = False,
        metadata: Mapping[str, str] | None = None,
        lane: str | None = None,
        tenant: str | None = None,
        cancel_on_exit: bool = True,
        **parameters: Any,
    ) -> Stream:
        """Queue a request and read its events as they come: see `Stream`.

        The arguments are those of `submit`, checked here; what `submit` raises beside
        comes from the first step into the stream. With ``cancel_on_exit``, leaving
        the stream before its end cancels the request.
        """
        tenant = self._tenant(tenant)
        job = self._job(
            tenant, id, session, supersede,
            make_request(
                prompt, request, model=model, default_model=self.model, system=system,
                context=context, parameters=parameters,
            ),
            deadline_ms=deadline_ms, keepalive_ms=keepalive_ms, on_restart=on_restart,
            speech=speech, metadata=metadata,
        )  # fmt: skip
        link = self._linked()
        cell = link.cell(tenant, job.id)
        attachment = Attachment(cell, tenant, job.id, cancels=cancel_on_exit)

        async def submit() -> bool:
            had_it = await self._submit(link, tenant, lane, job)
            # An id of the caller's own may have been served long ago.
            attachment.feed.due |= id is not None
            return had_it

        return Stream(
            link,
            attachment,
            Reader(cell, tenant, job.id, attachment.feed, deadline_ms=job.deadline_ms),
            submit=submit,
            keepalive_ms=keepalive_ms,
        )

    async def generate(
        self,
        prompt: str | None = None,
        *,
        request: Mapping[str, Any] | None = None,
        model: str | None = None,
        system: str | None = None,
        context: Sequence[Mapping[str, Any]] = (),
        id: str | None = None,
        session: str | None = None,
        supersede: bool = False,
        deadline_ms: int | None = None,
        keepalive_ms: int | None = None,
        on_restart: OnRestart = "restart",
        speech: bool | Mapping[str, Any] = False,
        metadata: Mapping[str, str] | None = None,
        lane: str | None = None,
        tenant: str | None = None,
        cancel_on_exit: bool = True,
        **parameters: Any,
    ) -> Completed:
        """Queue a request and wait for the whole answer: ``(await …).text``.

        The arguments are those of `stream`; cancelling the call cancels the request.
        Raises `RequestFailed` and `RequestCancelled`, which carry the text so far, and
        what `submit` and `Stream` raise.
        """
        stream = self.stream(
            prompt, request=request, model=model, system=system, context=context,
            id=id, session=session, supersede=supersede, deadline_ms=deadline_ms,
            keepalive_ms=keepalive_ms, on_restart=on_restart, speech=speech,
            metadata=metadata, lane=lane, tenant=tenant, cancel_on_exit=cancel_on_exit,
            **parameters,
        )  # fmt: skip
        async with stream:
            return await stream.completed()

    def join(
        self,
        id: str,
        *,
        from_seq: int = 1,
        tenant: str | None = None,
        wait_s: float | None = 5.0,
        keepalive_ms: int | None = None,
        cancel_on_exit: bool = False,
    ) -> Stream:
        """Read a request that runs, has ended, or is about to start.

        From its event ``from_seq`` on, to its end; where it ended before ``from_seq``,
        the terminal event comes alone. ``wait_s`` is how long the log may stay empty,
        ``None`` for ever: then iterating raises `NothingInLog`, since unknown, not
        started yet and no longer kept look alike. `LogExpired` says that the log
        begins above ``from_seq`` by now, or is not whole, `RequestLost` that no end
        will come. ``keepalive_ms`` is the job's own, to keep the request alive while
        it is read here.
        """
        if from_seq < 1:
            raise ValueError("from_seq counts from 1")
        tenant = self._tenant(tenant)
        check_token(id, "id")
        link = self._linked()
        cell = link.cell(tenant, id)
        attachment = Attachment(cell, tenant, id, cancels=cancel_on_exit)
        reader = Reader(
            cell, tenant, id, attachment.feed, from_seq=from_seq, wait_s=wait_s
        )
        return Stream(link, attachment, reader, submit=None, keepalive_ms=keepalive_ms)

    async def cancel(
        self,
        id: str,
        *,
        reason: str = "cancelled by client",
        tenant: str | None = None,
    ) -> None:
        """Cancel a request, running or queued, and return once the cancel is kept.

        Cancelling what has ended does nothing. Raises `ConnectionLost` where nobody
        said in time that it is kept, and `StreamUnavailable` where no bridge ever ran.
        """
        tenant = self._tenant(tenant)
        check_token(id, "id")
        await self._linked().cancel(tenant, id, reason, timeout_s=self._timeout_s)

    async def cancel_session(
        self,
        session: str,
        *,
        reason: str = "cancelled by client",
        tenant: str | None = None,
    ) -> None:
        """Cancel all requests that a session has by now, as `cancel` does."""
        tenant = self._tenant(tenant)
        await self._linked().cancel_session(
            tenant, session, reason, timeout_s=self._timeout_s
        )

    # Parts of the above

    def _tenant(self, tenant: str | None) -> str:
        return self.tenant if tenant is None else check_tenant(tenant)

    def _job(
        self,
        tenant: str,
        id: str | None,
        session: str | None,
        supersede: bool,
        request: dict[str, Any],
        **rest: Any,
    ) -> Job:
        id = request_id(
            tenant, id, session, supersede=supersede, cells=len(self._prefixes)
        )
        return make_job(id, request, session=session, supersede=supersede, **rest)

    async def _submit(
        self, link: Link, tenant: str, lane: str | None, job: Job
    ) -> bool:
        cell = link.cell(tenant, job.id)
        lane = self.lane if lane is None else lane
        return await submit_job(cell, tenant, lane, job, timeout_s=self._timeout_s)
