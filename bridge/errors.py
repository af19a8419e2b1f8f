"""Everything that can go wrong, as one tree.

::

    BridgeError
    ├── ConfigurationError          a setting is wrong; the start stops
    ├── GenerationError             ends a request: the ``failed`` event's ``error``
    │   ├── InvalidJob              invalid_job
    │   ├── UnknownModel            unknown_model
    │   ├── BackendRejected         backend_rejected
    │   ├── RateLimited             rate_limited          (retryable)
    │   ├── BackendUnavailable      backend_unavailable   (retryable)
    │   ├── BackendTimeout          backend_timeout       (retryable)
    │   ├── BackendProtocolError    backend_protocol      (retryable)
    │   │   └── LimitExceeded       the same, but asking again gives the same
    │   ├── BackendReportedError    backend_error         (as the backend says)
    │   ├── DeadlineExceeded        deadline_exceeded
    │   ├── AttemptsExhausted       attempts_exhausted
    │   ├── LogLost                 log_lost              (retryable)
    │   └── InternalError           internal              (retryable)
    ├── BusError                    NATS, seen from the bridge or the SDK
    │   ├── ConnectionLost          not connected, or closed for good
    │   │   └── NotPermitted        this user may not publish or subscribe there
    │   ├── SetupError              server too old, a stream or permission is wrong
    │   └── StreamUnavailable       a stream is gone or has no leader right now
    └── ClientError                 what the SDK raises to its callers
        ├── JobRefused              JetStream did not store the job
        │   ├── JobTooLarge
        │   ├── QueueFull
        │   └── UnknownLane
        ├── NothingInLog            unknown, not started, or expired
        ├── RequestLost             no end will come: its job or its log is gone
        │   └── LogExpired          what was being read is no longer kept
        ├── RequestFailed           the request ended ``failed``
        └── RequestCancelled        the request ended ``cancelled``

A ``GenerationError`` knows its wire code and whether it is worth submitting the
request again under a new id; ``docs/protocol.md``, section 3, lists the codes.
Exceptions of other libraries stop at the adapter that called them and are chained.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

#: What a backend says about an error is shortened to this many characters: enough
#: for the sentence that explains it, too little to carry a prompt back out.
MAX_MESSAGE_CHARS = 500

#: What replaces a secret in a text. Secrets of fewer characters are not replaced: three
#: letters would blank half of every text.
HIDDEN = "***"
MIN_SECRET_CHARS = 4


def shorten(text: str, limit: int = MAX_MESSAGE_CHARS) -> str:
    """Return ``text`` on one line and of at most ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def hidden(text: str, secrets: Iterable[str]) -> str:
    """``text`` with ``***`` for each of ``secrets``, and for one that is cut off."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
        if "…" in text:
            for size in range(len(secret) - 1, MIN_SECRET_CHARS, -1):
                text = text.replace(secret[:size] + "…", HIDDEN)
    return text


class BridgeError(Exception):
    """The root: ``except BridgeError`` catches whatever tokenbridge raises."""


class ConfigurationError(BridgeError):
    """A setting is wrong. The message names the setting and what it may be."""


class GenerationError(BridgeError):
    """A request cannot go on; carries what its ``failed`` event says.

    ``status`` is the backend's HTTP status where there was one. ``words`` may be some
    of the answer's: the ``message`` for the event has them at its end, ``str``, which
    is for logs, does not.
    """

    code: ClassVar[str] = "internal"
    retryable: bool = False

    def __init__(
        self, message: str, *, status: int | None = None, words: str = ""
    ) -> None:
        super().__init__(message)
        self.message = f"{message}; it said: {words}" if words else message
        self.status = status

    def hide(self, secrets: Iterable[str]) -> None:
        """Blank ``secrets`` in what it says, and one that `shorten` has cut off."""
        self.message = hidden(self.message, secrets)
        self.args = (hidden(str(self), secrets),)


class InvalidJob(GenerationError):
    """The job breaks section 2 of the protocol; the message names the field."""

    code = "invalid_job"


class UnknownModel(GenerationError):
    """No configured backend serves the model."""

    code = "unknown_model"


class BackendRejected(GenerationError):
    """The backend answered with a status that no retry will change."""

    code = "backend_rejected"


class RateLimited(GenerationError):
    """The backend answered 429; ``retry_after_s`` is what it asked for, if it did."""

    code = "rate_limited"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s


class BackendUnavailable(GenerationError):
    """The backend could not be reached, dropped the connection, or answered 5xx."""

    code = "backend_unavailable"
    retryable = True


class BackendTimeout(GenerationError):
    """No first delta, or no further delta, in time."""

    code = "backend_timeout"
    retryable = True


class BackendProtocolError(GenerationError):
    """The stream broke its protocol or a limit, or ended without saying why."""

    code = "backend_protocol"
    retryable = True


class LimitExceeded(BackendProtocolError):
    """The whole answer is larger than its limit.

    The bridge does not ask again by itself: it would get the same. (A single record
    over its limit is rather a broken stream.)
    """


class BackendReportedError(GenerationError):
    """The backend reported an error inside its stream."""

    code = "backend_error"

    def __init__(
        self, message: str, *, status: int | None = None, retryable: bool = False
    ) -> None:
        super().__init__(message, status=status)
        self.retryable = retryable


class DeadlineExceeded(GenerationError):
    """The job's deadline passed, queued or running."""

    code = "deadline_exceeded"


class AttemptsExhausted(GenerationError):
    """The job was delivered too often."""

    code = "attempts_exhausted"


class LogLost(GenerationError):
    """The stream that holds the log went away under a running request."""

    code = "log_lost"
    retryable = True


class InternalError(GenerationError):
    """A defect of the bridge. The message says nothing of the request's content."""

    code = "internal"
    retryable = True


class BusError(BridgeError):
    """NATS refused or failed."""


class ConnectionLost(BusError):
    """The connection to NATS is not there, or was closed for good."""


class NotPermitted(ConnectionLost):
    """The server refused a subject to this user; the message has its words.

    A kind of `ConnectionLost`, since to whoever asked it is the same: no answer comes.
    """


class SetupError(BusError):
    """NATS is not what the bridge needs; the message says what differs."""


class StreamUnavailable(BusError):
    """A stream does not exist, or has no leader at the moment."""

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


class ClientError(BridgeError):
    """Something that a caller of the SDK may want to handle."""


class JobRefused(ClientError):
    """JetStream did not take the job; nothing was queued."""


class JobTooLarge(JobRefused):
    """The job exceeds the limit for jobs, or the server's ``max_payload``."""


class QueueFull(JobRefused):
    """The jobs' stream is at its limit; try again later."""


class UnknownLane(JobRefused):
    """No stream takes jobs on this subject: no such lane, or no bridge ever ran."""


class NothingInLog(ClientError):
    """The log has nothing of this id: unknown, not started yet, or expired."""


class RequestLost(ClientError):
    """No end of the request will come: its job or its log is gone.

    The message says what was waited for, and where to look.
    """


class LogExpired(RequestLost):
    """Part of the log that was still to be read is no longer kept."""


class RequestFailed(ClientError):
    """The request ended ``failed``; carries the error and the partial text."""

    def __init__(
        self, code: str, message: str, *, retryable: bool, text: str = ""
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = retryable
        self.text = text


class RequestCancelled(ClientError):
    """The request ended ``cancelled``; carries the reason and the partial text."""

    def __init__(self, reason: str, *, text: str = "") -> None:
        super().__init__(f"cancelled: {reason}")
        self.reason = reason
        self.text = text
