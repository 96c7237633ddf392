"""Measure the shipped heads, linear and tuned, on sets that neither was ever trained on.

    python training/recipes/heads_external.py --data ../shared/data/labelled --out guardrail/pretrained/tuned/external.json

Most of these sets may be used for measuring only. `unintended-bias-madlibs` is a bias test: half of the sentences about
every group of people are toxic, by template, so a fair head ranks them equally well whatever the group. Both tiers read
the first 64 word pieces of a text; the frozen lower layers are computed once for both. `--beside NAME=FILE` measures
another tuned network, and `--heads NAME=FOLDER` other linear heads, on the same rows under that name.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.classifiers.linear import SHIPPED as HEADS
from guardrail.classifiers.linear import read_head
from guardrail.classifiers.network import Trunk
from guardrail.classifiers.tuned import SHIPPED, load_tuned
from guardrail.encoder import Encoder, load_encoder
from guardrail.evaluate.bias import measure_bias
from guardrail.evaluate.data import LabelledText, labels_of, read_labelled
from guardrail.evaluate.metrics import Floats, evaluate_scores
from guardrail.learn.tuned import FROZEN, bert_of, score_states
from guardrail.learn.tuned_data import TrunkStates, cut
from guardrail.learn.tuned_measures import sentence_vectors

SETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # name: files, heads
    "tweeteval-offensive": (("tweeteval-offensive",), ("toxicity",)),
    "toxicr": (("toxicr",), ("toxicity",)),
    "unintended-bias-wiki": (("unintended-bias-wiki",), ("toxicity",)),
    "tweeteval-hate": (("tweeteval-hate",), ("identity_hate",)),
    "cad": (("cad",), ("identity_hate",)),
    "ethos": (("ethos",), ("identity_hate", "violence")),
    "email-politeness": (("email-politeness",), ("courtesy",)),
    "tensor-trust and oktest": (("tensor-trust", "oktest"), ("prompt_injection",)),
    "trustllm-misuse-dna and oktest": (("trustllm-misuse-dna", "oktest"), ("illicit_request",)),
}
BIAS = "unintended-bias-madlibs"
TOKENS = 64


def test_rows(folder: Path, files: Sequence[str], limit: int) -> list[LabelledText]:
    """At most `limit` test rows, a fixed draw."""
    rows = [row for name in files for row in read_labelled(folder / f"{name}.jsonl.gz") if row.split == "test"]
    random.Random(0).shuffle(rows)
    return rows[:limit]


def scores_of(
    rows: Sequence[LabelledText], encoder: Encoder, networks: Mapping[str, Path], folders: Mapping[str, Path]
) -> dict[str, dict[str, Floats]]:
    """Name of a network or a folder of heads to head to (N,) probabilities."""
    with tempfile.TemporaryDirectory() as folder:
        sequences = [cut(ids, TOKENS) for ids in encoder.tokens([row.text for row in rows])]
        states = TrunkStates(sequences, Path(folder), encoder.dim)
        states.fill(Trunk(bert_of(encoder), FROZEN))
        vectors = sentence_vectors(encoder, states)
        found: dict[str, dict[str, Floats]] = {}
        for title, folder_of_heads in folders.items():
            heads = {path.stem: read_head(path) for path in sorted(folder_of_heads.glob("*.safetensors"))}
            found[title] = {name: vectors @ head.weight + head.bias for name, head in heads.items()}
        for title, path in networks.items():
            network = load_tuned(encoder, path)
            logits = score_states(network.upper, states)
            found[title] = {name: logits[:, column] for column, name in enumerate(network.facts.heads)}
    return {
        title: {name: np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30)))) for name, values in scores.items()}
        for title, scores in found.items()
    }


def measured(rows: Sequence[LabelledText], scores: Mapping[str, Mapping[str, Floats]], head: str) -> dict[str, Any]:
    """Tier to the figures of one head."""
    labels = labels_of(rows, head)
    keep = ~np.isnan(labels) & (labels != 0.5)
    y = labels[keep] > 0.5
    return {
        "n": int(keep.sum()),
        "positives": int(y.sum()),
        **{
            tier: {name: each.as_json() for name, each in evaluate_scores(of[head][keep], y, resamples=500).items()}
            for tier, of in scores.items()
            if head in of
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/labelled"))
    parser.add_argument("--out", type=Path, default=Path("guardrail/pretrained/tuned/external.json"))
    parser.add_argument("--limit", type=int, default=1_500, help="test rows of each set")
    parser.add_argument("--bias-limit", type=int, default=6_000, help="rows of the bias test")
    parser.add_argument("--beside", action="append", default=[], help="NAME=FILE of another tuned network")
    parser.add_argument("--heads", action="append", default=[], help="NAME=FOLDER of other linear heads")
    arguments = parser.parse_args()
    encoder = load_encoder()
    networks = {"tuned": SHIPPED} if SHIPPED.is_file() else {}
    networks |= {name: Path(path) for name, path in (each.split("=", 1) for each in arguments.beside)}
    folders = {"linear": HEADS}
    folders |= {name: Path(path) for name, path in (each.split("=", 1) for each in arguments.heads)}
    parts = {title: test_rows(arguments.data, files, arguments.limit) for title, (files, _) in SETS.items()}
    parts[BIAS] = test_rows(arguments.data, (BIAS,), arguments.bias_limit)
    pool = [replace(row, source=title) for title, rows in parts.items() for row in rows]
    everything = scores_of(pool, encoder, networks, folders)
    document: dict[str, Any] = {
        "rows_per_set": arguments.limit,
        "bias_rows": arguments.bias_limit,
        "never_trained_on": {},
    }
    for title, (_, heads) in SETS.items():
        inside = np.array([row.source == title for row in pool])
        rows = [row for row, kept in zip(pool, inside, strict=True) if kept]
        own = {tier: {name: values[inside] for name, values in of.items()} for tier, of in everything.items()}
        for head in heads:
            document["never_trained_on"].setdefault(head, {})[title] = measured(rows, own, head)
    inside = np.array([row.source == BIAS for row in pool])
    rows = [row for row, kept in zip(pool, inside, strict=True) if kept]
    toxic = labels_of(rows, "toxicity") > 0.5
    named = [frozenset(map(str, filter(None, [row.meta.get("identity")]))) for row in rows]
    document["identity_bias"] = {
        tier: measure_bias(of["toxicity"][inside], toxic, named).as_json()
        for tier, of in everything.items()
        if "toxicity" in of
    }
    arguments.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
