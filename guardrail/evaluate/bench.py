"""What the evaluations of the DGLM share: its pipeline, judges that are not its guide, and what the baselines need.

What is needed beside the checkpoint (judges, the perplexity model, GeDi's class models, the dead-end values, the
sentiment head) is trained here, in about a minute, from the shared data; nothing of it is shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.classifiers.linear import load_head
from guardrail.dglm.codec import word_tokenizer
from guardrail.dglm.corpus import read_rows
from guardrail.dglm.guidance import Guide
from guardrail.dglm.pipeline import Pipeline
from guardrail.evaluate.judges import FluencyJudge, Judge, train_judge, train_sentiment_judge
from guardrail.evaluate.ngrams import NGramModel, held_out_sentences
from guardrail.evaluate.repair import read_cases
from guardrail.evaluate.token_steering import (
    GeDi,
    Rectification,
    labelled_sentences,
    train_class_models,
    train_dead_ends,
)

FLUENCY_SENTENCES = 3_000
SENTIMENT_TEXTS = 3_000
Note = Callable[[str], None]


@dataclass
class Bench:
    """What the suites share; each part is made when it is first needed.

    Attributes:
        pipeline: the checkpoint. data: folder of the shared data. seed: of everything that is drawn.
        cap: most training texts per file of the judges; tests make it small. note: told what is being done.
    """

    pipeline: Pipeline
    data: Path
    seed: int = 0
    cap: int = 12_000
    note: Note = field(default=lambda _: None)

    @cached_property
    def guides(self) -> tuple[Guide, ...]:
        """Away from toxicity, by the shipped head."""
        head = load_head("toxicity")
        return (Guide(head.weight, head.bias, away=True),)

    @cached_property
    def judge(self) -> Judge:
        """Of toxicity."""
        self.note("training the judge of toxicity")
        return train_judge(self.data, self.seed, self.cap)

    @cached_property
    def sentiment_judge(self) -> Judge:
        """Probability of positive sentiment."""
        self.note("training the judge of sentiment")
        return train_sentiment_judge(self.data, self.seed, self.cap)

    @cached_property
    def _held_out(self) -> tuple[list[str], list[str]]:
        """Sentences for the fluency judge, and the others, for the perplexity model."""
        found = list(held_out_sentences(self.data, 2 * self.cap))
        order = np.random.default_rng(self.seed).permutation(len(found)).tolist()
        count = min(FLUENCY_SENTENCES, len(found) // 4)
        return [found[i] for i in order[:count]], [found[i] for i in order[count:]]

    @cached_property
    def _tokenizer(self) -> Any:
        return word_tokenizer(self.pipeline.encoder.directory)

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """Word pieces of texts, without marks."""
        return [list(row.ids) for row in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    @cached_property
    def language_model(self) -> NGramModel:
        """The model that perplexity is measured with."""
        self.note("training the perplexity model")
        return NGramModel(self.tokenise(self._held_out[1]), self._tokenizer.get_vocab_size())

    @cached_property
    def fluency(self) -> FluencyJudge:
        """Of broken sentences: held-out ones and human rewrites (split train) against broken copies of both."""
        model = self.language_model
        self.note("training the judge of fluency")
        pairs = read_cases(self.data / "pairs" / "paradetox.jsonl.gz", "train", FLUENCY_SENTENCES)
        people = [case.references[0] for case in pairs if len(case.references[0].split()) > 2]
        return FluencyJudge(model, self.tokenise, [*self._held_out[0], *people], self.seed)

    @cached_property
    def sentiment_head(self) -> Guide:
        """A linear head of positive sentiment over embeddings, trained on GoEmotions; wanted side: positive."""
        from sklearn.linear_model import LogisticRegression

        self.note("training a head of sentiment")
        rows = read_rows(self.data / "labelled" / "goemotions.jsonl.gz")
        known = (r for r in rows if r.get("split") == "train" and "positive_sentiment" in r["labels"])
        chosen = list(islice(known, min(SENTIMENT_TEXTS, self.cap)))
        x = self.pipeline.encoder.encode([row["text"] for row in chosen])
        y = [row["labels"]["positive_sentiment"] > 0.5 for row in chosen]
        head = LogisticRegression(C=10.0, class_weight="balanced", max_iter=500).fit(x, y)
        return Guide(head.coef_[0].astype(np.float32), float(head.intercept_[0]), away=False)

    @cached_property
    def token_steers(self) -> dict[str, Callable[[], Any]]:
        """Makers of the token-level baselines."""
        self.note("training GeDi's class models and the dead-end values")
        toxic, harmless = labelled_sentences(self.data, self.seed, max(20, self.cap // 4))
        size = self._tokenizer.get_vocab_size()
        good, bad = train_class_models(self.tokenise, size, toxic, harmless)
        few = min(len(toxic), len(harmless), 1_500)
        values = train_dead_ends(self.pipeline, toxic[:few], harmless[:few], seed=self.seed)
        return {"gedi": lambda: GeDi(good, bad), "rectification": lambda: Rectification(values)}
