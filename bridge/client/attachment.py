"""What one open stream occupies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bridge.bus.cell import Cell
from bridge.client.feed import Feed
from bridge.client.lease import Lease


class Attachment:
    """A subscription, its feed, perhaps a lease.

    Its owner is the client, so that it can be given back although the stream itself
    is gone.
    """

    def __init__(self, cell: Cell, tenant: str, id: str, *, cancels: bool) -> None:
        self.cell = cell
        self.tenant = tenant
        self.id = id
        #: Whether the request is to be cancelled when the stream is left.
        self.cancels = cancels
        self.feed = Feed()
        self._lease: Lease | None = None
        self._detach: Callable[[], Awaitable[None]] | None = None

    def __repr__(self) -> str:
        return f"<Attachment {self.tenant}/{self.id} {self.feed!r}>"

    async def subscribe(self) -> None:
        """Let live events in. Raises `ConnectionLost`."""
        connection = self.cell.connection
        subject = self.cell.subjects.tokens(self.tenant, self.id)
        subscription = await connection.subscribe(subject, self.feed.receive)

        async def detach() -> None:
            await connection.unsubscribe(subscription)

        self._detach = detach

    def refused(self, subject: str, words: str) -> None:
        """The server refused ``subject``, in lower case, to this user."""
        tokens = self.cell.subjects.tokens(self.tenant, self.id)
        if subject == tokens.lower():
            self.feed.deafened(words)
        else:
            self.feed.refused(subject, words)

    def keep_alive(self, keepalive_ms: int) -> None:
        """Renew the request's lease from now on."""
        self._lease = Lease(self.cell, self.tenant, self.id, keepalive_ms)

    def mute(self) -> None:
        """Renew nothing any more. Safe to call twice."""
        if self._lease is not None:
            self._lease.end()
            self._lease = None

    async def release(self) -> None:
        """Give everything back. Safe to call twice."""
        self.mute()
        detach, self._detach = self._detach, None
        if detach is not None:
            await detach()
