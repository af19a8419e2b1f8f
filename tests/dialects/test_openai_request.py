from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest

from bridge.dialects.openai_request import can_continue, request_body

USER = {"role": "user", "content": "Hi"}


def sent(request: dict[str, Any], **options: Any) -> dict[str, Any]:
    before = copy.deepcopy(request)
    body: dict[str, Any] = msgspec.json.decode(request_body(request, **options))
    assert request == before
    return body


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **fields}


def test_everything_but_the_bridges_own_fields_is_passed_on() -> None:
    fields = {"temperature": 0.7, "x_unknown": {"a": [1, None, "é😀"]}, "n": 1}
    body = sent(request(**fields, stream=False, stream_options={"x": 1}))
    assert body == {
        "model": "m",
        "messages": [USER],
        **fields,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_text_so_far_is_an_open_assistant_message() -> None:
    body = sent(request(add_generation_prompt=True), prefix="Hel")
    assert body["messages"] == [USER, {"role": "assistant", "content": "Hel"}]
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False


@pytest.mark.parametrize("prefix", [None, ""])
def test_without_text_there_is_nothing_to_continue(prefix: str | None) -> None:
    body = sent(request(), prefix=prefix)
    assert body["messages"] == [USER]
    assert "continue_final_message" not in body
    assert "add_generation_prompt" not in body


@pytest.mark.parametrize(
    ("content", "extended"),
    [
        ("Once", "Once upon"),
        (None, " upon"),
        (
            [{"type": "text", "text": "Once"}],
            [{"type": "text", "text": "Once"}, {"type": "text", "text": " upon"}],
        ),
    ],
)
def test_a_message_that_the_request_leaves_open_is_extended(
    content: Any, extended: Any
) -> None:
    last = {"role": "assistant", "content": content, "name": "a"}
    body = sent(
        request(messages=[USER, last], continue_final_message=True), prefix=" upon"
    )
    assert body["messages"] == [USER, {**last, "content": extended}]


def test_a_closed_assistant_message_is_not_extended() -> None:
    last = {"role": "assistant", "content": "Once"}
    body = sent(request(messages=[USER, last]), prefix=" upon")
    assert body["messages"] == [USER, last, {"role": "assistant", "content": " upon"}]


@pytest.mark.parametrize(
    ("limits", "spent", "left"),
    [
        ({"max_tokens": 100}, 30, {"max_tokens": 70}),
        ({"max_completion_tokens": 100}, 100, {"max_completion_tokens": 1}),
        ({"max_tokens": 5, "min_tokens": 4}, 9, {"max_tokens": 1, "min_tokens": 0}),
        ({"max_tokens": None}, 9, {"max_tokens": None}),
        ({"max_tokens": "x"}, 9, {"max_tokens": "x"}),
        ({"max_tokens": 0}, 0, {"max_tokens": 0}),
        ({}, 9, {}),
    ],
)
def test_spent_tokens_are_taken_off(limits: Any, spent: int, left: Any) -> None:
    body = sent(request(**limits), prefix="x", spent_tokens=spent)
    names = ("max_tokens", "max_completion_tokens", "min_tokens")
    assert {key: body[key] for key in names if key in body} == left


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stop": ["\n"], "seed": 1, "response_format": None},
        {"response_format": {"type": "text"}},
        {"tools": [{"type": "function"}], "tool_choice": "auto"},
        {"tools": [], "tool_choice": "none", "guided_json": None, "echo": False},
        {"continue_final_message": True},
    ],
)
def test_what_can_be_continued(fields: Any) -> None:
    assert can_continue(request(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"guided_json": {"type": "object"}},
        {"guided_regex": "a+"},
        {"guided_choice": ["a", "b"]},
        {"structured_outputs": {"regex": "a+"}},
        {"grammar": "root ::= x"},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"function_call": {"name": "f"}},
        {"use_beam_search": True},
        {"echo": True},
        {
            "messages": [{"role": "assistant", "content": 3}],
            "continue_final_message": True,
        },
    ],
)
def test_what_cannot_be_continued(fields: Any) -> None:
    assert not can_continue(request(**fields))


def test_a_request_with_odd_messages_is_still_built() -> None:
    odd = {"role": "assistant", "content": 3}
    body = sent(request(messages=[odd], continue_final_message=True), prefix="x")
    assert body["messages"] == [odd, {"role": "assistant", "content": "x"}]
