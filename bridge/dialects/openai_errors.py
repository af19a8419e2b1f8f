"""What a backend says about an error: statuses, error bodies, errors in the stream."""

from __future__ import annotations

import html
import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import msgspec

from bridge.dialects.openai_words import TooMuch, first_words, strings_in
from bridge.errors import (
    BackendProtocolError,
    BackendRejected,
    BackendReportedError,
    BackendUnavailable,
    GenerationError,
    RateLimited,
    shorten,
)

#: Of an error's body no more than this needs to be read: its message is a sentence,
#: and even a gateway's page with styles in it fits.
MAX_ERROR_BODY_BYTES = 64 * 1024

#: Where error bodies keep their message, in this order: OpenAI, Ollama and TGI,
#: FastAPI, RFC 9457, and what gateways call it.
_MESSAGE_KEYS = (
    "error",
    "message",
    "detail",
    "msg",
    "error_message",
    "errormessage",
    "error_msg",
    "status_msg",
    "errors",
    "exception",
    "title",
)

#: What gateways put a record into, an error's included.
_ENVELOPES = ("data", "response", "result", "body", "payload")

#: Names of a record's fields that report an error, where they say anything.
ERROR_NAME = re.compile(
    r"(?:errors?|err|exception)"
    r"(?:_?(?:message|msg|type|code|info|details?|text|reason|description))?",
    re.IGNORECASE,
)

#: Plain text that is no JSON, and reports an error.
_ERROR_TEXT = re.compile(
    r"[^\w{]{0,3}(?:internal |server )?(?:error|exception)\b", re.IGNORECASE
)

#: What says that there is no error, although the field is there.
_NO_ERROR = frozenset({"", "0", "200", "none", "null", "ok", "success", "false"})

#: How deep a message is looked for: ``[{"error": {"message": …}}]`` is three.
_MAX_DEPTH = 4

#: FastAPI lists every field that is wrong; the first few say enough.
_MAX_DETAILS = 5

#: Statuses below 500 that a later attempt may get past, 429 aside.
_TRANSIENT_STATUSES = frozenset({408, 409, 425})

_STATUS_KEYS = ("code", "status", "status_code", "http_code", "error_code")

#: Looked for in an error's type and code, letters only. Spent quota comes with 429 and
#: is none of its transient cases, so it is decided before the status.
_QUOTA_WORDS = ("insufficientquota", "billing", "quotaexceeded")
_FINAL_WORDS = (
    "invalid",
    "badrequest",
    "notfound",
    "authentication",
    "permission",
    "unauthorized",
    "forbidden",
    "contextlength",
    "contentfilter",
    "contentpolicy",
    "unprocessable",
    "unsupported",
)
_RETRYABLE_WORDS = (
    "servererror",
    "internal",
    "overload",
    "ratelimit",
    "toomanyrequests",
    "timeout",
    "timedout",
    "unavailable",
    "badgateway",
    "capacity",
)

_TITLE = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)
_HTML = re.compile(r"\s*<(?:!doctype|html|head|body)\b", re.IGNORECASE)

_HINTS = {
    401: "; check the backend's API key",
    403: "; check the backend's API key and what it may do",
    404: "; check the model's name, and that the backend URL ends in /v1",
    405: "; check that the backend URL ends in /v1",
}


def error_message(status: int, body: bytes) -> str:
    """The backend's own message in an error's body, on one line and shortened.

    Where the body has none, the status's name; for an HTML page, its title.
    """
    try:
        value = msgspec.json.decode(body)
        # An object without any of the usual names is better shown than passed over.
        found = _message_in(value) or (_text(body) if value else "")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _message_in_text(body)
    return printable(found) or _phrase(status)


