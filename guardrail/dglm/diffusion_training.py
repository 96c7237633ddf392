"""Train the diffusion. Read top to bottom: batch, loss, step, loop.

A batch is a function of (seed, step, process) alone, so that a killed run resumes exactly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guardrail.dglm.devices import Placement, place
from guardrail.dglm.diffusion_data import Drawn, Latents, embed, load_latents, moments
from guardrail.dglm.latents import LatentStatistics, load, save
from guardrail.dglm.network import Context, NetworkConfig, levels_of, new_network, preset
from guardrail.dglm.run_state import Course, RunState, load_state, new_state, run_steps
from guardrail.dglm.time_sampling import AdaptiveTimes
from guardrail.dglm.token_states import token_states
from guardrail.dglm.training import TrainingDiverged, learning_rate, read_recipe
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import ConfigurationError

STATE = "diffusion-state.safetensors"
VALIDATION_ROWS = 2048

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """Noised latents of one micro-batch.

    Attributes:
        x0, z, velocity: (B, d). log_snr, weight: (B,); `weight` undoes how often a noise level is drawn. context: prefixes.
    """

    x0: Tensor
    z: Tensor
    velocity: Tensor
    log_snr: Tensor
    weight: Tensor
    context: Context


def train_latents(recipe_path: Path, data: Path, out: Path, *, report: Report, device: str = "auto") -> int:
    """Embed the sentences of a recipe, and measure their moments; goes on where a killed run stopped.

    Args:
        recipe_path: YAML recipe. data: folder of the data that it names. out: folder of the run. report: called with a
            dictionary after every shard. device: of the encoder.

    Returns:
        How many sentences there are to train on.
    """
    recipe = read_recipe(recipe_path)
    encoder = load_encoder(recipe["encoder"], device)
    count = embed(recipe, data, out / "latents", encoder, report, "train")
    embed(recipe, data, out / "latents", encoder, report, "test")
    save(moments(load_latents(out / "latents"), encoder.sha256), out / "diffusion-latents.safetensors")
    return count


def context_of(drawn: Drawn, statistics: LatentStatistics, encoder: Encoder | None) -> Context:
    """Return what the network is conditioned on; with an encoder, the token states of what stands before too."""
    context = Context(torch.from_numpy(statistics.normalise(drawn.before)), torch.from_numpy(drawn.known))
    if encoder is None:
        return context
    if drawn.tokens is None:
        raise ConfigurationError(
            "the network looks at token states, and these latents were embedded without tokens; choose another --out and "
            "run `guardrail dglm train latents` with this recipe"
        )
    states, mask = token_states(encoder, drawn.tokens)
    return replace(context, states=torch.from_numpy(states), mask=torch.from_numpy(mask))


def make_batch(
    latents: Latents,
    statistics: LatentStatistics,
    times: AdaptiveTimes,
    size: int,
    drop: float,
    seed: list[int],
    encoder: Encoder | None = None,
) -> Batch:
    """Draw a micro-batch: sentences, noise levels, noise, and which prefixes the network gets to see.

    Args:
        latents: where from. statistics: to normalise. times: noise levels. size: B. drop: share of prefixes replaced by the
            learned null, so that classifier-free guidance is possible; as many again lose their token states only.
        seed: all that the batch depends on. encoder: for token states; None: the network has none.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    drawn = latents.batch(rng, size)
    x0 = torch.from_numpy(statistics.normalise(drawn.x))
    context = context_of(drawn, statistics, encoder)
    log_snr, weight = times.draw(size, generator)
    alpha, sigma = (level[:, None] for level in levels_of(log_snr))
    eps = torch.randn(x0.shape, generator=generator)
    context = context.dropped(torch.rand(size, generator=generator) >= drop)
    if context.states is not None:
        context = context.without_states(torch.rand(size, generator=generator) >= drop)
    return Batch(x0, alpha * x0 + sigma * eps, alpha * eps - sigma * x0, log_snr, weight, context)


def losses(network: torch.nn.Module, batch: Batch) -> Tensor:
    """Return the squared error of the velocity, (B,), mean over dimensions."""
    found: Tensor = ((network(batch.z, batch.log_snr, batch.context).float() - batch.velocity) ** 2).mean(dim=1)
    return found


def train_step(state: RunState, batches: Iterator[Batch], count: int, lr: float, run: Run) -> float:
    """One optimiser step over `count` micro-batches; returns the mean weighted loss.

    Raises:
        TrainingDiverged: the loss is not finite; the weights are those before the step.
    """
    state.begin(lr)
    total = 0.0
    for number in range(count):
        batch = run.placement.move(next(batches))
        with run.placement.autocast():
            found = losses(run.model, batch)
        loss = (found * batch.weight).mean() / count
        if not math.isfinite(loss.item()):
            raise TrainingDiverged(
                f"the loss is not finite at step {state.step}, micro-batch {number} (seed {run.seed_of(state.step, number)}); "
                "the last checkpoint is kept"
            )
        with run.placement.waiting(run.model) if number + 1 < count else nullcontext():
            run.placement.backward(loss)
        seen, lost = run.placement.gather(batch.log_snr), run.placement.gather(found.detach())
        run.times.learn(seen.cpu(), lost.cpu())  # the same in every process
        total += loss.item()
    state.advance(run.clip, run.ema)
    return total


