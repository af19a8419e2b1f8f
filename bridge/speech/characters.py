"""Which characters end, enclose and carry speech: Unicode facts, and cuts in graphemes.

A *strong* stop ends a sentence whatever follows it, so that it can be cut at once; a
*weak* one (Latin ``.``, ``!``, ``?``, ``…``) needs what comes after it.
"""

from __future__ import annotations

import re
import unicodedata

#: Ends a block (paragraph, heading, list item, table row) in spoken text.
PARAGRAPH = "\u2029"

STRONG = "。！？｡﹗﹖।॥؟۔።፧။៕។։՜՞"
WEAK = ".!?…"

#: Clause marks that want a space behind them, and those that stand without one.
SPACED_CLAUSE = ",;:"
WIDE_CLAUSE = "，、；：،؛—"

#: Opening mark -> its closing ones. ``“`` opens in English and closes in German,
#: ``»`` opens in German and closes in French; the stack of open marks decides.
ENCLOSURES = {
    "(": ")",
    "[": "]",
    "（": "）",
    "「": "」",
    "『": "』",
    "《": "》",
    "“": "”",
    "„": "“”",
    "«": "»",
    "»": "«",
    '"': '"',
}
CLOSERS = frozenset("".join(ENCLOSURES.values()) + "'’")
OPENERS = frozenset(ENCLOSURES) | frozenset("'‘‚¿¡")

#: Marks that directly follow a word, and those that directly precede one.
CLOSING = WEAK + STRONG + ",;:，、；：،؛)]}”›）」』》】"
OPENING = "([{“„‘‚（「『《【¿¡"

WIDE = re.compile(
    r"[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f"
    r"\uff00-\uff60\uffe0-\uffe6\U00020000-\U0003fffd]"
)
THAI = re.compile(r"[\u0e01-\u0e5b\u0e81-\u0edf]")
SPEAKABLE = re.compile(r"[^\W_]")

_ZWJ = "\u200d"
#: Marks that join a following consonant of an Indic script to the one before.
_VIRAMAS = frozenset("\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca")
#: Thai and Lao vowels that are written before the consonant they belong to.
_LEADING_VOWELS = frozenset("เแโใไເແໂໃໄ")
#: The longest cluster that is looked at; an endless run of marks is cut in the middle.
_MAX_CLUSTER = 64


def weight(text: str) -> int:
    """How much speech ``text`` is: code points, wide ones twice."""
    if text.isascii():
        return len(text)
    return len(text) + len(WIDE.findall(text))


def within_weight(text: str, limit: int) -> int:
    """The longest prefix of ``text`` whose weight is at most ``limit``: its length."""
    if text.isascii() or not WIDE.search(text):
        return min(limit, len(text))
    total = 0
    for index, char in enumerate(text):
        total += 2 if WIDE.match(char) else 1
        if total > limit:
            return index
    return len(text)


def grapheme_floor(text: str, index: int) -> int:
    """The last position up to ``index`` where ``text`` may be cut between graphemes.

    Unicode Standard Annex 29's rules as far as speech meets them. Returns ``index``
    itself where there is none.
    """
    for at in range(index, max(0, index - _MAX_CLUSTER), -1):
        if at >= len(text) or not _joined(text[at - 1], text[at]):
            return at
    return index


def _joined(before: str, after: str) -> bool:
    if before.isascii() and after.isascii():
        return before == "\r" and after == "\n"
    if after == _ZWJ or before == _ZWJ or before in _LEADING_VOWELS:
        return True
    if unicodedata.category(after) in ("Mn", "Mc", "Me"):
        return True
    if before in _VIRAMAS:
        return after.isalpha()
    return _pairs(ord(before), ord(after))


def _pairs(before: int, after: int) -> bool:
    """Flags, skin tones, and conjoining Hangul."""
    flags = 0x1F1E6 <= before <= 0x1F1FF and 0x1F1E6 <= after <= 0x1F1FF
    tone = 0x1F3FB <= after <= 0x1F3FF
    jamo = 0x1100 <= before <= 0x11FF and 0x1160 <= after <= 0x11FF
    return flags or tone or jamo