def error_for_status(
    status: int,
    body: bytes,
    retry_after: str | None = None,
    *,
    date: str | None = None,
    location: str | None = None,
) -> GenerationError:
    """The error of an answer whose status is not 200.

    ``retry_after``, ``date`` and ``location`` are the headers of these names; a
    ``Retry-After`` that is a date is held against ``date``. The result is returned, not
    raised: `RateLimited` for 429, `BackendUnavailable` for 408, 409, 425 and 5xx,
    `BackendRejected` for other 4xx and 3xx, `BackendProtocolError` for what is left.
    """
    if 300 <= status < 400:
        return BackendRejected(_redirect_message(status, location), status=status)
    message = (
        f"the backend answered {status}: {error_message(status, body)}"
        f"{_HINTS.get(status, '')}"
    )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        wait = retry_after_seconds(retry_after, date)
        return RateLimited(message, status=status, retry_after_s=wait)
    if status >= 500 or status in _TRANSIENT_STATUSES:
        return BackendUnavailable(message, status=status)
    if status >= 400:
        return BackendRejected(message, status=status)
    return BackendProtocolError(
        f"the backend answered {status} {_phrase(status)}, which carries no completion",
        status=status,
    )


def retry_after_seconds(value: str | None, date: str | None) -> float | None:
    """Seconds to wait by a ``Retry-After`` (RFC 9110, section 10.2.3), at least 0.

    One that is a date is held against the response's own ``Date``, for the clock of
    this machine may be wrong. ``None`` where there is none or it cannot be read.
    Fractions, which some backends send, are taken.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until, now = _moment(value), _moment(date or "")
        return max(until - now, 0.0) if until is not None and now is not None else None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def error_in(record: Any, event: str = "message") -> BackendReportedError | None:
    """The error that a record under status 200 reports, if it reports one.

    It may be anywhere and under other names than ``error``. A field that has neither
    words nor a code other than 0 is none: some servers send an empty one with every
    chunk.
    """
    if event == "error" or _says_error(record):
        return reported_error(record)
    if not isinstance(record, dict):
        return None
    named = record.get("event") == "error"
    for name in _ENVELOPES:
        inner = record.get(name)
        if (named and inner) or (isinstance(inner, dict) and _says_error(inner)):
            return reported_error(inner)
    return reported_error(record) if named else None


def error_instead(record: dict[str, Any]) -> BackendReportedError | None:
    """The error that a record without any words is, by a status beside a message."""
    base = record.get("base_resp")  # MiniMax
    if isinstance(base, dict) and _is_code(base.get("status_code")):
        return reported_error(base)
    if not _message_in(record):
        return None
    codes = [record.get(key) for key in _STATUS_KEYS]
    failed = record.get("success") is False or "detail" in record
    if failed or any(_is_code(code) or _is_word(code) for code in codes):
        return reported_error(record)
    return None


def _says_error(record: Any) -> bool:
    if isinstance(record, str):
        return _ERROR_TEXT.match(record) is not None
    if not isinstance(record, dict):
        return False
    if record.get("object") == "error" or record.get("type") == "error":
        return True
    return any(
        _is_error(value, record)
        for name, value in record.items()
        if ERROR_NAME.fullmatch(name)
    )


def _is_error(value: Any, beside: dict[str, Any]) -> bool:
    if value is True:
        return bool(_message_in({k: v for k, v in beside.items() if v is not True}))
    if isinstance(value, list):
        return any(_is_error(item, beside) for item in value[:_MAX_DETAILS])
    if not isinstance(value, dict):
        return _is_code(value) or _is_word(value)
    kinds = (value.get(key) for key in (*_STATUS_KEYS, "type"))
    if any(_is_code(kind) or _is_word(kind) for kind in kinds):
        return True
    try:
        return any(_is_word(text) for text in strings_in(value))
    except TooMuch:
        return True


def _is_code(value: Any) -> bool:
    """Whether a number is a code other than 0 and the statuses of success."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value != 0 and not 200 <= value < 300


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() not in _NO_ERROR


