"""From spoken text back to where it came from."""

from __future__ import annotations

from bridge.speech.characters import PARAGRAPH
from bridge.speech.spoken_text import SpokenText


def test_plain_text_maps_one_to_one() -> None:
    spoken = SpokenText()
    spoken.say("Hello ", 0)
    spoken.say("world", 6)
    assert spoken.text == "Hello world"
    assert [spoken.source_of(at) for at in (0, 6, 10)] == [0, 6, 10]
    assert spoken.source_after(10) == 11


def test_what_is_left_out_moves_what_follows() -> None:
    spoken = SpokenText()
    spoken.say("a ", 0)
    spoken.say("bold", 4)
    spoken.close_mark(8, 10)
    spoken.say(" z", 10)
    assert spoken.text == "a bold z"
    assert spoken.source_of(2) == 4
    assert spoken.source_after(5) == 10  # the closing mark belongs to "bold"
    assert spoken.source_of(7) == 11


def test_an_atom_has_one_place_and_is_not_cut() -> None:
    spoken = SpokenText()
    spoken.say("See ", 0)
    spoken.say_instead("the docs", 4, 30)
    spoken.say(".", 30)
    assert (spoken.source_of(6), spoken.source_after(6)) == (4, 30)
    assert spoken.atom_start(7) == 4
    assert spoken.atom_end(7) == 12
    assert spoken.atom_start(12) == 12


def test_a_cut_takes_the_white_space_along() -> None:
    spoken = SpokenText()
    spoken.say("One.  Two.", 0)
    spoken.cut(4)
    assert spoken.text == "Two."
    assert spoken.source_of(0) == 6


def test_white_space_never_begins_the_text() -> None:
    spoken = SpokenText()
    spoken.break_block(0)
    spoken.say("  \n x", 0)
    assert spoken.text == "x"
    assert spoken.source_of(0) == 4


def test_blocks_are_broken_once() -> None:
    spoken = SpokenText()
    spoken.say("x", 0)
    spoken.break_block(1)
    spoken.break_block(2)
    spoken.break_line(3)
    assert spoken.text == "x" + PARAGRAPH


def test_what_stands_before_the_start_is_not_said() -> None:
    spoken = SpokenText(start=6)
    spoken.say("Hello world", 0)
    spoken.say_instead("no", 3, 5)
    assert spoken.text == "world"
    assert spoken.source_of(0) == 6
