"""Dead letters: jobs that could not be served, kept with the reason."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from bridge.bus.cell import Cell
from bridge.bus.commands import headers_size
from bridge.bus.jobs import Delivery
from bridge.errors import BusError, ConnectionLost, StreamUnavailable, shorten
from bridge.events import Failed, Terminal
from bridge.metrics import Meters

log = logging.getLogger(__name__)

#: Failures whose job is kept (section 3).
BURIED = frozenset({"invalid_job", "attempts_exhausted", "internal"})

#: Between two tries while NATS does not answer, in seconds.
RETRY_S = 0.25

#: All headers together stay far below the 4 KiB that the protocol allows.
MAX_VALUE_CHARS = 512


def dead_letter_headers(code: str, message: str, delivery: Delivery) -> dict[str, str]:
    """The headers of a dead letter (``docs/protocol.md``, section 1)."""
    # Headers are read as ASCII by some clients; escaped, a character takes up to ten.
    message = message.encode("ascii", "backslashreplace").decode()
    return {
        # A repeat after a lost acknowledgement is the same letter; the time tells a
        # job from one with its number in a stream that was made again.
        "Nats-Msg-Id": f"dead/{delivery.lane}/{delivery.stream_seq}/"
        f"{delivery.stored_ns}",
        "Tokenbridge-Code": code,
        "Tokenbridge-Message": shorten(message, MAX_VALUE_CHARS).replace("…", "..."),
        "Tokenbridge-Subject": delivery.subject[:MAX_VALUE_CHARS],
        "Tokenbridge-Job": str(delivery.stream_seq),
        "Tokenbridge-Attempt": str(delivery.attempt),
        "Tokenbridge-Stored-At": f"{delivery.stored_at:.3f}",
    }


def cut_to_fit(data: bytes, headers: dict[str, str], max_payload: int) -> bytes:
    """``data``, cut, and ``headers`` saying so, where both exceed one message.

    A job may be as large as a message itself, without room for the reasons.
    """
    if len(data) + headers_size(headers) <= max_payload:
        return data
    headers["Tokenbridge-Cut-From-Bytes"] = str(len(data))
    return data[: max(0, max_payload - headers_size(headers))]


class DeadLetters:
    """Keeps one job.

    ``check_lease`` raises once the job is another worker's; ``gone`` makes streams
    that are missing again.
    """

    def __init__(
        self,
        cell: Cell,
        tenant: str,
        delivery: Delivery,
        meters: Meters,
        *,
        check_lease: Callable[[], None],
        gone: Callable[[], Awaitable[None]],
    ) -> None:
        self._cell = cell
        self._tenant = tenant
        self._delivery = delivery
        self._meters = meters
        self._check_lease = check_lease
        self._gone = gone

    async def keep_if_due(self, event: Terminal) -> None:
        """Keep the job if ``event`` is an end that asks for it."""
        if isinstance(event, Failed) and event.error.code in BURIED:
            await self.keep(event.error.code, event.error.message)

    async def keep(self, code: str, message: str) -> None:
        """Return once the letter is stored; tries as long as the lease holds."""
        delivery = self._delivery
        headers = dead_letter_headers(code, message, delivery)
        max_payload = self._cell.connection.max_payload
        data = cut_to_fit(delivery.data, headers, max_payload)
        told = False
        while True:
            self._check_lease()
            try:
                await self._store(data, headers)
                break
            except BusError as reason:
                log.debug("dead letter of %s: %s", delivery.subject, reason)
                if not told and not isinstance(reason, ConnectionLost):
                    told = True
                    log.warning(
                        "a dead letter cannot be stored: %s; its job keeps its slot "
                        "until it can",
                        reason,
                    )
            await self._cell.pause(RETRY_S)
        self._meters.dead_letters += 1
        log.warning(
            "dead letter: %s: %s",
            code,
            message,
            extra={
                "tenant": self._tenant,
                "subject": delivery.subject,
                "job": delivery.stream_seq,
            },
        )

    async def _store(self, data: bytes, headers: dict[str, str]) -> None:
        try:
            await self._cell.bury(self._tenant, data, headers)
        except StreamUnavailable:
            # Nobody took it: the stream is missing, or has no leader for a moment.
            await self._gone()
            raise
