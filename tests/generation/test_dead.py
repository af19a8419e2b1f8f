"""Dead letters: the reason in headers that any client can read, within a limit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.bus.api import ApiError
from bridge.bus.cell import Cell
from bridge.bus.commands import headers_size
from bridge.bus.connection import Connection
from bridge.bus.jobs import Delivery
from bridge.config import Settings
from bridge.errors import BusError, ConnectionLost
from bridge.generation.dead import DeadLetters, cut_to_fit, dead_letter_headers
from bridge.metrics import Meters


def delivery(subject: str = "llm.jobs.t.default", stream_seq: int = 7) -> Delivery:
    return Delivery(
        subject, b"job", "reply", "default", stream_seq, 3, 1_700_000_000_500_000_000
    )


def test_what_the_headers_say() -> None:
    assert dead_letter_headers("invalid_job", "no id", delivery()) == {
        "Nats-Msg-Id": "dead/default/7/1700000000500000000",
        "Tokenbridge-Code": "invalid_job",
        "Tokenbridge-Message": "no id",
        "Tokenbridge-Subject": "llm.jobs.t.default",
        "Tokenbridge-Job": "7",
        "Tokenbridge-Attempt": "3",
        "Tokenbridge-Stored-At": "1700000000.500",
    }


subjects = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=2000
)


@settings(deadline=None)
@given(st.text(max_size=2000), subjects)
def test_they_are_within_the_limit_and_on_one_line_each(
    message: str, subject: str
) -> None:
    headers = dead_letter_headers("internal", message, delivery(subject))
    assert headers_size(headers) <= 4096
    assert headers["Tokenbridge-Message"].isascii()
    for value in headers.values():
        assert "\r" not in value
        assert "\n" not in value


@settings(deadline=None)
@given(subjects, st.integers(1, 2**60), st.integers(1, 2**60))
def test_two_jobs_have_two_letters(subject: str, one: int, two: int) -> None:
    ids = {
        dead_letter_headers("internal", "x", delivery(subject, seq))["Nats-Msg-Id"]
        for seq in (one, two)
    }
    assert len(ids) == len({one, two})


@pytest.mark.parametrize("size", [0, 100, 800, 1000, 5000])
def test_a_job_is_cut_only_where_it_would_not_fit(size: int) -> None:
    headers = dead_letter_headers("internal", "x", delivery())
    data = cut_to_fit(b"j" * size, headers, 1000)
    assert len(data) + headers_size(headers) <= 1000
    if "Tokenbridge-Cut-From-Bytes" in headers:
        assert headers["Tokenbridge-Cut-From-Bytes"] == str(size)
        assert len(data) + headers_size(headers) == 1000
    else:
        assert len(data) == size


class Undertaker(Cell):
    """Stores a letter after so many refusals; its pauses take no time."""

    def __init__(self, refusals: list[BusError]) -> None:
        settings = Settings()
        super().__init__(Connection(settings, name="test"), settings, "llm")
        self.refusals = refusals
        self.letters: list[dict[str, str]] = []

    async def bury(self, tenant: str, data: bytes, headers: dict[str, str]) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.letters.append(headers)

    async def pause(self, seconds: float) -> None:
        """Time is not what is tested."""


REFUSED = ApiError(400, 10077, "maximum messages exceeded")
AWAY = ConnectionLost("no answer")


@pytest.mark.parametrize(
    ("refusals", "warnings"),
    [([], 0), ([AWAY, AWAY], 0), ([REFUSED], 1), ([AWAY, REFUSED, REFUSED], 1)],
)
async def test_a_letter_that_cannot_be_stored_is_told_once(
    caplog: pytest.LogCaptureFixture, refusals: list[BusError], warnings: int
) -> None:
    cell = Undertaker(list(refusals))

    async def gone() -> None:
        """Nothing is missing."""

    letters = DeadLetters(
        cell, "t", delivery(), Meters(), check_lease=lambda: None, gone=gone
    )
    await letters.keep("internal", "x")
    assert len(cell.letters) == 1
    told = [r for r in caplog.records if "cannot be stored" in r.getMessage()]
    assert len(told) == warnings
