import string

import pytest

from bridge.simulator.corpus import ENGLISH, NAMES, OTHERS

SLOTS = {"name", "n", "clock", "price", "decimal", "percent", "thousands", "year"}


@pytest.mark.parametrize("sentence", ENGLISH + OTHERS)
def test_every_sentence_has_only_known_slots(sentence: str) -> None:
    names = {name for _, name, _, _ in string.Formatter().parse(sentence) if name}
    assert names <= SLOTS


def test_nothing_occurs_twice() -> None:
    for items in (ENGLISH, OTHERS, NAMES):
        assert len(set(items)) == len(items)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_utf8_characters_of_every_width_occur(width: int) -> None:
    assert any(len(c.encode()) == width for c in "".join(OTHERS))
