"""The LLM backends over HTTP: routes, requests, and which of them may be asked."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

import httpx

from bridge.backends.body import Body
from bridge.backends.errors import open_error
from bridge.backends.http1 import ResponseHead
from bridge.backends.opening import opener
from bridge.backends.pulled import PulledBody
from bridge.backends.transport import SlimTransport
from bridge.backends.upstream import Upstream
from bridge.config import (
    BackendSettings,
    Secret,
    Settings,
    api_key_of,
    check_api_key,
)
from bridge.config.urls import Proxy, backend_address, proxy_for, secrets_in
from bridge.decoders.content import decoder_for
from bridge.dialects.openai import OpenAIResponse
from bridge.dialects.openai_errors import MAX_ERROR_BODY_BYTES, error_for_status
from bridge.errors import (
    MIN_SECRET_CHARS,
    BackendProtocolError,
    ConfigurationError,
    GenerationError,
    UnknownModel,
)

#: A backend that failed to answer is asked last for so long, in seconds.
SHUN_S = 5.0

#: Codings of a body (RFC 9110, section 8.4.1). Servers also label bodies that have
#: none: ``none``, ``utf-8``.
_CODINGS = frozenset(
    {"br", "compress", "deflate", "gzip", "x-compress", "x-gzip", "zstd"}
)


class Backend:
    """One route: where it is, what it serves, what it can do, how it fares."""

    def __init__(
        self,
        settings: BackendSettings,
        api_key: Secret,
        transport: httpx.AsyncBaseTransport,
        *,
        connect_timeout_s: float,
        max_record_bytes: int,
        fail_unreadable: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = settings.name
        self.models = frozenset(settings.models)
        self.can_continue = settings.continue_ == "final_message"
        self._think_tags = settings.think_tags
        self._transport = transport
        address = backend_address(settings.url, f"the URL of backend {settings.name}")
        try:
            self.url = httpx.URL(address.at("/chat/completions"))
            self.models_url = httpx.URL(address.at("/models"))
        except httpx.InvalidURL as error:
            raise ConfigurationError(
                f"the URL of backend {settings.name} cannot be used: {error}"
            ) from error
        self._headers = [
            (b"Host", self.url.netloc),
            (b"Accept", b"text/event-stream, application/x-ndjson, application/json"),
            (b"User-Agent", b"tokenbridge"),
        ]
        if api_key and address.login is not None:
            raise ConfigurationError(
                f"backend {settings.name} has a user name in its URL and an API key: "
                "only one of them can be the Authorization header"
            )
        authorization = address.authorization.reveal()
        if api_key:
            check_api_key(api_key, f"the API key of backend {settings.name}")
            authorization = f"Bearer {api_key.reveal()}"
        if authorization:
            self._headers.append((b"Authorization", authorization.encode()))
        _, _, token = authorization.partition(" ")
        secrets = {token, *secrets_in(settings.url)}
        kept = [secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS]
        self._secrets = sorted(kept, key=len, reverse=True)
        self._connect_timeout_s = connect_timeout_s
        self._open = opener(transport, self.url, self._headers, self._timeouts(None))
        self._max_record_bytes = max_record_bytes
        self._fail_unreadable = fail_unreadable
        self._now = now
        self._shunned_until = 0.0

    def __repr__(self) -> str:
        shown = self.url.copy_with(query=None)
        return f"<Backend {self.name} {shown}{' shunned' if self.shunned else ''}>"

    @property
    def shunned(self) -> bool:
        """Whether it failed to answer a moment ago."""
        return self._now() < self._shunned_until

    def serves(self, model: str) -> bool:
        """Whether this route takes ``model``; one without a list takes all."""
        return not self.models or model in self.models

    def failed(self) -> None:
        """It did not answer: ask others first for a while."""
        self._shunned_until = self._now() + SHUN_S

    def hide_secrets(self, error: GenerationError) -> None:
        """Blank this backend's key and login in the error: backends repeat them."""
        error.hide(self._secrets)

    async def open(self, body: bytes, *, continued: bool = False) -> Upstream:
        """Send a generation's request; return its answer as soon as the head is here.

        ``continued``: the answer continues inside a text, so that it begins no thought.

        Connecting has a timeout; for how long to wait for the head is the caller's to
        say, by cancelling, which closes the connection. Raises a `GenerationError`:
        what the status says, `BackendUnavailable` or `BackendProtocolError`.
        """
        try:
            head, answer = await self._open(body)
        except (httpx.HTTPError, OSError, ssl.SSLError) as error:
            failure = open_error(error, self.name)
            self.failed()
            raise failure from error
        if head.status != 200:
            raise await self._refused(head, answer)
        return await self._answered(head, answer, continued)

    async def _answered(
        self, head: ResponseHead, body: Body, continued: bool
    ) -> Upstream:
        content_type = head.field(b"content-type") or ""
        decoder = decoder_for(content_type, max_record_bytes=self._max_record_bytes)
        if decoder is None:
            await body.aclose()
            raise BackendProtocolError(
                f"backend {self.name} answered with content type "
                f"{content_type[:80]!r}, which is no completion; does its URL end "
                "in /v1?"
            )
        codings = (head.field(b"content-encoding") or "").lower().split(",")
        if any(coding.strip() in _CODINGS for coding in codings):
            await body.aclose()
            raise BackendProtocolError(
                f"backend {self.name} compressed its answer without being asked to"
            )
        answer = OpenAIResponse(
            fail_unreadable=self._fail_unreadable,
            think_tags=self._think_tags and not continued,
        )
        return Upstream(self.name, body, decoder, answer)

    async def _refused(self, head: ResponseHead, body: Body) -> GenerationError:
        message = b""
        try:
            async for data in body:
                message += data
                if len(message) >= MAX_ERROR_BODY_BYTES:
                    break
        except (httpx.HTTPError, httpx.StreamError):
            pass  # what came of the message is better than none
        finally:
            await body.aclose()
        if head.status >= 500:
            self.failed()
        refusal = error_for_status(
            head.status,
            message[:MAX_ERROR_BODY_BYTES],
            head.field(b"retry-after"),
            date=head.field(b"date"),
            location=head.field(b"location"),
        )
        self.hide_secrets(refusal)
        return refusal

    async def probe(self, *, timeout_s: float) -> list[str]:
        """The models that the backend lists, for a check by hand.

        Raises a `GenerationError` as `open` does. May be cancelled.
        """
        request = httpx.Request(
            "GET",
            self.models_url,
            headers=self._headers,
            extensions={"timeout": self._timeouts(timeout_s)},
        )
        try:
            response = await self._transport.handle_async_request(request)
            if response.status_code != 200:
                raw = response.headers.raw
                head = ResponseHead(response.status_code, b"", b"", raw)
                raise await self._refused(head, PulledBody(response))
            await response.aread()
            listed = response.json()["data"]
            return [str(model["id"]) for model in listed]
        except (httpx.HTTPError, OSError) as error:
            raise open_error(error, self.name) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BackendProtocolError(
                f"backend {self.name} does not list its models at "
                f"{self.models_url.copy_with(query=None)}"
            ) from error

    def _timeouts(self, timeout_s: float | None) -> dict[str, float | None]:
        return {
            "connect": self._connect_timeout_s,
            "read": timeout_s,
            "write": timeout_s,
            "pool": None,
        }


