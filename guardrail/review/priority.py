"""What to look at first: what the policy was least sure of, and what would do most harm if it was wrong.

A decision is uncertain where a rule's risk lies close to one of its thresholds: a little more or less evidence would have
decided otherwise. Closeness is measured in log-odds, in which evidence adds up (as in the rules' own opinion pool):
uncertainty = exp(-|logit(risk) - logit(threshold)|), 1 at the threshold, 0.37 at one nat from it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guardrail.types import Action

__all__ = ["Assessment", "assess", "sampled", "severe"]

NEAR = 0.5
"""An allowed text is looked at from this uncertainty on."""

SAMPLE = 0.01
"""Share of all other allowed texts that are looked at: without them nobody would know what the policy misses."""

SEVERE_RISK = 0.85


@dataclass(frozen=True, slots=True)
class Assessment:
    """How much a decision needs a person. `rule` is the one whose threshold is nearest, `action` what lies there."""

    uncertainty: float
    severity: float
    rule: str
    threshold: float
    action: str

    @property
    def priority(self) -> float:
        """Half uncertainty, half severity, 0 to 1."""
        return (self.uncertainty + self.severity) / 2


def assess(
    risks: Mapping[str, float | None], policy_rules: Mapping[str, Any], action: Action, risk: float
) -> Assessment:
    """Return how much a decision needs a person.

    Args:
        risks: rule to its risk, 0 to 1; None (not a number) is as uncertain as can be.
        policy_rules: `rules` of the resolved policy document; a rule that is not in it has no thresholds.
        action: what was decided.
        risk: the largest.
    """
    closest, where = 0.0, ("", 0.0, "")
    for rule, value in risks.items():
        for name, threshold in (policy_rules.get(rule) or {}).get("thresholds", {}).items():
            distance = 0.0 if value is None else abs(_logit(value) - _logit(threshold))
            if (near := math.exp(-distance)) > closest:
                closest, where = near, (rule, threshold, name)
    severity = (action.severity / Action.BLOCK.severity + min(1.0, max(0.0, risk))) / 2
    return Assessment(closest, severity, *where)


def sampled(decision_id: str, share: float = SAMPLE) -> bool:
    """Whether an allowed text is in the sample: decided by its id, so that every process decides the same."""
    return int.from_bytes(hashlib.sha256(decision_id.encode("utf-8", "replace")).digest()[:4], "big") < share * 2**32


def severe(action: Action, risk: float) -> bool:
    """Whether a text is blurred until a reviewer asks for it, and counts as a severe one."""
    return action >= Action.ESCALATE or risk >= SEVERE_RISK


def _logit(probability: float) -> float:
    kept = min(1 - 1e-9, max(1e-9, probability))
    return math.log(kept / (1 - kept))
