"""Thoughts that a model writes into its text: recognized at the beginning, sans-IO.

A server without a reasoning parser leaves a model's thoughts in the content, between
marks such as ``<think>`` and ``</think>``. `ThoughtSplitter` tells them from the
answer::

    splitter = ThoughtSplitter()
    for part in splitter.receive("<think>Hm.</think>Hello"):
        part.kind, part.text
    splitter.receive_eof()

A thought is looked for at the beginning of the text only, behind white space and other
thoughts, so that a text that mentions a mark is left alone. An exception is a text that
begins with the channel markers of gpt-oss ("Harmony"): its messages follow each other,
and each says in its header what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

#: The longest mark, and with it what is held back to see whether it is one: a tag with
#: attributes, or a message's header with a tool's name. Real ones have under 100.
MAX_MARK = 300

#: More white space than this before a thought is text; it is not held back for ever.
MAX_SPACE = 200


class Kind(Enum):
    """What a part of the text is."""

    TEXT = "text"
    THOUGHT = "thought"
    #: A mark around a thought or an answer, and the white space beside it.
    MARK = "mark"


class Part(NamedTuple):
    """A run of the text of one kind."""

    kind: Kind
    text: str


_FLAGS = re.IGNORECASE | re.ASCII
_SPACE = re.compile(r"[\s\ufeff\u200b]*")

#: Names of tags, with a prefix (``<seed:think>``, ``<longcat_think>``) or a suffix
#: (``<think:opensource>``) where models write one.
_NAME = (
    r"(?:[a-z]\w{0,15}?[:_]|ant)?(?:think(?:ing)?|thoughts?|reasoning)"
    r"(?:[:_-](?:block|content|opensource|process|scratchpad|steps?|text|trace))?"
    r"|reflection|scratch[_-]?pad|analysis|cot|chain[_-]of[_-]thoughts?"
    r"|(?:inner|internal)[_-](?:monologue|thoughts?)|monologue"
)
_THINKS = re.compile("think|thought|reason")
_ATTRIBUTES = r"(?:\s[^<>]{0,200})?"
_TAG = re.compile(
    rf"<(?P<close>/?)(?P<name>{_NAME}){_ATTRIBUTES}(?P<empty>/?)>", _FLAGS
)

#: Open WebUI's, whose name alone says nothing.
_DETAILS = re.compile(
    r"<details(?=\s)[^<>]{0,100}?\stype=[\"']?reasoning\b[^<>]{0,100}>", _FLAGS
)

#: What may still become a tag, of any name: it is held back only while this matches.
_TAG_BEGUN = re.compile(
    r"<(?:/?(?:[a-z][\w:-]{0,40}(?:\s[^<>]{0,200})?/?)?)?\Z", _FLAGS
)

#: Special tokens, as models name them: Command A, Sky-T1, Solar and others.
_TOKENS = {
    f"<|{opening.format(word)}|>": f"<|{closing.format(word)}|>"
    for word in ("think", "thinking", "thought", "reasoning")
    for opening, closing in (
        ("{}", "/{}"),
        ("{}:start", "{}:end"),
        ("{}_start", "{}_end"),
        ("{}_begin", "{}_end"),
        ("begin_of_{}", "end_of_{}"),
        ("start_of_{}", "end_of_{}"),
        ("start_{}", "end_{}"),
        ("begin_{}", "end_{}"),
    )
}

#: Marks that are no tags: of those, Mistral, Kimi, Pangu, Apertus, Inkling, Kimi K3,
#: Gemma, DeepSeek.
_PAIRS = {
    **_TOKENS,
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "[unused16]": "[unused17]",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|content_thinking|>": "<|end_message|>",
    "<|open|>think<|sep|>": "<|close|>think<|sep|>",
    "<|channel>": "<channel|>",
    "<｜begin▁of▁thinking｜>": "<｜end▁of▁thinking｜>",
}

#: What may precede a thought and has no meaning of its own.
_OPENERS = (
    "<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<|message_model|>",
    "<｜begin▁of▁sentence｜>", "<|im_start|>assistant\n", "<|im_start|>",
    "<|start_header_id|>assistant<|end_header_id|>", "<start_of_turn>model\n",
)  # fmt: skip

#: Marks around the answer behind a thought: they are left out together.
_ANSWERS = {
    **{
        f"<{name}>": f"</{name}>"
        for name in ("answer", "final_answer", "final", "response", "output")
    },
    "<|START_RESPONSE|>": "<|END_RESPONSE|>",
    "<|START_TEXT|>": "<|END_TEXT|>",
    "<|begin_of_solution|>": "<|end_of_solution|>",
    "<|content_text|>": "<|end_message|>",
    "<|open|>response<|sep|>": "<|close|>response<|sep|>",
}

#: A message of Harmony has a header, a text, and one of these, or the next header. A
#: header ends with a line where its last token was left out.
_HEADERS = ("<|start|>", "<|channel|>")
_HEADER_PART = re.compile(r"<\|(?:start|channel|constrain)\|>[^<\n]*+", _FLAGS)
_HEADER_END = re.compile(r"<\|message\|>|\n", _FLAGS)
_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|eom|>", "<|eot|>")
_THINKING_CHANNEL = re.compile(
    r"<\|channel\|>\s*(?:analysis|thoughts?|thinking|reasoning)\b", _FLAGS
)
_RECIPIENT = re.compile(r"\bto=(?!user\b)", _FLAGS)

#: The first header without its first token, which the prompt held.
_BARE_HEADER = re.compile(
    r"(?P<channel>analysis|commentary|final)(?: to=[\w.-]{1,64})? ?<\|message\|>"
)
_BARE_HEADER_BEGUN = re.compile(
    r"(?:analysis|commentary|final)(?: (?:t|to|to=[\w.-]{0,64} ?)?)?"
    r"(?:<[|mesag>]{0,10})?\Z"
)
#: The same with all special tokens left out: "analysisWe need…assistantfinalHello".
_GLUED = re.compile(r"(?:assistant)?analysis(?=[A-Z])")
_GLUED_BEGUN = re.compile(r"(?:assistant)?analysis\Z")

#: The label of Gemma's channel.
_CHANNEL = "<|channel>"
_LABEL = re.compile(r"<\|channel>[ \t]{0,4}(?P<label>\w{1,32})(?=\W)")
_LABEL_BEGUN = re.compile(r"<\|channel>[ \t]{0,4}\w{0,32}\Z")
_THINKING_LABELS = frozenset(("analysis", "thinking", "thought", "thoughts"))
_ANSWER_LABELS = frozenset(("answer", "final", "response"))


class _Marks:
    """A set of literal marks, and what may become one of them."""

    def __init__(self, *marks: str) -> None:
        longest_first = sorted(marks, key=len, reverse=True)
        self.find = re.compile("|".join(map(_literal, longest_first)), _FLAGS)
        self._begun = re.compile(
            "(?:" + "|".join(_prefixes(mark) for mark in marks) + r")\Z", _FLAGS
        )
        self._most = max(map(len, marks)) - 1

    def begins(self, text: str, at: int) -> bool:
        """Whether ``text[at:]`` is a mark's beginning."""
        return self._begun.match(text, at) is not None

    def tail(self, text: str, at: int) -> int:
        """Where at the end of ``text`` a mark may begin, not before ``at``."""
        found = self._begun.search(text, max(at, len(text) - self._most))
        return found.start() if found else len(text)


