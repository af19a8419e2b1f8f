"""What stands in the logs, read without the bridge and judged without mercy."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

from bridge.bus.cell import Cell
from bridge.bus.connection import Connection
from bridge.config import BusSettings
from bridge.errors import BusError

Event = dict[str, Any]

#: Longer than any outage of the tests.
SUBMIT_S = 30.0

SPEECH_ENDS = frozenset({"end", "failed", "cancelled"})

TERMINAL = frozenset({"completed", "failed", "cancelled"})


@asynccontextmanager
async def connected(nats_url: str, prefix: str, **settings: Any) -> AsyncIterator[Cell]:
    """A cell on a connection of its own, that writes no logs."""
    values = BusSettings(nats_url=nats_url, **settings)
    connection = Connection(values, name="chaos")
    await connection.connect()
    try:
        yield Cell(connection, values, prefix)
    finally:
        await connection.close()


async def submit(
    cell: Cell, job: Event, tenant: str = "default", *, known: bool = True
) -> int:
    """Submit until it is stored, whatever NATS goes through; the stream sequence.

    Without ``known`` JetStream cannot tell a repeat from another job.
    Raises `BusError` after `SUBMIT_S`.
    """
    headers = {"Nats-Msg-Id": f"{tenant}/{job['id']}"} if known else None
    subject = cell.subjects.job(tenant, "default")
    deadline = time.monotonic() + SUBMIT_S
    while True:
        try:
            answer = await cell.connection.request(
                subject, json.dumps(job).encode(), timeout_s=1.0, headers=headers
            )
            decoded = json.loads(answer.data) if answer.data else {}
            if "seq" in decoded:
                return int(decoded["seq"])
        except BusError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


async def cancel(cell: Cell, id: str, tenant: str = "default") -> None:
    """Cancel until it is kept."""
    subject = cell.subjects.control(tenant, "request", id)
    while True:
        try:
            await cell.connection.request(subject, b'{"action":"cancel"}')
            return
        except BusError:
            await asyncio.sleep(0.1)


async def read(
    cell: Cell, id: str, tenant: str = "default", *, spoken: bool = False
) -> list[Event]:
    """The log of a request up to the leader's last message, or that of its speech."""
    find_last = cell.last_spoken if spoken else cell.last_stored
    read_all = cell.read_speech if spoken else cell.read_log
    while True:
        try:
            last = await find_last(tenant, id)
            stored = [message async for message in read_all(tenant, id)]
        except BusError:
            await asyncio.sleep(0.1)
            continue
        if last is None or (stored and stored[-1].seq >= last.seq):
            return [json.loads(message.data) for message in stored]
        await asyncio.sleep(0.02)


async def ended(
    cell: Cell, id: str, within_s: float = 60, tenant: str = "default"
) -> list[Event]:
    """Wait for the terminal event of a request; its whole log.

    Raises `TimeoutError`.
    """
    async with asyncio.timeout(within_s):
        while True:
            try:
                last = await cell.last_event(tenant, id)
            except BusError:
                last = None
            if last is not None and last.terminal:
                return await read(cell, id, tenant)
            await asyncio.sleep(0.02)


async def settled(cell: Cell, within_s: float = 20) -> None:
    """Wait until no job is stored any more. Raises `TimeoutError`."""
    async with asyncio.timeout(within_s):
        while await _jobs(cell):
            await asyncio.sleep(0.02)


async def _jobs(cell: Cell) -> int:
    try:
        info = await cell.jetstream.call(f"STREAM.INFO.{cell.names.jobs}")
    except BusError:
        return 1
    return int(info["state"]["messages"])


def text_of(events: Iterable[Event]) -> str:
    """The text that a reader of these events ends up with."""
    tokens: list[tuple[int, str]] = []
    for event in events:
        if event["type"] == "token":
            tokens.append((event["seq"], event["text"]))
        elif event["type"] == "resumed":
            after = 0 if event["mode"] == "restart" else event["after"]
            tokens = [token for token in tokens if token[0] <= after]
    return "".join(text for _, text in tokens)


def faults_of_log(events: list[Event]) -> list[str]:
    """What is wrong with a log that has come to its end; empty where all is well."""
    found = []
    numbers = [event["seq"] for event in events]
    if numbers != list(range(1, len(numbers) + 1)):
        found.append(f"its seq are {_shown(numbers)}")
    ends = [event["seq"] for event in events if event["type"] in TERMINAL]
    if len(ends) != 1 or ends[0] != numbers[-1]:
        found.append(f"its terminal events are {ends} of {len(numbers)}")
    attempts = [event["attempt"] for event in events]
    if attempts != sorted(attempts):
        found.append(f"its attempts fall: {attempts}")
    for before, event in pairwise(events):
        if event["type"] == "resumed":
            if event["after"] != before["seq"]:
                found.append(f"resumed after {event['after']}, not {before['seq']}")
        elif event["attempt"] != before["attempt"] and event["type"] not in TERMINAL:
            found.append(f"attempt {event['attempt']} began without resumed")
    if events and events[-1].get("text") not in (None, text_of(events)):
        found.append("its terminal event's text is another than its tokens'")
    return found


def faults_of_speech(events: list[Event], text: str) -> list[str]:
    """What is wrong with the speech of a request that was completed with ``text``."""
    found = []
    numbers = [event["seq"] for event in events]
    if numbers != list(range(1, len(numbers) + 1)):
        found.append(f"the seq of its speech are {_shown(numbers)}")
    kinds = [event["type"] for event in events if event["type"] in SPEECH_ENDS]
    if kinds != ["end"] or events[-1]["type"] != "end":
        found.append(f"its speech has the ends {kinds}")
    spoken = 0
    for event in events:
        if event["type"] == "resumed" and event["mode"] == "restart":
            spoken = 0
        elif event["type"] == "segment":
            if event["start"] < spoken or _has_words(text[spoken : event["start"]]):
                found.append(f"it says {event['start']} after {spoken}")
            spoken = event["end"]
    if _has_words(text[spoken:]):
        found.append(f"it does not say {text[spoken:]!r}")
    return found


def _has_words(text: str) -> bool:
    """Whether there is anything to be said; quotes and emoji are not."""
    return any(character.isalnum() for character in text)


def holes(events: list[Event]) -> int:
    """How many numbers are missing in a log."""
    numbers = {event["seq"] for event in events}
    return max(numbers, default=0) - len(numbers)


def repeats(events: list[Event]) -> int:
    """How many events stand in a log more than once."""
    return len(events) - len({event["seq"] for event in events})


def _shown(numbers: list[int]) -> str:
    odd = [
        f"…{before}, {number}…"
        for before, number in pairwise(numbers)
        if number != before + 1
    ]
    return ", ".join(odd[:5]) or f"from {numbers[:1]}"
