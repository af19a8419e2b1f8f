"""The connections of a transport: which are open, and which may be used again."""

from __future__ import annotations

import asyncio

import httpx

from bridge.backends.connection import Connection, Origin

#: One read of a socket at most; whoever reads from many gets round to all of them.
READ_BYTES = 64 * 1024


class ConnectionPool:
    """Keeps idle connections by origin, last in, first out, and closes them in time.

    The most recently used one is the least likely to have been closed by the server,
    and after a peak the others expire. Bounded by the number of streams at that peak.
    """

    def __init__(self, keepalive_expiry_s: float) -> None:
        self.read_buffer = memoryview(bytearray(READ_BYTES))
        self._expiry_s = keepalive_expiry_s
        self._open: set[Connection] = set()
        #: By origin, and in the order of becoming idle: connection -> when.
        self._idle: dict[Origin, dict[Connection, float]] = {}
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._all_gone = asyncio.Event()
        self._all_gone.set()
        self.closed = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<ConnectionPool {state}, {self.active} active, {self.idle} idle>"

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return sum(map(len, self._idle.values()))

    @property
    def active(self) -> int:
        """How many connections are in use, or not quite closed."""
        return len(self._open) - self.idle

    def take(self, origin: Origin) -> Connection | None:
        """The idle connection to ``origin`` that was used last, if there is one."""
        idle = self._idle.get(origin)
        if not idle:
            return None
        connection, since = next(reversed(idle.items()))
        if asyncio.get_running_loop().time() - since >= self._expiry_s:
            connection.abort()
            return None
        self.withdraw(connection)
        return connection

    async def aclose(self) -> None:
        """Close every connection, whatever it is doing, and wait until all are gone."""
        self.closed = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for connection in list(self._open):
            connection.fail(httpx.ReadError("the transport was closed"))
        await self._all_gone.wait()

    # What connections report.

    def opened(self, connection: Connection) -> None:
        """Keep track of a connection that was just made."""
        self._open.add(connection)
        self._all_gone.clear()
        if self.closed:
            connection.fail(httpx.ConnectError("the transport was closed"))

    def released(self, connection: Connection) -> None:
        """Keep a connection whose response has ended for the next request."""
        loop = asyncio.get_running_loop()
        self._idle.setdefault(connection.origin, {})[connection] = loop.time()
        if self._sweep_timer is None:
            self._sweep_timer = loop.call_later(self._expiry_s, self._sweep)

    def withdraw(self, connection: Connection) -> None:
        """Offer a connection no more: it is in use again, or closing."""
        idle = self._idle.get(connection.origin)
        if idle is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[connection.origin]

    def gone(self, connection: Connection) -> None:
        """Forget a connection whose socket is closed."""
        self._open.discard(connection)
        if not self._open:
            self._all_gone.set()

    def _sweep(self) -> None:
        # One timer for all: connections become idle far more often than they expire.
        self._sweep_timer = None
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._expiry_s
        for idle in list(self._idle.values()):
            while idle:
                connection, since = next(iter(idle.items()))
                if since > oldest:
                    break
                connection.abort()
        if self._idle:
            first = min(next(iter(idle.values())) for idle in self._idle.values())
            when = first + self._expiry_s
            self._sweep_timer = loop.call_at(when, self._sweep)
