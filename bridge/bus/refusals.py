"""Why an attempt may not write its request's log, or not go on with it."""

from __future__ import annotations

from bridge.errors import BridgeError


class Fenced(BridgeError):
    """The request belongs to another worker by now: publish and settle nothing."""


class StartRefused(BridgeError):
    """The log moved on between reading it and starting: claim again from the top."""


class TooManyBatches(BridgeError):
    """The server has as many open batches as it allows; try again in a moment."""


class LogGone(BridgeError):
    """The stream of the log does not exist any more."""
