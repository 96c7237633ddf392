"""The cache of embeddings: each text once, whole shards only, damage noticed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from guardrail.encoder import Encoder
from guardrail.errors import CheckpointError
from guardrail.learn import embeddings
from guardrail.learn.embeddings import EmbeddingCache


class CountingBackend:
    """Embeds a text as its length and remembers how many texts it saw."""

    dim = 3
    max_tokens = 64

    def __init__(self) -> None:
        self.seen = 0

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        return [[len(text), 1] for text in texts]

    def forward(self, batch: Sequence[Sequence[int]]) -> np.ndarray:
        self.seen += len(batch)
        return np.array([[ids[0] / 128, 0.5, 1.0] for ids in batch], dtype=np.float32)


def encoder(backend: CountingBackend, sha256: str = "a" * 64) -> Encoder:
    return Encoder("counting", backend, sha256, Path(), "cpu")


def test_embeds_each_text_once_across_runs(tmp_path: Path) -> None:
    backend = CountingBackend()
    progress: list[int] = []
    first = EmbeddingCache(encoder(backend), tmp_path).embed(["one", "three", "one", "\ud800"], progress.append)
    assert first.dtype == np.float32
    assert first[:, 0].tolist() == [3 / 128, 5 / 128, 3 / 128, 1 / 128]
    assert sum(progress) == 3
    again = EmbeddingCache(encoder(backend), tmp_path).embed(["three", "four", "one"])
    assert again[:, 0].tolist() == [5 / 128, 4 / 128, 3 / 128]
    assert backend.seen == 4
    assert not list(tmp_path.rglob("*.partial"))


def test_another_encoder_has_its_own_cache(tmp_path: Path) -> None:
    backend = CountingBackend()
    for sha256 in ("a" * 64, "b" * 64):
        EmbeddingCache(encoder(backend, sha256), tmp_path).embed(["one"])
    assert backend.seen == 2


def test_many_texts_make_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "SHARD_ROWS", 4)
    backend = CountingBackend()
    texts = ["x" * n for n in range(11)]
    vectors = EmbeddingCache(encoder(backend), tmp_path).embed(texts)
    assert vectors[:, 0].tolist() == [n / 128 for n in range(11)]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3
    np.testing.assert_array_equal(EmbeddingCache(encoder(backend), tmp_path).embed(texts), vectors)
    assert backend.seen == 11


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    EmbeddingCache(encoder(CountingBackend()), tmp_path).embed(["one"])
    [shard] = tmp_path.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=rf"{shard.name} is damaged .* delete it"):
        EmbeddingCache(encoder(CountingBackend()), tmp_path).embed(["one"])


def test_without_a_folder_nothing_is_kept_and_nothing_gives_no_rows() -> None:
    backend = CountingBackend()
    cache = EmbeddingCache(encoder(backend))
    assert cache.embed([]).shape == (0, 3)
    cache.embed(["one"])
    cache.embed(["one"])
    assert backend.seen == 2
