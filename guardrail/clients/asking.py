"""How a call asks its guard: the generators of `exchange` yield passages to be moderated, or a `Check`."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from guardrail.types import Passage

__all__ = ["Check", "Steps"]

Steps = Generator[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """Passages to be judged and neither repaired nor recorded."""

    passages: tuple[Passage, ...]
