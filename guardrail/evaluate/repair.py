"""How well flagged sentences are repaired, against people and baselines, by a judge that is not our guide.

The judge is a logistic regression on character n-grams (1 to 5, word boundaries), trained when it is needed on data
that the shipped heads never saw; it shares neither features nor training rows with what steers the rewriter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardrail.dglm.corpus import detokenise, read_rows
from guardrail.types import Action, Passage

if TYPE_CHECKING:
    from guardrail.encoder import Encoder
    from guardrail.engine import Guardrail

JUDGE_FILES = ("tweeteval-offensive", "cad", "toxicr", "tweeteval-hate", "unhealthy-conversations")
"""Evaluation-only sets of the shared data: no shipped weights are trained on them."""

Judge = Callable[[Sequence[str]], "np.ndarray[Any, np.dtype[np.float64]]"]


@dataclass(frozen=True, slots=True)
class RepairCase:
    """A flagged sentence and its human rewrites."""

    source: str
    references: tuple[str, ...]


def read_cases(path: Path, split: str, limit: int | None = None) -> list[RepairCase]:
    """Read rows {"source", "targets", "split"} of one split, detokenised."""
    rows = (row for row in read_rows(path) if row.get("split", split) == split)
    cases = [
        RepairCase(detokenise(row["source"]), tuple(detokenise(t) for t in row.get("targets") or [row["target"]]))
        for row in rows
    ]
    return cases[:limit]


def train_judge(data: Path, seed: int = 0, cap: int = 12_000) -> Judge:
    """Train the independent judge; it returns the probability that each text is toxic."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts: list[str] = []
    labels: list[int] = []
    rng = np.random.default_rng(seed)
    for name in JUDGE_FILES:
        rows = list(_judged(data / "labelled" / f"{name}.jsonl.gz"))
        for index in rng.permutation(len(rows))[:cap]:
            texts.append(rows[index][0])
            labels.append(rows[index][1])
    vectoriser = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(1, 5), min_df=4, max_features=300_000, sublinear_tf=True
    )
    model = make_pipeline(
        vectoriser, LogisticRegression(C=4.0, class_weight="balanced", max_iter=300, random_state=seed)
    )
    model.fit(texts, labels)
    return lambda found: model.predict_proba(list(found))[:, 1]


def _judged(path: Path) -> Iterator[tuple[str, int]]:
    for row in read_rows(path):
        labels = row["labels"]
        known = [labels[head] for head in ("toxicity", "identity_hate", "hostile", "antagonize") if head in labels]
        if known:
            yield row["text"], int(max(known) > 0.5)


def evaluate_repair(
    guard: Guardrail, encoder: Encoder, judge: Judge, cases: Sequence[RepairCase], progress: Callable[[], None]
) -> dict[str, Any]:
    """Repair every case that the policy flags for repair, and compare with people and baselines.

    Returns:
        Counts, shares, similarities (cosine of embeddings) and the judge's acceptance (probability below 0.5), for our
        rewrites, the human ones, the unchanged draft, and the draft with its worst words deleted.
    """
    decisions = []
    for case in cases:
        decisions.append(guard.rewrite(case.source))
        progress()
    flagged = [index for index, decision in enumerate(decisions) if decision.action >= Action.REDACT]
    rewritten = [i for i in flagged if (r := decisions[i].rewrite) is not None and "dglm" in r.method]
    ours = [decisions[i].delivered for i in rewritten]
    sources = [cases[i].source for i in rewritten]
    people = [cases[i].references[0] for i in rewritten]
    rows = {"dglm": ours, "human": people, "duplicate": sources}
    human_pass = guard.check_many([Passage(text) for text in people])
    return {
        "cases": len(cases),
        "flagged": len(flagged),
        "rewritten_by_dglm": len(rewritten),
        "rewritten_share_of_flagged": len(rewritten) / max(1, len(flagged)),
        "human_rewrites_passing_policy": float(np.mean([d.action < Action.REDACT for d in human_pass]))
        if people
        else None,
        "systems": {name: _system(texts, sources, people, encoder, judge) for name, texts in rows.items()},
        "samples": [{"source": s, "rewrite": o, "human": h} for s, o, h in zip(sources, ours, people, strict=True)],
    }


def _system(
    texts: Sequence[str], sources: Sequence[str], people: Sequence[str], encoder: Encoder, judge: Judge
) -> dict[str, Any]:
    if not texts:
        return {}
    x, drafts, references = encoder.encode(texts), encoder.encode(sources), encoder.encode(people)
    accepted = judge(texts) < 0.5
    similarity = np.sum(x * drafts, axis=1)
    return {
        "judge_accepts": _with_interval(accepted),
        "similarity_to_draft": _with_interval(similarity),
        "similarity_to_human": _with_interval(np.sum(x * references, axis=1)),
        "accepted_times_similarity": _with_interval(accepted * similarity),
        "mean_words": float(np.mean([len(text.split()) for text in texts])),
    }


def _with_interval(values: Any, resamples: int = 1000) -> dict[str, float]:
    """Mean with a 95% bootstrap interval."""
    values = np.asarray(values, dtype=float)
    rng = np.random.default_rng(0)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}
