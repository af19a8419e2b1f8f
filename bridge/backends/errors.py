"""httpx's exceptions as errors of the generation, each with its wire code."""

from __future__ import annotations

import httpx

from bridge.errors import (
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    GenerationError,
    InternalError,
    shorten,
)


def open_error(error: Exception, backend: str) -> GenerationError:
    """What kept a request from being answered at all."""
    reason = shorten(str(error) or type(error).__name__, 200)
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        return BackendUnavailable(f"backend {backend} cannot be reached: {reason}")
    if isinstance(error, httpx.ProxyError):
        return BackendUnavailable(
            f"backend {backend} cannot be reached through its proxy: {reason}"
        )
    if isinstance(error, httpx.ReadTimeout):
        return BackendTimeout(f"backend {backend} did not answer in time")
    if isinstance(error, httpx.RemoteProtocolError):
        return BackendProtocolError(f"backend {backend} broke HTTP: {reason}")
    if isinstance(error, httpx.TransportError):
        return BackendUnavailable(
            f"backend {backend} dropped the connection before it answered: {reason}"
        )
    return InternalError(f"asking backend {backend} failed: {type(error).__name__}")


def stream_error(error: Exception, backend: str) -> GenerationError:
    """What cut an answer off in the middle."""
    if isinstance(error, GenerationError):
        return error
    reason = shorten(str(error) or type(error).__name__, 200)
    if isinstance(error, httpx.RemoteProtocolError):
        return BackendProtocolError(
            f"backend {backend} ended its stream in the middle: {reason}"
        )
    if isinstance(error, httpx.TransportError):
        return BackendUnavailable(
            f"backend {backend} dropped the connection in the middle: {reason}"
        )
    return InternalError(f"reading backend {backend} failed: {type(error).__name__}")
