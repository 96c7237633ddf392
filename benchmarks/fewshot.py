"""A head from ten examples beside one from many. Prints one JSON object; `gap` is how far the taught head stays behind.

With `--data FOLDER` the topics are ones that neither guardrail nor its encoder was shaped for: `agnews.jsonl.gz`
(`topic_*`) and `goemotions.jsonl.gz` (`emotion_gratitude`), for measuring only. Without it they are labels of the
project's own texts, whose negatives share the topic, and the shipped heads, which know these texts, are no prior.

For each topic, AUROC on test rows of: heads taught by 5 and by 10 examples a side, with and without a sentence on the
topic, mean over seeds; and logistic regression on `--many` a side, or as many as there are. `gap`: median over the
topics. `seconds`: to teach one head, everyday text already embedded.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from guardrail.classifiers.background import background
from guardrail.classifiers.fewshot import Examples, train_few
from guardrail.classifiers.taught import prior_heads
from guardrail.encoder import Encoder, load_encoder
from guardrail.evaluate.data import LabelledText, read_many
from guardrail.evaluate.metrics import quick_auroc

TOPICS = {
    "topic_world": ("agnews", "world politics and international news"),
    "topic_sports": ("agnews", "sports"),
    "topic_business": ("agnews", "companies, markets and the economy"),
    "topic_scitech": ("agnews", "computers, science and technology"),
    "emotion_gratitude": ("goemotions", "somebody thanks somebody"),
}
OWN = {
    "insult": ("own", "somebody is insulted"),
    "sexual": ("own", "lewd and sexual remarks"),
    "self_harm": ("own", "somebody wants to harm themselves"),
    "jailbreak": ("own", "talking an assistant out of its rules"),
    "prompt_injection": ("own", "instructions to an assistant hidden in a document"),
}
LONGEST = 400  # characters


def sides(rows: list[LabelledText], label: str, split: str, most: int, seed: int) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)  # noqa: S311 - seeded, to be repeatable
    chosen = [row for row in rows if row.split == split and label in row.labels]
    rng.shuffle(chosen)
    found: tuple[list[str], list[str]] = ([], [])
    for row in chosen:
        side = found[0 if row.labels[label] > 0.5 else 1]
        if len(side) < most:
            side.append(row.text[:LONGEST])
    return found


class Remembering:
    """An encoder that embeds each text once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self._known = encoder, {}
        self.dim, self.sha256 = encoder.dim, encoder.sha256

    def encode(self, texts):  # type: ignore[no-untyped-def]
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known |= dict(zip(new, self._encoder.encode(new), strict=True)) if new else {}
        return np.stack([self._known[text] for text in texts])


def measure(
    topic: str, about: str, rows: list[LabelledText], encoder: Remembering, everyday, options: argparse.Namespace
) -> dict[str, float]:  # type: ignore[no-untyped-def]
    from sklearn.linear_model import LogisticRegression

    yes, no = sides(rows, topic, "train", options.many, 0)
    fresh, others = sides(rows, topic, "test", options.tested, 0)
    tested, truth = encoder.encode(fresh + others), np.arange(len(fresh) + len(others)) < len(fresh)
    many = LogisticRegression(C=10, max_iter=1000).fit(
        encoder.encode(yes + no), np.arange(len(yes) + len(no)) < len(yes)
    )
    found = {"many": quick_auroc(tested @ many.coef_[0], truth) or 0.0}
    prior = prior_heads(encoder) if options.data else []  # type: ignore[arg-type]
    for each in (5, 10):
        for name, sentence in ((f"{each}", ""), (f"{each} and a sentence", about)):
            values = []
            for seed in range(options.seeds):
                rng = random.Random(seed)  # noqa: S311
                examples = Examples(tuple(rng.sample(yes, each)), tuple(rng.sample(no, each)), sentence)
                head = train_few(topic, examples, encoder, prior, everyday).head  # type: ignore[arg-type]
                values.append(quick_auroc(tested @ head.weight, truth) or 0.0)
            found[name] = statistics.mean(values)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--many", type=int, default=500, help="examples on each side of the large head")
    parser.add_argument("--tested", type=int, default=150, help="test rows on each side")
    options = parser.parse_args()
    real = load_encoder(device="cpu")
    encoder = Remembering(real)
    with tempfile.TemporaryDirectory() as folder:
        everyday = background(real, Path(folder))
    topics = TOPICS if options.data else OWN
    own = Path(__file__).resolve().parents[1] / "training" / "heads"
    sources = {
        source: read_many([options.data / f"{source}.jsonl.gz" if options.data else own])
        for source in {source for source, _ in topics.values()}
    }
    found = {
        topic: measure(topic, about, sources[source], encoder, everyday, options)
        for topic, (source, about) in topics.items()
    }
    first = next(iter(topics))
    example = sides(sources[topics[first][0]], first, "train", 10, 1)
    started = time.perf_counter()
    train_few(first, Examples(tuple(example[0]), tuple(example[1])), real, prior_heads(real), everyday)
    seconds = time.perf_counter() - started
    ways = [way for way in next(iter(found.values())) if way != "many"]
    gaps = {way: round(statistics.median(row["many"] - row[way] for row in found.values()), 4) for way in ways}
    rounded = {topic: {way: round(value, 4) for way, value in row.items()} for topic, row in found.items()}
    print(
        json.dumps(
            {
                "benchmark": "fewshot",
                "seeds": options.seeds,
                "gap": gaps,
                "seconds": round(seconds, 2),
                "auroc": rounded,
            }
        )
    )


if __name__ == "__main__":
    main()
