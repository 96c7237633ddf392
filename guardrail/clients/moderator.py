"""What the clients need of a guard, and how a call asks it: the generators of `exchange` yield passages or a `Check`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from guardrail.policy.loader import Policy
from guardrail.settings import Settings
from guardrail.types import Decision, Passage

if TYPE_CHECKING:
    from guardrail.audit.store import AuditStore

__all__ = ["Check", "Moderator", "Steps"]

Steps = Generator[Any, Any, Any]


class Moderator(Protocol):
    """What clients need of `guardrail.Guardrail`."""

    @property
    def policy(self) -> Policy:
        """The policy in force."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""

    @property
    def audit(self) -> AuditStore:
        """Where decisions are recorded."""

    def moderate(
        self,
        passages: Sequence[Passage],
        *,
        request_id: str | None = None,
        conversation: str | None = None,
        subject: str | None = None,
    ) -> list[Decision]:
        """Judge, repair and record."""

    async def amoderate(
        self,
        passages: Sequence[Passage],
        *,
        request_id: str | None = None,
        conversation: str | None = None,
        subject: str | None = None,
    ) -> list[Decision]:
        """The same without blocking the event loop."""

    def check_many(self, passages: Sequence[Passage]) -> list[Decision]:
        """Judge only."""


@dataclass(frozen=True, slots=True)
class Check:
    """Passages to be judged and neither repaired nor recorded."""

    passages: tuple[Passage, ...]
