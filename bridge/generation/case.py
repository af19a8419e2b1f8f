"""One delivered job, as the parts of its generation share it."""

from __future__ import annotations

from typing import NamedTuple

from bridge.bus.jobs import Delivery
from bridge.events import Job
from bridge.generation.account import Account
from bridge.generation.dead import DeadLetters
from bridge.generation.ownership import Ownership
from bridge.generation.superseding import Superseding
from bridge.generation.surroundings import Surroundings
from bridge.job import Progress


class Case(NamedTuple):
    """A delivered job: where it is, whose, what it took, and where it may be kept.

    ``superseding`` cancels what its session has of older jobs. ``job`` is ``None``
    where it is not valid.
    """

    around: Surroundings
    tenant: str
    delivery: Delivery
    job: Job | None
    progress: Progress
    ownership: Ownership
    account: Account
    letters: DeadLetters
    superseding: Superseding

    def __repr__(self) -> str:
        id = self.job.id if self.job is not None else "?"
        return (
            f"<Case {self.tenant}/{id} {self.progress.state.value} "
            f"attempt={self.delivery.attempt}>"
        )
