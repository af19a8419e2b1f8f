"""How a simulated backend behaves: its pace, its faults, its formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from bridge.errors import BridgeError

#: A day: longer than any timeout that could be under test.
_MAX_MS = 86_400_000
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=_MAX_MS)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=_MAX_MS / 1000)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 28)]

Hang = Literal["before_head", "after_head"]


class InvalidBehaviour(BridgeError):
    """A ``simulate`` object, or a behaviour's value, is wrong; names the field."""


class Behaviour(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """The whole server's behaviour, or one request's ``simulate`` object.

    ``k`` counts the tokens of this answer (reasoning, text, tool call), so ``0`` is
    before the first. A fault at a ``k`` that the answer does not reach does not
    happen. Faults of one answer at different ``k`` all happen, in order.
    """

    #: Time to the first token, and the pace from there; 0: as fast as possible.
    first_token_ms: _Milliseconds = 0
    tokens_per_second: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 0
    #: Share of the interval by which a token may be off its time, to both sides
    #: together; seeded by the request. The tokens' order and mean pace stay.
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0

    #: Answer with this HTTP status; ``retry_after_s`` goes out as ``Retry-After``
    #: (rounded up to a second, RFC 9110 10.2.3) and, exactly, as ``retry-after-ms``.
    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    retry_after_s: _Seconds | None = None
    #: Reset the connection instead of answering.
    refuse: bool = False
    #: ``status`` and ``refuse`` hit only the first so many requests of a
    #: conversation; without it, all.
    fail_times: _Count | None = None

    #: Silence before the first token, before or after the response's head; for
    #: ``hang_s``, or until the client goes away.
    hang: Hang | None = None
    hang_s: _Seconds | None = None
    #: Silence after k tokens, for ``stall_s``, or until the client goes away.
    stall_after: _Count | None = None
    stall_s: _Seconds | None = None
    #: A TCP reset after k tokens.
    reset_after: _Count | None = None
    #: A regular end of the body after k tokens, with no finish reason, no ``[DONE]``.
    end_after: _Count | None = None
    #: One record that is not JSON after k tokens; the stream goes on.
    malformed_after: _Count | None = None
    #: An error object inside the stream after k tokens, which ends it.
    error_after: _Count | None = None
    #: A record of ``huge_line_bytes`` after k tokens; the stream goes on.
    huge_line_after: _Count | None = None
    huge_line_bytes: _Size = 10_000_000
    #: The faults from ``hang`` to here hit only the first so many requests of a
    #: conversation, a continuation counting as one more; without it, all.
    times: _Count | None = None

    #: Cut the body anew into pieces of these sizes in bytes, over and over, each with
    #: a write and an HTTP chunk of its own; what is left goes out at the end, and
    #: before a fault.
    pieces: (
        _Size
        | Annotated[list[_Size], msgspec.Meta(min_length=1, max_length=1000)]
        | None
    ) = None
    #: Answer with one ``application/json`` message although asked to stream.
    no_stream: bool = False
    #: Stream ``application/x-ndjson`` instead of server-sent events.
    ndjson: bool = False
    #: After how many tokens the text ends by itself, if ``max_tokens`` does not end it;
    #: ``None``: after some dozens.
    tokens: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    #: So many tokens of reasoning first; ``max_tokens`` does not count them.
    reasoning: _Count = 0
    #: Answer with a tool call instead of text: of the first tool in the request.
    tool_call: bool = False
    #: ``False``: never report usage.
    usage: bool = True

    @property
    def piece_sizes(self) -> tuple[int, ...]:
        """``pieces`` as a cycle of sizes; empty where the body is not cut anew."""
        if self.pieces is None:
            return ()
        return (self.pieces,) if isinstance(self.pieces, int) else tuple(self.pieces)

    def override(self, simulate: Mapping[str, Any]) -> Behaviour:
        """Behave the same but for the fields that a ``simulate`` object names.

        Raises `InvalidBehaviour`, naming the field that is unknown or out of range.
        """
        return _convert({**msgspec.to_builtins(self), **simulate})

    def checked(self) -> Behaviour:
        """The same behaviour. Raises `InvalidBehaviour` where a value is wrong.

        `msgspec` checks what it decodes, not what Python code constructs.
        """
        return _convert(msgspec.to_builtins(self))

    def without_faults(self) -> Behaviour:
        """The same pace and formats, without the faults that ``times`` counts."""
        return msgspec.structs.replace(
            self,
            hang=None,
            stall_after=None,
            reset_after=None,
            end_after=None,
            malformed_after=None,
            error_after=None,
            huge_line_after=None,
        )


def _convert(fields: dict[str, Any]) -> Behaviour:
    try:
        return msgspec.convert(fields, Behaviour)
    except msgspec.ValidationError as error:
        raise InvalidBehaviour(f"simulate: {error}") from error
