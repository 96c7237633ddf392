"""Train a causal language model as the writer, from the same recipes as the shipped decoder.

A recipe asks for it by `decoder: {kind: causal, name: FOLDER_OR_NAME, adapters: true}`: soft prompts from a prompt
generator before what is written (Lovelace et al. 2024, section 4.3), the model frozen with low-rank adapters, or
fine-tuned (`adapters: false`). A batch is a function of (seed, step, process) alone, so that a killed run resumes exactly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guardrail.dglm import latents
from guardrail.dglm.aims import Aim, Aims, wanted
from guardrail.dglm.causal import FILE, CausalConfig, CausalWriter, new_writer
from guardrail.dglm.causal_rewriting import in_view
from guardrail.dglm.corpus import Pair, load_corpus
from guardrail.dglm.corruption import Spoiler
from guardrail.dglm.devices import Placement, place
from guardrail.dglm.guidance import Guide
from guardrail.dglm.prompt import noise_latent
from guardrail.dglm.run_state import Course, RunState, average_weights, load_state, new_state, run_steps
from guardrail.dglm.training import Report, TrainingDiverged, latent_texts, learning_rate, training_aims
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import ConfigurationError

STATE = "causal-state.safetensors"
KEYS = frozenset({"kind", "name", "adapters", "rank", "soft_tokens", "prompt_layers"})
VALIDATION_BATCHES = 3

Examples = Sequence[tuple[Pair, Aim]]


def is_causal(recipe: Mapping[str, Any]) -> bool:
    """Return whether a recipe asks for a causal language model.

    Raises:
        ConfigurationError: its `decoder` is of an unknown kind.
    """
    kind = (recipe.get("decoder") or {}).get("kind", "draft")
    if kind not in ("draft", "causal"):
        raise ConfigurationError(
            f"decoder.kind of a recipe should be 'draft' (the shipped one) or 'causal', got {kind!r}"
        )
    return bool(kind == "causal")


def configured(recipe: Mapping[str, Any], encoder: Encoder) -> CausalConfig:
    """Return the sizes that a recipe's `decoder` asks for.

    Raises:
        ConfigurationError: no model is named, or a key is unknown.
    """
    settings = dict(recipe["decoder"])
    unknown = sorted(set(settings) - KEYS)
    if unknown or not settings.get("name"):
        problem = f"does not know {', '.join(unknown)}" if unknown else "needs the `name` of a model or its folder"
        raise ConfigurationError(f"the `decoder` of a recipe {problem}; its keys are {', '.join(sorted(KEYS))}")
    return CausalConfig(
        model=str(settings["name"]),
        latent_dim=encoder.dim,
        encoder_sha256=encoder.sha256,
        soft_tokens=int(settings.get("soft_tokens", 8)),
        prompt_layers=int(settings.get("prompt_layers", 6)),
        train="adapters" if settings.get("adapters", True) else "all",
        rank=int(settings.get("rank", 8)),
    )


@dataclass(slots=True)
class _Run:
    """What stays the same from step to step. `model` is the writer, wrapped where several processes share the work."""

    recipe: Mapping[str, Any]
    model: nn.Module
    encoder: Encoder
    statistics: latents.LatentStatistics
    aims: Aims
    placement: Placement

    def examples(self, spoiler: Spoiler, step: int) -> list[Examples]:
        """Return the micro-batches of a step, sorted by length."""
        rng = np.random.default_rng([int(self.recipe["seed"]), step, self.placement.rank])
        drawn = [spoiler.draw(rng) for _ in range(int(self.recipe["batch"]))]
        pairs = sorted((pair for pair in drawn if pair.target), key=lambda pair: len(pair.source) + len(pair.target))
        found = [(pair, self.aims.draw(pair, rng)) for pair in pairs]
        size = int(self.recipe["micro_batch"])
        return [found[start : start + size] for start in range(0, len(found), size)]

    def loss(self, examples: Examples, noise: float) -> tuple[Tensor, Tensor]:
        """Return the summed loss of a micro-batch and its tokens."""
        aims = [aim for _, aim in examples]
        x = wanted(aims, self.encoder.encode([aim.base for aim in aims]), self.statistics)
        signal = 1.0 - noise * torch.rand(len(aims)) ** 2
        latent = noise_latent(torch.from_numpy(self.statistics.normalise(x)), signal)
        shown = [in_view(pair.source, pair.before) for pair, _ in examples]
        with self.placement.autocast():
            total, count = self.model(
                self.placement.move(latent), self.placement.move(signal), shown, [pair.target for pair, _ in examples]
            )
        return total, count


def train_causal(
    recipe: Mapping[str, Any],
    project: Path,
    data: Path,
    out: Path,
    *,
    report: Report,
    steps: int | None = None,
    guides: Mapping[str, Guide] | None = None,
    device: str = "auto",
) -> Path:
    """Train (or resume) the writer of a recipe; returns the folder of the run.

    Args:
        recipe: as `guardrail.dglm.training.train_decoder` reads it, with `decoder.kind: causal`.
        project: folder that recipe paths beginning with `./` are relative to. data: folder of the data.
        out: folder for checkpoints, log and latent statistics. report: called with a dictionary after every step.
        steps: stop after this many optimiser steps in all (default: the recipe's). guides: heads that `aims` may name.
        device: "auto", "cpu" or "cuda". Started by `accelerate launch`, several processes share the work.

    Raises:
        TrainingDiverged: the loss is not finite; the last checkpoint is kept.
        ConfigurationError: the recipe asks for what is not there. CheckpointError: the model cannot be loaded.
    """
    seed, total = int(recipe["seed"]), int(recipe["steps"])
    steps = total if steps is None else steps
    placement = place(device, bool(recipe.get("bf16", False)))
    encoder = load_encoder(recipe["encoder"], device)
    corpus, held_aside = (load_corpus(recipe, data, project, seed, split=split) for split in ("train", "test"))
    torch.manual_seed(seed)
    writer = new_writer(configured(recipe, encoder), placement.device.type).to(placement.device)
    path = out / "latents.safetensors"
    if placement.rank == 0 and not path.exists():
        latents.save(latents.measure(encoder, latent_texts(corpus, 24_000, seed)), path)
        (out / "recipe.json").write_text(json.dumps(recipe), encoding="utf8")
    placement.meet()
    state = _state_of(writer, recipe["optimiser"])
    load_state(state, out, STATE)
    run = _Run(
        recipe, placement.wrap(writer), encoder, latents.load(path), training_aims(recipe, guides or {}), placement
    )
    drawn, validating = (
        Spoiler(corpus, dict(recipe["mixture"])),
        Spoiler(held_aside, dict(recipe["validation_mixture"])),
    )

    def step() -> dict[str, Any]:
        return _step(run, state, drawn, learning_rate(state.step, total, recipe["optimiser"]))

    examples, every = placement.processes * int(recipe["batch"]), int(recipe["checkpoint_every"])
    course = Course(out, STATE, "log.jsonl", steps, examples, every, report, placement.rank == 0)
    run_steps(state, course, step, lambda: _validation(run, validating))
    return out


def _state_of(writer: CausalWriter, settings: Mapping[str, Any]) -> RunState:
    """The state of what is learnt alone: a frozen model is not written with every checkpoint."""
    learnt = nn.ParameterDict({name.replace(".", "/"): value for name, value in writer.learnt().items()})
    return new_state(learnt, settings)


def _step(run: _Run, state: RunState, spoiler: Spoiler, lr: float) -> dict[str, Any]:
    """One optimiser step; the loss is the mean over the tokens of all its micro-batches."""
    settings, noise = run.recipe["optimiser"], float(run.recipe["noise_augmentation"])
    state.begin(lr)
    torch.manual_seed((int(run.recipe["seed"]) * 1_000_003 + state.step) * 64 + run.placement.rank)
    batches = run.examples(spoiler, state.step)
    total = tokens = 0.0
    for number, examples in enumerate(batches):
        loss, count = run.loss(examples, noise)
        if not math.isfinite(loss.item()):
            raise TrainingDiverged(
                f"the loss is not finite at step {state.step}, micro-batch {number} of process {run.placement.rank} "
                f"({examples[0][0].target[:60]!r} ...); the last checkpoint is kept"
            )
        with run.placement.waiting(run.model) if number + 1 < len(batches) else nullcontext():
            run.placement.backward(loss / 1000.0)  # rescaled by the true count below
        total, tokens = total + loss.item(), tokens + count.item()
    everywhere = run.placement.mean(tokens)  # gradients are means over the processes
    state.advance(float(settings["clip"]), float(settings["ema"]), 1000.0 / everywhere)
    return {"loss": total / tokens, "tokens": tokens, "lr": lr}


@torch.no_grad()
def _validation(run: _Run, spoiler: Spoiler) -> dict[str, float]:
    parts = np.zeros(2)
    for number in range(VALIDATION_BATCHES):
        for examples in run.examples(spoiler, 10**6 + number):
            parts += [part.item() for part in run.loss(examples, 0.0)]
    return {"validation_loss": float(parts[0] / parts[1])}


def export_causal(run: Path, folder: Path) -> int:
    """Write the averaged weights of a run as a checkpoint; returns its size in bytes, the language model's not counted.

    Raises:
        CheckpointError: `run` holds no checkpoint, or the language model is not there any more.
    """
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf8"))
    weights = {name.replace("/", "."): value for name, value in average_weights(run, STATE).items()}
    statistics = latents.load(run / "latents.safetensors")
    writer = new_writer(configured(recipe, load_encoder(recipe["encoder"])))
    writer.load_state_dict(weights, strict=False)
    writer.save(folder, json.dumps(recipe))
    latents.save(statistics, folder / "latents.safetensors")
    return sum((folder / name).stat().st_size for name in (FILE, "latents.safetensors"))
