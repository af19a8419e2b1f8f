"""The end of a log that is not proven yet, and the batch that it goes out in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

from bridge.bus.batch import Batches, Listener, Op, batch_id
from bridge.bus.connection import Connection
from bridge.events import JobIdentity

#: A ping goes out behind every so many events, so that what is stored may be
#: forgotten: at about 200 bytes an event, 256 kept events are 50 KiB a request.
PING_EVERY_EVENTS = 192

#: What one request may hold that is not proven yet. Above it the backend is not read
#: any further: 1 MiB is some 6,000 tokens, minutes of a model's output.
MAX_UNPROVEN_BYTES = 1024 * 1024

#: The server ends a batch that was silent for 10 s.
PING_WHEN_SILENT_S = 4.0

#: A ping or commit without an answer for so long is taken for a broken batch.
ANSWER_TIMEOUT_S = 1.5


class Tail:
    """An attempt's events from the first that is not known to be stored.

    They are published as they come, in the batch that is open, and kept until they are
    proven. ``last_seq`` is the stream sequence that the batch starts on; ``answered``
    gets the batch's answers, and ``on_room`` is called when it is not `full` any more.
    """

    def __init__(
        self,
        connection: Connection,
        batches: Batches,
        *,
        subject: str,
        speech: str,
        job: JobIdentity,
        attempt: int,
        last_seq: int,
        answered: Listener,
        on_room: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._batches = batches
        self._send = connection.outbox.send
        self._now = now
        self._answered = answered
        self._on_room = on_room
        self._job = job
        self.attempt = attempt
        self.subject = subject
        self.speech = speech
        self.last_seq = last_seq
        self.detached = not connection.connected
        self.batch = ""
        self._head = ""
        self._pub = b""
        self.sent = 0  # batch sequence of the last message of this batch
        self._proven = 0  # …up to which this batch is known to be stored
        self.forgotten = 0  # events of this attempt that are proven
        self.begun = False  # whether the log was ours once
        self.said = 0  # speech events of this attempt
        self.terminal = False
        self.unproven: deque[tuple[str, bytes]] = deque()
        self.unproven_bytes = 0
        #: How many bytes may be unproven before a ping is sent; then none is sent for
        #: this reason until there is room.
        self._ask_above: float = MAX_UNPROVEN_BYTES
        #: The batch sequence after which the next ping is sent.
        self._ping_behind = PING_EVERY_EVENTS
        self._ping_at: float | None = None
        self._seen_sent = 0
        self._moved_at = now()
        self.use_batch(0)

    def __repr__(self) -> str:
        return (
            f"<Tail {self.subject} attempt={self.attempt} sent={self.sent} "
            f"unproven={len(self.unproven)}>"
        )

    @property
    def full(self) -> bool:
        """Whether the backend should not be read any further for now."""
        return self.unproven_bytes > MAX_UNPROVEN_BYTES

    # The batch

    def use_batch(self, repair: int) -> None:
        """Publish what comes next in a batch of this number; nothing is sent yet."""
        if self.batch:
            self._batches.forget(self.batch)
        self.batch = batch_id(self._job, self.attempt, repair)
        self._head = self._batches.reply_head(self.batch)
        #: The constant part of the command that publishes an event.
        self._pub = f"PUB {self.subject} {self._head}".encode()
        self.sent = self._proven = self._seen_sent = 0
        self._ping_behind = PING_EVERY_EVENTS
        self._ping_at = None
        self._batches.listen(self.batch, self._answered)

    def leave_batch(self) -> None:
        """Hear nothing of the batch any more."""
        self._batches.forget(self.batch)

    def go_on(self) -> None:
        """The batch was proven to live with all that is kept: watch it again."""
        self._batches.listen(self.batch, self._answered)
        self._moved_at = self._now()
        # If the end came meanwhile, it went out in this batch: its answer is next.
        self._ping_at = self._moved_at if self.terminal else None

    # Appending

    def append(self, payload: bytes) -> None:
        """Publish the request's next event. Never waits; see `full`.

        Raises `ConnectionLost` when the client is closed.
        """
        self.unproven.append((self.subject, payload))
        unproven = self.unproven_bytes = self.unproven_bytes + len(payload)
        if self.detached:
            return
        sent = self.sent = self.sent + 1
        if sent == 1:
            self._publish(self.subject, payload, Op.START)
            return
        self._send(
            b"%b%d.1.$FI %d\r\n%b\r\n" % (self._pub, sent, len(payload), payload)
        )
        if sent >= self._ping_behind or unproven > self._ask_above:
            self.ping()

    def append_speech(self, payload: bytes) -> None:
        """Publish the request's next speech event, in the same batch."""
        self.said += 1
        self.unproven.append((self.speech, payload))
        self.unproven_bytes += len(payload)
        if self.detached:
            return
        self.sent += 1
        self._publish(self.speech, payload, Op.APPEND)

    def end(self, payload: bytes) -> None:
        """Publish the request's last event, which commits the batch."""
        self.terminal = True
        self.unproven.append((self.subject, payload))
        self.unproven_bytes += len(payload)
        if not self.detached:
            self.sent += 1
            self._ping_at = self._now()
            self._publish(self.subject, payload, Op.COMMIT)

    def send_again(self) -> None:
        """Publish all that is kept, in a batch that was just begun."""
        rest = list(self.unproven)
        for index, (subject, payload) in enumerate(rest):
            self.sent += 1
            final = self.terminal and index == len(rest) - 1
            self._publish(subject, payload, Op.COMMIT if final else Op.APPEND)
        if not self.terminal:
            self._ping_behind = self.sent + PING_EVERY_EVENTS
            self._batches.send(Op.PING, self.batch, self.sent)

    def _publish(self, subject: str, payload: bytes, op: Op) -> None:
        headers = None
        if self.sent == 1:
            # Whatever starts the batch carries the condition, a lone commit too.
            headers = {"Nats-Expected-Last-Subject-Sequence": str(self.last_seq)}
            if subject != self.subject:
                # A repair may begin with speech; the condition is on the tokens.
                headers["Nats-Expected-Last-Subject-Sequence-Subject"] = self.subject
            if op is Op.APPEND:
                op = Op.START
        reply = f"{self._head}{self.sent}.{op:d}.$FI"
        self._connection.publish(subject, payload, reply, headers)

    # Proving

    def ping(self) -> None:
        """Ask whether the batch lives; what it proves may be forgotten."""
        if self.detached or self.sent == 0:
            return
        if self.full:
            self._ask_above = inf
        self._ping_behind = self.sent + PING_EVERY_EVENTS
        if self._ping_at is None:
            self._ping_at = self._now()
        self._batches.send(Op.PING, self.batch, self.sent)

    def prove(self, seq: int) -> None:
        """The batch lives, and is stored up to batch sequence ``seq``."""
        self.begun = True
        self.forget(seq - self._proven)
        self._proven = max(self._proven, seq)
        if not self.terminal:  # else it is the commit's answer that is waited for
            self._ping_at = None

    def prove_up_to(self, stored: bytes) -> None:
        """``stored`` is the request's last event in the log.

        What went out before it in this batch is stored too: a batch has no gap.
        """
        for index, kept in enumerate(self.unproven):
            if kept == (self.subject, stored):
                self.forget(index + 1)
                self._proven += index + 1
                return

    def forget(self, events: int) -> None:
        """So many more events are stored."""
        if events <= 0:
            return
        was_full = self.full
        for _ in range(min(events, len(self.unproven))):
            self.unproven_bytes -= len(self.unproven.popleft()[1])
            self.forgotten += 1
        if was_full and not self.full:
            self._ask_above = MAX_UNPROVEN_BYTES
            self._on_room()

    def sweep(self, now: float) -> bool:
        """Keep a silent batch alive. Whether an answer is missing."""
        if self._ping_at is not None and now - self._ping_at > ANSWER_TIMEOUT_S:
            return True
        if self.sent != self._seen_sent:
            self._seen_sent = self.sent
            self._moved_at = now
        elif now - self._moved_at > PING_WHEN_SILENT_S:
            self._moved_at = now
            self.ping()
        return False