class Backends:
    """All routes; picks the candidates of a model."""

    def __init__(self, routes: list[Backend], transports: list[object]) -> None:
        self.routes = routes
        self._transports = transports

    def __repr__(self) -> str:
        return f"<Backends {self.routes!r}>"

    def candidates(self, model: str) -> list[Backend]:
        """Who serves ``model``, in the configured order, the ailing ones last.

        Raises `UnknownModel` when nobody does.
        """
        serving = [route for route in self.routes if route.serves(model)]
        if not serving:
            known = sorted({name for route in self.routes for name in route.models})
            raise UnknownModel(
                f"no backend serves model {model[:80]!r}; there are: "
                f"{', '.join(known[:20]) or 'none'}"
            )
        return sorted(serving, key=lambda route: route.shunned)

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._transports:
            if isinstance(transport, httpx.AsyncBaseTransport):
                await transport.aclose()


def make_backends(settings: Settings) -> Backends:
    """The routes of the settings. Raises `ConfigurationError`."""
    routes: list[Backend] = []
    transports: dict[tuple[str, Proxy | None], httpx.AsyncBaseTransport] = {}
    for route in settings.all_backends():
        proxy = proxy_for(
            route.url, settings.backend_https_proxy, settings.backend_no_proxy
        )
        key = (route.ca_file, proxy)
        if key not in transports:
            transports[key] = make_transport(settings, route.ca_file, proxy)
        routes.append(
            Backend(
                route,
                api_key_of(route),
                transports[key],
                connect_timeout_s=settings.connect_timeout_s,
                max_record_bytes=settings.max_record_bytes,
                fail_unreadable=settings.unreadable_records == "fail",
            )
        )
    return Backends(routes, list(transports.values()))


def make_transport(
    settings: Settings, ca_file: str, proxy: Proxy | None = None
) -> httpx.AsyncBaseTransport:
    """The transport that the settings name, verifying TLS by ``ca_file`` if given.

    Through a ``proxy`` it is httpx's: the slim one has none.
    """
    context: ssl.SSLContext | None = None
    if ca_file:
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"backend_ca_file: cannot use {ca_file}: {error}"
            ) from error
    if settings.backend_transport == "slim" and proxy is None:
        return SlimTransport(
            ssl_context=context, connect_timeout_s=settings.connect_timeout_s
        )
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncHTTPTransport(
        verify=context if context is not None else True,
        limits=limits,
        trust_env=True,
        http2=False,
        proxy=_httpx_proxy(proxy) if proxy is not None else None,
    )


def _httpx_proxy(proxy: Proxy) -> httpx.Proxy:
    auth = (proxy.login.user, proxy.login.password or "") if proxy.login else None
    return httpx.Proxy(proxy.url, auth=auth)
