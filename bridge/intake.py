"""A job as it comes in: read and checked, or refused with the field's name.

``docs/protocol.md``, section 2. The SDK asks here before it sends a job, the bridge
when it claims one. The strict decoder reads nearly every job; what it refuses is read
again leniently, since what producers send is not always JSON to the letter: half an
emoji, a byte order mark, raw newlines in a string.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from bridge.errors import InvalidJob, shorten
from bridge.events import UNREADABLE, Job
from bridge.subjects import InvalidToken, check_token

#: Upper bound of what a producer may ask for in milliseconds: 1 day. Anything longer
#: than the log's age is refused by the worker; this only keeps the arithmetic sane.
MAX_MILLISECONDS = 86_400_000

#: Metadata rides in two events of every request, so it is kept small: 4 KiB.
MAX_METADATA_BYTES = 4096


#: Structural characters and strings that the search for an ``id`` looks at: some 50 ms
#: of work, for a job that is not valid anyway.
MAX_ID_TOKENS = 150_000

#: An id has at most 64 characters, each of at most six when escaped.
MAX_ID_CHARS = 6 * 64

_job_decoder = msgspec.json.Decoder(Job)

#: Encodings that say so in their first bytes; everything else is read as UTF-8.
_MARKED = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

#: What may surround a job without being a part of it.
_AROUND = "\0 \t\r\n\f\v\ufeff"

_HALF = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")

#: One string, closed or not, or one structural character. Nothing in it backtracks.
_ID_TOKEN = re.compile(
    r'"(?P<string>[^"\\]*+(?:\\.[^"\\]*+)*+)(?P<closed>"?)|[\[\]{}:,]', re.DOTALL
)


def decode_job(data: bytes) -> Job:
    """Read and check a job (section 2).

    Raises `InvalidJob`, whose message names the field.
    """
    try:
        job = _job_decoder.decode(data)
    except UNREADABLE as error:
        job = _read_leniently(data, error)
    _check_names(job)
    _check_durations(job)
    _check_request(job.request)
    if len(msgspec.json.encode(job.metadata)) > MAX_METADATA_BYTES:
        raise InvalidJob(f"metadata is larger than {MAX_METADATA_BYTES} bytes")
    return job


def read_job_id(data: bytes, message_id: str = "", tenant: str = "") -> str | None:
    """The id of a job that is not valid otherwise, or ``None``.

    The job's top-level ``id`` as far as it can be read; else that of the header
    ``Nats-Msg-Id``, where it is ``<tenant>/<id>``.
    """
    of, _, named = message_id.partition("/")
    found = (_find_id(_text(data)), named if of == tenant else None)
    for id in found:
        try:
            if id is not None:
                return check_token(id, "id")
        except InvalidToken:
            pass
    return None


# Lenient reading


def _read_leniently(data: bytes, strict: BaseException) -> Job:
    """Read what the strict decoder refused with the error ``strict``.

    Raises `InvalidJob` where that is no job either.
    """
    text = _text(data)
    try:
        fields = json.loads(text, strict=False)
        if not isinstance(fields, dict):
            raise InvalidJob("the job is not valid: it is no JSON object")
        if _ESCAPED_HALF.search(text):
            fields = _whole(fields)
        infinite = _not_finite(fields)
        if infinite is not None:
            raise InvalidJob(f"{shorten(infinite[1:])} must be a finite number")
        present = {name: value for name, value in fields.items() if value is not None}
        return msgspec.convert(present, Job)
    except msgspec.ValidationError as error:
        raise InvalidJob(f"the job is not valid: {shorten(str(error))}") from error
    except RecursionError as error:
        raise InvalidJob("the job is not valid: it is nested too deeply") from error
    except ValueError as error:
        # No JSON for any reader: the strict one says where.
        reason = shorten(str(strict))
        raise InvalidJob(f"the job is not valid: {reason}") from error


def _text(data: bytes) -> str:
    """The text of a job, without what surrounds it; U+FFFD for what is none."""
    for mark, encoding in _MARKED:
        if data.startswith(mark):
            return data.decode(encoding, "replace").strip(_AROUND)
    return data.decode("utf-8", "replace").strip(_AROUND)


def _whole(value: Any) -> Any:
    """``value`` with U+FFFD for each half of a surrogate pair, in keys too."""
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(item) for name, item in value.items()}
    return value


def _not_finite(value: Any) -> str | None:
    """Where ``value`` has a number that JSON cannot have, as a path; else ``None``."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    items: Iterable[tuple[str, Any]] = ()
    if isinstance(value, list):
        items = ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, dict):
        items = ((f".{name}", item) for name, item in value.items())
    for name, item in items:
        path = _not_finite(item)
        if path is not None:
            return name + path
    return None


def _find_id(text: str) -> str | None:
    """The string under ``id`` in the outermost object, whatever else is wrong in it.

    Of several the last counts, as for any reader of JSON. Linear in ``text``, and
    bounded by `MAX_ID_TOKENS`.
    """
    found: str | None = None
    name: str | None = None
    valued = False  # whether a colon follows the name
    for token in _outermost(text):
        if token[0] == ":":
            valued = True
        elif token[0] == ",":
            name, valued = None, False
        elif not valued:
            name = _unescaped(token["string"])
        elif name == "id":
            found = _unescaped(token["string"])
    return found


def _outermost(text: str) -> Iterator[re.Match[str]]:
    """The strings, colons and commas of the outermost object, not of what is in it."""
    if not text.startswith("{"):
        return
    depth = 0
    for token in islice(_ID_TOKEN.finditer(text), MAX_ID_TOKENS):
        kind = text[token.start()]
        if kind in "{[":
            depth += 1
        elif kind in "}]":
            depth -= 1
            if depth == 0:
                return
        elif depth == 1 and (kind != '"' or token["closed"]):
            yield token


def _unescaped(string: str) -> str | None:
    """A JSON string's text; ``None`` where it is longer than an id may be."""
    if len(string) > MAX_ID_CHARS:
        return None
    try:
        return str(json.loads(f'"{string}"', strict=False))
    except ValueError:
        return None


# Checks


def _check_names(job: Job) -> None:
    try:
        check_token(job.id, "id")
        if job.session is not None:
            check_token(job.session, "session")
    except InvalidToken as error:
        raise InvalidJob(str(error)) from error
    if job.supersede and job.session is None:
        raise InvalidJob("supersede needs a session")


def _check_durations(job: Job) -> None:
    for name in ("deadline_ms", "keepalive_ms"):
        value = getattr(job, name)
        if value is not None and not 1 <= value <= MAX_MILLISECONDS:
            raise InvalidJob(f"{name} must be between 1 and {MAX_MILLISECONDS}")


def _check_request(request: dict[str, Any]) -> None:
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidJob("request.model must be a non-empty string")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidJob("request.messages must be a non-empty array")
    if not all(isinstance(message, dict) for message in messages):
        raise InvalidJob("request.messages must hold objects")
    n = request.get("n", 1)
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n != 1):
        raise InvalidJob("request.n must be 1: one job is one text")
