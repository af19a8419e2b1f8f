"""The wire contract in code: a job, and the events of a request.

Field by field as in ``docs/protocol.md``, sections 2, 3 and 6. Readers ignore types
and fields that they do not know (`decode_event` gives an `UnknownEvent`); a job with
an unknown top-level field is invalid (`bridge.intake.decode_job`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

import msgspec

from bridge.errors import GenerationError

#: The version of the contract, sent in every ``started``.
PROTOCOL_VERSION = 1

#: Numbers on the wire are exact in every language: JavaScript's end here.
MAX_NUMBER = 2**53

#: A ``seq`` or ``attempt``: what is outside of these is no event's.
Number = Annotated[int, msgspec.Meta(ge=1, le=MAX_NUMBER)]

#: Digits of a time in nanoseconds: 64 bits have 20 at most.
MAX_TIME_DIGITS = 20

OnRestart = Literal["restart", "fail"]
ResumeMode = Literal["continue", "restart"]
ResumeReason = Literal["takeover", "handover", "backend_failure"]


class JobIdentity(NamedTuple):
    """A job's stream sequence, and when it was stored, in nanoseconds since 1970.

    Both on the server's account. A stream that was made again, or put back from an
    older copy, counts its sequences again: only with the time they name one job.
    """

    stream_seq: int
    stored_ns: int


class Job(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One generation job, as a producer publishes it (section 2)."""

    id: str
    request: dict[str, Any]
    session: str | None = None
    supersede: bool = False
    deadline_ms: int | None = None
    keepalive_ms: int | None = None
    on_restart: OnRestart = "restart"
    speech: bool | dict[str, Any] = False
    metadata: dict[str, str] = {}

    @property
    def model(self) -> str:
        """The model that the request names."""
        model = self.request.get("model", "")
        return model if isinstance(model, str) else ""


class Timings(msgspec.Struct, omit_defaults=True):
    """Durations in milliseconds; absent where the request did not get so far."""

    queue_ms: int | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None


class ErrorInfo(msgspec.Struct, omit_defaults=True):
    """Why a request failed; ``status`` is the backend's HTTP status."""

    code: str
    message: str
    retryable: bool
    status: int | None = None

    @classmethod
    def of(cls, error: GenerationError) -> ErrorInfo:
        """The wire's form of ``error``."""
        return cls(error.code, error.message, error.retryable, error.status)


class ToolCall(msgspec.Struct, omit_defaults=True):
    """One assembled tool call of a completed request."""

    index: int
    call_id: str | None = None
    name: str | None = None
    arguments: str = ""


class Event(msgspec.Struct, tag_field="type", omit_defaults=True):
    """What every event has: the request's id, its number, the attempt."""

    terminal: ClassVar[bool] = False

    id: str
    seq: Number
    attempt: Number

    @property
    def type(self) -> str:
        """The wire's name of this event."""
        return str(self.__struct_config__.tag)


class Started(Event, tag="started", kw_only=True):
    """A worker has claimed the request; the backend has not answered yet.

    ``job_time`` is in nanoseconds since 1970, as a decimal string: more than a double
    can hold. It is empty, and ``deadline_ms`` 0, in logs of bridges before them.
    """

    v: int
    model: str
    created: int
    queue_ms: int
    job: int
    job_time: str = ""
    deadline_ms: int = 0
    session: str | None = None
    metadata: dict[str, str]

    @property
    def identity(self) -> JobIdentity:
        """Which job the log was begun for; without a time that says so, none."""
        time = self.job_time
        known = time.isascii() and time.isdecimal() and len(time) <= MAX_TIME_DIGITS
        return JobIdentity(self.job, int(time) if known else 0)


class Token(Event, tag="token"):
    """One delta of the answer's text, as the backend sent it."""

    text: str


class Reasoning(Event, tag="reasoning"):
    """One delta of the model's reasoning."""

    text: str


class ToolCallDelta(Event, tag="tool_call", kw_only=True):
    """One delta of a tool call."""

    index: int
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class Skipped(Event, tag="skipped"):
    """``count`` records of the backend could not be read; their words are missing."""

    count: int


class Handover(Event, tag="handover"):
    """The worker gave the request back on purpose; another one goes on."""


class Resumed(Event, tag="resumed", kw_only=True):
    """A new attempt: what stands up to ``after`` stays, and how it goes on."""

    after: Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
    mode: ResumeMode
    reason: ResumeReason


class Completed(Event, tag="completed", kw_only=True):
    """The request's regular end."""

    terminal: ClassVar[bool] = True

    finish_reason: str
    text: str | None = None
    text_omitted: bool = False
    skipped_records: int = 0
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None
    usage: dict[str, Any] | None = None
    timings: Timings
    backend: str
    metadata: dict[str, str]


