"""What decoder and dialect do for one token, counted instead of timed.

The interpreter's own instructions and the calls it makes are the same on every run, so
that a short way that is no longer taken shows at once, on however busy a machine. The
ceilings leave room for another version of Python, not for another way of doing it.
"""

from __future__ import annotations

import pytest

from bridge.decoders import Decoder
from bridge.decoders.content import decoder_for
from bridge.dialects import ReasoningDelta, TextDelta
from bridge.dialects.openai import OpenAIResponse
from tests.work import Work

CHUNK = (
    b'{"id":"chatcmpl-9f1c2b7e5a6d4f3e8b1a0c9d","object":"chat.completion.chunk",'
    b'"created":1732100000,"model":"llama-3.1-8b-instruct","system_fingerprint":'
    b'"fp_0123456789","choices":[{"index":0,"delta":{"content":" token"},'
    b'"logprobs":null,"finish_reason":null}]}'
)
EVENT = b"data: " + CHUNK + b"\n\n"
TOKENS = 50
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"


def started(kind: str) -> tuple[Decoder, OpenAIResponse]:
    """A stream that is past its first read, which may hold a byte order mark."""
    decoder, response = decoder_for(kind), OpenAIResponse()
    assert decoder is not None
    decoder.receive_data(b":\n\n" if kind == SSE else b"[]\n")
    return decoder, response


def work_per_token(kind: str, reads: list[bytes]) -> tuple[float, float]:
    """Instructions and calls per token for reads that hold ``TOKENS`` in all."""
    decoder, response = started(kind)
    deltas = 0

    def read_all() -> None:
        nonlocal deltas
        for read in reads:
            for record in decoder.receive_data(read):
                for delta in response.receive(record):
                    assert type(delta) in (TextDelta, ReasoningDelta)
                    deltas += 1

    work = Work().count(read_all)
    assert deltas == 2 * TOKENS
    return work.instructions / TOKENS, work.calls / TOKENS


REASONING = EVENT.replace(b'"content":" token"', b'"reasoning_content":" token"')
WITH_ROLE = EVENT.replace(b'"content"', b'"role":"assistant","content"')
CUT = [EVENT[:9], *[EVENT[9:] + EVENT[:9]] * (TOKENS - 1), EVENT[9:]]


@pytest.mark.parametrize(
    ("kind", "reads", "instructions", "calls"),
    [
        pytest.param(SSE, [EVENT] * TOKENS, 240, 9, id="one-per-read"),
        pytest.param(SSE, [EVENT.replace(b"\n", b"\r\n")] * TOKENS, 240, 9, id="crlf"),
        pytest.param(SSE, [REASONING] * TOKENS, 240, 9, id="reasoning"),
        pytest.param(SSE, [WITH_ROLE] * TOKENS, 240, 9, id="with-role"),
        pytest.param(SSE, [EVENT * TOKENS], 210, 6, id="all-in-one-read"),
        pytest.param(NDJSON, [CHUNK + b"\n"] * TOKENS, 300, 15, id="ndjson"),
        # The long way, for comparison and as a bound for what coalesced reads cost.
        pytest.param(SSE, CUT, 500, 23, id="cut"),
    ],
)
def test_a_token_costs_no_more_than_this(
    kind: str, reads: list[bytes], instructions: int, calls: int
) -> None:
    work = work_per_token(kind, reads)
    assert work[0] <= instructions, work
    assert work[1] <= calls, work
