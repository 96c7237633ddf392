"""A few hundred of the project's own labelled sentences, embedded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from guardrail.encoder import load_encoder
from guardrail.evaluate.data import LabelledText, read_labelled
from guardrail.learn.dataset import Dataset, build_dataset
from guardrail.learn.embeddings import EmbeddingCache

OWN = Path(__file__).parents[2] / "training" / "heads"


@pytest.fixture(scope="session")
def own_rows() -> list[LabelledText]:
    """180 rows each about insults, threats and everyday life."""
    return [row for name in ("insult", "threat", "everyday") for row in read_labelled(OWN / f"{name}.jsonl")[:180]]


@pytest.fixture(scope="session")
def own(own_rows: list[LabelledText]) -> Dataset:
    return build_dataset(own_rows, EmbeddingCache(load_encoder(device="cpu")))
