import json
from typing import Any

from bridge.simulator import Behaviour, text_for
from bridge.simulator.chunks import Chunks
from bridge.simulator.completion import ChatRequest, conversation_key
from bridge.simulator.script import Script, faults_of

REQUEST: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hello."}],
    "max_tokens": 12,
}


def script(behaviour: Behaviour, **fields: Any) -> Script:
    request = REQUEST | fields
    key = conversation_key(request, continued=False)
    return Script(ChatRequest.of(request), key, behaviour)


def test_a_frame_per_token() -> None:
    made = script(Behaviour(reasoning=3))
    chunks = Chunks("i", 0, "m", ndjson=False, include_usage=False)
    frames = list(made.frames(chunks))
    assert len(frames) == made.length == 15
    assert [b"reasoning_content" in frame for frame in frames] == [True] * 3 + [
        False
    ] * 12


def test_the_whole_message_and_a_part_of_it() -> None:
    made = script(Behaviour(reasoning=3))
    message = made.message(15)
    assert message["content"] == text_for(REQUEST)
    assert message["reasoning_content"] == "".join(made.reasoning)
    assert made.message(5)["content"] == "".join(made.tokens[:2])
    assert made.message(2)["reasoning_content"] == "".join(made.reasoning[:2])
    assert made.usage is not None
    assert made.usage["completion_tokens"] == 15


def test_a_tool_call_has_arguments_in_json() -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    made = script(Behaviour(tool_call=True), tools=tools)
    (call,) = made.message(made.length)["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["query"]
    assert made.finish_reason == "tool_calls"
    chunks = Chunks("i", 0, "m", ndjson=False, include_usage=False)
    assert len(list(made.frames(chunks))) == made.length


def test_usage_may_be_kept_back() -> None:
    assert script(Behaviour(usage=False)).usage is None


def test_faults_in_their_order_as_far_as_the_answer_reaches() -> None:
    behaviour = Behaviour(
        reset_after=4, malformed_after=4, stall_after=2, error_after=11, end_after=10
    )
    assert faults_of(behaviour, 10) == [
        (2, "stall"),
        (4, "malformed"),
        (4, "reset"),
        (10, "end"),
    ]
    assert faults_of(Behaviour(), 10) == []
