from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bridge.dialects.openai_errors import (
    error_for_status,
    error_message,
    reported_error,
    retry_after_seconds,
)
from bridge.errors import (
    MAX_MESSAGE_CHARS,
    BackendProtocolError,
    BackendRejected,
    BackendUnavailable,
    GenerationError,
    RateLimited,
)

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no such model", "type": "x"}}, "no such model"),
        ({"error": "model 'x' not found"}, "model 'x' not found"),
        ({"object": "error", "message": "too long", "code": 400}, "too long"),
        ({"detail": "Not Found"}, "Not Found"),
        (
            {
                "detail": [
                    {"loc": ["body", "messages", 0], "msg": "Field required"},
                    {"loc": ["body", "n"], "msg": "not an int", "input": "secret"},
                ]
            },
            "body.messages.0: Field required; body.n: not an int",
        ),
        ({"message": "over\n capacity"}, "over capacity"),
        (
            [{"error": {"code": 400, "message": "API key not valid"}}],
            "API key not valid",
        ),
        ({"title": "Bad Request", "detail": "n must be 1"}, "n must be 1"),
        ({"error": {"message": None}, "message": "outer"}, "outer"),
        ({"reason": "unusual"}, '{"reason":"unusual"}'),
        ({}, "Bad Request"),
        ([], "Bad Request"),
        (None, "Bad Request"),
        ("just a string", "just a string"),
        ({"error": {"error": {"error": {"error": {"error": "deep"}}}}}, '{"error":'),
    ],
)
def test_the_backends_own_message_is_found(body: Any, message: str) -> None:
    found = error_message(400, msgspec.json.encode(body))
    assert found.startswith(message)
    if message != '{"error":':
        assert found == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Bad Gateway"),
        (b" \n", "Bad Gateway"),
        (b"upstream connect error\n", "upstream connect error"),
        (
            b"<!DOCTYPE html>\n<html><head><title>502 Bad &amp; Gateway</title>"
            b"<style>a{}</style></head><body>nginx</body></html>",
            "502 Bad & Gateway",
        ),
        (b"<html><body><h1>oops</h1></body></html>", "Bad Gateway"),
        (b'{"error": {"message": "cut', '{"error": {"message": "cut'),
        (b"\x1b[31mred\x1b[0m\x00\x07", "[31mred [0m"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        pytest.param(b"[" * 5000, "[" * (MAX_MESSAGE_CHARS - 1) + "…", id="nested"),
        pytest.param(b"<title>" * 9000, None, id="titles"),
    ],
)
def test_bodies_that_are_no_json(body: bytes, message: str | None) -> None:
    found = error_message(502, body)
    assert len(found) <= MAX_MESSAGE_CHARS
    if message is not None:
        assert found == message


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BackendRejected),
        (401, BackendRejected),
        (404, BackendRejected),
        (413, BackendRejected),
        (422, BackendRejected),
        (408, BackendUnavailable),
        (409, BackendUnavailable),
        (425, BackendUnavailable),
        (429, RateLimited),
        (500, BackendUnavailable),
        (503, BackendUnavailable),
        (599, BackendUnavailable),
        (301, BackendRejected),
        (308, BackendRejected),
        (204, BackendProtocolError),
        (999, BackendUnavailable),
    ],
)
def test_the_status_decides_the_error(status: int, kind: type[GenerationError]) -> None:
    error = error_for_status(status, b'{"error":{"message":"why"}}')
    assert type(error) is kind
    assert error.status == status
    assert str(status) in error.message
    if status >= 400:
        assert "why" in error.message


def test_an_error_says_what_to_do() -> None:
    assert "API key" in error_for_status(401, b"").message
    assert "/v1" in error_for_status(404, b"").message


def test_a_redirect_says_where_to() -> None:
    error = error_for_status(
        308, b"", location="https://llm.example/v1/chat/completions"
    )
    assert "https://llm.example/v1/chat/completions" in error.message
    assert "set the backend URL" in error.message
    assert "backend URL" in error_for_status(302, b"").message


