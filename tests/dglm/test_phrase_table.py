"""What people write instead of what offends."""

from __future__ import annotations

from pathlib import Path

import pytest

from guardrail.dglm.phrase_table import PhraseTable, learn, load, save, with_articles
from guardrail.errors import CheckpointError

PAIRS = [
    ("What an ignorant comment.", "What a bad comment."),
    ("An ignorant idea!", "A bad idea!"),
    ("an ignorant man", "an uninformed man"),
    ("Shut up and listen.", "Be quiet and listen."),
    ("shut up, please", "be quiet, please"),
    ("This is damn good.", "This is good."),
    ("That is damn slow.", "That is slow."),
]


def no_opinion(texts, draft):
    return [0.0] * len(texts)


def spans(text: str, *words: str) -> list[tuple[int, int]]:
    return [(text.index(word), text.index(word) + len(word)) for word in words]


@pytest.fixture(scope="module")
def table() -> PhraseTable:
    return learn(PAIRS)


def test_phrases_are_learned_with_their_shares_and_pure_deletions_are_not(table: PhraseTable) -> None:
    assert dict(table.table)["shut up"] == (("be quiet", 1.0),)
    assert "damn" not in table.table  # leaving it out is a plan of its own
    assert learn(PAIRS, least=3).table == {}


def test_replacements_keep_case_and_punctuation_and_articles_agree(table: PhraseTable) -> None:
    text = "Such an Ignorant, lazy answer."
    table = PhraseTable({"ignorant": (("bad", 0.7), ("uninformed", 0.3))})
    found = table.substitutions(text, spans(text, "Ignorant,"), no_opinion, 3)
    assert found == ["Such a Bad, lazy answer.", "Such an Uninformed, lazy answer."]


def test_the_longest_phrase_wins_and_unknown_words_stay(table: PhraseTable) -> None:
    text = "Oh, shut up, zorg."
    assert table.substitutions(text, spans(text, "shut", "up,", "zorg."), no_opinion, 4) == ["Oh, be quiet, zorg."]
    assert table.substitutions(text, spans(text, "zorg."), no_opinion, 4) == []
    assert table.substitutions("", [], no_opinion, 4) == []


def test_combinations_are_ranked_by_habit_and_fluency() -> None:
    table = PhraseTable({"dumbest": (("most unreliable", 0.5), ("worst", 0.4)), "damn": (("", 0.9), ("very", 0.1))})
    text = "dumbest damn idea ever"
    words = spans(text, "dumbest", "damn")

    def likes_worst(texts, draft):
        assert draft == text
        return [0.0 if "worst idea" in one else -5.0 for one in texts]

    table = PhraseTable({**table.table})
    assert table.substitutions(text, words, likes_worst, 1) == ["worst idea ever"]
    assert len(table.substitutions(text, words, no_opinion, 99)) == 4


def test_a_replacement_at_the_end_leaves_no_space() -> None:
    table = PhraseTable({"moron": (("", 1.0),)})
    assert table.substitutions("Stop it, moron!", [(9, 15)], no_opinion, 2) == ["Stop it,!"]  # the decoder's to mend


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("an bad idea", "a bad idea"),
        ("A uninformed guess", "An uninformed guess"),
        ("a unit, a one-off, an hour", "a unit, a one-off, an hour"),
        ("a unique user", "a unique user"),
        ("a European", "a European"),
        ("plan a", "plan a"),
    ],
)
def test_articles(before: str, after: str) -> None:
    assert with_articles(before) == after


def test_saved_and_loaded(table: PhraseTable, tmp_path: Path) -> None:
    save(table, tmp_path / "phrases.json")
    loaded = load(tmp_path / "phrases.json")
    assert loaded.table["shut up"] == [("be quiet", 1.0)]
    (tmp_path / "phrases.json").write_text("[]")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path / "phrases.json")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path / "nothing.json")


def test_articles_of_the_draft_stay_as_they_are() -> None:
    assert with_articles("a hour of an work", "I waited A hour.") == "a hour of a work"
