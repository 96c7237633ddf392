"""Out of memory on a GPU: a smaller batch, at last the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from guardrail.log import Logger

T = TypeVar("T")
R = TypeVar("R")

log = Logger(__name__)


def within_memory(
    work: Callable[[Sequence[T]], list[R]], items: Sequence[T], fallback: Callable[[Sequence[T]], list[R]]
) -> list[R]:
    """Run `work` on all items; out of GPU memory, on halves of them, and on what does not fit alone run `fallback`.

    Args:
        work: a batch of items to one result each, in order; may raise `torch.OutOfMemoryError`.
        fallback: the same on the CPU.
    """
    try:
        return work(items)
    except torch.OutOfMemoryError:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if len(items) > 1:
        log.warning("out of GPU memory: a smaller batch is tried", rows=len(items))
        half = len(items) // 2
        return within_memory(work, items[:half], fallback) + within_memory(work, items[half:], fallback)
    log.warning("out of GPU memory with one row: it is written on the CPU")
    return fallback(items)
