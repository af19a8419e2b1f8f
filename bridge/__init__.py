"""tokenbridge: LLM token streams on NATS.

A job goes in on a NATS subject, numbered deltas come out on the request's own, kept in
a log that late readers read and that a second worker continues. Most people need only
the SDK::

    from bridge import Client

    async with Client("nats://127.0.0.1:4222", model="llama3.2") as client:
        async for event in client.stream("Why is the sky blue?"):
            ...

To read the code, follow one job, from the ground up:

- ``errors``, ``events``, ``intake``, ``subjects``: the wire contract of
  ``docs/protocol.md`` in code: what can go wrong, what crosses the bus, which jobs are
  taken, and where it all goes
- ``job``, ``sequence``, ``history``, ``transcript``: pure rules: a job's states and how
  each is settled; numbering, and what a reader may deliver; what a log adds up to
- ``decoders``, ``dialects``, ``speech``: bytes of a backend to records to deltas, and
  deltas to what can be spoken; no I/O either
- ``backends``: the HTTP client that a generation reads from
- ``bus``: everything that touches NATS: streams, jobs in, events out, the log
- ``generation``: one job from claim to settlement; start with ``generation.course``
- ``worker``, ``service``: slots and lanes, leases, drain; the process around them
- ``client``: the SDK, which reads the log and the live events as one
- ``simulator``: an LLM stand-in with faults; ``cli``: the commands

What is shown here is loaded when it is used, so that ``import bridge.errors`` costs
no NATS client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge.client import Client, Stream, spoken_message
    from bridge.errors import (
        BridgeError,
        BusError,
        ClientError,
        ConnectionLost,
        InvalidJob,
        JobRefused,
        JobTooLarge,
        LogExpired,
        NothingInLog,
        NotPermitted,
        QueueFull,
        RequestCancelled,
        RequestFailed,
        RequestLost,
        SetupError,
        StreamUnavailable,
        UnknownLane,
    )
    from bridge.events import (
        Cancelled,
        Completed,
        ErrorInfo,
        Failed,
        Handover,
        KnownEvent,
        Reasoning,
        Resumed,
        Skipped,
        Started,
        Timings,
        Token,
        ToolCall,
        ToolCallDelta,
    )

__all__ = [
    "BridgeError",
    "BusError",
    "Cancelled",
    "Client",
    "ClientError",
    "Completed",
    "ConnectionLost",
    "ErrorInfo",
    "Failed",
    "Handover",
    "InvalidJob",
    "JobRefused",
    "JobTooLarge",
    "KnownEvent",
    "LogExpired",
    "NotPermitted",
    "NothingInLog",
    "QueueFull",
    "Reasoning",
    "RequestCancelled",
    "RequestFailed",
    "RequestLost",
    "Resumed",
    "SetupError",
    "Skipped",
    "Started",
    "Stream",
    "StreamUnavailable",
    "Timings",
    "Token",
    "ToolCall",
    "ToolCallDelta",
    "UnknownLane",
    "spoken_message",
]

#: Where the names above are defined.
_HOMES = ("bridge.errors", "bridge.events", "bridge.client")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in _HOMES:
            value = getattr(import_module(home), name, None)
            if value is not None:
                globals()[name] = value
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
