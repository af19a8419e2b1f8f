from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator import InvalidRequest, text_for, tokens_for
from bridge.simulator.completion import ChatRequest, answer, conversation_key

prompts = st.text(min_size=1, max_size=20)


def ask(prompt: str = "Tell me of the sea.", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "simulator", "messages": messages, **fields}


def go_on(request: dict[str, Any], prefix: Any, **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": prefix}
    return {
        **request,
        "messages": [*request["messages"], message],
        "continue_final_message": True,
        "add_generation_prompt": False,
        **fields,
    }


def reason_for(request: dict[str, Any]) -> str:
    chat = ChatRequest.of(request)
    key = conversation_key(request, continued=chat.continue_final_message)
    return answer(chat, key).finish_reason


@given(prompts)
def test_the_same_request_gives_the_same_text(prompt: str) -> None:
    assert text_for(ask(prompt)) == text_for(ask(prompt))
    assert "".join(tokens_for(ask(prompt))) == text_for(ask(prompt))


def test_what_is_asked_decides_the_text() -> None:
    texts = {
        text_for(ask()),
        text_for(ask("Tell me of the hills.")),
        text_for(ask(model="other")),
        text_for(ask(temperature=0.7)),
        text_for(ask(user="somebody")),
    }
    assert len(texts) == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"simulate": {"tokens_per_second": 20}},
        {"stop": "nowhere to be found"},
        {"max_tokens": None},
    ],
)
def test_how_it_is_delivered_does_not(fields: dict[str, Any]) -> None:
    assert text_for(ask(**fields)) == text_for(ask())


@given(prompts, st.integers(1, 600), st.integers(1, 600))
def test_more_tokens_extend_the_same_text(prompt: str, one: int, other: int) -> None:
    short, long = sorted((one, other))
    tokens = tokens_for(ask(prompt, max_tokens=long))
    assert len(tokens) == long
    assert tokens_for(ask(prompt, max_completion_tokens=short)) == tokens[:short]
    assert reason_for(ask(prompt, max_tokens=short)) == "length"


def test_without_a_limit_it_stops_by_itself() -> None:
    assert reason_for(ask()) == "stop"
    assert 40 <= len(tokens_for(ask())) <= 150


def test_a_continuation_goes_on_exactly_at_every_token() -> None:
    tokens = tokens_for(ask())
    for cut in range(len(tokens) + 1):
        prefix = "".join(tokens[:cut])
        assert tokens_for(go_on(ask(), prefix)) == tokens[cut:]


@given(prompts, st.data(), st.none() | st.integers(1, 300))
def test_a_continuation_goes_on_exactly_at_every_character(
    prompt: str, data: st.DataObject, limit: int | None
) -> None:
    full = text_for(ask(prompt, max_tokens=limit))
    cut = data.draw(st.integers(0, len(full)))
    rest = text_for(go_on(ask(prompt), full[:cut], max_tokens=limit))
    if limit is None:
        assert full[:cut] + rest == full
    else:
        # As many tokens again, on the same way.
        longer = text_for(ask(prompt, max_tokens=2 * limit))
        assert longer.startswith(full[:cut] + rest)


@given(prompts, st.integers(2, 300), st.data())
def test_a_reduced_limit_completes_the_uninterrupted_text(
    prompt: str, limit: int, data: st.DataObject
) -> None:
    tokens = tokens_for(ask(prompt, max_tokens=limit))
    cut = data.draw(st.integers(1, limit - 1))
    rest = go_on(ask(prompt), "".join(tokens[:cut]), max_tokens=limit - cut)
    assert tokens_for(rest) == tokens[cut:]
    assert reason_for(rest) == "length"


def test_a_complete_text_has_no_continuation() -> None:
    full = text_for(ask())
    assert tokens_for(go_on(ask(), full)) == []
    assert reason_for(go_on(ask(), full)) == "stop"


def test_the_prefix_may_come_in_parts() -> None:
    tokens = tokens_for(ask())
    parts = [{"type": "text", "text": token} for token in tokens[:7]]
    assert tokens_for(go_on(ask(), parts)) == tokens[7:]


@given(prompts, st.text(max_size=200))
def test_any_other_prefix_is_continued_somehow(prompt: str, prefix: str) -> None:
    request = go_on(ask(prompt), prefix, max_tokens=10)
    assert len(tokens_for(request)) == 10
    assert tokens_for(request) == tokens_for(request)


def test_an_assistant_message_is_history_where_nobody_asks_to_continue() -> None:
    tokens = tokens_for(ask())
    request = go_on(ask(), "".join(tokens[:5]))
    del request["continue_final_message"], request["add_generation_prompt"]
    assert tokens_for(request)[:5] != tokens[5:10]


@given(st.data())
def test_the_text_ends_before_the_first_stop_string(data: st.DataObject) -> None:
    full = text_for(ask(max_tokens=200))
    start = data.draw(st.integers(0, len(full) - 1))
    stop = full[start : start + data.draw(st.integers(1, 12))]
    request = ask(max_tokens=200, stop=[stop, "\x00"])
    assert text_for(request) == full[: full.index(stop)]
    assert all(tokens_for(request))
    assert reason_for(request) == "stop"


@given(st.data())
def test_a_stop_string_is_found_across_a_continuation(data: st.DataObject) -> None:
    full = text_for(ask(max_tokens=200))
    start = data.draw(st.integers(0, len(full) - 4))
    stop = full[start : start + 4]
    stopped = text_for(ask(max_tokens=200, stop=stop))
    cut = data.draw(st.integers(0, len(stopped)))
    rest = go_on(ask(), stopped[:cut], max_tokens=200, stop=stop)
    assert stopped[:cut] + text_for(rest) == stopped


def test_a_stop_string_inside_the_prefix_is_history() -> None:
    tokens = tokens_for(ask(max_tokens=60))
    prefix = "".join(tokens[:20])
    once = next(word for word in prefix.split() if "".join(tokens).count(word) == 1)
    rest = go_on(ask(), prefix, max_tokens=40, stop=once)
    assert tokens_for(rest) == tokens[20:]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model": ""}, "$.model"),
        ({"model": 3}, "$.model"),
        ({"messages": []}, "$.messages"),
        ({"messages": "hello"}, "$.messages"),
        ({"messages": [{"content": "x"}]}, "role"),
        ({"max_tokens": 0}, "$.max_tokens"),
        ({"max_tokens": "9"}, "$.max_tokens"),
        ({"max_tokens": 1_000_000}, "$.max_tokens"),
        ({"stop": [""]}, "$.stop"),
        ({"n": 2}, "n must be 1"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"simulate": 1}, "$.simulate"),
        ({"continue_final_message": True}, "add_generation_prompt: false"),
        ({"add_generation_prompt": False}, "continue_final_message: true"),
        (
            {"continue_final_message": True, "add_generation_prompt": False},
            "assistant message",
        ),
    ],
)
def test_what_a_server_refuses_names_the_field(
    fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        text_for(ask() | fields)
    assert named in str(caught.value)


def test_a_request_without_messages_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        text_for({"model": "simulator"})