@dataclass(slots=True)
class Run:
    """What stays the same from step to step. `model` is `state.model`, wrapped where several processes share the work.

    `encoder` makes the token states of what stands before, for a network that looks at them.
    """

    model: torch.nn.Module
    times: AdaptiveTimes
    placement: Placement
    seed: int
    clip: float
    ema: float
    encoder: Encoder | None = None

    def seed_of(self, step: int, number: int) -> list[int]:
        """Return what a micro-batch depends on."""
        return [self.seed, step, number, self.placement.rank]


def network_of(recipe: Mapping[str, Any], statistics: LatentStatistics) -> NetworkConfig:
    """Return the sizes that a recipe asks for: `network: {preset: mini, ...changes}`."""
    changes = dict(recipe["network"])
    return preset(changes.pop("preset"), statistics.dim, **changes)


@torch.no_grad()
def validation(network: torch.nn.Module, latents: Latents, statistics: LatentStatistics, run: Run) -> dict[str, float]:
    """Return the weighted velocity loss on held-aside sentences with their prefixes, without, and by the Gaussian alone."""
    even = AdaptiveTimes(run.times.shift)
    parts: dict[str, float] = {}
    for name, drop in (("validation_loss", 0.0), ("validation_loss_without_prefix", 1.0)):
        batch = run.placement.move(make_batch(latents, statistics, even, VALIDATION_ROWS, drop, [0], run.encoder))
        parts[name] = float((losses(network, batch) * batch.weight).mean())
    return parts


def train_diffusion(
    recipe_path: Path, out: Path, *, report: Report, steps: int | None = None, device: str = "auto"
) -> Path:
    """Train (or resume) the denoising network of a recipe on the latents of its run; returns the folder of the run.

    Args:
        recipe_path: YAML recipe. out: folder of the run, with the latents of `train_latents`.
        report: called with a dictionary after every step. steps: stop after this many in all (default: the recipe's).
        device: "auto", "cpu" or "cuda". Started by `accelerate launch`, several processes share the work.

    Raises:
        TrainingDiverged: the loss is not finite. ConfigurationError: there are no latents yet.
    """
    recipe = read_recipe(recipe_path)
    settings = recipe["optimiser"]
    total = int(recipe["steps"])
    steps = total if steps is None else steps
    train, held_aside = load_latents(out / "latents"), load_latents(out / "latents", "test")
    statistics = load(out / "diffusion-latents.safetensors")
    (out / "diffusion-recipe.json").write_text(json.dumps(recipe), encoding="utf8")
    placement = place(device, bool(recipe.get("bf16", False)))
    torch.manual_seed(int(recipe["seed"]))
    network = new_network(network_of(recipe, statistics), statistics).to(placement.device)
    state = new_state(network, settings)
    times = AdaptiveTimes(float(recipe["shift"]))
    if load_state(state, out, STATE):
        times.losses = state.extra["times"]
    run = Run(
        placement.wrap(network),
        times,
        placement,
        int(recipe["seed"]),
        float(settings["clip"]),
        float(settings["ema"]),
        load_encoder(recipe["encoder"], device) if network.config.states else None,
    )
    size, count = int(recipe["micro_batch"]), int(recipe["batch"]) // int(recipe["micro_batch"])

    def batches(step: int) -> Iterator[Batch]:
        for number in range(count):
            seed = run.seed_of(step, number)
            yield make_batch(train, statistics, times, size, float(recipe["condition_dropout"]), seed, run.encoder)

    def step() -> dict[str, Any]:
        loss = train_step(state, batches(state.step), count, learning_rate(state.step, total, settings), run)
        state.extra["times"] = times.losses
        return {"loss": loss}

    examples, every = placement.processes * size * count, int(recipe["checkpoint_every"])
    course = Course(out, STATE, "diffusion-log.jsonl", steps, examples, every, report, placement.rank == 0)
    run_steps(state, course, step, lambda: averaged(state, lambda: validation(network, held_aside, statistics, run)))
    return out


def averaged(state: RunState, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Measure with the averaged weights in the model, and put the trained ones back."""
    trained = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    with torch.no_grad():
        for name, parameter in state.model.named_parameters():
            parameter.copy_(state.average[name])
        found = measure()
        for name, parameter in state.model.named_parameters():
            parameter.copy_(trained[name])
    return found
