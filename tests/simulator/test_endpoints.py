import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from bridge.simulator import Behaviour, Simulator, text_for

Ask = Callable[..., dict[str, Any]]
Stream = Callable[..., Awaitable[Any]]
PATH = "/chat/completions"


async def test_models_and_health(client: httpx.AsyncClient) -> None:
    models = (await client.get("/models")).json()
    assert [model["id"] for model in models["data"]] == ["simulator"]
    health = await client.get(client.base_url.join("/healthz"))
    assert health.json() == {"status": "ok"}


async def test_named_models_only(ask: Ask) -> None:
    async with (
        Simulator(models=("small", "large")) as simulator,
        httpx.AsyncClient(base_url=simulator.url) as client,
    ):
        models = (await client.get("/models")).json()["data"]
        assert [model["id"] for model in models] == ["small", "large"]
        good = await client.post(PATH, json=ask() | {"model": "large"})
        assert good.status_code == 200
        bad = await client.post(PATH, json=ask() | {"model": "huge"})
        assert bad.status_code == 404
        assert bad.json()["error"]["code"] == "model_not_found"
        assert "huge" in bad.json()["error"]["message"]


async def test_an_api_key(ask: Ask) -> None:
    async with (
        Simulator(api_key="sësame") as simulator,
        httpx.AsyncClient(base_url=simulator.url) as client,
    ):
        for value in (b"", b"Bearer wrong", "sësame".encode(), b"Bearer s\xebsame"):
            headers = {b"Authorization": value}
            response = await client.post(PATH, json=ask(), headers=headers)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert (await client.get("/models")).status_code == 401
        headers = {b"Authorization": "Bearer sësame".encode()}
        response = await client.post(PATH, json=ask(), headers=headers)
        assert response.status_code == 200
        assert "sësame" not in repr(simulator.requests)
        root = simulator.url.removesuffix("/v1")
        assert (await client.get(f"{root}/healthz")).status_code == 200
        assert (await client.get(f"{root}/simulator/requests")).status_code == 401


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"{", "not valid JSON"),
        (b'"\xff"', "not valid JSON"),
        (b"[]", "JSON object"),
        (b"{}", "model"),
        (b'{"model": "m", "messages": [{"role": "user"}], "n": 3}', "n must be 1"),
        (
            b'{"model": "m", "messages": [{"role": "user"}], "simulate": {"typo": 1}}',
            "typo",
        ),
        (
            b'{"model": "m", "messages": [{"role": "assistant"}],'
            b' "continue_final_message": true}',
            "add_generation_prompt",
        ),
        (
            b'{"model": "m", "messages": [{"role": "assistant"}],'
            b' "add_generation_prompt": false}',
            "continue_final_message",
        ),
    ],
)
async def test_bad_requests(
    client: httpx.AsyncClient, simulator: Simulator, content: bytes, named: str
) -> None:
    response = await client.post(PATH, content=content)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert named in error["message"]
    (record,) = simulator.requests
    assert (record.outcome, record.status) == ("rejected", 400)


async def test_aiohttps_refusals_have_the_apis_form(client: httpx.AsyncClient) -> None:
    assert (await client.get("/nothing")).json()["error"]["message"]
    wrong = await client.get(PATH)
    assert wrong.status_code == 405
    assert wrong.json()["error"]["type"] == "invalid_request_error"
    large = await client.post(PATH, content=b" " * (17 << 20))
    assert large.status_code == 413
    assert large.json()["error"]["message"]


@pytest.mark.parametrize("status", [400, 401, 404, 408, 429, 500, 503, 529])
async def test_a_status(client: httpx.AsyncClient, ask: Ask, status: int) -> None:
    response = await client.post(PATH, json=ask(simulate={"status": status}))
    assert response.status_code == status
    assert str(status) in response.json()["error"]["message"]
    assert "retry-after" not in response.headers


async def test_retry_after(client: httpx.AsyncClient, ask: Ask) -> None:
    simulate = {"status": 429, "retry_after_s": 1.25}
    response = await client.post(PATH, json=ask(simulate=simulate))
    assert response.headers["retry-after"] == "2"
    assert response.headers["retry-after-ms"] == "1250"


async def test_a_refused_connection(
    client: httpx.AsyncClient, simulator: Simulator, ask: Ask
) -> None:
    with pytest.raises(httpx.ReadError):
        await client.post(PATH, json=ask(simulate={"refuse": True}))
    assert simulator.requests[0].outcome == "refused"


@pytest.mark.parametrize("fault", [{"status": 503}, {"refuse": True}])
async def test_failing_a_few_times_only(
    client: httpx.AsyncClient, simulator: Simulator, ask: Ask, fault: dict[str, Any]
) -> None:
    for prompt in ("one", "other"):
        request = ask(prompt, simulate=fault | {"fail_times": 2})
        for _ in range(2):
            try:
                assert (await client.post(PATH, json=request)).status_code == 503
            except httpx.ReadError:
                assert "refuse" in fault
        response = await client.post(PATH, json=request)
        text = response.json()["choices"][0]["message"]["content"]
        assert text == text_for(request)


async def test_failures_and_faults_are_counted_apart(
    simulator: Simulator, ask: Ask, stream: Stream
) -> None:
    simulator.behaviour = Behaviour(status=503, fail_times=1, end_after=3, times=1)
    got = [await stream_or_status(stream, ask()) for _ in range(3)]
    assert got == [503, False, True]


async def stream_or_status(stream: Stream, request: dict[str, Any]) -> int | bool:
    got = await stream(request)
    return bool(got.done) if got.status == 200 else int(got.status)


async def test_a_request_overrides_the_server(
    ask: Ask, stream: Stream, simulator: Simulator
) -> None:
    simulator.behaviour = Behaviour(end_after=2, reasoning=1)
    assert len((await stream(ask())).tokens) == 1
    got = await stream(ask(simulate={"end_after": None}))
    assert got.text == text_for(ask())
    assert len(got.deltas("reasoning_content")) == 1


async def test_the_records(
    client: httpx.AsyncClient, simulator: Simulator, ask: Ask, stream: Stream
) -> None:
    before = time.time() * 1000
    await stream(ask(user="u1", max_tokens=7))
    await client.post(PATH, json=ask(user="u2"))
    after = time.time() * 1000
    url = f"http://127.0.0.1:{simulator.port}/simulator/requests"
    listed = (await client.get(url)).json()
    assert listed["active"] == 0
    assert [record["user"] for record in listed["requests"]] == ["u1", "u2"]
    (record,) = (await client.get(url, params={"user": "u1"})).json()["requests"]
    assert record["outcome"] == "completed"
    assert record["status"] == 200
    assert record["tokens_sent"] == record["max_tokens"] == 7
    assert record["stream"] is True
    assert record["continued"] is False
    assert record["closed_at_ms"] is None
    times = [record[f"{name}_at_ms"] for name in ("received", "first_token", "ended")]
    assert times == sorted(times)
    # Two clocks are compared, which the system may set apart by a little.
    assert before - 50 <= times[0] <= times[-1] <= after + 50
    assert simulator.requests[0].body == ask(user="u1", max_tokens=7, stream=True)


async def test_a_large_body_is_not_kept(
    client: httpx.AsyncClient, simulator: Simulator, ask: Ask
) -> None:
    response = await client.post(PATH, json=ask("x" * 600_000, max_tokens=3))
    assert response.json()["usage"]["prompt_tokens"] > 100_000
    assert simulator.requests[0].body is None
