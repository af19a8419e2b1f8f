"""What a job took, and how it ended: for its last event, the meters and the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

from bridge.errors import GenerationError
from bridge.events import Failed, Terminal, Timings
from bridge.generation.exchange import Exchange
from bridge.generation.record import Record
from bridge.metrics import Meters

log = logging.getLogger(__name__)


class Account:
    """One delivered job's figures, from now on.

    ``stored_ns`` and ``claimed_ns`` are when it was stored and when it came, both on
    the server's clock in nanoseconds since 1970.
    """

    def __init__(
        self,
        tenant: str,
        stored_ns: int,
        claimed_ns: int,
        meters: Meters,
        now: Callable[[], float],
    ) -> None:
        self._tenant = tenant
        self._stored_ns = stored_ns
        self.claimed_ns = claimed_ns
        self._meters = meters
        self._now = now
        self._begun_at = now()
        #: Who knows the tokens and their backend, once one is asked.
        self.exchange: Exchange | None = None

    def __repr__(self) -> str:
        return f"<Account queue={self.queue_ms}ms total={self._total_ms}ms>"

    @property
    def queue_ms(self) -> int:
        """How long the job had waited when it came."""
        return max(0, round((self.claimed_ns - self._stored_ns) / 1e6))

    @property
    def _total_ms(self) -> int:
        return max(0, round((self._now() - self._begun_at) * 1000))

    def timings(self) -> Timings:
        """The times so far, as a terminal event shows them."""
        first = self.exchange.first_token_s if self.exchange is not None else None
        return Timings(
            queue_ms=self.queue_ms,
            first_token_ms=round(first * 1000) if first is not None else None,
            total_ms=self._total_ms,
        )

    def failed(self, record: Record, error: GenerationError) -> Failed:
        """The event of an end by an error, now."""
        exchange = self.exchange
        return record.failed(
            error,
            usage=exchange.usage if exchange is not None else None,
            backend=exchange.backend if exchange is not None else None,
            timings=self.timings(),
        )

    def ended(self, event: Terminal) -> None:
        """Count and log an end that is proven."""
        code = event.error.code if isinstance(event, Failed) else ""
        self._meters.ended[(event.type, code)] += 1
        log.info(
            "request %s",
            event.type,
            extra={
                "tenant": self._tenant,
                "id": event.id,
                "attempt": event.attempt,
                "events": event.seq,
                "queue_ms": self.queue_ms,
                "total_ms": self._total_ms,
                **({"code": code} if code else {}),
            },
        )

    def close(self) -> None:
        """The worker is done with the job, however: count its times."""
        self._meters.queue.add(self.queue_ms / 1000)
        self._meters.total.add(self._total_ms / 1000)
