"""Statistics of the sentence space: mean, standard deviation and covariance of embeddings.

They normalise latents (Lovelace et al. 2024, section 4.1) and precondition guidance: a step along S w stays on the data
manifold where a step along the bare weight vector w does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from guardrail.errors import CheckpointError

if TYPE_CHECKING:
    from guardrail.encoder import Encoder

Array = npt.NDArray[np.float32]

DEAD = 1e-4
"""Standard deviation of a dimension that says nothing; three of MiniLM's 384 are of the order of 1e-33."""


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: the spectrum is kept for each
class LatentStatistics:
    """Moments of unit-norm embeddings of one encoder.

    Attributes:
        mean: (d,). std: (d,). covariance: (d, d) of the raw embeddings. count: how many texts.
        encoder_sha256: of the encoder's weights.
    """

    mean: Array
    std: Array
    covariance: Array
    count: int
    encoder_sha256: str

    @property
    def dim(self) -> int:
        """Width of the embedding."""
        return int(self.mean.shape[0])

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        """Dimensions that vary, (d,)."""
        return self.std > 1.01 * DEAD

    def spectrum(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the eigenvalues (d,) and eigenvectors (d, d), in columns, of the normalised latents' covariance."""
        return _spectrum(self)

    def normalise(self, x: Array) -> Array:
        """Map embeddings (N, d) to latents of zero mean and unit variance per dimension."""
        return (x - self.mean) / self.std

    def denormalise(self, z: Array) -> Array:
        """Inverse of `normalise`, projected back to the unit sphere."""
        x = z * self.std + self.mean
        unit: Array = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
        return unit


@lru_cache(maxsize=8)
def _spectrum(statistics: LatentStatistics) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A decomposition takes as long as several steps of the diffusion."""
    std = statistics.std.astype(np.float64)
    values, vectors = np.linalg.eigh(statistics.covariance.astype(np.float64) / np.outer(std, std))
    values = np.maximum(values, 0.0)
    values.flags.writeable = vectors.flags.writeable = False
    return values, vectors


def measure(encoder: Encoder, texts: Sequence[str], chunk: int = 2048) -> LatentStatistics:
    """Encode `texts` and return their moments.

    Raises:
        CheckpointError: fewer texts than twice the dimension; the covariance would be singular.
    """
    if len(texts) < 2 * encoder.dim:
        raise CheckpointError(
            f"latent statistics of a {encoder.dim}-d space need at least {2 * encoder.dim} texts, got {len(texts)}"
        )
    total = np.zeros(encoder.dim, dtype=np.float64)
    outer = np.zeros((encoder.dim, encoder.dim), dtype=np.float64)
    for part in _chunks(texts, chunk):
        x = encoder.encode(part).astype(np.float64)
        total += x.sum(axis=0)
        outer += x.T @ x
    mean = total / len(texts)
    covariance = outer / len(texts) - np.outer(mean, mean)
    std = np.sqrt(np.diag(covariance))
    return LatentStatistics(
        mean.astype(np.float32), std.astype(np.float32), covariance.astype(np.float32), len(texts), encoder.sha256
    )


def _chunks(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def save(statistics: LatentStatistics, path: Path) -> None:
    """Write the statistics as safetensors."""
    from safetensors.numpy import save_file

    tensors = {"mean": statistics.mean, "std": statistics.std, "covariance": statistics.covariance}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {"count": str(statistics.count), "encoder_sha256": statistics.encoder_sha256})


def load(path: Path) -> LatentStatistics:
    """Read statistics written by `save`.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as opened:
            metadata = opened.metadata() or {}
            arrays = {name: opened.get_tensor(name) for name in ("mean", "std", "covariance")}
        return LatentStatistics(**arrays, count=int(metadata["count"]), encoder_sha256=metadata["encoder_sha256"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"latent statistics {path} cannot be read: {error}") from error
