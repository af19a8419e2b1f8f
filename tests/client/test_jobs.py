"""What a caller gives becomes the job that the protocol has."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.client.jobs import make_job, make_request
from bridge.errors import InvalidJob
from bridge.events import Job


def body(prompt: str | None = None, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "request": None,
        "model": None,
        "default_model": "m",
        "system": None,
        "context": (),
        "parameters": {},
        **more,
    }
    request = given.pop("request")
    return make_request(prompt, request, **given)


def job(id: str = "a", request: dict[str, Any] | None = None, **more: Any) -> Job:
    given: dict[str, Any] = {
        "session": None,
        "supersede": False,
        "deadline_ms": None,
        "keepalive_ms": None,
        "on_restart": "restart",
        "speech": False,
        "metadata": None,
        **more,
    }
    return make_job(id, request or body("Hi"), **given)


def test_a_prompt() -> None:
    assert body("Hi", parameters={"temperature": 0.2}) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.2,
    }


def test_a_conversation() -> None:
    earlier = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    request = body("3", system="Be brief.", context=earlier, model="other")
    assert request["model"] == "other"
    assert [m["content"] for m in request["messages"]] == ["Be brief.", "1", "2", "3"]
    assert request["messages"][0]["role"] == "system"
    assert len(earlier) == 2


def test_a_context_may_stand_without_a_prompt() -> None:
    asked = {"role": "user", "content": "1"}
    assert body(context=[asked])["messages"] == [asked]


def test_a_whole_request_is_passed_on() -> None:
    given = {"model": "x", "messages": [{"role": "user", "content": "Hi"}], "top_p": 1}
    assert body(request=given) == given
    changed = body(request=given, model="y", parameters={"top_p": 0})
    assert (changed["model"], changed["top_p"]) == ("y", 0)
    assert given["model"] == "x"
    assert body(request={"messages": []})["model"] == "m"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"prompt": None}, "give a prompt"),
        ({"prompt": "Hi", "request": {"messages": []}}, "request is the whole body"),
        ({"request": {"messages": []}, "system": "x"}, "request is the whole body"),
        ({"prompt": "Hi", "default_model": None}, "which model"),
    ],
)
def test_calls_that_make_no_sense(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        body(**more)


def test_a_job_has_what_was_given() -> None:
    made = job(
        "req-1",
        session="call",
        supersede=True,
        deadline_ms=5,
        keepalive_ms=6,
        on_restart="fail",
        speech={"language": "en"},
        metadata={"caller": "web"},
    )
    assert (made.id, made.session, made.supersede) == ("req-1", "call", True)
    assert (made.deadline_ms, made.keepalive_ms, made.on_restart) == (5, 6, "fail")
    assert made.speech == {"language": "en"}
    assert made.metadata == {"caller": "web"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"id": "a b"}, "id"),
        ({"supersede": True}, "supersede needs a session"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"metadata": {"a": "x" * 5000}}, "metadata"),
        ({"request": {"model": "m", "messages": []}}, "request.messages"),
        ({"request": body("Hi") | {"n": 2}}, "request.n"),
        ({"on_restart": "perhaps"}, "on_restart"),
    ],
)
def test_what_a_bridge_would_refuse_is_refused_here(
    more: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidJob, match=said):
        job(**more)


def test_what_is_no_json() -> None:
    with pytest.raises(TypeError):
        job(request=body("Hi", parameters={"stop": object()}))


def test_a_typo_in_the_speech_options_is_named() -> None:
    with pytest.raises(InvalidJob, match="langauge"):
        job(speech={"langauge": "en"})
