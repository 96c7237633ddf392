"""How well flagged sentences are repaired, against people, baselines and published systems.

The judges are not our guide, see `guardrail.evaluate.judges`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardrail.dglm.corpus import detokenise, read_rows
from guardrail.dglm.plans import SpanRequest, cut
from guardrail.dglm.weighing import weighty_words
from guardrail.evaluate.judges import JUDGE_FILES, Judge, train_judge
from guardrail.evaluate.measures import mean_with_interval
from guardrail.types import Action, Decision, Passage

if TYPE_CHECKING:
    from guardrail.dglm.guidance import Guide
    from guardrail.encoder import Encoder
    from guardrail.engine import Guardrail

__all__ = ["JUDGE_FILES", "RepairCase", "evaluate_repair", "read_cases", "read_peer_cases", "train_judge"]

OURS, HUMAN, DUPLICATE, DELETE = "dglm", "human", "duplicate", "delete"


@dataclass(frozen=True, slots=True)
class RepairCase:
    """A flagged sentence, its human rewrites, and what other systems made of it."""

    source: str
    references: tuple[str, ...] = ()
    outputs: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Judges:
    """Who judges: toxicity, and fluency if it is judged. `guides`: heads that `delete` looks for the worst words with."""

    toxicity: Judge
    fluency: Judge | None = None
    guides: tuple[Guide, ...] = ()


def read_cases(path: Path, split: str, limit: int | None = None) -> list[RepairCase]:
    """Read rows {"source", "targets", "split"} of one split, detokenised."""
    rows = (row for row in read_rows(path) if row.get("split", split) == split)
    cases = [
        RepairCase(detokenise(row["source"]), tuple(detokenise(t) for t in row.get("targets") or [row["target"]]))
        for row in rows
    ]
    return cases[:limit]


def read_peer_cases(path: Path, known: Sequence[RepairCase], limit: int | None = None) -> list[RepairCase]:
    """Read rows {"source", "outputs": {system: text}}, without the sources that stand in `known` (training data)."""
    trained = {_key(case.source) for case in known}
    rows = ((detokenise(row["source"]), row["outputs"]) for row in read_rows(path))
    cases = (
        RepairCase(source, outputs={name: detokenise(text) for name, text in outputs.items()})
        for source, outputs in rows
        if _key(source) not in trained
    )
    return list(islice(cases, limit))


def _key(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


def evaluate_repair(
    guard: Guardrail,
    encoder: Encoder,
    judge: Judge | Judges,
    cases: Sequence[RepairCase],
    progress: Callable[[], None],
) -> dict[str, Any]:
    """Repair every case that the policy flags for repair, and compare with people, baselines and other systems.

    Returns:
        Counts and shares; `systems`: on the sentences that a DGLM rewrite repaired, each system's similarities (cosine of
        embeddings), the judge's acceptance (probability below 0.5) and their product; with a fluency judge also its
        acceptance and J, the mean product of all three (Logacheva et al. 2022, section 5); `all_flagged`: the same over
        all flagged sentences, where one that we did not repair counts as a failure of ours; `samples`.
    """
    judges = judge if isinstance(judge, Judges) else Judges(judge)
    decisions = []
    for case in cases:
        decisions.append(guard.rewrite(case.source))
        progress()
    flagged = [index for index, decision in enumerate(decisions) if decision.action >= Action.REDACT]
    rewritten = [index for index in flagged if _ours(decisions[index]) is not None]
    people = [cases[i].references[0] for i in rewritten if cases[i].references]
    human_pass = guard.check_many([Passage(text) for text in people])

    def compare(rows: Sequence[int]) -> dict[str, Any]:
        sources = [cases[i].source for i in rows]
        references = [cases[i].references[0] if cases[i].references else None for i in rows]
        systems = _systems([cases[i] for i in rows], [decisions[i] for i in rows], judges.guides, encoder)
        return {name: _system(texts, sources, references, encoder, judges) for name, texts in systems.items()}

    report = {
        "cases": len(cases),
        "flagged": len(flagged),
        "rewritten_by_dglm": len(rewritten),
        "rewritten_share_of_flagged": len(rewritten) / max(1, len(flagged)),
        "human_rewrites_passing_policy": float(np.mean([d.action < Action.REDACT for d in human_pass]))
        if people
        else None,
        "systems": compare(rewritten),
        "samples": [
            {
                "source": cases[i].source,
                "rewrite": _ours(decisions[i]),
                "human": cases[i].references[0] if cases[i].references else None,
            }
            for i in rewritten
        ],
    }
    if judges.fluency is not None:
        report["all_flagged"] = compare(flagged)
    return report


def _ours(decision: Decision) -> str | None:
    """What a DGLM rewrite delivered; None where another way had to help or nothing passed."""
    rewrite = decision.rewrite
    return decision.delivered if rewrite is not None and OURS in rewrite.method else None


def _systems(
    cases: Sequence[RepairCase], decisions: Sequence[Decision], guides: tuple[Guide, ...], encoder: Encoder
) -> dict[str, list[str | None]]:
    """System to its text for each case, None where it has none."""
    found: dict[str, list[str | None]] = {OURS: [_ours(decision) for decision in decisions]}
    if any(case.references for case in cases):
        found[HUMAN] = [case.references[0] if case.references else None for case in cases]
    found[DUPLICATE] = [case.source for case in cases]
    if guides:
        requests = [SpanRequest(case.source, guides=guides) for case in cases]
        found[DELETE] = [cut(request.text, weighty_words(encoder, request)) for request in requests]
    for name in sorted({name for case in cases for name in case.outputs or {}}):
        found[name] = [(case.outputs or {}).get(name) for case in cases]
    return found


def _system(
    texts: Sequence[str | None],
    sources: Sequence[str],
    references: Sequence[str | None],
    encoder: Encoder,
    judges: Judges,
) -> dict[str, Any]:
    """The figures of one system; where it has no text all of them are 0."""
    there = np.array([text is not None for text in texts])
    if not there.any():
        return {}
    own = [text or "" for text in texts]
    x, drafts = encoder.encode(own), encoder.encode(sources)
    accepted = there * (judges.toxicity(own) < 0.5)
    similarity = there * np.sum(x * drafts, axis=1)
    report: dict[str, Any] = {
        "judge_accepts": mean_with_interval(accepted),
        "similarity_to_draft": mean_with_interval(similarity),
        "accepted_times_similarity": mean_with_interval(accepted * similarity),
        "mean_words": float(np.mean([len(text.split()) for text in own])),
    }
    known = [text for text in references if text is not None]
    if len(known) == len(own):
        report["similarity_to_human"] = mean_with_interval(there * np.sum(x * encoder.encode(known), axis=1))
    if judges.fluency is not None:
        fluent = there * (judges.fluency(own) >= 0.5)
        report["fluent"] = mean_with_interval(fluent)
        report["j"] = mean_with_interval(accepted * similarity * fluent)
    return report