def reported_error(value: Any) -> BackendReportedError:
    """The error for an error object, or a string, that came with status 200.

    ``value`` is the whole record. ``retryable`` goes by a numeric code, or else by the
    words of type and code; unknown ones are not.
    """
    record = value if isinstance(value, dict) else {}
    errors = [v for name, v in record.items() if ERROR_NAME.fullmatch(name)]
    fields = dict(record)
    for error in errors:
        fields |= error if isinstance(error, dict) else {}
    said = _message_in(value) or first_words(errors) or _kind_in(fields)
    message = printable(said) or "it did not say what"
    status = _status_in(fields)
    return BackendReportedError(
        f"the backend reported an error: {message}",
        status=status,
        retryable=_is_retryable(fields, status),
    )


def _is_retryable(fields: dict[str, Any], status: int | None) -> bool:
    named = (fields.get(key) for key in ("type", "code", "error_type", "status"))
    words = re.sub(
        "[^a-z,]", "", ",".join(w for w in named if isinstance(w, str)).lower()
    )
    if any(word in words for word in _QUOTA_WORDS):
        return False
    if status is not None:
        return status >= 500 or status == 429 or status in _TRANSIENT_STATUSES
    if any(word in words for word in _FINAL_WORDS):
        return False
    return any(word in words for word in _RETRYABLE_WORDS)


def _kind_in(fields: dict[str, Any]) -> str:
    """The type or code of an error that has no message."""
    named = (fields.get(key) for key in ("type", "error_type", "code", "status"))
    return next((str(kind) for kind in named if _is_word(kind) or _is_code(kind)), "")


def _status_in(fields: dict[str, Any]) -> int | None:
    for key in _STATUS_KEYS:
        value = fields.get(key)
        if isinstance(value, str) and re.fullmatch("[45][0-9][0-9]", value):
            return int(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return None


def _message_in(value: Any, depth: int = 0) -> str:
    """The first message in a decoded error body; empty if there is none."""
    if isinstance(value, str):
        return value
    if depth >= _MAX_DEPTH:
        return ""
    if isinstance(value, list):
        found = (_message_in(item, depth + 1) for item in value[:_MAX_DETAILS])
        return "; ".join(message for message in found if message)
    if not isinstance(value, dict):
        return ""
    named = {name.lower(): item for name, item in value.items()}
    for key in _MESSAGE_KEYS:
        message = _message_in(named.get(key), depth + 1)
        if message:
            return _located(value, message)
    return ""


def _located(value: dict[str, Any], message: str) -> str:
    """FastAPI's details name the field that is wrong in ``loc``."""
    loc = value.get("loc")
    if not isinstance(loc, list):
        return message
    return f"{'.'.join(str(step) for step in loc[:_MAX_DETAILS])}: {message}"


def _message_in_text(body: bytes) -> str:
    text = _text(body)
    if not _HTML.match(text):
        return text
    title = _TITLE.search(text)
    return html.unescape(title[1]) if title else ""


def _text(body: bytes) -> str:
    return body[:MAX_ERROR_BODY_BYTES].decode("utf-8", "replace")


def printable(text: str) -> str:
    """``text`` shortened, and without what a terminal would obey."""
    kept = "".join(c if c.isprintable() else " " for c in text[:MAX_ERROR_BODY_BYTES])
    return shorten(kept)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "an unknown status"


def _redirect_message(status: int, location: str | None) -> str:
    if not location:
        return f"the backend answered {status}, a redirect; check the backend URL"
    # Without what may be a secret: a user and password, and the query.
    target = printable(re.sub("//[^/?#]*@|[?#].*", _hidden, location, flags=re.DOTALL))
    return (
        f"the backend answered {status} and redirects to {target}; redirects are not "
        "followed: set the backend URL to where it points, up to /v1"
    )


def _hidden(found: re.Match[str]) -> str:
    return "//***@" if found[0].startswith("//") else "?***"


def _moment(date: str) -> float | None:
    """An HTTP date (section 5.6.7) in seconds since 1970."""
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()
