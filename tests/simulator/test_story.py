from hypothesis import given
from hypothesis import strategies as st

from bridge.simulator.story import LONGEST, SHORTEST, Story, tokenize


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    tokens = tokenize(text)
    assert "".join(tokens) == text
    assert all(tokens)


def test_tokens_are_words_and_pieces() -> None:
    assert tokenize("The harbourmaster, at 7:45 a.m., paid 1850.") == [
        "The", " harb", "ourma", "ster", ",", " at", " 7", ":", "45", " a", ".", "m",
        ".", ",", " paid", " 185", "0", ".",
    ]  # fmt: skip
    assert tokenize("港の朝 🌊\n\nà") == ["港の", "朝", " 🌊", "\n\n", "à"]


def test_a_seed_always_gives_this_text() -> None:
    # Pinned: recorded texts must not change with a Python release.
    start = "".join(Story("pinned").tokens(0, 12))
    assert start == "There are 2,980 books in the library, and one"


@given(st.text(), st.integers(0, 400), st.integers(0, 400))
def test_the_text_does_not_depend_on_how_it_is_read(
    seed: str, start: int, length: int
) -> None:
    whole = Story(seed).tokens(0, 800)
    story = Story(seed)
    assert story.tokens(start, start + length) == whole[start : start + length]
    assert story[start] == whole[start]


@given(st.text())
def test_the_natural_length_is_a_sentence_end_in_range(seed: str) -> None:
    story = Story(seed)
    assert SHORTEST <= story.natural_length <= LONGEST + 40
    following = story[story.natural_length]
    assert following[0] in " \n"


def test_different_seeds_give_different_texts() -> None:
    texts = {"".join(Story(str(n)).tokens(0, 40)) for n in range(200)}
    assert len(texts) == 200


def test_a_long_text_does_not_repeat_itself_soon() -> None:
    text = "".join(Story("long").tokens(0, 2000))
    paragraphs = text.split("\n\n")
    assert len(paragraphs) > 20
    assert len(set(paragraphs)) == len(paragraphs)


def test_repr_shows_the_state() -> None:
    assert "tokens so far" in repr(Story("x"))
