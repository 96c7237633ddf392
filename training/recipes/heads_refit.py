"""Fit one output of a tuned network again, on the rows that are hard for it; its layers stay as they are.

    python training/recipes/heads_refit.py --data runs/heads/mixture.jsonl.gz --network runs/tuned/out/heads.safetensors \\
        --out guardrail/pretrained/tuned/heads.safetensors

In the whole mixture requests that only sound harmful drown: 400 contrast prompts among 40,000 negatives. Here the output of
`illicit_request` learns from the requests alone, harmful ones and look-alikes, as a small change to what it was (a ridge on
the difference), beside everyday text that keeps it from reading every question as a request. Chosen by AUROC and calibrated
on dev rows. Prints one JSON object with the figures before and after.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from guardrail.classifiers.network import Trunk, Upper, padded
from guardrail.classifiers.tuned import load_tuned, write_tuned
from guardrail.encoder import Encoder, load_encoder
from guardrail.evaluate.data import LabelledText, read_many
from guardrail.evaluate.metrics import Floats, quick_auroc
from guardrail.learn.calibrate import platt
from guardrail.learn.tuned import bert_of
from guardrail.learn.tuned_data import BATCH_TOKENS, CHARACTERS, by_length, cut

LABEL = "illicit_request"
REQUESTS = (
    "coconot",
    "purplellama-frr",
    "red-instruct",
    "trustllm-misuse",
    "multijail",
    "own-borderline_requests",
    "own-illicit_requests",
)
EVERYDAY = (
    "own-hard_negatives",
    "own-everyday",
    "benign-prompts",
    "sgd",
    "self-dialogue",
    "goemotions",
    "own-jailbreak",
)
Most = Mapping[str, tuple[int, int]]
MOST: Most = {"train": (500, 150), "dev": (150, 40)}  # of a source and side: requests, everyday text
RIDGES = (3e-4, 1e-3, 3e-3, 1e-2)


def drawn(rows: Sequence[LabelledText], split: str, most: Most = MOST) -> list[LabelledText]:
    """The rows of one split that are learned from, a fixed draw: requests and everyday text, at most so many of each."""
    strata: dict[tuple[str, bool], list[LabelledText]] = defaultdict(list)
    for row in rows:
        if row.split == split and LABEL in row.labels and row.source in (*REQUESTS, *EVERYDAY):
            strata[row.source, row.labels[LABEL] >= 0.5].append(row)
    kept: list[LabelledText] = []
    for (source, _), members in sorted(strata.items()):
        random.Random(0).shuffle(members)
        kept.extend(members[: most[split][source not in REQUESTS]])
    return kept


def pooled(upper: Upper, trunk: Trunk, encoder: Encoder, rows: Sequence[LabelledText]) -> torch.Tensor:
    """(N, d) what the output sees of each row."""
    sequences = [cut(ids) for ids in encoder.tokens([row.text[:CHARACTERS] for row in rows])]
    seen: list[torch.Tensor] = []
    hook = upper.out.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    found = torch.zeros(len(rows), upper.out.in_features)
    with torch.no_grad():
        for batch in by_length(sequences, 2 * BATCH_TOKENS):
            tokens, mask = padded([sequences[row] for row in batch])
            upper(trunk(tokens, mask).clone(), mask)
            found[batch] = seen.pop()
    hook.remove()
    return found


def fitted(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, before: torch.Tensor, ridge: float) -> torch.Tensor:
    """(d + 1,) weights and bias: logistic regression with a ridge on the difference to `before`."""
    x = torch.cat((x, torch.ones(len(x), 1)), dim=1)
    change = torch.zeros_like(before, requires_grad=True)
    optimiser = torch.optim.LBFGS([change], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        wrong = functional.binary_cross_entropy_with_logits(x @ (before + change), y, weight=weight)
        total = wrong + ridge * change[:-1].square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    return (before + change).detach()


def level(rows: Sequence[LabelledText]) -> torch.Tensor:
    """(N,) weights that give both sides, and the sources within each, the same say; mean 1."""
    counts: dict[tuple[str, bool], int] = defaultdict(int)
    keys = [(row.source, row.labels[LABEL] >= 0.5) for row in rows]
    for key in keys:
        counts[key] += 1
    side = {up: sum(n**0.5 for (_, other), n in counts.items() if other is up) for up in (False, True)}
    weight = torch.tensor([counts[key] ** -0.5 / side[key[1]] for key in keys])
    return weight / weight.mean()


def figures(x: torch.Tensor, rows: Sequence[LabelledText], weights: torch.Tensor) -> dict[str, float | None]:
    """AUROC over all dev rows, and for the contrast prompts of CoCoNot against all harmful requests."""
    logits = (x @ weights[:-1] + weights[-1]).numpy().astype(np.float64)
    y = np.array([row.labels[LABEL] >= 0.5 for row in rows])
    contrast = y | np.array([row.source == "coconot" for row in rows])
    return {"auroc": quick_auroc(logits, y), "contrast_auroc": quick_auroc(logits[contrast], y[contrast])}


def calibrated(x: torch.Tensor, rows: Sequence[LabelledText], weights: torch.Tensor) -> torch.Tensor:
    """The weights with Platt scaling on these rows folded in."""
    logits: Floats = (x @ weights[:-1] + weights[-1]).numpy().astype(np.float64)
    y = np.array([float(row.labels[LABEL] >= 0.5) for row in rows])
    slope, shift = platt(logits, y, level(rows).numpy().astype(np.float64))
    return torch.cat((weights[:-1] * slope, weights[-1:] * slope + shift))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    encoder = load_encoder(device="cpu")
    network = load_tuned(encoder, arguments.network)
    upper, trunk = network.upper.eval(), Trunk(bert_of(encoder), network.facts.frozen)
    everything = read_many([arguments.data])
    train, dev = (drawn(everything, split) for split in ("train", "dev"))
    x, held = (pooled(upper, trunk, encoder, rows) for rows in (train, dev))
    y = torch.tensor([float(row.labels[LABEL] >= 0.5) for row in train])
    column = network.facts.heads.index(LABEL)
    before = torch.cat((upper.out.weight[column].detach(), upper.out.bias[column : column + 1].detach()))
    found = {ridge: fitted(x, y, level(train), before, ridge) for ridge in RIDGES}
    ridge = max(RIDGES, key=lambda each: figures(held, dev, found[each])["auroc"] or 0.0)
    after = calibrated(held, dev, found[ridge])
    with torch.no_grad():
        upper.out.weight[column] = after[:-1]
        upper.out.bias[column] = after[-1]
    notes = {**network.facts.notes, "refitted": f"{LABEL}: python training/recipes/heads_refit.py"}
    sha256 = write_tuned(arguments.out, upper, network.facts.heads, network.facts.frozen, encoder.sha256, notes)
    document = {
        "train": len(train),
        "dev": len(dev),
        "ridge": ridge,
        "before": figures(held, dev, before),
        "after": figures(held, dev, after),
        "sha256": sha256,
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