def _literal(mark: str) -> str:
    """A pattern of ``mark``: words in brackets count in their own case only."""
    literal = re.escape(mark)
    return f"(?-i:{literal})" if mark[0] == "[" else literal


def _prefixes(mark: str) -> str:
    """A pattern of the beginnings of ``mark``, at least one character."""
    pattern = ""
    for char in reversed(mark[1:-1]):
        pattern = f"(?:{re.escape(char)}{pattern})?"
    return re.escape(mark[0]) + pattern


_CLOSES = {mark.lower(): _Marks(close) for mark, close in _PAIRS.items()}
_ANSWER_CLOSES = {mark.lower(): _Marks(close) for mark, close in _ANSWERS.items()}
_GLUED_CLOSE = _Marks("assistantfinal")
_DETAILS_CLOSE = _Marks("</details>")
_OPENING = _Marks(*_PAIRS, *_PAIRS.values(), *_OPENERS, *_HEADERS)
_OPENING_OR_ANSWER = _Marks(*_PAIRS, *_PAIRS.values(), *_OPENERS, *_HEADERS, *_ANSWERS)
_BARE = _Marks("assistantanalysis", "analysis", "commentary", "final")
_IN_HEADER = _Marks("<|message|>", "<|constrain|>", *_HEADERS)
_BETWEEN = _Marks(*_HEADERS, *_ENDS)
_IN_TEXT = _Marks(*_ENDS)

