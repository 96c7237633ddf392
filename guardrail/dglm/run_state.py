"""The state of a training run, on disk and from step to step: weights, their average, the optimiser's moments, and more.

Batches are a function of (seed, step), so this and the recipe are all that an exact resume needs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guardrail.errors import CheckpointError


@dataclass(slots=True)
class RunState:
    """What a run holds.

    Attributes:
        model: trained weights. average: their exponential moving average. optimiser: AdamW. step: steps done.
        extra: further tensors by name, restored in place of the old ones.
    """

    model: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.AdamW
    step: int = 0
    extra: dict[str, Tensor] = field(default_factory=dict)

    def begin(self, lr: float) -> None:
        """Set the learning rate of the next step and forget the gradients of the last."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)

    def advance(self, clip: float, ema: float, scale: float = 1.0) -> None:
        """Take one optimiser step with the gradients that are there, and move the average.

        Args:
            clip: largest norm of the gradient. ema: decay of the average; less in the first steps. scale: of the gradients,
                before they are clipped.
        """
        if scale != 1.0:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimiser.step()
        decay = min(ema, (1.0 + self.step) / (10.0 + self.step))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.average[name].lerp_(parameter, 1.0 - decay)
        self.step += 1


def new_state(model: nn.Module, settings: Mapping[str, Any]) -> RunState:
    """Wrap a model with its optimiser and moving average."""
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=float(settings["lr"]),
        betas=(float(settings["betas"][0]), float(settings["betas"][1])),
        weight_decay=float(settings["weight_decay"]),
    )
    return RunState(model, {name: p.detach().clone() for name, p in model.named_parameters()}, optimiser)


def save_state(state: RunState, folder: Path, name: str) -> None:
    """Write `folder`/`name`; the rename makes it atomic."""
    tensors = {f"model.{key}": p.detach() for key, p in state.model.named_parameters()}
    tensors |= {f"average.{key}": tensor for key, tensor in state.average.items()}
    tensors |= {f"extra.{key}": tensor for key, tensor in state.extra.items()}
    for key, parameter in state.model.named_parameters():
        for part, value in state.optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{part}.{key}"] = value
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{name}.tmp"
    save_file({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, temporary, {"step": str(state.step)})
    temporary.replace(folder / name)


def load_state(state: RunState, folder: Path, name: str) -> bool:
    """Restore what `save_state` wrote into `state`; False where there is nothing to restore.

    Raises:
        CheckpointError: the file belongs to a network of other sizes.
    """
    path = folder / name
    if not path.exists():
        return False
    tensors = load_file(path)
    with safe_open(path, "pt") as opened:
        state.step = int(opened.metadata()["step"])
    try:
        with torch.no_grad():
            for key, parameter in state.model.named_parameters():
                parameter.copy_(tensors[f"model.{key}"])
                state.average[key].copy_(tensors[f"average.{key}"])
                parts = [part for part in ("step", "exp_avg", "exp_avg_sq") if f"optimiser.{part}.{key}" in tensors]
                state.optimiser.state[parameter] = {
                    part: tensors[f"optimiser.{part}.{key}"].to("cpu" if part == "step" else parameter.device)
                    for part in parts
                }
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} was written by a run of other sizes; choose another --out ({error})") from error
    prefix = "extra."
    state.extra = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    return True


@dataclass(frozen=True, slots=True)
class Course:
    """How far a run goes, and where it writes.

    Attributes:
        folder: of the run. state, log: names of its files there. steps: optimiser steps in all.
        examples: per step, over all processes. every: steps from one checkpoint to the next.
        report: called with a dictionary after every step. writes: whether this process does; one of several.
    """

    folder: Path
    state: str
    log: str
    steps: int
    examples: int
    every: int
    report: Callable[[dict[str, Any]], None]
    writes: bool = True


def run_steps(
    state: RunState, course: Course, step: Callable[[], dict[str, Any]], measure: Callable[[], dict[str, float]] = dict
) -> None:
    """Take the steps that are left; log and report each, and keep the state at every checkpoint and at the end.

    Args:
        step: takes one step and returns what is worth logging. measure: called after a checkpoint, adds to its row.
    """
    with (course.folder / course.log).open("a", encoding="utf8") as log:
        while state.step < course.steps:
            began = time.perf_counter()
            row = step()
            seconds = time.perf_counter() - began
            rate = course.examples / seconds
            row |= {"step": state.step, "steps": course.steps, "seconds": seconds, "examples_per_second": rate}
            if state.step % course.every == 0 or state.step == course.steps:
                if course.writes:
                    save_state(state, course.folder, course.state)
                row |= measure()
            if course.writes:
                log.write(json.dumps(row) + "\n")
                log.flush()
                course.report(row)


def average_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Return the averaged weights of a run.

    Raises:
        CheckpointError: there is no such run yet, or its file is damaged.
    """
    from safetensors import SafetensorError

    path, prefix = folder / name, "average."
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; train first") from error
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
