"""A client's connection, and what is open on it."""

from __future__ import annotations

import asyncio
import contextlib

from bridge.bus.api import raise_for_error
from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.client.attachment import Attachment
from bridge.client.cells import cell_of
from bridge.client.jobs import well_formed
from bridge.config import BusSettings, NatsSettings
from bridge.errors import BusError, ConnectionLost, NotPermitted
from bridge.events import Control, encode

#: Open streams are looked at so often, for silence and for the connection's end, in s.
SWEEP_S = 0.5

#: How long leaving a stream waits for JetStream to keep the cancel, in seconds. It is
#: out at once; this is for the answer.
LEAVE_S = 2.0

#: One try of a cancel, and the pause before the next, in seconds.
CANCEL_ANSWER_S = 1.0
CANCEL_RETRY_S = 0.1

#: The reason in the ``cancelled`` event of a request whose stream was left.
LEFT = "the reader left"


def bus_settings(settings: NatsSettings, url: str | None) -> BusSettings:
    """What the SDK needs of ``settings``, whatever kind they are."""
    names = BusSettings.__struct_fields__
    values = {
        name: getattr(settings, name) for name in names if hasattr(settings, name)
    }
    if url is not None:
        values["nats_url"] = url
    return BusSettings(**values)


class Link:
    """One connection with its cells, from `open` to `close`; used in one event loop."""

    def __init__(self, settings: BusSettings, prefixes: list[str]) -> None:
        self.connection = Connection(settings, name="tokenbridge-client")
        self.cells = [Cell(self.connection, settings, prefix) for prefix in prefixes]
        self._loop = asyncio.get_running_loop()
        self._attachments: set[Attachment] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Link {self.connection!r} streams={len(self._attachments)}>"

    def cell(self, tenant: str, id: str) -> Cell:
        """The cell that serves a request."""
        return self.cells[cell_of(tenant, id, len(self.cells))]

    async def open(self) -> None:
        """Connect. Raises `ConnectionLost` and `SetupError`. May be cancelled."""
        await self.connection.connect(wait=False)
        self.connection.on_disconnected.append(self._disconnected)
        self.connection.on_reconnected.append(self._reconnected)
        self.connection.on_refused.append(self._refused)
        self._sweeping = self._loop.create_task(self._sweep())

    async def close(self) -> None:
        """Leave every stream, then disconnect."""
        self._closed = True
        for attachment in list(self._attachments):
            attachment.feed.close("the client was closed")
            self.leave(attachment, cancel=attachment.cancels)
        if self._leaving:
            await asyncio.wait(self._leaving)
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])
        await self.connection.close()

    def _disconnected(self) -> None:
        for attachment in self._attachments:
            attachment.feed.disconnected()

    def _refused(self, subject: str, words: str) -> None:
        for attachment in self._attachments:
            attachment.refused(subject, words)

    def _reconnected(self) -> None:
        for attachment in self._attachments:
            attachment.feed.reconnected()

    async def _sweep(self) -> None:
        while not self.connection.closed.is_set():
            await asyncio.sleep(SWEEP_S)
            now = self._loop.time()
            for attachment in self._attachments:
                attachment.feed.sweep(now)
        for attachment in self._attachments:
            attachment.feed.close(
                "the connection to NATS was closed for good: close the client and "
                "connect it again"
            )

    # Streams

    def attach(self, attachment: Attachment) -> None:
        """Own what a stream occupies. Raises `ConnectionLost` on a closed link."""
        if self._closed:
            raise ConnectionLost("the client was closed")
        self._attachments.add(attachment)

    def leave(self, attachment: Attachment, *, cancel: bool) -> asyncio.Task[None]:
        """Give back what a stream occupies, and cancel its request if so asked."""
        self._attachments.discard(attachment)
        attachment.mute()
        task = self._loop.create_task(self._leave(attachment, cancel))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    async def _leave(self, attachment: Attachment, cancel: bool) -> None:
        if cancel:
            # If it cannot be said now, the job's deadline ends the request.
            with contextlib.suppress(BusError):
                await self.cancel(
                    attachment.tenant, attachment.id, LEFT, timeout_s=LEAVE_S
                )
        await attachment.release()

    def drop(self, attachment: Attachment) -> None:
        """Leave from where a stream was dropped: any thread, perhaps no loop."""
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self.leave(attachment, cancel=attachment.cancels)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._drop, attachment)

    def _drop(self, attachment: Attachment) -> None:
        self.leave(attachment, cancel=attachment.cancels)

    # Cancelling

    async def cancel(
        self, tenant: str, id: str, reason: str, *, timeout_s: float
    ) -> None:
        """Cancel a request, and wait until JetStream keeps that.

        Raises `NotPermitted` at once, `ConnectionLost` after ``timeout_s``, and
        `BusError`.
        """
        cell = self.cell(tenant, id)
        subject = cell.subjects.control(tenant, "request", id)
        await self._keep(subject, Control("cancel", well_formed(reason)), timeout_s)

    async def cancel_session(
        self, tenant: str, session: str, reason: str, *, timeout_s: float
    ) -> None:
        """Cancel what a session has, in every cell."""
        control = Control("cancel", well_formed(reason))
        await asyncio.gather(
            *(
                self._keep(
                    cell.subjects.control(tenant, "session", session),
                    control,
                    timeout_s,
                )
                for cell in self.cells
            )
        )

    async def _keep(self, subject: str, control: Control, timeout_s: float) -> None:
        deadline = self._loop.time() + timeout_s
        payload = encode(control)
        while True:
            try:
                answer = await self.connection.request(
                    subject, payload, timeout_s=min(CANCEL_ANSWER_S, timeout_s)
                )
                raise_for_error(answer.data, subject)
            except NotPermitted:
                raise
            except ConnectionLost:
                if self._loop.time() >= deadline or self.connection.closed.is_set():
                    raise
                await asyncio.sleep(CANCEL_RETRY_S)
            else:
                return
