"""JetStream's API as requests and answers in JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from bridge.bus.connection import Connection
from bridge.bus.questions import Question
from bridge.bus.server_time import parse_time
from bridge.errors import BusError, SetupError, StreamUnavailable

#: Error codes of nats-server (``server/errors.json``).
NO_MESSAGE_FOUND = 10037
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MAXIMUM_MESSAGES_EXCEEDED = 10077
WRONG_LAST_SEQUENCE = 10071
MESSAGE_SIZE_EXCEEDED = 10054
BATCH_UNKNOWN = 10208
TOO_MANY_BATCHES = 10211


class ApiError(BusError):
    """JetStream answered with an error."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code or code})")
        self.code = code
        self.err_code = err_code
        self.description = description


class StoredMessage(msgspec.Struct):
    """One message of a stream: its sequence and subject there, its bytes.

    ``stored_ns`` is when, by the server's clock, in nanoseconds since 1970; 0 where
    the leader was not asked.
    """

    seq: int
    subject: str
    data: bytes
    stored_ns: int = 0


class _Message(msgspec.Struct):
    seq: int
    subject: str
    time: str
    data: bytes = b""


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = "unknown error"


class _MessageAnswer(msgspec.Struct):
    message: _Message | None = None
    error: _Error | None = None


_decode_message = msgspec.json.Decoder(_MessageAnswer).decode


class MessageQuestion(NamedTuple):
    """A message that was asked for."""

    question: Question

    async def answer(self) -> StoredMessage | None:
        """Wait for it, once; ``None`` where there is none. Raises as `JetStream`."""
        answer = await self.question.answer()
        return read_message(answer.data, self.question.subject)

    def forget(self) -> None:
        """Wait no longer."""
        self.question.forget()


class JetStream:
    """JetStream's API over one connection. Every call may be cancelled.

    Every call raises `ConnectionLost` without an answer in time, `StreamUnavailable`
    when the stream is gone (``gone``) or has no leader, and `ApiError` otherwise.
    """

    def __init__(self, connection: Connection, *, timeout_s: float = 2.0) -> None:
        self.connection = connection
        self._timeout_s = timeout_s

    async def call(self, subject: str, body: dict[str, Any] | None = None) -> Any:
        """Ask ``$JS.API.<subject>`` and return the decoded answer."""
        payload = msgspec.json.encode(body) if body is not None else b""
        answer = await self.connection.request(
            f"$JS.API.{subject}", payload, timeout_s=self._timeout_s
        )
        return raise_for_error(answer.data, subject)

    def ask_last_message(self, stream: str, subject: str) -> MessageQuestion:
        """Ask the leader for the last message of ``subject``, to wait for it later."""
        return self._ask_message(stream, {"last_by_subj": subject})

    async def last_message(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message of ``subject``, asked of the stream's leader."""
        return await self.ask_last_message(stream, subject).answer()

    async def message(self, stream: str, seq: int) -> StoredMessage | None:
        """The message with stream sequence ``seq``, asked of the leader."""
        return await self._ask_message(stream, {"seq": seq}).answer()

    async def next_message(
        self, stream: str, subject: str, seq: int
    ) -> StoredMessage | None:
        """The first message of ``subject`` from ``seq`` on, asked of the leader."""
        body = {"seq": seq, "next_by_subj": subject}
        return await self._ask_message(stream, body).answer()

    def _ask_message(self, stream: str, body: dict[str, Any]) -> MessageQuestion:
        return MessageQuestion(
            self.connection.ask(
                f"$JS.API.STREAM.MSG.GET.{stream}",
                msgspec.json.encode(body),
                timeout_s=self._timeout_s,
            )
        )


def read_message(data: bytes, subject: str) -> StoredMessage | None:
    """Read the answer to a message that was asked for."""
    if not data:
        raise StreamUnavailable(f"JetStream gave an empty answer to {subject}")
    try:
        answer = _decode_message(data)
    except msgspec.DecodeError as error:
        raise BusError(f"JetStream's answer to {subject} cannot be read") from error
    if answer.error is not None:
        if answer.error.err_code == NO_MESSAGE_FOUND:
            return None
        raise api_error(msgspec.to_builtins(answer.error), subject)
    message = answer.message
    if message is None:
        raise BusError(f"JetStream's answer to {subject} has no message")
    try:
        stored_ns = parse_time(message.time)
    except ValueError as error:
        raise BusError(f"JetStream's answer to {subject}: {error}") from error
    return StoredMessage(message.seq, message.subject, message.data, stored_ns)


def raise_for_error(data: bytes, subject: str) -> Any:
    """Decode JetStream's answer; raise what it says went wrong."""
    if not data:
        raise StreamUnavailable(f"JetStream gave an empty answer to {subject}")
    try:
        decoded = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise BusError(f"JetStream's answer to {subject} is no JSON") from error
    if isinstance(decoded, dict) and "error" in decoded:
        raise api_error(decoded["error"], subject)
    return decoded


def api_error(error: dict[str, Any], subject: str) -> BusError:
    """The exception for the ``error`` of an answer."""
    code = int(error.get("code", 0))
    err_code = int(error.get("err_code", 0))
    description = str(error.get("description", "unknown error"))
    if err_code == STREAM_NOT_FOUND:
        return StreamUnavailable(f"{subject}: {description}", gone=True)
    if code == 503:
        return StreamUnavailable(f"{subject}: {description}")
    return ApiError(code, err_code, description)


def setup_error(what: str, error: BusError) -> SetupError:
    """``error`` as a reason not to start."""
    return SetupError(f"{what}: {error}")
