"""Make linear heads for labels that few sources know, from the tuned network and the rows that it learned from.

    python training/recipes/heads_distilled.py --data runs/heads/mixture.jsonl.gz --sources runs/heads/sources.yaml \\
        --work runs/tuned --out guardrail/pretrained/heads --head refusal --head sexism

`--work` is the folder of `guardrail heads train --tier tuned`, whose hidden states are used again: run that first, with
the same data, seed and labels (`--label`, by default those of the shipped network).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from guardrail.classifiers.linear import write_head
from guardrail.classifiers.tuned import load_tuned
from guardrail.encoder import Encoder, load_encoder
from guardrail.evaluate.data import LabelledText, read_many
from guardrail.learn.card import Provenance, render
from guardrail.learn.dataset import Dataset, Floats
from guardrail.learn.distil import as_dataset, taught_by
from guardrail.learn.logistic import Strength
from guardrail.learn.report import report
from guardrail.learn.session import SUMMARY, read_origins
from guardrail.learn.train import Plan, train_head
from guardrail.learn.tuned import score_states
from guardrail.learn.tuned_measures import sentence_vectors
from guardrail.learn.tuned_session import TunedSession

GRID = (Strength(1.0), Strength(10.0))
SEARCH = 3_000


def vectors_and_opinions(session: TunedSession, encoder: Encoder) -> tuple[Dataset, Floats]:
    """All rows of the run with their sentence vectors, and (N, K) probabilities of the shipped network."""
    network = load_tuned(encoder)
    rows: list[LabelledText] = []
    vectors: list[Floats] = []
    opinions: list[Floats] = []
    for part in (session.training.states, session.held.states("dev"), session.held.states("test")):
        vectors.append(sentence_vectors(encoder, part))
        opinions.append(score_states(network.upper, part).astype(np.float64))
    for members in (session.drawn, session.held.parts["dev"], session.held.parts["test"]):
        rows.extend(members)
    logits = np.concatenate(opinions)
    return as_dataset(rows, np.concatenate(vectors)), 1.0 / (1.0 + np.exp(-np.clip(logits, -30, 30)))


TAUGHT = """## How it was taught

By the tuned network (`guardrail/pretrained/tuned`): the targets are the known labels, mixed with the network's opinion,
and that opinion alone where no label is known, so the rows counted above include texts that nobody labelled.
Calibration and figures use true labels only. On sources left out it was not measured: the network has seen them all."""


def told(card: str, how: str) -> str:
    """The card with how the head came about in place of the figures on sources left out."""
    before, _, after = card.partition("## On sources left out")
    return f"{before}{how}\n\n## By source{after.partition('## By source')[2]}"


def make(
    heads: Sequence[str], session: TunedSession, encoder: Encoder, out: Path, origins: dict[str, str], command: str
) -> dict[str, object]:
    """Write each head with its card to `out`; return the figures."""
    data, opinions = vectors_and_opinions(session, encoder)
    columns = load_tuned(encoder).facts.heads
    plan = Plan(seed=0, grid=GRID, search_rows=SEARCH)
    found: dict[str, object] = {}
    for name in heads:
        trained = train_head(name, taught_by(data, name, opinions[:, columns.index(name)]), encoder.sha256, None, plan)
        # Fits with a source left out were ranked against targets that the network had a say in: no figures of those.
        figures = report(replace(trained, left_out={}), data, plan, resamples=500)
        header = {"encoder": encoder.name, "command": command, "seed": "0", "taught_by": "tuned"}
        write_head(out / f"{name}.safetensors", trained.head, header)
        card = told(render(trained, figures, data.used(name), Provenance(command, 0, encoder.name, origins)), TAUGHT)
        (out / f"{name}.md").write_text(card, encoding="utf-8")
        found[name] = {"sha256": trained.head.sha256, "taught_by": "tuned", **figures.as_json()}
        print(name, figures.as_json()["auroc"], figures.n, figures.positives, figures.left_out, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--head", action="append", required=True)
    parser.add_argument("--label", action="append")
    arguments = parser.parse_args()
    encoder = load_encoder()
    labels = arguments.label or load_tuned(encoder).facts.heads
    session = TunedSession(read_many([arguments.data]), encoder, arguments.work, heads=labels)
    command = "python training/recipes/heads_distilled.py --data runs/heads/mixture.jsonl.gz --work runs/tuned"
    figures = make(arguments.head, session, encoder, arguments.out, read_origins(arguments.sources), command)
    summary = arguments.out / SUMMARY
    document = json.loads(summary.read_text(encoding="utf-8"))
    document["heads"] = dict(sorted({**document["heads"], **figures}.items()))
    summary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
