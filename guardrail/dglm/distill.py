"""Distil the diffusion into a student that needs few steps.

Consistency distillation (Song et al. 2023, algorithm 2): the student's jump to the data from a noised latent should land
where it lands from the point that the teacher's probability flow reaches a stride later. The
teacher takes that step by Heun's method of order 2 (Karras et al. 2022, algorithm 1) in x0. The student begins as the
exact end of the flow of Gaussian latents (`base: flow`), with the teacher's body.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guardrail.dglm.devices import place
from guardrail.dglm.diffusion_checkpoint import save_diffusion
from guardrail.dglm.diffusion_data import Latents, load_latents
from guardrail.dglm.diffusion_training import STATE, Report, context_of, network_of
from guardrail.dglm.latents import LatentStatistics, load
from guardrail.dglm.network import Context, ProposalNetwork, levels_of, new_network
from guardrail.dglm.propose import LOWEST
from guardrail.dglm.run_state import Course, RunState, average_weights, load_state, new_state, run_steps
from guardrail.dglm.time_sampling import LOG_SNR
from guardrail.dglm.training import TrainingDiverged, learning_rate, read_recipe
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import ConfigurationError

STUDENT_STATE = "student-state.safetensors"


class Distillation(nn.Module):
    """The student's loss; a module of its own so that several processes can share it.

    Args:
        student: trained. target: the same sizes, its moving average. teacher: frozen. stride: time between two points of
            the flow, in (0, 1).
    """

    def __init__(
        self, student: ProposalNetwork, target: ProposalNetwork, teacher: ProposalNetwork, stride: float
    ) -> None:
        super().__init__()
        self.student, self.stride = student, stride
        self.others = [target.requires_grad_(False), teacher.requires_grad_(False)]  # not parameters of this module

    def forward(self, x0: Tensor, noise: Tensor, times: Tensor, context: Context) -> Tensor:
        """Return the loss (B,) of jumps from `times` (B,), against those from a stride nearer to the data."""
        target, teacher = self.others
        here, there = cosine_log_snr(times), cosine_log_snr((times - self.stride).clamp_min(0.0))
        alpha, sigma = (level[:, None] for level in levels_of(here))
        z = alpha * x0 + sigma * noise
        with torch.no_grad():
            reached = heun(teacher, z, here, there, context)
            wanted = target.clean(reached, there, context)
        error: Tensor = ((self.student.clean(z, here, context) - wanted) ** 2).mean(dim=1)
        return error


def cosine_log_snr(times: Tensor) -> Tensor:
    """Return the log-SNR (B,) that sampling has at times (B,): `CosineSchedule(lowest=LOWEST)`."""
    tangent = torch.tan(0.5 * math.pi * times.clamp(1e-6, 1.0 - 1e-6))
    return (-2.0 * tangent.log()).clamp(LOWEST, LOG_SNR)


def heun(teacher: ProposalNetwork, z: Tensor, here: Tensor, there: Tensor, context: Context) -> Tensor:
    """Follow the teacher's probability flow from log-SNR `here` (B,) to `there` (B,): two evaluations."""
    first = teacher.clean(z, here, context)
    guess = transfer(z, first, here, there)
    second = teacher.clean(guess, there, context)
    return transfer(z, 0.5 * (first + second), here, there)


