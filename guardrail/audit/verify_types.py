"""What a verification says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ChainReport", "Problem", "Verification", "gap"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `kind` is "altered", "removed" or "inserted"; `id` is None where the row is gone."""

    kind: str
    community: str | None
    sequence: int | None
    id: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """One community's chain: where it ends. Keep it elsewhere to notice later if the end was cut off.

    `decisions` counts the rows of the chain; `chain` is "decisions" or "events".
    """

    community: str
    decisions: int
    sequence: int
    hash: str
    chain: str = "decisions"


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found.

    Attributes:
        sealed: id of a key that is not configured -> rows whose texts could therefore not be compared with their digests.
            Everything else of them was verified: the chain does not need the key.
    """

    chains: tuple[ChainReport, ...]
    problems: tuple[Problem, ...]
    events: tuple[ChainReport, ...] = ()
    sealed: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every row is what was written, and in its place."""
        return not self.problems

    @property
    def decisions(self) -> int:
        """How many decisions were verified."""
        return sum(report.decisions for report in self.chains)


def gap(first: int, last: int, what: str = "decision") -> str:
    """Return in words which places of a chain are empty."""
    if first == last:
        return f"{what} {first} of the chain is gone"
    return f"{what}s {first} to {last} of the chain are gone"
