"""A cache of sentence embeddings on disk: a text is embedded once for each encoder, however often data sets change.

Vectors are kept as float16 in safetensors shards, keyed by the text's sha256, under one folder for each encoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from guardrail.encoder import Encoder, Vectors
from guardrail.errors import CheckpointError

SHARD_ROWS = 4_096
_BATCH_ROWS = 256
_KEY_BYTES = 16

Advance = Callable[[int], None]


def _silent(_: int) -> None:
    """Nobody asked how far it is."""


class EmbeddingCache:
    """Embeddings by content.

    Args:
        encoder: what embeds the texts that are not there yet.
        folder: where the shards lie; None keeps nothing.
    """

    def __init__(self, encoder: Encoder, folder: Path | None = None) -> None:
        self.encoder = encoder
        self.folder = None if folder is None else folder / f"embeddings-{encoder.sha256[:16]}"

    def embed(self, texts: Sequence[str], advance: Advance = _silent) -> Vectors:
        """Return (N, dim) float32 unit vectors; `advance(rows)` is told of every finished batch.

        Raises:
            CheckpointError: a shard is damaged; the message names it.
        """
        keys = [_key(text) for text in texts]
        found = self._read(set(keys))
        advance(sum(key in found for key in keys))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        order = sorted(missing, key=lambda key: len(missing[key]))  # equal lengths together: little padding
        for start in range(0, len(order), SHARD_ROWS):
            shard = order[start : start + SHARD_ROWS]
            vectors = np.concatenate([self._encode(part, missing, advance) for part in _cut(shard, _BATCH_ROWS)])
            self._write(shard, vectors)
            found.update(zip(shard, vectors, strict=True))
        if not keys:
            return np.empty((0, self.encoder.dim), dtype=np.float32)
        return np.stack([found[key] for key in keys]).astype(np.float32)

    def _encode(self, keys: Sequence[bytes], texts: Mapping[bytes, str], advance: Advance) -> np.ndarray:
        vectors = self.encoder.encode([texts[key] for key in keys]).astype(np.float16)
        advance(len(keys))
        return vectors

    def _read(self, wanted: set[bytes]) -> dict[bytes, np.ndarray]:
        from safetensors.numpy import load_file

        found: dict[bytes, np.ndarray] = {}
        shards = sorted(self.folder.glob("*.safetensors")) if self.folder is not None and self.folder.is_dir() else []
        for path in shards:
            try:
                tensors = load_file(path)
                keys, vectors = tensors["keys"], tensors["vectors"]
            except Exception as error:
                raise CheckpointError(
                    f"{path} is damaged ({error}); delete it, and its texts are embedded again"
                ) from error
            for key, vector in zip(keys, vectors, strict=True):
                if (name := key.tobytes()) in wanted:
                    found[name] = vector
        return found

    def _write(self, keys: Sequence[bytes], vectors: np.ndarray) -> None:
        if self.folder is None:
            return
        from safetensors.numpy import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(b"".join(keys)).hexdigest()[:16]
        partial = self.folder / f"{name}.partial"
        table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), _KEY_BYTES)
        save_file({"keys": table, "vectors": vectors}, partial)
        partial.rename(self.folder / f"{name}.safetensors")  # whole or not at all


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]


def _cut(keys: Sequence[bytes], size: int) -> list[Sequence[bytes]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]
