"""Chat completions as bytes: what the backend reads and sends, without I/O."""

from __future__ import annotations

import socket

import msgspec

_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_STAMP = "0" * 16


class Bench(msgspec.Struct):
    """How a request wants to be served."""

    id: str
    rate: float = 20.0
    phase: float = 0.0


class Request(msgspec.Struct):
    """What is read of a chat completion's body."""

    bench: Bench
    max_tokens: int = 64
    model: str = "bench"


def chunk(data: str) -> bytes:
    """One server-sent event as one HTTP chunk."""
    body = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(body), body)


def completion_chunk(id: str, model: str, delta: str, finish: str = "null") -> str:
    """A chunk as OpenAI sends it, of about 250 bytes with a stamp in it."""
    return (
        f'{{"id":"chatcmpl-{id}","object":"chat.completion.chunk",'
        f'"created":1700000000,"model":"{model}","service_tier":"default",'
        f'"system_fingerprint":"fp_44709d6fcb","choices":[{{"index":0,'
        f'"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]}}'
    )


class Connection:
    """One client's socket, and the stream that it carries, if any."""

    __slots__ = (
        "buffer",
        "id",
        "interval_ns",
        "model",
        "prefix",
        "received_ns",
        "remaining",
        "sock",
        "suffix",
        "tail",
        "unsent",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.unsent = b""
        self.id = self.model = ""
        self.remaining = self.interval_ns = self.received_ns = 0
        self.prefix = self.suffix = self.tail = b""

    def start(self, request: Request, received_ns: int) -> bytes:
        """Prepare a stream's constant bytes; return what opens it."""
        id, model, bench = request.bench.id, request.model, request.bench
        self.id, self.model, self.received_ns = id, model, received_ns
        self.remaining = request.max_tokens
        self.interval_ns = int(1e9 / bench.rate)
        token = chunk(completion_chunk(id, model, f'{{"content":"{_STAMP}"}}'))
        prefix, _, suffix = token.partition(_STAMP.encode())
        self.prefix, self.suffix = prefix, suffix
        usage = (
            f'{{"id":"chatcmpl-{id}","object":"chat.completion.chunk","choices":[],'
            f'"usage":{{"prompt_tokens":9,"completion_tokens":{request.max_tokens},'
            f'"total_tokens":{9 + request.max_tokens}}}}}'
        )
        self.tail = (
            chunk(completion_chunk(id, model, "{}", '"stop"'))
            + chunk(usage)
            + chunk("[DONE]")
            + b"0\r\n\r\n"
        )
        role = '{"role":"assistant","content":""}'
        return _STREAM_HEAD + chunk(completion_chunk(id, model, role))

    def next_token(self, now: int) -> bytes:
        """The next delta's bytes; the first also says when the request was read."""
        self.remaining -= 1
        if not self.received_ns:
            return self.prefix + b"%016d" % now + self.suffix
        text = f"{now:016d},{self.received_ns:016d}"
        self.received_ns = 0
        return chunk(completion_chunk(self.id, self.model, f'{{"content":"{text}"}}'))


def content_length(head: bytes) -> int:
    """The length of the body that ``head`` announces, or 0."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
