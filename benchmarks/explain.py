"""What explaining costs, and whether the words that it names are the ones: one JSON object.

`ratio`: suppression of every word of a 40-token text, by one embedding of that text; both in turns, in one process.

`deletion`: how much the log odds of a head fall when the k words that a method ranks first are taken out of a text and
the rest is embedded anew, mean over texts of the project's own test split. Methods: suppression in the last layer (what
is used), in all layers (AtMan to the letter), gradient times input embedding, and chance. `wins`: share of texts on
which suppression lowers the score at least as much as the other method.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from guardrail.classifiers.linear import load_head
from guardrail.encoder import Encoder, load_encoder
from guardrail.explain import suppression
from guardrail.explain.suppression import relevance, suppressed, words
from guardrail.learn.tuned import bert_of

TEXT = (
    "We have looked at the logs of last night and found that the backup had started twice, which explains why the "
    "disk of the second server was already full early in the morning."
)
HEADS = ("insult", "threat", "sexual", "violence", "self_harm", "profanity")
TEXTS = Path(__file__).resolve().parents[1] / "training" / "heads"
REMOVED = (1, 2, 3, 5)


def cost(encoder: Encoder, repetitions: int) -> dict[str, float]:
    spans = words(TEXT)
    sides: dict[str, Callable[[], object]] = {
        "embedding": lambda: encoder.encode([TEXT]),
        "suppression": lambda: suppressed(encoder, TEXT, spans),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repetitions + 3):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if turn >= 3:
                times[name].append((time.perf_counter() - started) * 1000)
    pairs = [many / one for many, one in zip(times["suppression"], times["embedding"], strict=True)]
    return {
        "tokens": encoder.token_counts([TEXT])[0],
        "words": len(spans),
        "embedding_ms": round(statistics.median(times["embedding"]), 2),
        "suppression_ms": round(statistics.median(times["suppression"]), 2),
        "ratio": round(statistics.median(pairs), 2),
    }


def gradient_times_input(encoder: Encoder, text: str, weight: np.ndarray) -> np.ndarray:
    bert = bert_of(encoder)
    ids, owned = suppression._groups(encoder, text, words(text))  # type: ignore[misc]
    embedded = bert.embeddings.word_embeddings(torch.tensor([ids])).detach().requires_grad_(True)
    hidden = bert.embeddings.placed(embedded)
    for layer in bert.layers:
        hidden = layer(hidden)
    score = torch.nn.functional.normalize(hidden.mean(dim=1), dim=1)[0] @ torch.tensor(weight)
    (gradient,) = torch.autograd.grad(score, embedded)
    product = (gradient * embedded).sum(dim=-1)[0].detach().numpy()
    return np.array([product[own].sum() for own in owned])


def every_layer(encoder: Encoder, text: str, weight: np.ndarray) -> np.ndarray:
    bert = bert_of(encoder)
    ids, owned = suppression._groups(encoder, text, words(text))  # type: ignore[misc]
    with torch.inference_mode():
        tokens = torch.tensor([ids])
        embedded = torch.nn.functional.normalize(bert.embeddings.word_embeddings(tokens)[0], dim=1)
        keep = suppression._kept(embedded, owned)
        hidden = bert.embeddings(tokens).expand(len(keep), -1, -1)
        for layer in bert.layers:
            hidden = layer(hidden, keep.log()[:, None, None, :])
        pooled = (hidden * keep[:, :, None]).sum(dim=1) / keep.sum(dim=1, keepdim=True)
        return relevance((torch.nn.functional.normalize(pooled, dim=1) @ torch.tensor(weight)).numpy())


def deletion(encoder: Encoder, each: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    methods: dict[str, Callable[[str, np.ndarray], np.ndarray]] = {
        "suppression": lambda text, weight: relevance(suppressed(encoder, text, words(text)) @ weight),
        "every_layer": lambda text, weight: every_layer(encoder, text, weight),
        "gradient_times_input": lambda text, weight: gradient_times_input(encoder, text, weight),
        "chance": lambda text, _: rng.normal(size=len(words(text))),
    }
    drops: dict[str, list[list[float]]] = {name: [] for name in methods}
    for name in HEADS:
        head = load_head(name)
        for text in positives(name, each):
            rankings = {method: np.argsort(-rank(text, head.weight)) for method, rank in methods.items()}
            left = [without(text, order[:count]) for order in rankings.values() for count in REMOVED]
            scores = encoder.encode([text, *left]) @ head.weight
            fallen = (scores[0] - scores[1:]).reshape(len(methods), len(REMOVED))
            for method, row in zip(rankings, fallen, strict=True):
                drops[method].append(row.tolist())
    fall = {method: np.array(rows) for method, rows in drops.items()}
    ours = fall["suppression"]
    return {
        "texts": len(ours),
        "fall_of_log_odds": {
            method: dict(zip(map(str, REMOVED), rows.mean(axis=0).round(3).tolist(), strict=True))
            for method, rows in fall.items()
        },
        "wins": {
            method: dict(zip(map(str, REMOVED), (ours >= rows - 1e-6).mean(axis=0).round(3).tolist(), strict=True))
            for method, rows in fall.items()
            if method != "suppression"
        },
    }


def positives(head: str, most: int) -> list[str]:
    rows = [json.loads(line) for line in (TEXTS / f"{head}.jsonl").read_text(encoding="utf-8").splitlines()]
    mine = [row["text"] for row in rows if row["split"] == "test" and row["labels"].get(head) == 1]
    return [text for text in mine if 8 <= len(text.split()) <= 35][:most]


def without(text: str, removed: np.ndarray) -> str:
    spans = words(text)
    for start, end in sorted((spans[place] for place in removed), reverse=True):
        text = text[:start] + text[end:]
    return re.sub(r"\s+", " ", text).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--texts", type=int, default=15, help="texts for each head")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_encoder(device="cpu")
    print(
        json.dumps(
            {"benchmark": "explain", **cost(encoder, options.repetitions), "deletion": deletion(encoder, options.texts)}
        )
    )


if __name__ == "__main__":
    main()