def transfer(z: Tensor, x0: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """DDIM from log-SNR `here` to `there` along clean estimates x0 (B, d)."""
    alpha, sigma = (level[:, None] for level in levels_of(here))
    alpha_next, sigma_next = (level[:, None] for level in levels_of(there))
    return alpha_next * x0 + sigma_next * (z - alpha * x0) / sigma


def draw(
    latents: Latents,
    statistics: LatentStatistics,
    size: int,
    drop: float,
    seed: list[int],
    encoder: Encoder | None = None,
) -> tuple[Tensor, Tensor, Tensor, Context]:
    """Draw (x0 (B, d), noise (B, d), times (B,), prefixes)."""
    rng = np.random.default_rng(seed)
    drawn = latents.batch(rng, size)
    context = context_of(drawn, statistics, encoder).dropped(torch.from_numpy(rng.random(size) >= drop))
    noise = torch.from_numpy(rng.standard_normal(drawn.x.shape, dtype=np.float32))
    times = torch.from_numpy(rng.random(size, dtype=np.float32))
    if context.states is not None:
        context = context.without_states(torch.from_numpy(rng.random(size) >= drop))
    return torch.from_numpy(statistics.normalise(drawn.x)), noise, 1.0 - times, context


def train_student(
    recipe_path: Path, out: Path, *, report: Report, steps: int | None = None, device: str = "auto"
) -> Path:
    """Distil (or go on distilling) the run's diffusion by the recipe's `distill`; returns the folder of the run.

    Args:
        recipe_path: YAML recipe. out: folder of the run, with a trained diffusion. report: called after every step.
        steps: stop after this many in all (default: the recipe's). device: "auto", "cpu" or "cuda".

    Raises:
        TrainingDiverged: the loss is not finite. CheckpointError: there is no trained diffusion yet.
    """
    recipe = read_recipe(recipe_path)
    settings = recipe["distill"]
    total = int(settings["steps"])
    steps = total if steps is None else steps
    statistics, latents = load(out / "diffusion-latents.safetensors"), load_latents(out / "latents")
    placement = place(device, bool(recipe.get("bf16", False)))
    config = network_of(recipe, statistics)
    teacher, student, target = (
        new_network(sizes, statistics).to(placement.device)
        for sizes in (config, replace(config, base="flow"), replace(config, base="flow"))
    )
    weights = average_weights(out, STATE)
    for network in (teacher, student, target):
        network.load_state_dict(weights)
    with torch.no_grad():
        for network in (student, target):  # begin as the flow of Gaussian latents itself
            network.body.leave.weight.zero_()  # type: ignore[union-attr, operator]
            network.body.leave.bias.zero_()  # type: ignore[union-attr, operator]
    state = new_state(student, settings["optimiser"])
    load_state(state, out, STUDENT_STATE)
    lesson = Distillation(student, target, teacher, 1.0 / int(settings["grid"])).to(placement.device)
    module = placement.wrap(lesson)

    encoder = load_encoder(recipe["encoder"], device) if config.states else None

    def batches(step: int) -> Iterator[Any]:
        size, drop = int(recipe["micro_batch"]), float(recipe["condition_dropout"])
        for number in range(int(recipe["batch"]) // size):
            seed = [int(recipe["seed"]), 1, step, number, placement.rank]
            yield [placement.move(part) for part in draw(latents, statistics, size, drop, seed, encoder)]

    def step() -> dict[str, Any]:
        target.load_state_dict(state.average)
        lr = learning_rate(state.step, total, settings["optimiser"])
        loss = _step(state, module, list(batches(state.step)), lr, float(settings["optimiser"]["ema"]))
        return {"loss": loss}

    examples, every = placement.processes * int(recipe["batch"]), int(recipe["checkpoint_every"])
    course = Course(out, STUDENT_STATE, "student-log.jsonl", steps, examples, every, report, placement.rank == 0)
    run_steps(state, course, step)
    return out


def _step(state: RunState, module: nn.Module, batches: list[Any], lr: float, ema: float) -> float:
    state.begin(lr)
    total = 0.0
    for number, batch in enumerate(batches):
        loss = module(*batch).mean() / len(batches)
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"the student's loss is not finite at step {state.step}, micro-batch {number}; the last checkpoint is kept"
            )
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimiser.step()
    with torch.no_grad():
        for name, parameter in state.model.named_parameters():
            state.average[name].lerp_(parameter, 1.0 - ema)
    state.step += 1
    return total


def export_diffusion(run: Path, folder: Path) -> int:
    """Write the averaged weights of a run, and of its student where there is one, into a checkpoint's folder.

    Returns:
        The file's size in bytes.

    Raises:
        ConfigurationError: `run` holds no trained diffusion.
    """
    if not (run / STATE).is_file():
        raise ConfigurationError(f"{run} holds no trained diffusion yet ({STATE} is missing)")
    recipe = json.loads((run / "diffusion-recipe.json").read_text(encoding="utf8"))
    statistics = load(run / "diffusion-latents.safetensors")
    config = network_of(recipe, statistics)
    networks = {"network": (config, average_weights(run, STATE))}
    if (run / STUDENT_STATE).is_file():
        networks["student"] = (replace(config, base="flow"), average_weights(run, STUDENT_STATE))
    return save_diffusion(folder, statistics, networks, recipe)
