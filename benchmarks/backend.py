"""The backend: a process that streams chat completions at an exact pace, cheaply.

Plain epoll, one heap of due times, and blocking sleeps in place of an event loop's
timers: those count whole milliseconds, and what a contender pays for a token depends
on how many come together. ``--tick-us`` says so exactly: all that falls due within a
tick is written at its end, back to back, each delta with its own ``send``; 0 writes
each at its own time, so that nearly every one finds the contender asleep.

A request's ``bench`` object sets the pace::

    {"id": "r1", "rate": 20.0, "phase": 0.4}

``max_tokens`` deltas at ``rate`` a second, the first after ``phase`` of an interval.
Each delta's text is the clock (``CLOCK_MONOTONIC``, nanoseconds) just before it was
written; the first one has the time when the request was read behind a comma. It
goes through the contender untouched, to whoever reads the same clock.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import heapq
import json
import select
import signal
import socket
import time
from types import FrameType

import msgspec

from benchmarks.completions import Connection, Request, content_length
from benchmarks.processes import raise_file_limit

#: A request head or body beyond this is no benchmark's.
MAX_REQUEST_BYTES = 1 << 20

#: Writes happen at multiples of this: what asyncio, uvloop and Node would do.
TICK_US = 1000

#: No nap is longer, so that a request or a close is seen that soon under load.
MAX_NAP_NS = 200_000
#: Shorter naps overshoot: the loop turns instead.
MIN_NAP_NS = 20_000
#: Writing goes on for so long at most before the sockets are looked at.
MAX_BURST_NS = 1_000_000
#: What counts as late in the figures: a burst, or a machine that is overloaded.
LATE_NS = 5_000_000

_READ = select.EPOLLIN | select.EPOLLRDHUP


class Backend:
    """The server. `run` returns when `stopped` is set."""

    def __init__(self, port: int = 0, tick_us: int = TICK_US) -> None:
        self._tick_ns = tick_us * 1000 or 1
        self._listener = socket.create_server(
            ("127.0.0.1", port), backlog=4096, reuse_port=False
        )
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        #: What is due, soonest first; the number breaks ties.
        self._due: list[tuple[int, int, Connection]] = []
        self._order = 0
        self.stopped = False
        self.closes: dict[str, int] = {}
        self.open = 0
        self.served = 0
        self.tokens = 0
        self.late = 0
        self.blocked = 0

    def run(self) -> None:
        """Serve until `stopped`."""
        while not self.stopped:
            self._write_due()
            for fd, flags in self._epoll.poll(self._wait_s(), 256):
                if fd == self._listener.fileno():
                    self._accept()
                else:
                    self._on_event(self._connections.get(fd), flags)
            self._nap()
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._epoll.close()
        self._listener.close()

    def _due_in(self) -> int:
        """Nanoseconds until the tick at which the next write falls due."""
        at = self._due[0][0]
        return at + -at % self._tick_ns - time.monotonic_ns()

    def _wait_s(self) -> float:
        """How long to wait for sockets: in whole milliseconds, which epoll counts."""
        if not self._due:
            return 0.05
        wait = self._due_in()
        return 0.001 * (wait // 1_000_000 - 1) if wait >= 2_000_000 else 0.0

    def _nap(self) -> None:
        if self._due:
            wait = self._due_in()
            if wait >= MIN_NAP_NS:
                time.sleep(min(wait, MAX_NAP_NS) / 1e9)

    def _write_due(self) -> None:
        now = time.monotonic_ns()
        tick = now - now % self._tick_ns
        until = now + MAX_BURST_NS
        due = self._due
        while due and due[0][0] <= tick and now < until:
            at, order, connection = due[0]
            if now - at > LATE_NS:
                self.late += 1
            if self._write_next(connection, now):
                heapq.heapreplace(due, (at + connection.interval_ns, order, connection))
            else:
                heapq.heappop(due)
            now = time.monotonic_ns()

    def _write_next(self, connection: Connection, now: int) -> bool:
        """Write what is due; tell whether the stream goes on after it."""
        if not connection.id:
            return False
        if connection.unsent:
            # The contender reads too slowly: this delta waits, as a real one would.
            self.blocked += 1
            return True
        if connection.remaining == 0:
            self._end(connection)
            return False
        self.tokens += 1
        self._send(connection, connection.next_token(now))
        return True

    def _end(self, connection: Connection) -> None:
        connection.id = ""
        self.open -= 1
        self.served += 1
        self._send(connection, connection.tail)

    def _send(self, connection: Connection, data: bytes) -> None:
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        if sent < len(data):
            connection.unsent = data[sent:]
            self._epoll.modify(connection.sock.fileno(), _READ | select.EPOLLOUT)

    def _on_event(self, connection: Connection | None, flags: int) -> None:
        if connection is None:
            return
        if flags & select.EPOLLOUT and connection.unsent:
            data, connection.unsent = connection.unsent, b""
            self._epoll.modify(connection.sock.fileno(), _READ)
            self._send(connection, data)
        if flags & ~select.EPOLLOUT:
            self._read(connection)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections[sock.fileno()] = Connection(sock)
                self._epoll.register(sock.fileno(), _READ)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.buffer += data
        if not data or len(connection.buffer) > MAX_REQUEST_BYTES:
            self._drop(connection)
            return
        head, blank, rest = connection.buffer.partition(b"\r\n\r\n")
        if blank and len(rest) >= (size := content_length(head)):
            connection.buffer = rest[size:]
            self._answer(connection, head.partition(b"\r\n")[0], rest[:size])

    def _drop(self, connection: Connection) -> None:
        if connection.id:
            self.closes[connection.id] = time.monotonic_ns()
            self.open -= 1
            connection.id = ""
        if self._connections.pop(connection.sock.fileno(), None) is not None:
            self._epoll.unregister(connection.sock.fileno())
        connection.sock.close()

    def _answer(self, connection: Connection, line: bytes, body: bytes) -> None:
        method, _, target = line.partition(b" ")
        path = target.partition(b" ")[0].partition(b"?")[0]
        if method == b"POST" and path == b"/v1/chat/completions":
            self._start_stream(connection, body)
        elif path == b"/v1/models":
            models = [{"id": "bench", "object": "model", "owned_by": "bench"}]
            self._send_json(connection, {"object": "list", "data": models})
        elif path == b"/bench/closes":
            self._send_json(connection, self.closes)
        elif path == b"/bench/stats":
            names = ("open", "served", "tokens", "late", "blocked")
            self._send_json(connection, {name: getattr(self, name) for name in names})
        else:
            self._send_json(connection, {"error": {"message": "no such path"}}, 404)

    def _start_stream(self, connection: Connection, body: bytes) -> None:
        now = time.monotonic_ns()
        try:
            request = msgspec.json.decode(body, type=Request)
        except msgspec.DecodeError as error:
            self._send_json(connection, {"error": {"message": str(error)}}, 400)
            return
        self._send(connection, connection.start(request, now))
        self.open += 1
        self._order += 1
        at = now + int(request.bench.phase * connection.interval_ns)
        if at == now:
            if not self._write_next(connection, time.monotonic_ns()):
                return
            at += connection.interval_ns
        heapq.heappush(self._due, (at, self._order, connection))

    def _send_json(
        self, connection: Connection, value: object, status: int = 200
    ) -> None:
        body = json.dumps(value).encode()
        head = (
            f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._send(connection, head.encode() + body)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backend")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--tick-us", type=int, default=TICK_US)
    options = parser.parse_args()
    backend = Backend(options.port, options.tick_us)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        backend.stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    raise_file_limit()
    #: Nothing here makes cycles, and a collection in the middle is a late token.
    gc.disable()
    print(f"listening on http://127.0.0.1:{backend.port}/v1", flush=True)
    backend.run()


if __name__ == "__main__":
    main()