class Failed(Event, tag="failed", kw_only=True):
    """The request ended with an error; ``text`` is what had come before it."""

    terminal: ClassVar[bool] = True

    error: ErrorInfo
    text: str | None = None
    text_omitted: bool = False
    skipped_records: int = 0
    usage: dict[str, Any] | None = None
    timings: Timings
    backend: str | None = None
    metadata: dict[str, str]


class Cancelled(Event, tag="cancelled", kw_only=True):
    """The request was cancelled; ``text`` is what had come before."""

    terminal: ClassVar[bool] = True

    reason: str
    text: str | None = None
    text_omitted: bool = False
    skipped_records: int = 0
    timings: Timings
    metadata: dict[str, str]


Terminal = Completed | Failed | Cancelled
KnownEvent = (
    Started
    | Token
    | Reasoning
    | ToolCallDelta
    | Skipped
    | Handover
    | Resumed
    | Terminal
)


class SpeechSegment(Event, tag="segment", kw_only=True):
    """A piece fit to be spoken (section 6).

    ``first`` and ``last`` are the token seqs it came from; ``start`` and ``end`` its
    range in the request's text, in code points.
    """

    text: str
    first: int
    last: int
    start: int
    end: int


class SpeechEnd(Event, tag="end"):
    """All that is to be spoken was published."""

    terminal: ClassVar[bool] = True


class SpeechCancelled(Event, tag="cancelled"):
    """The request was cancelled: empty the audio buffer."""

    terminal: ClassVar[bool] = True

    reason: str


class SpeechFailed(Event, tag="failed"):
    """The request failed; ``code`` as in its ``failed`` event."""

    terminal: ClassVar[bool] = True

    code: str


SpeechEvent = SpeechSegment | Resumed | SpeechEnd | SpeechCancelled | SpeechFailed


class UnknownEvent(msgspec.Struct):
    """An event of a type that this version does not know: to be passed over."""

    terminal: ClassVar[bool] = False

    type: str
    id: str
    seq: Number
    attempt: Number


AnyEvent = KnownEvent | UnknownEvent


class Control(msgspec.Struct, omit_defaults=True):
    """A control message (section 5)."""

    action: str
    reason: str = ""
    before: int | None = None


def _types(events: Any) -> frozenset[str]:
    return frozenset(str(e.__struct_config__.tag) for e in get_args(events))


_EVENT_TYPES = _types(KnownEvent)
_SPEECH_TYPES = _types(SpeechEvent)

_event_decoder: msgspec.json.Decoder[KnownEvent] = msgspec.json.Decoder(KnownEvent)
_speech_decoder: msgspec.json.Decoder[SpeechEvent] = msgspec.json.Decoder(SpeechEvent)
_unknown_decoder = msgspec.json.Decoder(UnknownEvent)
_control_decoder = msgspec.json.Decoder(Control)
_encoder = msgspec.json.Encoder()

#: What msgspec raises for bytes that it cannot read: no JSON or a wrong type, invalid
#: UTF-8 in a string, or nesting deeper than the interpreter's recursion limit.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def encode(value: Job | Event | Control) -> bytes:
    """The wire's bytes of a job, event or control message: JSON in UTF-8."""
    return _encoder.encode(value)


def decode_event(data: bytes) -> AnyEvent:
    """Read one event. Unknown types give an `UnknownEvent`.

    Raises `msgspec.DecodeError`, and nothing else, for what is no event at all: no
    JSON, another shape, a number out of range, nesting without end.
    """
    try:
        try:
            return _event_decoder.decode(data)
        except msgspec.ValidationError:
            return _unknown_decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def event_in(id: str, data: bytes) -> AnyEvent | None:
    """The event that a stored message of request ``id`` is, or ``None`` for none.

    Anybody may store anything on a subject: what is no event of this request counts
    for nothing in its log. An unknown type is an event; a known one without its fields
    is none.
    """
    try:
        event = decode_event(data)
    except UNREADABLE:
        return None
    return event if _is_in(id, event, _EVENT_TYPES) else None


def speech_in(id: str, data: bytes) -> SpeechEvent | UnknownEvent | None:
    """The speech event that a stored message of request ``id`` is: see `event_in`."""
    try:
        event = decode_speech(data)
    except UNREADABLE:
        return None
    return event if _is_in(id, event, _SPEECH_TYPES) else None


def _is_in(id: str, event: Event | UnknownEvent, known: frozenset[str]) -> bool:
    broken = isinstance(event, UnknownEvent) and event.type in known
    return not broken and event.id == id and event.seq > 0 and event.attempt > 0


def decode_speech(data: bytes) -> SpeechEvent | UnknownEvent:
    """Read one speech event. Unknown types give an `UnknownEvent`.

    Raises `msgspec.DecodeError`, and nothing else, as `decode_event` does.
    """
    try:
        try:
            return _speech_decoder.decode(data)
        except msgspec.ValidationError:
            return _unknown_decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def decode_control(data: bytes) -> Control | None:
    """Read a control message, or ``None`` where it is not one."""
    try:
        return _control_decoder.decode(data)
    except UNREADABLE:
        return None
