"""What the decoder is told while it learns: the target's own embedding, or what a rewriter would know."""

from __future__ import annotations

import numpy as np
import pytest

from guardrail.dglm.aims import Aim, Aims, wanted
from guardrail.dglm.codec import HIDDEN
from guardrail.dglm.corpus import Pair
from guardrail.dglm.guidance import Guide
from guardrail.dglm.latents import LatentStatistics
from guardrail.dglm.training import training_aims
from guardrail.errors import ConfigurationError

DIM = 16
HEADS = {
    name: Guide(np.random.default_rng(seed).standard_normal(DIM).astype(np.float32), 0.5)
    for seed, name in enumerate(("insult", "threat", "profanity", "sexism"))
}
PAIR = Pair(f"you {HIDDEN} never listen", "you never listen")


def statistics() -> LatentStatistics:
    identity = np.eye(DIM, dtype=np.float32)
    return LatentStatistics(np.zeros(DIM, np.float32), np.ones(DIM, np.float32), identity, 1000, "encoder")


def test_the_base_is_what_a_rewriter_sees_without_its_hidden_words() -> None:
    aims = Aims(tuple(HEADS.values()), share=1.0)
    drawn = [aims.draw(PAIR, np.random.default_rng(seed)) for seed in range(50)]
    assert drawn == [aims.draw(PAIR, np.random.default_rng(seed)) for seed in range(50)]
    assert {aim.base for aim in drawn} == {"you never listen"}
    assert {len(aim.guides) for aim in drawn} == {1, 2, 3}
    assert all(1.0 <= aim.margin <= 6.0 for aim in drawn)


@pytest.mark.parametrize(
    ("aims", "pair"),
    [
        (Aims(), PAIR),
        (Aims(tuple(HEADS.values()), share=0.0), PAIR),
        (Aims(tuple(HEADS.values()), share=1.0), Pair("", "Nothing was there.")),
        (Aims(tuple(HEADS.values()), share=1.0), Pair(f"{HIDDEN} {HIDDEN}", "All of it is hidden.")),
    ],
    ids=["no heads", "no share", "no draft", "all hidden"],
)
def test_without_heads_or_draft_the_aim_is_the_target(aims: Aims, pair: Pair) -> None:
    assert aims.draw(pair, np.random.default_rng(0)) == Aim(pair.target)


def test_a_wanted_embedding_is_on_the_allowed_side_and_an_unguided_one_is_left_alone() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, DIM)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    guide = HEADS["insult"]
    moved = wanted([Aim("a", (guide,), 1.5), Aim("b")], x, statistics())
    assert moved[0] @ guide.weight + guide.bias == pytest.approx(-1.5, abs=0.05)
    assert np.linalg.norm(moved[0]) == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(moved[1], x[1])


def test_a_recipe_names_heads_that_are_there() -> None:
    aims = training_aims({"aims": {"heads": ["threat"], "share": 0.5, "margins": [2, 3]}}, HEADS)
    assert aims == Aims((HEADS["threat"],), 0.5, (2.0, 3.0))
    assert training_aims({}, HEADS) == Aims()
    with pytest.raises(ConfigurationError, match="kindness"):
        training_aims({"aims": {"heads": ["kindness"]}}, HEADS)
