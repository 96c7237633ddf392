"""The shipped words are clean, and runs of letters fall into them."""

from guardrail.text.words import load, plain


def test_the_shipped_words_are_plain() -> None:
    vocabulary = load()
    assert len(vocabulary.common) > 10_000
    assert len(vocabulary.sensitive) > 500
    for word in [*vocabulary.common, *vocabulary.sensitive]:
        assert word.isascii()
        assert word.isalpha()
        assert word.islower()


def test_letters_fall_into_words() -> None:
    assert load().split("youareanidiot") == [("you", True), ("are", True), ("an", True), ("idiot", True)]
    assert load().split("") == []
    assert ("zqxjk", False) in load().split("youzqxjk")


def test_a_policy_adds_words_without_changing_the_shipped_ones() -> None:
    extended = load().extended(["frobnitz"])
    assert extended.knows("frobnitz")
    assert extended.shaped("f", "z", 8) == ["frobnitz"]
    assert not load().knows("frobnitz")


def test_plain_folds_case_and_accents() -> None:
    assert plain("ÉCOLE") == "ecole"
    assert plain("Idiot") == "idiot"
