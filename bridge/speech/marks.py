"""The marks of Markdown, addresses, emoji and citations, as patterns.

Bounded everywhere: what a mark may hold back of a stream has a limit, so that neither
the buffer nor the time grows with what a model makes of a bracket. ``…_BEGUN`` matches
what may still become the mark of the same name when more text comes.
"""

from __future__ import annotations

import re
from functools import lru_cache

from bridge.speech.characters import STRONG

EMOJI_BASE = (
    "\U0001f000-\U0001f1e5\U0001f200-\U0001f3fa\U0001f400-\U0001faff"
    "\u2600-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55"
    "\u231a\u231b\u23e9-\u23fa\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2934\u2935"
)
FLAGS = "\U0001f1e6-\U0001f1ff"
MODIFIERS = "\ufe0e\ufe0f\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"
EMOJI = re.compile(
    f"[{FLAGS}]{{1,2}}"
    f"|[{EMOJI_BASE}][{MODIFIERS}]*(?:\u200d[{EMOJI_BASE}]?[{MODIFIERS}]*){{0,8}}"
    f"|[{MODIFIERS}]+"
)
MAX_EMOJI = 64

URL = re.compile(
    r"(?:https?://|www\.)\w"
    r"[^\s<>\"'`|\\^{}\[\]，。、；：！？（）「」【】\u3000-\u30ff\u4e00-\u9fff]{0,2000}"
)
URL_EMPTY = re.compile(r"(?:https?://|www\.)\Z")
URL_TAIL = re.compile(r"[.,;:!?…*_~)]+\Z")
HOST = re.compile(r"(?:https?://)?(?:www\.)?([^/?#\s]*)")
URL_BEGUN = re.compile(r"(?:h|ht|htt|https?|https?:|https?:/|w|ww|www)\Z")
URL_BEGUN_END = frozenset("htps:/w")

RUN = re.compile(r"\*+|_+|~+")
CODE = re.compile(r"(`+)(?!`)(.{1,300}?)(?<!`)\1(?!`)")
TICKS = re.compile(r"`+")
BRACKET = re.compile(
    r"\[((?:[^\[\]\\\n]|\\.|\[[^\[\]\n]{0,200}\]){0,400})\]", re.DOTALL
)
TARGET = re.compile(
    r"\([ \t]*(<[^<>\n]{0,1999}>|(?:[^()\s]|\([^()\s]*\)){0,2000})"
    r"(?:\s+(?:\"[^\"\n]{0,300}\"|'[^'\n]{0,300}'))?[ \t]*\)"
)
TARGET_BEGUN = re.compile(
    r"\([ \t]*(?:<[^<>\n]{0,1999}>?|(?:[^()\s]|\([^()\s]*\)){0,2000}(?:\([^()\s]*)?)"
    r"(?:\s+(?:\"[^\"\n]{0,300}\"?|'[^'\n]{0,300}'?)?[ \t]*)?\Z"
)
REFERENCE = re.compile(r"\[[^\[\]\n]{0,200}\]")
REFERENCE_BEGUN = re.compile(r"\[[^\[\]\n]{0,200}\Z")
CITATION = re.compile(
    r"\^[^\]]{1,40}|\d{1,3}(?:\s?[,;–-]\s?\d{1,3}){0,8}|\d{1,3}[:†].*", re.DOTALL
)
CJK_CITATION = re.compile(r"【([^【】\n]{0,64})】")
TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>|<!--[^<\n]{0,200}?-->")
AUTOLINK = re.compile(r"<((?:https?://|www\.)[^\s<>]{0,2000})>")
AUTOLINK_BEGUN = re.compile(r"<(?:https?://|www\.)[^\s<>]{0,2000}\Z")
BREAK_TAG = re.compile(r"</?(?:br|p|div|li|tr|h[1-6])\b", re.IGNORECASE)
ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}|#\d{1,6});")
ENTITY_BEGUN = re.compile(r"&#?\w{0,8}\Z")
TARGETS = {"(": (TARGET, TARGET_BEGUN), "[": (REFERENCE, REFERENCE_BEGUN)}
INNER_MARKS = re.compile(r"[*`~]+|(?<!\w)_+|_+(?!\w)")

#: Above this a line of marks is text: nobody rules a line of 200 characters.
_LINE_END = r"\r?(?:\n|\Z)"
_GAP = r"[ \t\r]{0,500}"
_SOME = r"[ \t]{1,200}"
BLOCK = re.compile(
    _GAP + r"(?:"
    r"(?P<fence>`{3,100}|~{3,100})[^\n`]{0,300}(?:\n|\Z)"
    rf"|(?=[-*_= \t]{{1,200}}{_LINE_END})(?P<rule>(?:(?:\*[ \t]*){{3,}}"
    rf"|(?:-[ \t]*){{2,}}|(?:_[ \t]*){{3,}}|=+[ \t]*){_LINE_END})"
    rf"|(?P<heading>\#{{1,6}}{_SOME})"
    rf"|(?P<bullet>[-*+•‣◦]{_SOME}(?:\[[ xX]\]{_SOME})?)"
    rf"|(?P<number>\d{{1,3}}[.)]){_SOME}"
    r"|(?P<quote>>[ \t]?)"
    rf"|(?=\|[ \t:|-]{{0,500}}{_LINE_END})(?P<ruler>\|[ \t:|]*-[ \t:|-]*{_LINE_END})"
    r"|(?P<row>\|[ \t]{0,200})"
    r"|(?P<blank>\n)"
    r")"
)
_MAYBE = r"[ \t]{0,200}"
BLOCK_BEGUN = re.compile(
    _GAP + r"(?:`{0,2}|~{0,2}|(?:`{3,100}|~{3,100})[^\n`]{0,300}"
    r"|[-*_=][-*_= \t]{0,199}\r?"
    rf"|\#{{1,6}}{_MAYBE}|[-*+•‣◦]{_MAYBE}(?:\[.?\]?{_MAYBE})?|\d{{1,3}}[.)]?{_MAYBE}"
    r"|>|\|[ \t:|-]{0,500}\r?)\Z"
)


EMOJI_MODIFIERS = frozenset("\ufe0e\ufe0f\u20e3")


def is_emoji(char: str) -> bool:
    """Whether ``char`` is an emoji's base."""
    return char not in EMOJI_MODIFIERS and EMOJI.match(char) is not None


@lru_cache(maxsize=4)
def special(*, markdown: bool, emoji: bool) -> re.Pattern[str]:
    """What ends a run of plain text."""
    chars = rf"\n【{STRONG}"
    if markdown:
        chars += r"*_`\[<\\~&|"
    if emoji:
        chars += EMOJI_BASE + FLAGS + MODIFIERS
    return re.compile(rf"[{chars}]|https?://|www\.")
