"""What a caller gives becomes the job that the protocol has."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.client.jobs import (
    DEFAULT_DEADLINE_MS,
    make_job,
    make_request,
    well_formed,
)
from bridge.errors import InvalidJob
from bridge.events import Job, encode


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


def test_the_deadline_is_always_sent() -> None:
    assert job().deadline_ms == DEFAULT_DEADLINE_MS == 600_000
    assert b'"deadline_ms":600000' in encode(job())


@pytest.mark.parametrize("value", [b"hello", bytearray(b"x"), 3, 1.5, ["x"], {}, True])
@pytest.mark.parametrize("name", ["prompt", "system"])
def test_a_prompt_is_text(name: str, value: object) -> None:
    given: dict[str, Any] = {"prompt": "Hi", name: value}
    with pytest.raises(
        TypeError, match=f"{name} must be a str, not {type(value).__name__}"
    ):
        body(given.pop("prompt"), **given)


@pytest.mark.parametrize("context", ["Hi", [b"x"], ["x"], [("role", "user")]])
def test_a_context_holds_messages(context: Any) -> None:
    with pytest.raises(TypeError, match="context must be a sequence of messages"):
        body("Hi", context=context)


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"request": body("Hi") | {"user": b"x"}}, r"request\.user"),
        (
            {"request": {"model": "m", "messages": [{"content": [{"text": b"x"}]}]}},
            r"request\.messages\[0\]\.content\[0\]\.text",
        ),
        ({"metadata": {"k": memoryview(b"x")}}, r"metadata\.k"),
        ({"speech": {"language": b"en"}}, r"speech\.language"),
    ],
)
def test_bytes_are_not_sent_as_base64(more: dict[str, Any], where: str) -> None:
    with pytest.raises(TypeError, match=f"^{where} must be a str"):
        job(**more)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_not_sent_as_null(value: float) -> None:
    with pytest.raises(ValueError, match=r"request\.temperature"):
        job(request=body("Hi", parameters={"temperature": value}))


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("plain", "plain"),
        ("\ud83d\ude00", "\U0001f600"),
        ("cut \ud83d", "cut \ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83da\U0001f600", "\ufffda\U0001f600"),
        ("-caf\udce9", "-caf\ufffd"),
    ],
)
def test_half_an_emoji_becomes_a_replacement_character(text: str, sent: str) -> None:
    assert well_formed(text) == sent
    made = job(
        request=body(
            text, system=text, context=[{"role": "user", "content": [{"text": text}]}],
            parameters={"stop": (text,), text: [text]},
        ),
        metadata={text: text},
    )  # fmt: skip
    messages = made.request["messages"]
    assert [m["content"] for m in messages] == [sent, [{"text": sent}], sent]
    assert made.request["stop"] == [sent]
    assert made.request[sent] == [sent]
    assert made.metadata == {sent: sent}


@pytest.mark.parametrize("field", ["id", "session", "on_restart"])
def test_half_an_emoji_in_a_name_is_refused(field: str) -> None:
    more: dict[str, Any] = {field: "cut\ud83d"}
    with pytest.raises(InvalidJob):
        job(**more)


def test_nesting_without_end_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidJob, match="nested"):
        job(request=body("Hi", parameters={"stop": deep}))
