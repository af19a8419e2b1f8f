"""What a place in the text is, by the few characters around it."""

from __future__ import annotations

import pytest

from bridge.speech.places import Place, clause, is_inside, opens, thai_space


@pytest.mark.parametrize(
    ("text", "mark", "place"),
    [
        ("well, yes", ",", Place.CLAUSE),
        ("1,000", ",", Place.NOTHING),
        ("at 10:30", ":", Place.NOTHING),
        ("in 1, 2", ",", Place.NOTHING),
        ("in 1, we", ",", Place.CLAUSE),
        ("in 1, ", ",", Place.UNDECIDED),
        ("well,", ",", Place.UNDECIDED),
        ("好，我", "，", Place.CLAUSE),
        ("1，2", "，", Place.NOTHING),
        ("نعم، هذا", "،", Place.CLAUSE),
    ],
)
def test_clauses(text: str, mark: str, place: Place) -> None:
    assert clause(text, text.index(mark), final=False)[0] is place
    if place is Place.UNDECIDED:
        assert clause(text, text.index(mark), final=True)[0] is Place.NOTHING


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("ดีครับ แล้วพบกัน", Place.SENTENCE),
        ("เขามา แล้วพบกัน", Place.SPACE),
        ("เขามา และพบกัน", Place.NOTHING),
        ("เขามา แ", Place.UNDECIDED),
        ("เขามา ", Place.UNDECIDED),
        ("ราคา 5", Place.NOTHING),
        ("ต่าง ๆ มาก", Place.NOTHING),
    ],
)
def test_thai_spaces(text: str, place: Place) -> None:
    assert thai_space(text, text.index(" "), final=False)[0] is place


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"a', True),
        ('a "b', True),
        ('12" wide', False),
        ('a" b', False),
        ('说"好', True),
    ],
)
def test_a_straight_quotation_mark_opens(text: str, expected: bool) -> None:
    assert opens(text, text.index('"')) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("(a", False), ("x. (a", False), ("x (a", True), ('"x" (', False)],
)
def test_a_bracket_inside_a_sentence(text: str, expected: bool) -> None:
    assert is_inside(text, text.index("(")) is expected
