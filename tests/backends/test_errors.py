"""httpx's exceptions as errors with a wire code."""

from __future__ import annotations

import httpx
import pytest

from bridge.backends.errors import open_error, stream_error
from bridge.errors import BackendProtocolError

OPEN: list[tuple[Exception, str]] = [
    (httpx.ConnectError("refused"), "backend_unavailable"),
    (httpx.ConnectTimeout("slow"), "backend_unavailable"),
    (httpx.ReadError("reset"), "backend_unavailable"),
    (httpx.WriteError("broken pipe"), "backend_unavailable"),
    (httpx.WriteTimeout("slow"), "backend_unavailable"),
    (httpx.ReadTimeout("silent"), "backend_timeout"),
    (httpx.RemoteProtocolError("no HTTP"), "backend_protocol"),
    (OSError("odd"), "internal"),
]

STREAM: list[tuple[Exception, str]] = [
    (httpx.ReadError("reset"), "backend_unavailable"),
    (httpx.RemoteProtocolError("cut off"), "backend_protocol"),
    (RuntimeError("a defect"), "internal"),
]


@pytest.mark.parametrize(("error", "code"), OPEN)
def test_before_the_answer(error: Exception, code: str) -> None:
    mapped = open_error(error, "vllm")
    assert mapped.code == code
    assert "vllm" in mapped.message


@pytest.mark.parametrize(("error", "code"), STREAM)
def test_in_the_middle(error: Exception, code: str) -> None:
    mapped = stream_error(error, "vllm")
    assert mapped.code == code
    assert "vllm" in mapped.message


def test_what_is_mapped_already_stays() -> None:
    error = BackendProtocolError("a line too long")
    assert stream_error(error, "vllm") is error


def test_a_defect_does_not_tell_its_content() -> None:
    for mapped in (
        open_error(ValueError("the prompt"), "vllm"),
        stream_error(ValueError("the prompt"), "vllm"),
    ):
        assert "the prompt" not in mapped.message
        assert "ValueError" in mapped.message


def test_a_message_is_one_short_line() -> None:
    mapped = open_error(httpx.ConnectError("a\nb" + "x" * 10_000), "vllm")
    assert "\n" not in mapped.message
    assert len(mapped.message) < 400
    assert "ConnectError" in open_error(httpx.ConnectError(""), "vllm").message
