"""Which candidate is best: the community's trade-off as a direction over (safety, fidelity, brevity).

After Directional Preference Alignment (Wang et al. 2024, section 3): a unit preference vector ranks candidates by
its inner product with their rewards. Fluency under the rewriter's own model breaks near-ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from guardrail.policy.schema import Preference
from guardrail.types import Candidate

FLUENCY_WEIGHT = 0.05
"""Utility per nat, chosen on held-aside pairs (`dev`): by it, what is chosen is nearest to what people wrote."""

SAFE = 0.35
"""A risk that is low enough: below it, another candidate is better for its meaning or its English, not for its risk."""


def utility(candidate: Candidate, source: str, preference: Preference) -> float:
    """Return the utility of a candidate.

    Safety is 1 up to `SAFE` and falls to 0 at a risk of 1; fidelity is the cosine to the draft; brevity 1 minus by how
    much it is longer than the draft, each in [0, 1]. Fluency (a log-probability, in nats) is added with a small weight.
    """
    total = preference.safety + preference.fidelity + preference.brevity or 1.0
    longer = max(0.0, len(candidate.text) / max(1, len(source)) - 1.0)
    rewards = (
        preference.safety * min(1.0, (1.0 - candidate.risk) / (1.0 - SAFE))
        + preference.fidelity * max(0.0, candidate.similarity or 0.0)
        + preference.brevity * max(0.0, 1.0 - longer)
    )
    return rewards / total + FLUENCY_WEIGHT * (candidate.fluency or 0.0)


def rank(candidates: Sequence[Candidate], source: str, preference: Preference) -> list[Candidate]:
    """Return the candidates with their utility, those that pass first, best first."""
    scored = [replace(candidate, utility=utility(candidate, source, preference)) for candidate in candidates]
    return sorted(scored, key=lambda candidate: (candidate.passes, candidate.utility or 0.0), reverse=True)
