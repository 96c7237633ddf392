"""Recipes that go on from weights that are there: heads moved by later texts, networks averaged, texts put foremost."""

from __future__ import annotations

import copy
import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from guardrail.classifiers.linear import make_head
from guardrail.classifiers.trihash import read_trihash
from guardrail.classifiers.tuned import load_tuned
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import CheckpointError
from guardrail.evaluate.data import LabelledText, read_labelled
from guardrail.learn.dataset import Dataset
from guardrail.policy import shipped_policies

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "training" / "recipes"))
    return importlib.import_module(str(request.param))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(device="cpu")


def dataset(rows: list[LabelledText], x: np.ndarray, owner: list[int]) -> Dataset:
    return Dataset(tuple(rows), x.astype(np.float32), np.array(owner, dtype=np.int64), np.ones(len(owner), dtype=bool))


@pytest.mark.parametrize("recipe", ["heads_moved"], indirect=True)
def test_own_texts_are_drawn_whole_and_others_by_their_hash(recipe: ModuleType) -> None:
    rows = [LabelledText(f"own {n}", {"insult": 1.0}, "own-insult", "train") for n in range(200)]
    rows += [LabelledText(f"other {n}", {"insult": float(n % 2)}, "forum", "train") for n in range(400)]
    first, second = recipe.drawn(rows), recipe.drawn(rows[::-1])
    assert Counter(row.source for row in first) == {"own-insult": 200, "forum": 2 * recipe.MOST["train"]}
    assert [row.text for row in first if row.source == "forum"] == [r.text for r in second if r.source == "forum"]


@pytest.mark.parametrize("recipe", ["heads_moved"], indirect=True)
def test_sides_and_plain_sentences_have_their_share(recipe: ModuleType) -> None:
    sources = np.array(["a"] * 9 + ["b"] * 4 + [recipe.PLAIN] * 5)
    positive = np.array([True] * 5 + [False] * 13)
    weight = recipe.levelled(sources, positive)
    assert weight[positive].sum() == pytest.approx(recipe.HARMFUL * recipe.TOTAL)
    assert weight[sources == recipe.PLAIN].sum() == pytest.approx(recipe.PLAIN_SHARE * recipe.TOTAL)
    assert weight.sum() == pytest.approx(recipe.TOTAL)
    assert weight[5:9].sum() == pytest.approx(weight[9:13].sum())  # four harmless rows each


@pytest.mark.parametrize("recipe", ["heads_moved"], indirect=True)
def test_the_worst_window_of_each_row_is_found(recipe: ModuleType) -> None:
    rows = [LabelledText(str(n), {}, "a", "train") for n in range(3)]
    data = dataset(rows, np.eye(5, 4), [0, 0, 1, 2, 2])
    assert recipe.worst_windows(data, np.array([0.0, 2.0, -1.0, 5.0, 4.0])).tolist() == [1, 2, 3]


@pytest.mark.parametrize("recipe", ["heads_moved"], indirect=True)
def test_a_head_learns_what_is_new_and_keeps_what_it_knew(recipe: ModuleType) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0.0, 0.1, (300, 8))
    x[:100, 0] += 1.0  # harmful, as the head knows
    x[100:200, 1] += 1.0  # harmless, as the head knows
    x[200:, 2] += 1.0  # plain sentences, which it takes for harm
    kinds = [("forum", 1.0)] * 100 + [("forum", 0.0)] * 100 + [(recipe.PLAIN, 0.0)] * 100
    rows = [LabelledText(str(n), {"h": y}, source, "train") for n, (source, y) in enumerate(kinds)]
    data = dataset(rows, x / np.linalg.norm(x, axis=1, keepdims=True), list(range(300)))
    old = make_head("h", np.array([4.0, -4.0, 3.0, 0, 0, 0, 0, 0], dtype=np.float32), 0.0, "e")
    new = recipe.moved(old, data)
    before, after = (data.x @ head.weight + head.bias for head in (old, new))
    assert before[200:].mean() > 1.5
    assert after[200:].mean() < 0.0
    assert after[:100].min() > 0.0 > after[100:200].max()
    held_aside = dataset([replace(row, split="test") for row in rows], data.x, list(range(300)))
    np.testing.assert_allclose(recipe.moved(old, held_aside).weight, old.weight)  # nothing to learn from


