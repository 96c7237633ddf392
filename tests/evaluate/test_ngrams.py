"""The independent language model: probabilities that sum to one, known values, and a preference for English."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from guardrail.errors import DataError
from guardrail.evaluate.ngrams import LANGUAGE_FILES, NGramModel, held_out_sentences, perplexity

SENTENCES = [[5, 6, 7], [5, 6, 8], [5, 6, 7], [9, 6, 7], [9, 9]]


@pytest.fixture(scope="module")
def model() -> NGramModel:
    return NGramModel(SENTENCES, 200)


@pytest.mark.parametrize("before", [[], [5], [5, 6], [9, 6], [150], [150, 6], [7, 7, 9]])
def test_every_distribution_sums_to_one_and_nothing_is_impossible(model: NGramModel, before: list[int]) -> None:
    p = model.distribution(before)
    assert p.sum() == pytest.approx(1.0)
    assert p.min() > 0


def test_a_sentence_scores_what_the_distributions_say(model: NGramModel) -> None:
    ids = [5, 6, 150, 7]
    found = model.log_probabilities(ids)
    wanted = [np.log(model.distribution(ids[:t])[token]) for t, token in enumerate([*ids, 102])]
    assert found == pytest.approx(wanted)


def test_the_highest_order_is_absolute_discounting(model: NGramModel) -> None:
    """After (5, 6): 7 twice, 8 once, nothing else. With D of trigrams, p(7) = (2 - D) / 3 + D * 2 / 3 * p(7 | 6)."""
    lower = NGramModel(SENTENCES, 200)
    d = lower._discounts[2]
    bigram = np.exp(lower.log_probabilities([150, 6, 7])[2])  # (150, 6) is new, so this is the bigram's
    assert model.distribution([5, 6])[7] == pytest.approx((2 - d) / 3 + d * 2 / 3 * bigram)


def test_lower_orders_count_contexts_not_tokens() -> None:
    """ "Francisco" is frequent but follows one word only (Kneser & Ney 1995): new contexts do not expect it."""
    san, francisco, glasses = 10, 11, 12
    sentences = [[san, francisco]] * 30 + [[word, glasses] for word in range(20, 32)]
    model = NGramModel(sentences, 200)
    p = model.distribution([150])
    assert p[glasses] > 3 * p[francisco]


def test_perplexity_prefers_what_it_knows(model: NGramModel) -> None:
    assert perplexity(model, [[5, 6, 7]]) < perplexity(model, [[7, 6, 5]])
    assert np.isnan(perplexity(model, []))
    with pytest.raises(DataError):
        NGramModel([[], []], 200)


def test_held_out_sentences_come_from_the_evaluation_only_sets(tmp_path: Path) -> None:
    for name in LANGUAGE_FILES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        row = {"turns": [{"text": "How are you today ? Fine ."}]} if "dialogue" in name else {"text": "One two three."}
        with gzip.open(path, "wt", encoding="utf8") as file:
            file.write("It rained.<br />We went home .\n" if ".txt" in name else json.dumps(row) + "\n")
    found = list(held_out_sentences(tmp_path))
    assert found.count("How are you today?") == 3  # "Fine." is too short
    assert found.count("We went home.") == 2
    (tmp_path / LANGUAGE_FILES[0]).unlink()
    with pytest.raises(DataError, match="dailydialog"):
        list(held_out_sentences(tmp_path))
