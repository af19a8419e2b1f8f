"""The marks of Markdown, addresses, emoji and citations, as patterns.

Bounded everywhere: what a mark may hold back of a stream has a limit, so that neither
the buffer nor the time grows with what a model makes of a bracket. Those without a
limit of their own are given one as ``endpos`` by who asks. A repetition that could be
split in several ways is possessive: no text makes a pattern go back and try them all.
``…_BEGUN`` matches what may still become the mark of the same name when more text
comes.
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
    r"[^\s<>\"'`|\\^{}\[\]，。、；：！？（）「」【】\u3000-\u30ff\u4e00-\u9fff]*"
)
URL_EMPTY = re.compile(r"(?:https?://|www\.)\Z")
URL_TAIL = ".,;:!?…*_~)"
HOST = re.compile(r"(?:https?://)?(?:www\.)?([^/?#\s]*)")
URL_BEGUN = re.compile(r"(?:h|ht|htt|https?|https?:|https?:/|w|ww|www)\Z")
URL_BEGUN_END = frozenset("htps:/w")

RUN = re.compile(r"\*+|_+|~+")
CODE = re.compile(r"(`++)(.{1,300}?)(?<!`)\1(?!`)")
TICKS = re.compile(r"`+")
BRACKET = re.compile(r"\[((?:[^\[\]\\\n]++|\\[^\n]|\[[^\[\]\n]{0,200}+\])*+)\]")
TARGET = re.compile(
    r"\([ \t]*+(<[^<>\n]*+>|(?!<)(?:[^()\s]++|\([^()\s]*+\))*+)"
    r"(?:\s++(?:\"[^\"\n]{0,300}+\"|'[^'\n]{0,300}+'))?[ \t]*+\)"
)
TARGET_BEGUN = re.compile(
    r"\([ \t]*+(?:<[^<>\n]*+>?|(?!<)(?:[^()\s]++|\([^()\s]*+\))*+(?:\([^()\s]*+)?)"
    r"(?:\s++(?:\"[^\"\n]{0,300}+\"?|'[^'\n]{0,300}+'?)?[ \t]*+)?\Z"
)
REFERENCE = re.compile(r"\[[^\[\]\n]{0,200}\]")
REFERENCE_BEGUN = re.compile(r"\[[^\[\]\n]{0,200}\Z")
CITATION = re.compile(
    r"\^[^\]]{1,40}|\d{1,3}(?:\s?[,;–-]\s?\d{1,3}){0,8}|\d{1,3}[:†].*", re.DOTALL
)
CJK_CITATION = re.compile(r"【([^【】\n]{0,64})】")

#: The elements of HTML (https://html.spec.whatwg.org/multipage/indices.html), and those
#: of its obsolete ones that are about how text looks.
_ELEMENTS = """
a abbr address area article aside audio b base bdi bdo blockquote body br button canvas
caption cite code col colgroup data datalist dd del details dfn dialog div dl dt em
embed fieldset figcaption figure footer form h[1-6] head header hgroup hr html i iframe
img input ins kbd label legend li link main map mark math menu meta meter nav noscript
object ol optgroup option output p picture pre progress q rp rt ruby s samp script
search section select selectedcontent slot small source span strong style sub summary
sup svg table tbody td template textarea tfoot th thead time title tr track u ul var
video wbr acronym big center font marquee nobr strike tt
"""
_ELEMENT = "(?:" + "|".join(sorted(_ELEMENTS.split(), key=len, reverse=True)) + ")"
#: Attributes have a value, or are one of those that need none: "if i <b and c> d" is
#: no tag.
_ATTRIBUTE = (
    r"[\w:@.-]++\s*+=\s*+(?:\"[^\"<>\n]*+\"|'[^'<>\n]*+'|[^\s\"'<>]++)"
    r"|allowfullscreen|async|autofocus|autoplay|checked|controls|defer|disabled|download"
    r"|hidden|inert|ismap|itemscope|loop|multiple|muted|novalidate|nowrap|open"
    r"|playsinline|readonly|required|reversed|selected"
)
TAG = re.compile(
    rf"</?{_ELEMENT}(?:\s++(?:{_ATTRIBUTE}))*+\s*+/?>"
    r"|<!--[^\n]*?-->|<!doctype [^<>\n]*+>",
    re.IGNORECASE | re.ASCII,
)
TAG_BEGUN = re.compile(
    rf"<(?:/?[a-z]{{0,17}}[1-6]?|/?{_ELEMENT}(?:\s[^<>\n]*+)?/?|!(?:-(?:-[^\n]*)?)?|![a-z]+"
    r"(?: [^<>\n]*+)?)\Z",
    re.IGNORECASE | re.ASCII,
)
OPENING_TAG = re.compile(
    r"<(?!area|base|col|embed|hr|img|input|link|meta|source|track|wbr)[a-z][^<>]*[^/]>"
    r"|<[a-z]>",
    re.IGNORECASE | re.ASCII,
)

#: Special tokens of models' chat templates, which no text for people holds: the end of
#: a turn where a server lets it through, and the headers between the turns.
TOKEN = re.compile(
    r"<\|/?[a-z][\w:./-]{0,40}+\|?>|<[a-z][\w:./-]{0,40}+\|>|<｜[^<>｜\n]{1,40}+｜>"
    r"|</s>|<(?:bos|eos|pad|unk|eod|eop|start_of_turn|end_of_turn|end_of_utterance)>",
    re.IGNORECASE | re.ASCII,
)
TOKEN_BEGUN = re.compile(
    r"<(?:\|(?:/?(?:[a-z][\w:./-]{0,40}+\|?)?)?|[a-z][\w:./-]{0,40}+\|?|/s?"
    r"|｜[^<>｜\n]{0,40}+｜?)?\Z",
    re.IGNORECASE | re.ASCII,
)
_HEADER_WORDS = re.compile(
    r"[^<\n]{0,64}+(?=<\|(?:channel|constrain|end_header_id|message|sep)\|>)"
)
_HEADER_WORDS_BEGUN = re.compile(r"[^<\n]{0,64}+(?:<(?:\|(?:[a-z_]{1,13}\|?)?)?)?\Z")
_ROLE = re.compile(r"(?:assistant|model|system|tool|user)(?=\n)")
_ROLE_BEGUN = re.compile(r"[a-z]{0,9}\Z")
#: The words of a header behind its token: "assistant", "final", "assistant to=f".
HEADERS = {
    **dict.fromkeys(
        ("<|start|>", "<|channel|>", "<|constrain|>", "<|start_header_id|>", "<|open|>",
         "<|close|>"),
        (_HEADER_WORDS, _HEADER_WORDS_BEGUN),
    ),
    **dict.fromkeys(
        ("<|im_start|>", "<start_of_turn>", "<|turn>"), (_ROLE, _ROLE_BEGUN)
    ),
}  # fmt: skip
AUTOLINK = re.compile(r"<((?:https?://|www\.)[^\s<>]{0,2000})>")
AUTOLINK_BEGUN = re.compile(r"<(?:https?://|www\.)[^\s<>]{0,2000}\Z")
BREAK_TAG = re.compile(
    r"</?(?:address|article|aside|blockquote|br|caption|center|dd|details|dialog|div|dl|dt"
    r"|fieldset|figcaption|figure|footer|form|h[1-6]|header|hr|legend|li|main|nav|ol"
    r"|option|p|pre|section|summary|table|tbody|td|tfoot|th|thead|title|tr|ul)\b",
    re.IGNORECASE | re.ASCII,
)
ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}|#\d{1,6});")
ENTITY_BEGUN = re.compile(r"&#?\w{0,8}\Z")
TARGETS = {"(": (TARGET, TARGET_BEGUN), "[": (REFERENCE, REFERENCE_BEGUN)}
INNER_MARKS = re.compile(r"[*`~]+|(?<!\w)_+|_+(?!\w)")

#: Above this a line of marks is text: nobody rules a line of 200 characters.
_LINE_END = r"\r?(?:\n|\Z)"
_GAP = r"[ \t\r]{0,500}+"
_SOME = r"[ \t]{1,200}"
BLOCK = re.compile(
    _GAP + r"(?:"
    r"(?P<fence>`{3,100}|~{3,100})[^\n`]{0,300}(?:\n|\Z)"
    rf"|(?=[-*_= \t]{{1,200}}{_LINE_END})(?P<rule>"
    r"(?:(?:\*[ \t]{0,200}+){3}[* \t]{0,200}+|(?:-[ \t]{0,200}+){2}[- \t]{0,200}+"
    r"|(?:_[ \t]{0,200}+){3}[_ \t]{0,200}+|={1,200}+[ \t]{0,200}+)"
    rf"{_LINE_END})"
    rf"|(?P<heading>\#{{1,6}}{_SOME})"
    rf"|(?P<bullet>[-*+•‣◦]{_SOME}(?:\[[ xX]\]{_SOME})?)"
    rf"|(?P<number>\d{{1,3}}[.)]){_SOME}"
    r"|(?P<quote>>[ \t]?)"
    rf"|(?=\|[ \t:|-]{{0,500}}{_LINE_END})(?P<ruler>\|[ \t:|]{{0,500}}"
    rf"-[ \t:|-]{{0,500}}{_LINE_END})"
    r"|(?P<row>\|[ \t]{0,200})"
    r"|(?P<blank>\n)"
    r")"
)
#: A code block whose fence follows other words on its line. Markdown has none, but
#: models write "Here it is: ```python".
LATE_FENCE = re.compile(r"(?P<fence>`{3,100})[\w+#.-]{0,30}[ \t]{0,30}\r?\n")
LATE_FENCE_BEGUN = re.compile(r"`{1,100}[\w+#.-]{0,30}[ \t]{0,30}\r?\Z")
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
    chars = rf"\n【<{STRONG}"
    if markdown:
        chars += r"*_`\[\\~&|"
    if emoji:
        chars += EMOJI_BASE + FLAGS + MODIFIERS
    image = r"|!(?=\[)" if markdown else ""
    return re.compile(rf"[{chars}]|https?://|www\.{image}")
