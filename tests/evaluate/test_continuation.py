"""Continuation: prompts, figures, ways, curves and plots; the shipped decoder with the closed form of Gaussian latents."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from guardrail.classifiers.linear import load_head
from guardrail.dglm.guidance import Guide
from guardrail.dglm.pipeline import Pipeline, load_pipeline
from guardrail.dglm.propose import ProposalSettings
from guardrail.evaluate.continuation import (
    PROMPT_FILES,
    Continuations,
    Way,
    continue_prompts,
    distinct,
    margins,
    measure,
    read_prompts,
)
from guardrail.evaluate.ngrams import NGramModel

PROMPTS = ["I read what you wrote about the bridge.", "Nobody on the council wanted to hear it."]


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return load_pipeline("mini", "all-MiniLM-L6-v2", "cpu")


@pytest.fixture(scope="module")
def guides() -> tuple[Guide, ...]:
    head = load_head("toxicity")
    return (Guide(head.weight, head.bias),)


def judge(texts):
    return np.array([0.9 if "bad" in text else 0.1 for text in texts])


def test_prompts_are_harmless_first_sentences_half_of_them_before_toxic_ones(tmp_path: Path) -> None:
    toxic = [f"Item {n} was moved to the archive. You bad person." for n in range(20)]
    harmless = [f"We met number {n} at the station." for n in range(20)]
    rows = [{"text": text, "labels": {"toxicity": 1}, "split": "test"} for text in toxic]
    rows += [{"text": text, "labels": {"toxicity": 0}, "split": "dev"} for text in harmless]
    rows += [{"text": "A bad thing was said here today.", "labels": {"toxicity": 0}, "split": "test"}] * 3
    rows += [{"text": "This one was trained on, so it is not used.", "labels": {"toxicity": 0}, "split": "train"}] * 30
    for name in PROMPT_FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with gzip.open(tmp_path / name, "wt", encoding="utf8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    prompts = read_prompts(tmp_path, judge, 10)
    assert len(prompts) == len(set(prompts)) == 10
    assert sum(prompt.startswith("Item") for prompt in prompts) == 5
    assert sum(prompt.startswith("We met") for prompt in prompts) == 5
    assert prompts == read_prompts(tmp_path, judge, 10)


def test_the_figures_are_those_of_their_definitions() -> None:
    written = Continuations([["a b a b", "bad a"], ["a b", "b a"]], seconds=8.0, evaluations=15.0)
    model = NGramModel([[5, 6], [6, 5]], 200)
    report = measure(written, judge, model, lambda texts: [[5 if w == "a" else 6 for w in t.split()] for t in texts])
    assert report["expected_max_toxicity"]["mean"] == pytest.approx((0.9 + 0.1) / 2)
    assert report["toxic_probability"]["mean"] == 0.5
    assert report["mean_toxicity"]["mean"] == pytest.approx((0.9 + 0.1 + 0.1 + 0.1) / 4)
    assert report["seconds_per_continuation"] == 2.0
    assert report["network_evaluations"] == 15.0
    assert report["distinct_1"] == pytest.approx((3 / 6 + 2 / 4) / 2)
    assert report["perplexity"]["low"] <= report["perplexity"]["mean"] <= report["perplexity"]["high"]


def test_distinct_n_grams() -> None:
    assert distinct(["a b a b"], 1) == 0.5
    assert distinct(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct([""], 1) == 0.0


def test_margins_are_the_smallest_over_the_guides() -> None:
    x = np.eye(2, dtype=np.float32)
    away = Guide(np.array([2.0, 0.0], dtype=np.float32), 1.0, away=True)
    toward = Guide(np.array([0.0, 3.0], dtype=np.float32), 0.0, away=False)
    assert margins(x, [away]).tolist() == [-3.0, -1.0]
    assert margins(x, [away, toward]).tolist() == [-3.0, -1.0]


def test_the_ways_differ_and_repeat_with_their_seed(pipeline: Pipeline, guides: tuple[Guide, ...]) -> None:
    plain = ProposalSettings(guide="none")
    advanced: list[int] = []
    first = continue_prompts(pipeline, PROMPTS, 2, Way(settings=plain), 3, advanced.append)
    assert sum(advanced) == 4
    assert [len(own) for own in first.texts] == [2, 2]
    assert all(len(pipeline.codec.encode(text)) <= 20 for own in first.texts for text in own)
    assert first.texts == continue_prompts(pipeline, PROMPTS, 2, Way(settings=plain), 3).texts
    guided = continue_prompts(pipeline, PROMPTS, 2, Way(guides, ProposalSettings(scale=500.0)), 3)
    moved = continue_prompts(pipeline, PROMPTS, 2, Way(settings=plain, margin=9.0, aims=guides), 3)
    best = continue_prompts(pipeline, PROMPTS, 2, Way(settings=plain, best_of=3, aims=guides), 3)
    level = {
        name: margins(pipeline.encoder.encode([t for own in found.texts for t in own]), guides).mean()
        for name, found in (("plain", first), ("guided", guided), ("moved", moved), ("best", best))
    }
    assert min(level["guided"], level["moved"], level["best"]) > level["plain"]
    assert best.evaluations == pytest.approx(3 * first.evaluations)
