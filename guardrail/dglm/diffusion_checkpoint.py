"""The diffusion's file in a checkpoint's folder: `diffusion.safetensors`, with the network, its student where there is one,
the latent statistics (float32) and, as metadata, sizes, the encoder's hash and the recipe of the data. Weights are
bfloat16, or float32 where reviewers' choices have moved them. `DIFFUSION.md` beside it is its card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from guardrail.dglm.latents import LatentStatistics
from guardrail.dglm.network import NetworkConfig, ProposalNetwork, new_network
from guardrail.dglm.propose import LOWEST, Diffusion
from guardrail.dglm.schedule import CosineSchedule
from guardrail.encoder import file_sha256
from guardrail.errors import CheckpointError
from guardrail.weights import Undrawn

FILE = "diffusion.safetensors"
STATISTICS = ("mean", "std", "covariance")


def find_diffusion(folder: Path) -> bool:
    """Return whether a checkpoint's folder has a diffusion."""
    return (folder / FILE).is_file()


def save_diffusion(
    folder: Path,
    statistics: LatentStatistics,
    networks: Mapping[str, tuple[NetworkConfig, Mapping[str, Tensor]]],
    recipe: Mapping[str, Any],
    dtype: torch.dtype = torch.bfloat16,
) -> int:
    """Write the file; returns its size in bytes.

    Args:
        folder: of the checkpoint. statistics: of the latents.
        networks: "network" and perhaps "student": sizes and weights. recipe: of data and training.
        dtype: of the weights; bfloat16 would round small changes of a trained network away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"statistics.{name}": torch.from_numpy(getattr(statistics, name)) for name in STATISTICS}
    for name, (_, weights) in networks.items():
        tensors |= {f"{name}.{key}": value.detach().to(dtype).contiguous() for key, value in weights.items()}
    metadata = {
        "encoder_sha256": statistics.encoder_sha256,
        "count": str(statistics.count),
        "recipe": json.dumps(recipe),
        "configs": json.dumps({name: config.to_dict() for name, (config, _) in networks.items()}),
    }
    save_file(tensors, folder / FILE, metadata)
    return (folder / FILE).stat().st_size


def read_diffusion_metadata(folder: Path) -> dict[str, Any]:
    """Return `encoder_sha256`, `count`, `recipe` and `configs` of a folder's diffusion, without its weights.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with safe_open(folder / FILE, "pt") as opened:
            found = dict(opened.metadata() or {})
        return found | {key: json.loads(found[key]) for key in ("recipe", "configs")}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"the diffusion {folder / FILE} cannot be read: {error}") from error


def load_diffusion(folder: Path, encoder_sha256: str, device: str) -> Diffusion:
    """Load the diffusion of a checkpoint's folder for an encoder.

    Args:
        device: of the networks, "cpu" or "cuda".

    Raises:
        CheckpointError: missing, damaged, of sizes that do not fit, or of another encoder (both hashes are named).
    """
    metadata = read_diffusion_metadata(folder)
    if metadata["encoder_sha256"] != encoder_sha256:
        raise CheckpointError(
            f"the diffusion in {folder} belongs to the encoder {metadata['encoder_sha256']}, not to {encoder_sha256}; "
            "train one for this encoder with `guardrail dglm train diffusion`"
        )
    with safe_open(folder / FILE, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    try:
        mean, std, covariance = (tensors[f"statistics.{name}"].numpy().astype(np.float32) for name in STATISTICS)
        statistics = LatentStatistics(mean, std, covariance, int(metadata["count"]), encoder_sha256)
        networks = {
            name: _network(NetworkConfig(**config), statistics, tensors, name, device)
            for name, config in metadata["configs"].items()
        }
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"the weights in {folder / FILE} do not fit their own sizes: {error}") from error
    schedule = CosineSchedule(float(metadata["recipe"].get("sampling_shift", 0.0)), lowest=LOWEST)
    return Diffusion(statistics, networks.get("network"), networks.get("student"), schedule, file_sha256(folder / FILE))


def _network(
    config: NetworkConfig, statistics: LatentStatistics, tensors: Mapping[str, Tensor], name: str, device: str
) -> ProposalNetwork:
    with Undrawn():
        network = new_network(config, statistics)
    prefix = f"{name}."
    network.load_state_dict(
        {key.removeprefix(prefix): tensor.float() for key, tensor in tensors.items() if key.startswith(prefix)}
    )
    return network.to(device).eval().requires_grad_(False)
