"""Where training runs: one CPU, one GPU, or several processes that share the work by `accelerate`."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from guardrail.encoder import resolve_device
from guardrail.errors import MissingDependencyError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Placement:
    """A process's place.

    Attributes:
        device: of the weights. bf16: whether forward passes run in bfloat16. rank, processes: which of how many.
        accelerator: `accelerate.Accelerator` where several processes share the work, else None.
    """

    device: torch.device
    bf16: bool = False
    rank: int = 0
    processes: int = 1
    accelerator: Any = None

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model whose gradients are averaged over all processes."""
        if self.accelerator is None:
            return model
        wrapped: nn.Module = self.accelerator.prepare_model(model)
        return wrapped

    def move(self, value: T) -> T:
        """Return a copy of a dataclass of tensors (and of such dataclasses) on the device."""
        moved: Any = value
        if isinstance(value, Tensor):
            moved = value.to(self.device)
        elif is_dataclass(value) and not isinstance(value, type):
            moved = type(value)(**{part.name: self.move(getattr(value, part.name)) for part in fields(value)})
        found: T = moved
        return found

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def waiting(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Return a context in which gradients are not averaged yet: all micro-batches of a step but the last."""
        hold: Callable[[], AbstractContextManager[Any]] | None = getattr(model, "no_sync", None)
        return hold() if hold is not None else nullcontext()

    def meet(self) -> None:
        """Wait until all processes have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, one after the other; as many in each."""
        if self.accelerator is None:
            return rows
        gathered: Tensor = self.accelerator.gather(rows)
        return gathered

    def mean(self, value: float) -> float:
        """Return the mean of a number over all processes."""
        if self.accelerator is None:
            return value
        return float(self.accelerator.reduce(torch.tensor(value, device=self.device), reduction="mean").item())

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        loss.backward()  # type: ignore[no-untyped-call]


def place(device: str, bf16: bool) -> Placement:
    """Return this process's place; one of several where it was started by `accelerate launch` or `torchrun`.

    Raises:
        ConfigurationError: unknown device, or no GPU where one was asked for.
        MissingDependencyError: several processes without `accelerate`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Placement(torch.device(resolve_device(device)), bf16)
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingDependencyError("accelerate", extra="train", purpose="Training in several processes") from error
    accelerator = Accelerator(cpu=resolve_device(device) == "cpu")
    return Placement(
        accelerator.device, bf16, int(accelerator.process_index), int(accelerator.num_processes), accelerator
    )
