"""What a rewriter is: flagged stretches of a draft in, replacements out. It judges and delivers nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from guardrail.types import Span

if TYPE_CHECKING:
    from guardrail.dglm.guidance import Guide
    from guardrail.settings import Settings

abandoned: ContextVar[Callable[[], bool]] = ContextVar("abandoned", default=lambda: False)
"""Whether the caller of the present call has gone away, a cancelled task say; rewriters then stop between two steps."""


@dataclass(frozen=True, slots=True)
class RewriteRequest:
    """One flagged stretch, usually a sentence, and how it should change.

    Attributes:
        text: the stretch itself. before, after: what stands around it in the draft and before it in the conversation.
        matches: spans in `text` of forbidden words; no proposal may copy them.
        labels: what stands at some of the `matches` ("email", say).
        guides: which way the policy steers; empty where only patterns were violated.
        why: the violated rules in words, for rewriters that are told in words.
        candidates: proposals wanted. strength: in (0, 1], how far the text may move. mode: of the DGLM.
        seed: the same seed gives the same proposals. round: 0, or 1 where nothing of round 0 passed; see `Rewriter.rounds`.
        cancelled: asked between steps; True stops the work.
        forbidden: tells whether a text, perhaps unfinished, holds what the policy's patterns forbid; None: no pattern.
    """

    text: str
    before: str = ""
    after: str = ""
    matches: tuple[Span, ...] = ()
    labels: Mapping[Span, str] = field(default_factory=dict)
    guides: tuple[Guide, ...] = ()
    why: tuple[str, ...] = ()
    candidates: int = 8
    strength: float = 0.5
    mode: str = "project"
    seed: int = 0
    round: int = 0
    cancelled: Callable[[], bool] = lambda: False
    forbidden: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """One replacement for the stretch. `fluency`: log-probability that people would have put it for the draft, nats."""

    text: str
    fluency: float | None = None


class Rewriter(Protocol):
    """Propose replacements. Thread-safe."""

    @property
    def name(self) -> str:
        """Its name in a policy's `rewrite.order`."""

    @property
    def rounds(self) -> int:
        """How often it may be asked about the same stretch before the next rewriter is; each time it proposes otherwise."""

    @property
    def fingerprint(self) -> str:
        """`sha256:...` of what its proposals depend on; stands in the audit."""

    def propose(self, requests: list[RewriteRequest]) -> list[list[Proposal]]:
        """Return proposals for each request, in order, best first where the rewriter can tell; possibly none.

        Raises:
            RewriteFailure: it broke down or was cancelled.
        """


Build = Callable[["Settings"], "Rewriter | None"]
"""A registry entry: make the rewriter for these settings; None where it is not configured and should be skipped."""