@pytest.mark.parametrize("recipe", ["heads_average"], indirect=True)
def test_an_average_lies_between_its_networks_and_keeps_new_outputs(recipe: ModuleType, encoder: Encoder) -> None:
    later = load_tuned(encoder)
    earlier = copy.copy(later)
    earlier.upper = copy.deepcopy(later.upper)
    earlier.facts = replace(later.facts, heads=("something else", *later.facts.heads[1:]))
    with torch.no_grad():
        for parameter in earlier.upper.parameters():
            parameter.add_(1.0)
    upper = recipe.averaged(earlier, later, 0.25)
    for mixed, ours in zip(upper.layers.parameters(), later.upper.layers.parameters(), strict=True):
        torch.testing.assert_close(mixed, ours + 0.25)
    torch.testing.assert_close(upper.out.weight[1:], later.upper.out.weight[1:] + 0.25)
    torch.testing.assert_close(upper.out.weight[0], later.upper.out.weight[0])  # the earlier one does not have it
    earlier.facts = replace(later.facts, frozen=later.facts.frozen + 1)
    with pytest.raises(CheckpointError, match="have no average"):
        recipe.averaged(earlier, later, 0.5)


@pytest.mark.parametrize("recipe", ["heads_focus"], indirect=True)
def test_fresh_texts_are_learned_whole_and_the_rest_is_replayed(recipe: ModuleType) -> None:
    fresh = recipe.FRESH[0]
    rows = [LabelledText(f"{source} {n}", {"illicit_request": 0.0}, source, "train")
            for source, count in ((fresh, 300), ("own-insult", 300), ("coconot", 300), ("forum", 300), ("own-repairs", 300))
            for n in range(count)]  # fmt: skip
    rows += [LabelledText("aside", {"illicit_request": 1.0}, fresh, "test")]
    chosen = recipe.focused(rows, 40, seed=1)
    counts = Counter(row.source for row in chosen)
    assert counts[fresh] == 300
    assert counts["own-insult"] == recipe.OWN_EACH
    assert counts["coconot"] == recipe.EACH["coconot"]
    assert counts["forum"] + counts["own-repairs"] == 40
    assert len({row.text for row in chosen}) == len(chosen)
    assert chosen == recipe.focused(rows, 40, seed=1)
    assert len(recipe.focused(rows, 10_000, seed=1)) == 300 + recipe.OWN_EACH + recipe.EACH["coconot"] + 600


@pytest.mark.parametrize("recipe", ["heads_wording"], indirect=True)
def test_the_shipped_wording_head_ranks_the_projects_held_aside_requests(recipe: ModuleType) -> None:
    head = read_trihash(shipped_policies() / "heads" / f"{recipe.NAME}.safetensors")
    rows = [row for row in read_labelled(ROOT / "training" / "heads" / "illicit_requests.jsonl") if row.split == "test"]
    found = recipe.figures(head, rows)
    assert found["rows"] == len(rows) > 150
    assert found["auroc"]["low"] > 0.6  # look-alikes in the very words of harm
    assert found["auroc"]["value"] == pytest.approx(found["illicit_requests"])  # one source alone


@pytest.mark.parametrize("recipe", ["heads_refit"], indirect=True)
def test_requests_and_everyday_texts_are_drawn_to_their_own_limits(recipe: ModuleType) -> None:
    rows = [LabelledText(f"{source} {y} {n}", {recipe.LABEL: float(y)}, source, "train")
            for source in (recipe.REQUESTS[0], recipe.EVERYDAY[0], "forum") for y in (0, 1) for n in range(30)]  # fmt: skip
    counts = Counter((row.source, row.labels[recipe.LABEL]) for row in recipe.drawn(rows, "train", {"train": (20, 7)}))
    assert counts == {(recipe.REQUESTS[0], y): 20 for y in (0.0, 1.0)} | {
        (recipe.EVERYDAY[0], y): 7 for y in (0.0, 1.0)
    }
    assert recipe.drawn(rows, "dev") == []
