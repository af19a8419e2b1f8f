"""The benchmarks' pieces work, over real processes and sockets. Nothing is timed."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.__main__ import parse, plan
from benchmarks.completions import chunk, completion_chunk, content_length
from benchmarks.contenders import (
    CONTENDERS,
    DEFAULT,
    OBVIOUS,
    Contender,
    Unavailable,
)
from benchmarks.load import Wrong
from benchmarks.processes import Process, ProcessDied
from benchmarks.quota import limited
from benchmarks.rig import Rig, running
from benchmarks.scenarios import SCENARIOS
from benchmarks.steady import percentile
from benchmarks.targets import TARGETS, Measured, Spread, Target


@pytest.fixture(params=[0, 1000], ids=["scattered", "ticking"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    process = Process(
        [sys.executable, "-m", "benchmarks.backend", "--tick-us", str(request.param)],
        log=tmp_path / "log",
    )
    try:
        deadline = time.monotonic() + 30
        while "/v1" not in process.tail():
            process.check()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield int(process.tail().partition("127.0.0.1:")[2].partition("/")[0])
    finally:
        process.stop(grace_s=5)


def body(id: str, tokens: int, rate: float = 200.0) -> str:
    bench = {"id": id, "rate": rate, "phase": 0.5}
    return json.dumps({"model": "m", "max_tokens": tokens, "bench": bench})


def get(connection: http.client.HTTPConnection, path: str) -> Any:
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def events(raw: bytes) -> list[str]:
    return [line[6:] for line in raw.decode().split("\n") if line.startswith("data: ")]


def test_the_backend_streams_what_was_asked_for_on_a_kept_connection(
    backend: int,
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", backend, timeout=10)
    for id in ("a", "b"):
        before = time.monotonic_ns()
        connection.request("POST", "/v1/chat/completions", body(id, 5))
        response = connection.getresponse()
        assert response.headers["Content-Type"] == "text/event-stream"
        *records, usage, done = events(response.read())
        after = time.monotonic_ns()
        assert done == "[DONE]"
        assert json.loads(usage)["usage"]["completion_tokens"] == 5
        choices = [json.loads(record)["choices"][0] for record in records]
        assert [choice["finish_reason"] for choice in choices] == [None] * 6 + ["stop"]
        texts = [choice["delta"].get("content", "") for choice in choices[1:-1]]
        sent, received = texts[0].split(",")
        stamps = [before, int(received), int(sent), *map(int, texts[1:]), after]
        assert stamps == sorted(stamps)
    assert get(connection, "/bench/stats")["served"] == 2
    assert get(connection, "/bench/stats")["tokens"] == 10
    connection.close()


def test_the_backend_says_when_it_saw_a_client_leave(backend: int) -> None:
    leaving = http.client.HTTPConnection("127.0.0.1", backend, timeout=10)
    leaving.request("POST", "/v1/chat/completions", body("gone", 1_000_000))
    response = leaving.getresponse()
    assert response.read(10)
    asking = http.client.HTTPConnection("127.0.0.1", backend, timeout=10)
    assert get(asking, "/bench/stats")["open"] == 1
    assert get(asking, "/bench/closes") == {}
    before = time.monotonic_ns()
    response.close()
    leaving.close()
    while not (closes := get(asking, "/bench/closes")):
        assert time.monotonic_ns() < before + 10_000_000_000
    assert list(closes) == ["gone"]
    assert before < closes["gone"] < time.monotonic_ns()
    assert get(asking, "/bench/stats")["open"] == 0
    asking.close()


def test_the_backend_refuses_what_it_cannot_read(backend: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", backend, timeout=10)
    connection.request("POST", "/v1/chat/completions", "{}")
    response = connection.getresponse()
    assert response.status == 400
    response.read()
    connection.request("GET", "/nowhere")
    response = connection.getresponse()
    assert response.status == 404
    response.read()
    assert get(connection, "/v1/models")["data"][0]["id"] == "bench"
    connection.close()


def test_a_chunk_has_the_size_of_a_real_one() -> None:
    data = chunk(completion_chunk("bench-000001", "bench", '{"content":"0123456789"}'))
    size, _, rest = data.partition(b"\r\n")
    assert len(rest) == int(size, 16) + 2
    assert 230 <= len(data) <= 290


def test_content_length_is_found_whatever_its_case() -> None:
    assert content_length(b"POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 12") == 12
    assert content_length(b"GET / HTTP/1.1\r\nHost: a") == 0


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running(CONTENDERS[OBVIOUS]()) as rig:
        yield rig


async def test_a_contender_serves_jobs_on_the_rig_and_nothing_stays_behind(
    rig: Rig,
) -> None:
    ids = await rig.load.submit_many(5, tokens=8, rate=100.0)
    ids.append(await rig.load.submit(tokens=0, rate=100.0))
    await rig.load.wait_ended(ids, 30.0)
    rig.load.check()
    tokens = rig.load.tokens()
    assert len(tokens) == 40
    assert all(token.sent < token.arrived for token in tokens)
    assert sum(token.received > 0 for token in tokens) == 5
    assert rig.load.tokens(until=tokens[10].arrived) == tokens[:10]
    assert rig.load.tokens(since=tokens[10].arrived) == tokens[10:]
    assert rig.process.cpu_ns() > 0
    assert rig.process.rss_bytes() > 2**20
    assert (await rig.backend("stats"))["served"] == 6
    processes = [rig.process, rig.nats, rig.backend_process]
    for process in processes:
        process.stop()
        with pytest.raises(ProcessDied):
            process.check()


async def test_a_lost_delta_is_noticed(rig: Rig) -> None:
    ids = await rig.load.submit_many(2, tokens=4, rate=100.0)
    await rig.load.wait_ended(ids, 30.0)
    rig.load.check()
    lost = next(n for n, data in enumerate(rig.load._data) if b'"seq": 2' in data)
    del rig.load._data[lost], rig.load._arrived[lost]
    with pytest.raises(Wrong, match="seq 3 after 1"):
        rig.load.check()


def test_a_process_takes_its_group_with_it_and_shows_its_output(tmp_path: Path) -> None:
    script = "import os, time; print(os.getpgid(0), flush=True); time.sleep(60)"
    process = Process([sys.executable, "-c", script], log=tmp_path / "log")
    while not process.tail():
        process.check()
        time.sleep(0.01)
    assert int(process.tail()) == process.pid != os.getpgid(0)
    assert "running" in repr(process)
    process.stop()
    assert "ended" in repr(process)
    with pytest.raises(ProcessDied, match="ended with -9"):
        process.cpu_ns()


def test_what_a_dead_process_said_is_in_the_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such luck')"]
    process = Process(command, log=tmp_path / "log")
    while "running" in repr(process):
        time.sleep(0.01)
    with pytest.raises(ProcessDied, match="ended with 1:\nno such luck"):
        process.check()


RESULTS = {
    "cpu": {
        "bridge": [{"cpu_us_per_token": 10.0}, {"cpu_us_per_token": 30.0}],
        "go": [{"cpu_us_per_token": 20.0}, {"cpu_us_per_token": 30.0}],
    },
    "saturation": {
        "bridge": [{"saturated_tokens_per_s": 40.0, "rig_limited": 1.0}],
        "python": [{"saturated_tokens_per_s": 10.0}],
    },
}


def test_ratios_are_taken_round_by_round() -> None:
    ratio = next(target for target in TARGETS if target.of.scenario == "cpu")
    assert ratio.values(RESULTS) == [0.5, 1.0]
    assert Spread.of(ratio.values(RESULTS)) == Spread(0.75, 0.5, 1.0)
    assert ratio.verdict(RESULTS) == "must"


@pytest.mark.parametrize(
    ("must", "aim", "higher", "verdict"),
    [
        (30, 20, False, "aim"),
        (30, 15, False, "must"),
        (19, 15, False, "missed"),
        (15, 20, True, "aim"),
        (15, 25, True, "must"),
        (21, 25, True, "missed"),
    ],
)
def test_a_median_is_judged(
    must: float, aim: float, higher: bool, verdict: str
) -> None:
    measured = Measured("cpu", "cpu_us_per_token")
    target = Target("t", measured, must, aim, higher_is_better=higher)
    assert target.verdict(RESULTS) == verdict


def test_what_was_not_measured_or_only_bounded_says_so() -> None:
    by_scenario = {target.of.scenario: target for target in TARGETS}
    assert by_scenario["memory"].verdict(RESULTS) == "not measured"
    assert by_scenario["saturation"].verdict(RESULTS) == "at least"


def test_every_target_is_measured_by_a_scenario_that_its_contenders_take() -> None:
    for target in TARGETS:
        scenario = SCENARIOS[target.of.scenario]
        for measured in filter(None, (target.of, target.over)):
            contender = Contender(measured.contender, "", (), cancels=True)
            assert scenario.takes(contender) or measured.scenario != scenario.name


def test_a_limit_on_cpu_time_lasts_as_long_as_it_is_needed(tmp_path: Path) -> None:
    sleeper = (sys.executable, "-c", "import time; time.sleep(60)")
    process = Process(sleeper, log=tmp_path / "log")
    groups = Path(f"/proc/{process.pid}/cgroup")
    try:
        with limited(process.pid, 0.5):
            group = f"bench-{os.getpid()}-{process.pid}"
            assert group in groups.read_text()
            process.stop()
        assert not list(Path("/sys/fs/cgroup").glob(f"**/{group}"))
    except Unavailable as missing:
        pytest.skip(str(missing))
    finally:
        process.stop()


def test_contenders_take_turns_every_round() -> None:
    one, two = (Contender(name, name, ()) for name in ("bridge", "go"))
    names = ("cpu", "latency", "saturation")
    steps = plan([SCENARIOS[name] for name in names], [one, two], 2)
    assert [(s.round, s.scenario.name, s.contender.name) for s in steps] == [
        *itertools.product([1], names, ["bridge", "go"]),
        *itertools.product([2], names[:2], ["bridge", "go"]),
    ]


def test_the_report_has_every_round_and_the_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    report.write_json(path, RESULTS, ["go: away"], {"rounds": 2})
    written = json.loads(path.read_text())
    assert written["rounds"] == RESULTS
    assert written["summary"]["cpu"]["go"]["cpu_us_per_token"]["median"] == 25
    assert {target["verdict"] for target in written["targets"]} >= {"must", "at least"}
    shown = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--from-json", str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "not measured" in shown.stdout


def test_the_command_line() -> None:
    options = parse(["--quick", "--only", "cpu", "--rounds", "2", "--contender", "go"])
    assert (options.quick, options.only, options.rounds) == (True, ["cpu"], 2)
    assert options.contender == ["go"]
    assert set(DEFAULT) <= set(CONTENDERS)


@pytest.mark.parametrize(("q", "value"), [(0.0, 1), (0.5, 2), (0.99, 3), (1.0, 3)])
def test_a_percentile_is_one_of_the_values(q: float, value: float) -> None:
    assert percentile([3, 1, 2], q) == value
