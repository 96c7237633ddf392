"""The repair evaluation: counts, intervals, the independent judge."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from guardrail.encoder import load_encoder
from guardrail.engine import Guardrail
from guardrail.evaluate.repair import JUDGE_FILES, evaluate_repair, read_cases, train_judge
from guardrail.rewrite.base import Proposal
from guardrail.settings import Settings

POLICY = """
policy: test
classifiers: {bad: {kind: pattern, words: [moron]}}
rules: {insults: {stages: [output], weights: {bad: 1.0}, thresholds: {rewrite: 0.5}}}
rewrite: {order: [dglm, redact], min_similarity: 0.2}
"""


class Deleter:
    name, fingerprint, rounds = "dglm", "sha256:deleter", 1

    def propose(self, requests):
        return [[Proposal(request.text.replace(", you moron", ""))] for request in requests]


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_cases_are_read_by_split_and_detokenised(tmp_path: Path) -> None:
    rows = [
        {"source": "stop it , moron .", "targets": ["stop it .", "please stop"], "split": "test"},
        {"source": "x", "target": "y", "split": "train"},
    ]
    write(tmp_path / "p.jsonl.gz", rows)
    (case,) = read_cases(tmp_path / "p.jsonl.gz", "test")
    assert case.source == "stop it, moron."
    assert case.references == ("stop it.", "please stop")
    assert read_cases(tmp_path / "p.jsonl.gz", "test", 0) == []


def test_the_report_counts_and_measures(tmp_path: Path) -> None:
    (tmp_path / "test.yaml").write_text(POLICY)
    guard = Guardrail(tmp_path / "test.yaml", settings=Settings())
    guard._rewriters["dglm"] = Deleter()
    rows = [
        {"source": "Close the door, you moron.", "target": "Close the door, please."},
        {"source": "The moron left early.", "target": "He left early."},
        {"source": "A fine day.", "target": "A fine day."},
    ]
    write(tmp_path / "p.jsonl.gz", rows)
    steps: list[int] = []

    def judge(texts):
        return np.array([0.9 if "moron" in text else 0.1 for text in texts])

    report = evaluate_repair(
        guard, load_encoder(), judge, read_cases(tmp_path / "p.jsonl.gz", "test"), lambda: steps.append(1)
    )
    assert len(steps) == report["cases"] == 3
    assert (report["flagged"], report["rewritten_by_dglm"]) == (2, 1)
    assert report["rewritten_share_of_flagged"] == 0.5
    assert report["systems"]["dglm"]["judge_accepts"]["mean"] == 1.0
    assert report["systems"]["duplicate"]["judge_accepts"]["mean"] == 0.0
    assert report["systems"]["duplicate"]["similarity_to_draft"]["mean"] == pytest.approx(1.0, abs=1e-5)
    assert report["samples"] == [
        {"source": "Close the door, you moron.", "rewrite": "Close the door.", "human": "Close the door, please."}
    ]


def test_the_independent_judge_learns_from_evaluation_only_sets(tmp_path: Path) -> None:
    bad = [f"you are a stupid {noun}" for noun in ("clown", "fool", "pig", "rat", "toad", "worm")]
    good = [f"the {noun} is in the garden" for noun in ("clown", "tool", "pig", "cat", "toad", "bird")]
    rows = [{"text": text, "labels": {"toxicity": 1}} for text in bad] + [
        {"text": t, "labels": {"toxicity": 0}} for t in good
    ]
    for name in JUDGE_FILES:
        write(tmp_path / "labelled" / f"{name}.jsonl.gz", [*rows, {"text": "no label", "labels": {}}])
    toxic, fine = train_judge(tmp_path)(["you stupid dog", "the dog is in the garden"])
    assert fine < 0.5 < toxic
