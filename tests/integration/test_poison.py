"""A job that kills its worker each time comes to an end, and to the dead letters."""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path

from tests.chaos.processes import until
from tests.chaos.scene import Scene, job, kinds, scene, undisturbed
from tests.servers import NatsServer


async def test_a_job_that_kills_every_worker_is_exhausted(
    nats_server: NatsServer, prefix: str, tmp_path: Path
) -> None:
    async with scene(
        tmp_path, nats_server.url, prefix, max_deliveries=3, ack_wait_s=0.6
    ) as s:
        here, there = s.first, s.second
        await s.start(here)
        id = await s.submit(job(10_000, 50))
        for attempt in range(1, 4):
            await until(partial(_speaks, s, id, attempt), f"attempt {attempt}")
            # The next one is up already: only the kills count, not the starts.
            await s.start(there)
            here.kill()
            here, there = there, here
        events = await s.ended(id)
        await s.job_is_settled()
        healthy = job(10, 200)
        await s.submit(healthy)
        assert (await s.ended(healthy["id"]))[-1]["text"] == undisturbed(healthy)
        letter = await _dead_letter(s)
    assert events[-1]["type"] == "failed"
    assert events[-1]["error"]["code"] == "attempts_exhausted"
    assert events[-1]["error"]["retryable"] is False
    assert events[-1]["attempt"] == 4
    assert kinds(events)[-2:] == ["token", "failed"]
    headers, data = letter
    assert headers["Tokenbridge-Code"] == "attempts_exhausted"
    assert headers["Tokenbridge-Attempt"] == "4"
    assert sum(len(k) + len(v) for k, v in headers.items()) < 4096
    assert id.encode() in data


def _speaks(s: Scene, id: str, attempt: int) -> bool:
    return any(
        event["type"] == "token" and event["attempt"] == attempt
        for _, event in s.live.get(id, [])
    )


async def _dead_letter(s: Scene) -> tuple[dict[str, str], bytes]:
    subject = s.cell.subjects.dead("default")
    stream = s.cell.names.dead
    stored = await s.cell.jetstream.last_message(stream, subject)
    assert stored is not None
    answer = await s.cell.jetstream.call(
        f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}
    )
    return _headers(answer["message"]["hdrs"]), stored.data


def _headers(encoded: str) -> dict[str, str]:
    lines = base64.b64decode(encoded).decode("ascii").split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if line)
