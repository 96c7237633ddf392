"""Low-rank adapters: a frozen model learns through small updates of its linear layers (Hu et al. 2022, LoRA)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class LowRank(nn.Module):
    """A frozen linear layer and a low-rank update: y = W x + B A x (Hu et al. 2022, equation 3; alpha = rank).

    Args:
        inner: `nn.Linear`, or `transformers`' Conv1D, whose weight is transposed. rank: of the update, >= 1.
    """

    def __init__(self, inner: nn.Module, rank: int) -> None:
        super().__init__()
        weight: Tensor = inner.weight  # type: ignore[assignment]
        outputs, inputs = weight.shape if isinstance(inner, nn.Linear) else weight.shape[::-1]
        self.inner = inner.requires_grad_(False)
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        y: Tensor = self.inner(x) + self.up(self.down(x))
        return y


def adapt(model: Any, rank: int) -> int:
    """Give every linear layer inside a model's blocks a low-rank adapter, the output layer none; return how many."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    targets = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear | Conv1D) and child is not head
    ]
    for parent, name, child in targets:
        setattr(parent, name, LowRank(child, rank))
    return len(targets)