#: What ends a thought whose opening mark was in the prompt.
_UNKNOWN_CLOSE = _Marks("<|end|>", *_PAIRS.values())
_TAG_OR_CLOSE = re.compile(f"{_TAG.pattern}|{_UNKNOWN_CLOSE.find.pattern}", _FLAGS)

#: A step's answer: the characters that decide are not there yet.
_HOLD = -1

#: How many names of tags inside a thought are told apart.
_MAX_NESTED = 16


class ThoughtSplitter:
    """Splits one text into `Part`s. Not to be called concurrently.

    The parts' texts together are the text that was received, and do not depend on how
    it was cut into deltas. At most `MAX_MARK` + `MAX_SPACE` characters are held back. A
    thought that is never closed is a thought to the end.

    ``begins_in_thought``: the prompt ended with the opening mark, so that the text
    begins inside a thought (templates of DeepSeek R1).
    """

    def __init__(self, *, begins_in_thought: bool = False) -> None:
        #: Whether all that follows is text: then nothing has to be asked any more.
        self.passes = False
        self._step: Callable[[str, int, bool], int] = self._begin
        self._held = ""
        self._parts: list[Part] = []
        self._inside = begins_in_thought
        #: Whether a thought, or the mark of one, came before.
        self._after = False
        self._space_is_text = False
        #: The open thought: its tag's name, or what closes it.
        self._name = ""
        self._nested: dict[str, int] = {}
        self._close = _GLUED_CLOSE
        #: The kind of Harmony's message that is being read.
        self._kind = Kind.TEXT
        self._harmony = False

    def __repr__(self) -> str:
        state = getattr(self._step, "__name__", "").strip("_")
        return f"<ThoughtSplitter {state} held={len(self._held)}>"

    def receive(self, text: str) -> list[Part]:
        """Take the next delta; return the parts that are certain."""
        if self.passes:
            return [Part(Kind.TEXT, text)] if text else []
        return self._split(self._held + text, final=False)

    def receive_eof(self) -> list[Part]:
        """The text has ended: return what was held back."""
        return self._split(self._held, final=True)

    def _split(self, text: str, *, final: bool) -> list[Part]:
        at = 0
        while at < len(text):
            step = self._step(text, at, final)
            if step == _HOLD:
                break
            at = step
        self._held = text[at:]
        parts, self._parts = self._parts, []
        return parts

    def _emit(self, kind: Kind, text: str) -> None:
        if text:
            self._parts.append(Part(kind, text))

    def _mark(self, text: str, at: int, end: int) -> int:
        self._emit(Kind.MARK, text[at:end])
        return end

    # The beginning, and what follows a thought

    def _begin(self, text: str, at: int, final: bool) -> int:
        space = _SPACE.match(text, at)
        begin = space.end() if space else at
        if begin > at and (self._after or self._space_is_text):
            self._emit(Kind.MARK if self._after else Kind.TEXT, text[at:begin])
            return begin
        if begin - at > MAX_SPACE:
            self._space_is_text = True
            return at
        if begin == len(text) and not final:
            return _HOLD
        return self._first(text, at, begin, final)

    def _first(self, text: str, at: int, begin: int, final: bool) -> int:
        """Read what is at ``begin``, behind the white space from ``at`` on."""
        tag = _TAG.match(text, begin)
        if tag is not None:
            return self._open_tag(tag, text, at)
        details = _DETAILS.match(text, begin, begin + MAX_MARK // 2)
        if details is not None:
            self._think(_DETAILS_CLOSE)
            return self._mark(text, at, details.end())
        marks = _OPENING_OR_ANSWER if self._after else _OPENING
        if not final and self._may_begin(marks, text, begin):
            return _HOLD
        found = marks.find.match(text, begin)
        if found is not None:
            return self._open_mark(found[0].lower(), text, at, begin)
        bare = _BARE_HEADER.match(text, begin)
        if bare is not None and not self._after:
            self._message(thinks=bare["channel"] == "analysis" or " to=" in bare[0])
            return self._mark(text, at, bare.end())
        glued = _GLUED.match(text, begin)
        if glued is not None and not self._after:
            self._think(_GLUED_CLOSE)
            return self._mark(text, at, glued.end())
        if self._inside:
            self._think_tagged("")
            return self._mark(text, at, begin)
        self._step = self._text
        return at

    def _may_begin(self, marks: _Marks, text: str, at: int) -> bool:
        if _TAG_BEGUN.match(text, at) or marks.begins(text, at):
            return True
        if _LABEL_BEGUN.match(text, at):
            return True
        return not self._after and (
            _BARE.begins(text, at)
            or _BARE_HEADER_BEGUN.match(text, at) is not None
            or _GLUED_BEGUN.match(text, at) is not None
        )

    def _open_tag(self, tag: re.Match[str], text: str, at: int) -> int:
        """A tag at the beginning; a lone closing one is a mark too."""
        self._inside = False
        self._after = True
        if not tag["close"] and not tag["empty"]:
            self._think_tagged(tag["name"].lower())
        return self._mark(text, at, tag.end())

    def _open_mark(self, mark: str, text: str, at: int, begin: int) -> int:
        end = begin + len(mark)
        if mark in _HEADERS:
            self._inside = False
            self._step = self._header
            return self._mark(text, at, begin)
        if mark in _ANSWER_CLOSES:
            self._close = _ANSWER_CLOSES[mark]
            self._step = self._answer
        elif mark == _CHANNEL:
            end = self._open_channel(text, begin)
        elif mark in _CLOSES:
            self._think(_CLOSES[mark])
        elif mark not in _OPENERS:
            self._inside = False
            self._after = True
        return self._mark(text, at, end)

    def _open_channel(self, text: str, begin: int) -> int:
        found = _LABEL.match(text, begin)
        label = found["label"].lower() if found else ""
        self._think(_CLOSES[_CHANNEL])
        if label in _ANSWER_LABELS:
            self._step = self._answer
        elif label not in _THINKING_LABELS:
            return begin + len(_CHANNEL)
        return found.end() if found else begin

    def _think(self, close: _Marks) -> None:
        self._inside = False
        self._after = True
        self._close = close
        self._step = self._marked

    def _think_tagged(self, name: str) -> None:
        self._inside = False
        self._after = True
        self._name = name
        self._nested.clear()
        self._step = self._tagged

    # Inside a thought

    def _marked(self, text: str, at: int, final: bool) -> int:
        return self._up_to(self._close, Kind.THOUGHT, self._begin, text, at, final)

    def _up_to(
        self,
        marks: _Marks,
        kind: Kind,
        then: Callable[[str, int, bool], int],
        text: str,
        at: int,
        final: bool,
    ) -> int:
        """All up to a closing mark is of one kind."""
        found = marks.find.search(text, at)
        if found is not None:
            self._emit(kind, text[at : found.start()])
            self._step = then
            return self._mark(text, found.start(), found.end())
        return self._all(kind, text, at, len(text) if final else marks.tail(text, at))

    def _all(self, kind: Kind, text: str, at: int, end: int) -> int:
        self._emit(kind, text[at:end])
        return end if end > at else _HOLD

    def _tagged(self, text: str, at: int, final: bool) -> int:
        known = bool(self._name)
        found = (_TAG if known else _TAG_OR_CLOSE).search(text, at)
        if found is None:
            end = len(text)
            if not final:
                begun = text.rfind("<", max(at, end - MAX_MARK))
                if begun >= 0 and _TAG_BEGUN.match(text, begun):
                    end = begun
                if not known:
                    end = min(end, _UNKNOWN_CLOSE.tail(text, at))
            return self._all(Kind.THOUGHT, text, at, end)
        if self._closes(found):
            self._emit(Kind.THOUGHT, text[at : found.start()])
            self._step = self._begin
            return self._mark(text, found.start(), found.end())
        self._emit(Kind.THOUGHT, text[at : found.end()])
        return found.end()

    def _closes(self, found: re.Match[str]) -> bool:
        """Whether a tag, or mark, inside a thought ends it.

        Its own closing tag does, and another one of this kind that was not opened
        inside: models mix up the names.
        """
        if not found["name"]:
            return True
        name = found["name"].lower()
        if found["empty"] or name == self._name:
            return bool(found["close"])
        if not found["close"]:
            if name in self._nested or len(self._nested) < _MAX_NESTED:
                self._nested[name] = self._nested.get(name, 0) + 1
            return False
        if self._nested.get(name):
            self._nested[name] -= 1
            return False
        return _THINKS.search(name) is not None

    # Behind the thoughts

    def _text(self, text: str, at: int, final: bool) -> int:
        self.passes = True
        return self._all(Kind.TEXT, text, at, len(text))

    def _answer(self, text: str, at: int, final: bool) -> int:
        return self._up_to(self._close, Kind.TEXT, self._text, text, at, final)

    # Harmony's messages

    def _header(self, text: str, at: int, final: bool) -> int:
        limit = at + MAX_MARK
        end = at
        while part := _HEADER_PART.match(text, end, limit):
            end = part.end()
        found = _HEADER_END.match(text, end, limit)
        if found is not None:
            header = text[at:end]
            self._message(
                thinks=_THINKING_CHANNEL.search(header) is not None
                or _RECIPIENT.search(header) is not None
            )
            if "<|channel|>" not in header.lower() and found[0] == "\n":
                self._step = self._between
            return self._mark(text, at, found.end())
        grows = end == len(text) or _IN_HEADER.begins(text, end)
        if grows and len(text) < limit:
            return self._mark(text, at, len(text)) if final else _HOLD
        # The mark has no meaning: no header is that long, or continues like that.
        self._step = self._body if self._harmony else self._text
        return self._mark(text, at, text.index(">", at) + 1)

    def _message(self, *, thinks: bool) -> None:
        self._inside = False
        self._harmony = True
        self._kind = Kind.THOUGHT if thinks else Kind.TEXT
        self._step = self._body

    def _body(self, text: str, at: int, final: bool) -> int:
        # A thought may be left without an end; a text that quotes a header is not.
        marks = _BETWEEN if self._kind is Kind.THOUGHT else _IN_TEXT
        found = marks.find.search(text, at)
        if found is not None and found[0].lower() in _HEADERS:
            self._emit(self._kind, text[at : found.start()])
            self._step = self._header
            return found.start()
        return self._up_to(marks, self._kind, self._between, text, at, final)

    def _between(self, text: str, at: int, final: bool) -> int:
        space = _SPACE.match(text, at)
        if space and space.end() > at:
            text_before = self._kind is Kind.TEXT
            self._emit(Kind.TEXT if text_before else Kind.MARK, space[0])
            return space.end()
        found = _BETWEEN.find.match(text, at)
        if found is not None and found[0].lower() in _ENDS:
            return self._mark(text, at, found.end())
        if found is not None:
            self._step = self._header
            return at
        if not final and _BETWEEN.begins(text, at):
            return _HOLD
        self._message(thinks=False)
        return at
