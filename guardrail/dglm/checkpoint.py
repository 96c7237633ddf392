"""Checkpoints: a folder with `decoder.safetensors` (bfloat16), `latents.safetensors` and a model card `README.md`.

A checkpoint carries its sizes and its encoder's hash; that of another encoder is refused.
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

from guardrail.dglm import latents, phrase_table
from guardrail.dglm.decoder import Decoder, DecoderConfig
from guardrail.errors import CheckpointError, did_you_mean

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
        if (folder / "decoder.safetensors").is_file():
            return folder
    shipped = sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()) if SHIPPED.is_dir() else []
    raise CheckpointError(
        f"there is no DGLM checkpoint {name!r}: expected one of {', '.join(shipped) or 'none shipped'}, or a directory "
        f"with decoder.safetensors and latents.safetensors.{did_you_mean(name, shipped)}"
    )


def save(
    weights: dict[str, Tensor], config: DecoderConfig, statistics: latents.LatentStatistics, folder: Path, recipe: str
) -> None:
    """Write a checkpoint; weights become bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
    metadata = {"config": json.dumps(config.to_dict()), "encoder_sha256": statistics.encoder_sha256, "recipe": recipe}
    save_file(half, folder / "decoder.safetensors", metadata)
    latents.save(statistics, folder / "latents.safetensors")


def read_metadata(folder: Path) -> dict[str, str]:
    """Return a checkpoint's metadata without loading its weights."""
    with _opened(folder / "decoder.safetensors") as opened:
        return dict(opened.metadata() or {})


def load(folder: Path, encoder_sha256: str, device: str) -> Checkpoint:
    """Load a checkpoint for an encoder.

    Raises:
        CheckpointError: a file is missing or damaged, or the checkpoint belongs to another encoder (both hashes are
            named).
    """
    metadata = read_metadata(folder)
    statistics = latents.load(folder / "latents.safetensors")
    for found in (metadata.get("encoder_sha256"), statistics.encoder_sha256):
        if found != encoder_sha256:
            raise CheckpointError(
                f"the checkpoint {folder} belongs to the encoder {found}, not to {encoder_sha256}; "
                "train one for this encoder with `guardrail dglm train`"
            )
    config = json.loads(metadata["config"])
    config["output_ids"] = tuple(config["output_ids"])
    decoder = Decoder(DecoderConfig(**config))
    with _opened(folder / "decoder.safetensors") as opened:
        state = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    try:
        decoder.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {folder} do not fit their own sizes: {error}") from error
    return Checkpoint(decoder.to(device).freeze(), statistics, sha256(folder), folder)


def sha256(folder: Path) -> str:
    """Return the hash over the weight files, and over the phrase table if it has one."""
    digest = hashlib.sha256()
    for name in ("decoder.safetensors", "latents.safetensors", phrase_table.FILE):
        if (folder / name).is_file():
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