@pytest.mark.parametrize(
    "location",
    ["https://u:sk-1234@h.example/v1", "https://h.example/v1?key=sk-1234#sk-1234"],
)
def test_a_redirect_shows_no_login_and_no_query(location: str) -> None:
    message = error_for_status(302, b"", location=location).message
    assert "h.example/v1" in message
    assert "sk-1234" not in message


@pytest.mark.parametrize("length", range(470, MAX_MESSAGE_CHARS + 10))
def test_a_key_is_hidden_wherever_the_message_is_cut_off(length: int) -> None:
    key = "sk-0123456789abcdef"
    body = msgspec.json.encode({"error": "x" * length + key + " is wrong"})
    error = error_for_status(401, body)
    error.hide([key])
    for said in (error.message, str(error)):
        assert key[:6] not in said
        assert "check the backend's API key" in said


def test_retry_after_reaches_the_error() -> None:
    error = error_for_status(429, b"", "7")
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 7.0
    assert error.retryable
    assert error.message == "the backend answered 429: Too Many Requests"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 3 ", 3.0),
        ("0.25", 0.25),
        ("-5", 0.0),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),
        ("Sun Nov  6 08:49:47 1994", 10.0),
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0.0),
        ("Sun, 06 Nov 1994 09:49:47 +0100", 10.0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        pytest.param("9" * 500, None, id="huge"),
        ("Sun, 99 Nov 1994 08:49:47 GMT", None),
        ("Sun, 06 Nov 99999999999 08:49:47 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, DATE) == seconds


@pytest.mark.parametrize("date", [None, "", "now"])
def test_a_date_is_held_against_the_backends_clock_alone(date: str | None) -> None:
    assert retry_after_seconds(DATE, date) is None
    assert retry_after_seconds("7", date) == 7.0
    later = "Sun, 06 Nov 1994 08:49:47 GMT"
    error = error_for_status(429, b"", later, date=DATE)
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 10.0


@pytest.mark.parametrize(
    ("error", "status", "retryable"),
    [
        ({"type": "server_error"}, None, True),
        ({"type": "InternalServerError", "code": 500}, 500, True),
        ({"type": "overloaded_error"}, None, True),
        ({"code": "rate_limit_exceeded"}, None, True),
        ({"code": "429"}, 429, True),
        ({"code": 429, "type": "insufficient_quota"}, 429, False),
        ({"type": "timeout"}, None, True),
        ({"code": 503, "status": "UNAVAILABLE"}, 503, True),
        ({"status": "UNAVAILABLE"}, None, True),
        ({"status_code": 408}, 408, True),
        ({"type": "invalid_request_error"}, None, False),
        (
            {"type": "invalid_request_error", "code": "context_length_exceeded"},
            None,
            False,
        ),
        ({"type": "BadRequestError", "code": 400}, 400, False),
        ({"code": 404}, 404, False),
        ({"code": 17}, None, False),
        ({"code": True}, None, False),
        ({"type": "something_new"}, None, False),
        ({"type": ["server_error"], "code": {}}, None, False),
    ],
)
def test_type_and_code_decide_whether_to_try_again(
    error: dict[str, Any], status: int | None, retryable: bool
) -> None:
    found = reported_error({"error": {"message": "why", **error}})
    assert found.message == "the backend reported an error: why"
    assert (found.status, found.retryable) == (status, retryable)


def test_fields_beside_a_plain_error_count() -> None:
    found = reported_error({"error": "busy", "error_type": "overloaded"})
    assert found.retryable
    assert found.message.endswith(": busy")


@pytest.mark.parametrize("value", [None, {}, [], 3, {"error": {}}, {"error": 1}])
def test_an_error_that_says_nothing(value: Any) -> None:
    assert "did not say what" in reported_error(value).message


def test_a_long_message_is_shortened() -> None:
    found = reported_error({"error": {"message": "x" * 10_000}})
    assert len(found.message) < MAX_MESSAGE_CHARS + 50
