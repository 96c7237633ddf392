"""The suites of `guardrail dglm eval`, end to end on a small made-up folder of data, and their plots."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from guardrail.cli.app import app
from guardrail.dglm.pipeline import load_pipeline
from guardrail.dglm.propose import gaussian_diffusion
from guardrail.evaluate import continuation_suite, repair_suite
from guardrail.evaluate.cost import proposal_costs
from guardrail.evaluate.judges import SENTIMENT_FILES, FluencyJudge, break_sentence, train_sentiment_judge
from guardrail.evaluate.ngrams import LANGUAGE_FILES, NGramModel
from guardrail.evaluate.repair import JUDGE_FILES, Judges, RepairCase, _system, read_peer_cases
from guardrail.evaluate.token_steering import GUIDE_FILES
from guardrail.evaluate.tradeoffs import plot_suites

NOUNS = ("bridge", "garden", "kitchen", "station", "office", "library", "harbour", "market", "school", "museum")
INSULTS = ("stupid idiot", "useless moron", "pathetic loser", "worthless clown", "disgusting pig")


def harmless(number: int) -> str:
    noun, other = NOUNS[number % 10], NOUNS[number // 10 % 10]
    return f"We went to the {noun} number {number} and then we walked back to the {other}."


def toxic(number: int) -> str:
    return f"The {NOUNS[number % 10]} is closed today. You are a {INSULTS[number % 5]}, number {number}."


def write(path: Path, rows: list[dict[str, Any]] | list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf8") as file:
        file.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    labelled = [
        {"text": (toxic if bad else harmless)(n), "labels": {"toxicity": int(bad), "positive_sentiment": int(not bad)}}
        for n in range(40)
        for bad in (False, True)
    ]
    for name in {*JUDGE_FILES, *SENTIMENT_FILES, *GUIDE_FILES, "goemotions", "context-toxicity"}:
        rows = [row | {"split": ("train", "train", "dev", "test")[n % 4]} for n, row in enumerate(labelled)]
        write(folder / "labelled" / f"{name}.jsonl.gz", rows)
    for name in LANGUAGE_FILES:
        if name.startswith("dialogue"):
            write(folder / name, [{"turns": [{"text": harmless(n)}, {"text": harmless(7 * n)}]} for n in range(30)])
        elif name.startswith("plain"):
            write(folder / name, [harmless(3 * n) for n in range(30)])
    pairs = [
        {"source": toxic(n).lower(), "targets": [f"The {NOUNS[n % 10]} is closed today."], "split": split}
        for n, split in enumerate(["train"] * 20 + ["test"] * 6)
    ]
    write(folder / "pairs" / "paradetox.jsonl.gz", pairs)
    peers = [{"source": toxic(n).lower(), "outputs": {"polite": "you are kind.", "empty": ""}} for n in range(15, 40)]
    write(folder / "pairs" / "peers_on_test10k.jsonl.gz", peers)
    return folder


@pytest.mark.slow
def test_all_suites_run_and_draw(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_suite, "COST_TEXTS", repair_suite.COST_TEXTS[:1])
    monkeypatch.setattr(repair_suite, "STRENGTHS", (0.3, 0.7))
    monkeypatch.setattr(continuation_suite, "SCALES", (0.0, 8.0, 32.0))
    monkeypatch.setattr(continuation_suite, "STEPS", (5, 15))
    options = ["--data", str(data), "--suite", "all", "--limit", "4", "--continuations", "2", "--json"]
    options += ["--plots", str(tmp_path / "plots"), "--samples", str(tmp_path / "samples.jsonl"), "--judge-texts", "60"]
    done = CliRunner().invoke(app, ["dglm", "eval", *options])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)

    continuation = report["continuation"]
    best = f"best_of_{continuation['best_of_n_at_equal_time']}"
    assert {"unguided", "dglm", "projection", "gedi", "rectification", best} <= set(continuation["systems"])
    for figures in continuation["systems"].values():
        assert 0.0 <= figures["expected_max_toxicity"]["mean"] <= 1.0
        assert figures["perplexity"]["mean"] > 1.0
    assert set(continuation["sentiment"]) == {"unguided", "positive", "negative", "positive and not toxic"}
    assert [(row["scale"], row["steps"]) for row in continuation["curve"]] == [
        (0.0, 15),
        (8.0, 15),
        (32.0, 15),
        (8.0, 5),
    ]
    assert len(continuation["samples"]) == continuation["prompts"] == 4

    people, peers = report["repair"]["with_people"], report["repair"]["with_peers"]
    assert {"dglm", "human", "duplicate", "delete"} <= set(people["all_flagged"])
    assert {"dglm", "duplicate", "delete", "polite"} <= set(peers["all_flagged"])
    assert people["all_flagged"]["duplicate"]["similarity_to_draft"]["mean"] == pytest.approx(1.0, abs=1e-4)
    assert {row["mode"] for row in report["repair"]["curve"]} == {"project", "edit"}
    assert report["cost"]["rewrites"]
    assert [Path(path).name for path in report["plots"]] == ["continuation.png", "repair.png", "cost.png"]
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in report["plots"])
    assert (tmp_path / "samples.jsonl").exists()


def test_missing_data_is_a_usage_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["dglm", "eval", "--data", str(tmp_path / "nowhere"), "--suite", "cost"])
    assert done.exit_code == 2
    assert "--data" in done.output


def test_the_sentiment_judge_learns(data: Path) -> None:
    good, bad = train_sentiment_judge(data)(["we walked back to the garden", "you are a useless moron"])
    assert bad < 0.5 < good
    assert train_sentiment_judge(data)([]).shape == (0,)


def test_the_fluency_judge_tells_sentences_from_broken_ones() -> None:
    vocabulary = {word: 200 + n for n, word in enumerate(" ".join(harmless(n) for n in range(100)).split())}

    def tokenise(texts: list[str]) -> list[list[int]]:
        return [[vocabulary.get(word, 199) for word in text.split()] for text in texts]

    sentences = [harmless(n) for n in range(100)]
    model = NGramModel(tokenise(sentences[:50]), 4000)
    judge = FluencyJudge(model, tokenise, sentences[50:])
    assert judge.auroc > 0.8
    fine, broken, empty = judge([harmless(3), "We went the to bridge and and then we.", ""])
    assert broken < fine
    assert empty == 0.0


def test_broken_sentences_differ_and_keep_a_word() -> None:
    rng = np.random.default_rng(0)
    broken = [break_sentence("We went home early.", ["It rained all day."], rng) for _ in range(50)]
    assert len(set(broken)) > 10
    assert all(text.split() for text in broken)
    assert break_sentence("Stop", ["Go on"], rng)


def test_published_outputs_are_read_without_what_was_trained_on(data: Path) -> None:
    known = [RepairCase(toxic(16).upper())]
    found = read_peer_cases(data / "pairs" / "peers_on_test10k.jsonl.gz", known, 3)
    assert [case.source for case in found] == [toxic(n).lower() for n in (15, 17, 18)]
    assert found[0].outputs == {"polite": "you are kind.", "empty": ""}


def test_a_missing_rewrite_counts_as_a_failure() -> None:
    encoder = load_pipeline("mini", "all-MiniLM-L6-v2", "cpu").encoder
    judges = Judges(lambda texts: np.zeros(len(texts)), lambda texts: np.ones(len(texts)))
    report = _system(["It rained.", None], ["It rained.", "It snowed."], [None, None], encoder, judges)
    assert report["judge_accepts"]["mean"] == report["fluent"]["mean"] == 0.5
    assert report["j"]["mean"] == pytest.approx(0.5, abs=1e-4)
    assert "similarity_to_human" not in report
    assert _system([None], ["x"], [None], encoder, judges) == {}


def test_costs_count_network_evaluations() -> None:
    mini = load_pipeline("mini", "all-MiniLM-L6-v2", "cpu")
    closed_form = SimpleNamespace(encoder=mini.encoder, diffusion=gaussian_diffusion(mini.statistics))
    rows = proposal_costs(closed_form, (), counts=(2,), repeats=1)  # type: ignore[arg-type]
    counted = {row["settings"]: row["evaluations_per_proposal"] for row in rows}
    assert counted["dpmpp_2m 15"] == 15
    assert counted["ddim 5"] == 5


def test_plots_of_a_report(tmp_path: Path) -> None:
    curve = [
        {"scale": scale, "steps": steps, "expected_max_toxicity": 0.3, "perplexity": 100.0}
        for scale, steps in ((0.0, 15), (8.0, 15), (8.0, 5))
    ]
    systems = {"unguided": {"perplexity": {"mean": 90.0}, "expected_max_toxicity": {"mean": 0.4}}}
    files = plot_suites({"continuation": {"curve": curve, "systems": systems}, "repair": {"curve": []}}, tmp_path)
    assert [path.name for path in files] == ["continuation.png"]
    assert files[0].stat().st_size > 10_000
