"""Move linear heads by texts that were written after they were trained, no further than they ask for.

    python training/recipes/heads_mixture.py --data ../shared/data --own training/heads --out runs/heads
    python training/recipes/heads_moved.py --data runs/heads/mixture.jsonl.gz --sources runs/heads/sources.yaml \\
        --cache runs/heads --out runs/heads/moved --head self_harm --head threat

A head as it is stands as the prior; a part of its mixture and all of the project's own texts pull it away from there
(`guardrail.learn.update.move`: logistic regression with a ridge on the change), and texts of all other sources hold
their scores in place. Sources are levelled, a fifth of the weight is on harmful rows, and a tenth on plain short
sentences, which heads of sparse labels find alarming. Strengths were chosen on dev rows; nothing is chosen here. Writes
head, card and figures, before and after on the same test rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from heads_distilled import told

from guardrail.classifiers.linear import SHIPPED, make_head, read_head, write_head
from guardrail.encoder import load_encoder
from guardrail.evaluate.data import LabelledText, read_many
from guardrail.evaluate.metrics import Floats
from guardrail.learn.card import Provenance, render
from guardrail.learn.dataset import Dataset, build_dataset
from guardrail.learn.embeddings import EmbeddingCache
from guardrail.learn.logistic import Strength
from guardrail.learn.report import Report, mean_and_interval, report
from guardrail.learn.session import SUMMARY, read_origins
from guardrail.learn.train import Trained
from guardrail.learn.update import Limits, move
from guardrail.policy.bundle import LinearHead

PLAIN = "own-plain"
REPAIRS = "own-repairs"
MOST = {"train": 90, "dev": 30, "test": 45}  # rows of a source, split and side
MOST_REPAIRS = 4
"""Times as many drafts and repairs: they are one source and many registers."""
HARMFUL, PLAIN_SHARE = 0.2, 0.1
TOTAL = 1_000.0
LIMITS = Limits(bound=20.0, cap=10.0, anchor=100.0)  # a ridge of 1 on the change


def drawn(rows: Sequence[LabelledText]) -> list[LabelledText]:
    """All own texts, and of the other sources at most `MOST` rows a split and side, in the order of their hash."""
    strata: dict[tuple[str, str, bool], list[LabelledText]] = defaultdict(list)
    for row in rows:
        strata[row.source, row.split, any(value >= 0.5 for value in row.labels.values())].append(row)
    kept: list[LabelledText] = []
    for (source, split, _), members in sorted(strata.items()):
        members.sort(key=lambda row: hashlib.sha256(row.text.encode()).digest())
        whole = is_own(source)
        most = MOST[split] * (MOST_REPAIRS if source == REPAIRS else 1)
        kept.extend(members if whole else members[:most])
    return kept


def is_own(source: str) -> bool:
    """Whether a source is a file of `training/heads`."""
    return source.startswith("own-") and source != REPAIRS


def levelled(sources: np.ndarray, positive: np.ndarray) -> Floats:
    """(N,) weights: a source of n rows of a side counts as the root of n; the shares of the sides are those above."""
    weight = np.zeros(len(sources))
    plain = sources == PLAIN
    for part, share in (
        (positive, HARMFUL),
        (~positive & ~plain, 1.0 - HARMFUL - PLAIN_SHARE),
        (~positive & plain, PLAIN_SHARE),
    ):
        for source in np.unique(sources[part]):
            rows = part & (sources == source)
            weight[rows] = rows.sum() ** -0.5
        if part.any():
            weight[part] *= share * TOTAL / weight[part].sum()
    return weight


def worst_windows(data: Dataset, logits: Floats) -> np.ndarray:
    """(N,) the window of each row that has its largest logit."""
    order = np.lexsort((logits, data.owner))
    last = np.append(np.flatnonzero(np.diff(data.owner[order])), len(order) - 1)
    return np.asarray(order[last])


def moved(head: LinearHead, data: Dataset) -> LinearHead:
    """The head after the rows of the split train that know its label."""
    logits = np.asarray(data.x @ head.weight + head.bias, dtype=np.float64)
    worst = worst_windows(data, logits)
    y = data.labels(head.name)
    train = data.splits == "train"
    known = np.flatnonzero(train & ~np.isnan(y) & (y != 0.5))
    others = np.flatnonzero(train & ~np.array([is_own(source) for source in data.sources]))
    weight = levelled(data.sources[known], y[known] > 0.5)
    at = worst[known]
    change = move(data.x[at], logits[at], (y[known] > 0.5).astype(float), weight, LIMITS, data.x[worst[others]])
    return make_head(head.name, head.weight + change.weight, head.bias + change.bias, head.encoder_sha256)


def how(before: Report, after: Report, old: LinearHead, plain: tuple[float, float]) -> str:
    """What the card says of the move."""
    lines = ["| Metric | Before | After |", "| --- | --- | --- |"]
    for name, title in (("auroc", "AUROC"), ("auprc", "AUPRC"), ("recall_at_1pct_fpr", "Recall at 1% false positives")):
        cells = (mean_and_interval(each.metrics[name]) for each in (before, after))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines.append(f"| Mean probability of plain short sentences | {plain[0]:.3f} | {plain[1]:.3f} |")
    return (
        f"## How it was moved\n\nFrom the head `{old.sha256[:12]}`, which had learned from a mixture without the later own "
        "texts (`training/recipes/heads_moved.py`). Both on the same test rows, at most 45 of a source and side and "
        "all of the project's own:\n\n" + "\n".join(lines)
    )


def make(name: str, data: Dataset, folder: Path, out: Path, provenance: Provenance) -> dict[str, Any]:
    """Move one head, write it with its card, and return its figures."""
    old = read_head(folder / f"{name}.safetensors")
    new = moved(old, data)
    y = data.labels(name)
    counts = [
        (int(rows.sum()), int((y[rows] >= 0.5).sum()))
        for rows in (~np.isnan(y) & (data.splits == "train"), np.zeros(len(y), dtype=bool))
    ]
    rows, positives = (counts[0][0], counts[1][0]), (counts[0][1], counts[1][1])
    trained = Trained(new, Strength(1.0 / LIMITS.ridge, 0.0), {}, rows, positives)
    before, after = (report(Trained(head, trained.strength), data, resamples=500) for head in (old, new))
    unseen = data.x[np.isin(data.owner, np.flatnonzero((data.sources == PLAIN) & (data.splits == "test")))]
    first, second = (1.0 / (1.0 + np.exp(-(unseen @ head.weight + head.bias))) for head in (old, new))
    plain = float(first.mean()), float(second.mean())
    header = {"encoder": provenance.encoder, "command": provenance.command, "seed": "0", "moved_from": old.sha256}
    write_head(out / f"{name}.safetensors", new, header)
    card = told(render(trained, after, data.used(name), provenance), how(before, after, old, plain))
    (out / f"{name}.md").write_text(card, encoding="utf-8")
    print(name, before.metrics["auroc"].value, after.metrics["auroc"].value, plain, flush=True)
    return {
        "sha256": new.sha256,
        "moved_from": old.sha256,
        "auroc_before": before.metrics["auroc"].value,
        "plain": {"before": plain[0], "after": plain[1]},
        **after.as_json(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--heads", type=Path, default=SHIPPED, help="the heads as they are")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--head", action="append", required=True)
    arguments = parser.parse_args()
    encoder = load_encoder(device="cpu")
    data = build_dataset(drawn(read_many(arguments.data)), EmbeddingCache(encoder, arguments.cache))
    arguments.out.mkdir(parents=True, exist_ok=True)
    heads = " ".join(f"--head {name}" for name in arguments.head)
    files = " ".join(f"--data runs/heads/{path.name}" for path in arguments.data)
    command = f"python training/recipes/heads_moved.py {files} {heads}"
    provenance = Provenance(command, 0, encoder.name, read_origins(arguments.sources))
    found = {name: make(name, data, arguments.heads, arguments.out, provenance) for name in arguments.head}
    summary = arguments.out / SUMMARY
    source = summary if summary.is_file() else arguments.heads / SUMMARY
    document = json.loads(source.read_text(encoding="utf-8"))
    document["heads"] = dict(sorted({**document["heads"], **found}.items()))
    summary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
