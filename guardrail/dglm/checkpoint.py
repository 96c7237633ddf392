"""Checkpoints: a folder with the weights of a writer, `latents.safetensors` and a model card `README.md`.

The weights are `decoder.safetensors` (the shipped kind of decoder, bfloat16) or `causal.safetensors` (what a causal
language model has learnt). A checkpoint carries its sizes and its encoder's hash; that of another encoder is refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from guardrail.dglm import causal, latents, phrase_table
from guardrail.dglm.decoder import Decoder, DecoderConfig
from guardrail.errors import CheckpointError, did_you_mean
from guardrail.weights import Undrawn

DECODER = "decoder.safetensors"
SHIPPED = Path(__file__).resolve().parent.parent / "pretrained" / "dglm"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint: the decoder in evaluation mode, the latent statistics, and the hash of both files."""

    decoder: Decoder
    statistics: latents.LatentStatistics
    sha256: str
    folder: Path


def locate(name: str) -> Path:
    """Return the folder of a shipped checkpoint or of a directory.

    Raises:
        CheckpointError: there is neither.
    """
    for folder in (SHIPPED / name, Path(name)):
        if (folder / DECODER).is_file() or has_causal(folder):
            return folder
    shipped = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()) if SHIPPED.is_dir() else []
    raise CheckpointError(
        f"there is no DGLM checkpoint {name!r}: expected one of {', '.join(shipped) or 'none shipped'}, or a directory "
        f"with {DECODER} or {causal.FILE}, and latents.safetensors.{did_you_mean(name, shipped)}"
    )


def has_causal(folder: Path) -> bool:
    """Return whether a checkpoint's writer is a causal language model."""
    return (folder / causal.FILE).is_file()


def save(
    weights: dict[str, Tensor], config: DecoderConfig, statistics: latents.LatentStatistics, folder: Path, recipe: str
) -> None:
    """Write a checkpoint; weights become bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
    metadata = {"config": json.dumps(config.to_dict()), "encoder_sha256": statistics.encoder_sha256, "recipe": recipe}
    save_file(half, folder / DECODER, metadata)
    latents.save(statistics, folder / "latents.safetensors")


def read_metadata(folder: Path) -> dict[str, str]:
    """Return a checkpoint's metadata without loading its weights."""
    with _opened(folder / (causal.FILE if has_causal(folder) else DECODER)) as opened:
        return dict(opened.metadata() or {})


def load(folder: Path, encoder_sha256: str, device: str) -> Checkpoint:
    """Load a checkpoint for an encoder.

    Raises:
        CheckpointError: a file is missing or damaged, or the checkpoint belongs to another encoder (both hashes are
            named).
    """
    metadata = read_metadata(folder)
    statistics = load_statistics(folder, encoder_sha256)
    if metadata.get("encoder_sha256") != encoder_sha256:
        raise _of_another_encoder(folder, metadata.get("encoder_sha256"), encoder_sha256)
    config = json.loads(metadata["config"])
    config["output_ids"] = tuple(config["output_ids"])
    with Undrawn():
        decoder = Decoder(DecoderConfig(**config))
    with _opened(folder / DECODER) as opened:
        state = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    try:
        decoder.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {folder} do not fit their own sizes: {error}") from error
    return Checkpoint(decoder.to(device).freeze(), statistics, sha256(folder), folder)


def load_statistics(folder: Path, encoder_sha256: str) -> latents.LatentStatistics:
    """Load a checkpoint's latent statistics for an encoder; errors as `load`."""
    statistics = latents.load(folder / "latents.safetensors")
    if statistics.encoder_sha256 != encoder_sha256:
        raise _of_another_encoder(folder, statistics.encoder_sha256, encoder_sha256)
    return statistics


def _of_another_encoder(folder: Path, found: str | None, wanted: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {folder} belongs to the encoder {found}, not to {wanted}; "
        "train one for this encoder with `guardrail dglm train`"
    )


def sha256(folder: Path) -> str:
    """Return the hash over the weight files, and over the phrase table if it has one."""
    digest = hashlib.sha256()
    for name in (DECODER, causal.FILE, "latents.safetensors", phrase_table.FILE):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
