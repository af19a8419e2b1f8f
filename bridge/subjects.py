"""The subject grammar: build, parse, validate (``docs/protocol.md``, section 1).

No string reaches a subject without passing through here, so nothing that a producer
chose (a dot, a wildcard, CR LF) can change which subject is meant.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from bridge.errors import BridgeError

#: One token of a subject: a tenant, id, lane, session or prefix.
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

#: The tenant that only the bridge itself writes for: pings, and dead letters of jobs
#: whose own tenant could not be read.
RESERVED_TENANT = "_"


class InvalidToken(BridgeError, ValueError):
    """A name does not fit into a subject."""


def is_token(value: object) -> bool:
    """Whether ``value`` may stand between two dots of a subject."""
    return isinstance(value, str) and TOKEN.fullmatch(value) is not None


def check_token(value: str, what: str) -> str:
    """Return ``value``, or raise `InvalidToken` naming ``what`` it was meant for."""
    if not is_token(value):
        shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:79] + "…"
        raise InvalidToken(
            f"{what} {shown} must be 1 to 64 characters of A-Z a-z 0-9 _ -"
        )
    return value


def check_tenant(value: str) -> str:
    """Return ``value``, or raise `InvalidToken`; ``_`` is reserved."""
    check_token(value, "tenant")
    if value == RESERVED_TENANT:
        raise InvalidToken("tenant '_' is reserved")
    return value


class JobAddress(NamedTuple):
    """Where a job came in."""

    tenant: str
    lane: str


class ControlAddress(NamedTuple):
    """What a control message is about; ``kind`` is request, session or lease."""

    tenant: str
    kind: str
    name: str


CONTROL_KINDS = ("request", "session", "lease")


class Subjects:
    """All subjects and stream names of one prefix, which is one cell.

    Builders raise `InvalidToken`; parsers return ``None`` for what is not theirs.
    """

    def __init__(self, prefix: str = "llm") -> None:
        self.prefix = check_token(prefix, "prefix")
        self._jobs = f"{prefix}.jobs."
        self._tokens = f"{prefix}.tokens."
        self._speech = f"{prefix}.speech."
        self._control = f"{prefix}.control."
        self._dead = f"{prefix}.dead."
        #: Pings and closings of batches: in the log's stream, never stored.
        self.batch = f"{prefix}.tokens.{RESERVED_TENANT}.batch"
        self.all_control = f"{prefix}.control.*.*.*"
        self.all_tokens = f"{prefix}.tokens.*.*"
        self.all_speech = f"{prefix}.speech.*.*"
        self.all_dead = f"{prefix}.dead.*"
        self.kept_control = (
            f"{prefix}.control.*.request.*",
            f"{prefix}.control.*.session.*",
        )

    def __repr__(self) -> str:
        return f"Subjects({self.prefix!r})"

    def lane(self, lane: str) -> str:
        """The filter that matches the jobs of every tenant in ``lane``."""
        return f"{self._jobs}*.{check_token(lane, 'lane')}"

    def job(self, tenant: str, lane: str) -> str:
        """Where a producer publishes a job."""
        return f"{self._jobs}{check_tenant(tenant)}.{check_token(lane, 'lane')}"

    def tokens(self, tenant: str, id: str) -> str:
        """Where a request's events are published."""
        return f"{self._tokens}{check_tenant(tenant)}.{check_token(id, 'id')}"

    def speech(self, tenant: str, id: str) -> str:
        """Where a request's speech segments are published."""
        return f"{self._speech}{check_tenant(tenant)}.{check_token(id, 'id')}"

    def control(self, tenant: str, kind: str, name: str) -> str:
        """Where a request or a session is cancelled, or a lease renewed."""
        if kind not in CONTROL_KINDS:
            raise InvalidToken(f"control kind {kind!r} is none of {CONTROL_KINDS}")
        what = "session" if kind == "session" else "id"
        return f"{self._control}{check_tenant(tenant)}.{kind}.{check_token(name, what)}"

    def dead(self, tenant: str) -> str:
        """Where a job that could not be served is kept.

        A tenant that breaks the grammar is filed under ``_``.
        """
        return f"{self._dead}{tenant if is_token(tenant) else RESERVED_TENANT}"

    def parse_job(self, subject: str) -> JobAddress | None:
        """The tenant and lane of a job's subject, or ``None`` if it has none."""
        rest = subject.removeprefix(self._jobs)
        if rest == subject:
            return None
        tenant, dot, lane = rest.partition(".")
        if not dot or not is_token(tenant) or not is_token(lane):
            return None
        return None if tenant == RESERVED_TENANT else JobAddress(tenant, lane)

    def parse_control(self, subject: str) -> ControlAddress | None:
        """What a control subject is about, or ``None``."""
        rest = subject.removeprefix(self._control)
        parts = rest.split(".")
        if rest == subject or len(parts) != 3:
            return None
        tenant, kind, name = parts
        if kind not in CONTROL_KINDS or not is_token(tenant) or not is_token(name):
            return None
        return None if tenant == RESERVED_TENANT else ControlAddress(tenant, kind, name)
