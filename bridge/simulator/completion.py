"""From a chat completion's request to the answer that the simulator gives to it.

The answer is a function of the conversation: what says how to deliver it (`stream`,
`max_tokens`, `stop`, ``simulate``…) takes no part in choosing the text, so that a
longer ``max_tokens`` extends the same text, and so that a request that continues its
last assistant message gets the rest of the text that it would have got at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from bridge.errors import BridgeError
from bridge.simulator.story import Story, tokenize

#: The context length that the simulated model claims: more tokens are refused, as a
#: real server refuses them; it also bounds what one request can make the process do.
MAX_TOKENS = 131_072

#: Fields that say how the answer is delivered, and not what it says.
_DELIVERY = frozenset(
    {
        "add_generation_prompt",
        "continue_final_message",
        "max_completion_tokens",
        "max_tokens",
        "simulate",
        "stop",
        "stream",
        "stream_options",
    }
)

_Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]
_NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]


class InvalidRequest(BridgeError):
    """A request that an OpenAI-compatible server refuses with 400; names the field."""


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            parts = (part.get("text", "") for part in self.content)
            return "".join(part for part in parts if isinstance(part, str))
        return self.content or ""


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Function(msgspec.Struct):
    name: str


class _Tool(msgspec.Struct):
    function: _Function | None = None


class ChatRequest(msgspec.Struct):
    """The fields of a request that the simulator heeds; it ignores the others."""

    model: _NonEmpty
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Limit | None = None
    max_completion_tokens: _Limit | None = None
    stop: _NonEmpty | list[_NonEmpty] | None = None
    n: int | None = None
    tools: list[_Tool] | None = None
    user: str | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool = True
    simulate: dict[str, Any] = {}

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> ChatRequest:
        """Read and check a request's JSON object. Raises `InvalidRequest`."""
        try:
            chat = msgspec.convert(request, cls)
        except msgspec.ValidationError as error:
            raise InvalidRequest(str(error)) from error
        chat._check()
        return chat

    def _check(self) -> None:
        if self.n not in (None, 1):
            raise InvalidRequest("n must be 1")
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options is only allowed with stream: true")
        if self.continue_final_message == self.add_generation_prompt:
            # vLLM and Hugging Face's chat templates refuse the first; the second
            # would have the model go on in the user's turn.
            raise InvalidRequest(
                "continue_final_message: true needs add_generation_prompt: false"
                if self.continue_final_message
                else "add_generation_prompt: false needs continue_final_message: true"
            )
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise InvalidRequest(
                "continue_final_message needs an assistant message at the end of "
                "messages"
            )

    @property
    def limit(self) -> int | None:
        """The most tokens that the request wants, or ``None`` for as many as come."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def natural_length(self) -> int | None:
        """After how many tokens ``simulate`` lets the text end by itself."""
        tokens = self.simulate.get("tokens")
        return min(tokens, MAX_TOKENS) if isinstance(tokens, int) else None

    @property
    def prefix(self) -> str:
        """The text to be continued; empty where there is none."""
        return self.messages[-1].text if self.continue_final_message else ""

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def prompt_tokens(self) -> int:
        """What the prompt is said to measure: about four characters a token."""
        return sum(4 + len(message.text) // 4 for message in self.messages)

    @property
    def tool(self) -> str:
        """The name of the first function among the tools."""
        functions = (tool.function for tool in self.tools or [])
        return next((f.name for f in functions if f is not None), "look_up")


class Answer(msgspec.Struct, frozen=True):
    """The text of an answer in tokens, and why it ends where it does."""

    tokens: list[str]
    finish_reason: str


def conversation_key(request: Mapping[str, Any], *, continued: bool) -> str:
    """Name the conversation: the same for a request and its continuations."""
    rest = {name: value for name, value in request.items() if name not in _DELIVERY}
    if continued:
        rest["messages"] = rest["messages"][:-1]
    canonical = msgspec.json.encode(rest, order="sorted")
    return hashlib.sha256(canonical).hexdigest()[:32]


def answer(chat: ChatRequest, key: str) -> Answer:
    """The answer to ``chat`` in the conversation ``key``, or what is left of it."""
    story = Story(key)
    rest, position = _after_prefix(story, chat.prefix)
    natural = chat.natural_length or story.natural_length
    left = max(0, natural - position) + len(rest)
    ends_itself = chat.natural_length is not None or chat.limit is None
    length = min(left, chat.limit or left) if ends_itself else chat.limit or left
    # `rest` is at most one token: what the prefix left of the one it ends in.
    tokens = (rest + story.tokens(position, position + length))[:length]
    reason = "stop" if ends_itself and length == left else "length"
    kept = _before_stop(tokens, chat.prefix, chat.stops)
    return Answer(tokens, reason) if kept is None else Answer(kept, "stop")


def tokens_for(request: Mapping[str, Any]) -> list[str]:
    """The tokens with which the simulator answers ``request``, a request's object.

    Reasoning and tool calls, which ``simulate`` may ask for, are not among them.
    Raises `InvalidRequest` for what the server answers with 400.
    """
    chat = ChatRequest.of(request)
    key = conversation_key(request, continued=chat.continue_final_message)
    return answer(chat, key).tokens


def text_for(request: Mapping[str, Any]) -> str:
    """The text with which the simulator answers ``request``: its joined tokens.

    Raises `InvalidRequest` for what the server answers with 400.
    """
    return "".join(tokens_for(request))


def _after_prefix(story: Story, prefix: str) -> tuple[list[str], int]:
    """Find where a text that begins with ``prefix`` goes on.

    Returns the rest of the token that the prefix ends in, if it ends in one, and the
    index of the next whole token. A prefix that the story does not begin with counts
    as so many tokens of it.
    """
    at = index = 0
    while at < len(prefix):
        token = story[index]
        index += 1
        if not prefix.startswith(token, at):
            if token.startswith(prefix[at:]):
                return [token[len(prefix) - at :]], index
            return [], len(tokenize(prefix))
        at += len(token)
    return [], index


def _before_stop(tokens: list[str], prefix: str, stops: list[str]) -> list[str] | None:
    """The tokens before the first stop string, or ``None`` where there is none.

    A stop string may begin in the prefix; what the prefix holds entirely did not
    stop the text then and does not now.
    """
    text = prefix + "".join(tokens)
    starts = [text.find(stop, max(0, len(prefix) - len(stop) + 1)) for stop in stops]
    found = [start for start in starts if start >= 0]
    if not found:
        return None
    left = max(0, min(found) - len(prefix))
    kept: list[str] = []
    for token in tokens:
        if left <= 0:
            break
        kept.append(token[:left])
        left -= len(token)
    return kept
