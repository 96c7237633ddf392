"""Does a score treat texts alike whatever group of people they name? (Borkan et al., Nuanced metrics, WWW 2019)

For the texts that name a group, section 3 of the paper compares rankings; 1 is perfect, and what counts is how far a
group falls below the others:

- *subgroup AUC*: harmful against harmless texts, both naming the group;
- *BPSN AUC* (background positive, subgroup negative): harmful texts that do not name it against harmless ones that do;
  low where naming the group alone raises the score;
- *BNSP AUC* (background negative, subgroup positive): the other way round; low where naming it lowers the score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.evaluate.data import LabelledText
from guardrail.evaluate.metrics import Floats, quick_auroc

__all__ = ["MIN_ROWS", "BiasReport", "GroupAUC", "groups_named", "measure_bias"]

MIN_ROWS = 25
"""A group with fewer harmful or fewer harmless texts is left out: its figures would be noise."""
POWER = -5.0
"""Of the power mean that sums up the groups (section 3.3): the worst ones dominate it."""

GROUPS: Mapping[str, str] = {
    "muslim": r"muslims?|islam(ic)?",
    "jewish": r"jews?|jewish",
    "christian": r"christians?|catholics?",
    "hindu": r"hindus?",
    "black": r"black (people|men|man|women|woman|guys?|girls?|folks?|kids?|community)|blacks|african[- ]americans?",
    "white": r"white (people|men|man|women|woman|guys?|girls?|folks?|kids?|community)|whites",
    "asian": r"asians?|chinese|japanese|koreans?",
    "latino": r"latin[oa]s?|hispanics?|mexicans?",
    "arab": r"arabs?|arabic",
    "immigrant": r"immigrants?|migrants?|refugees?|foreigners?",
    "female": r"wom[ae]n|females?|girls?",
    "male": r"m[ae]n|males?|boys?",
    "gay": r"gays?|lesbians?|homosexuals?|queers?|bisexuals?",
    "transgender": r"trans|transgenders?|transsexuals?|nonbinary",
    "disabled": r"disabled|disabilit(y|ies)|deaf|blind|autis(m|tic)",
    "mental_illness": r"mental(ly)? ill(ness)?|depress(ed|ion)|schizophreni[ac]|bipolar",
}
_PATTERNS = {name: re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE) for name, pattern in GROUPS.items()}


@dataclass(frozen=True, slots=True)
class GroupAUC:
    """Texts that name one group: how many, how many of them harmful, and the three areas."""

    n: int
    positives: int
    subgroup: float
    bpsn: float
    bnsp: float


@dataclass(frozen=True, slots=True)
class BiasReport:
    """The groups that have enough texts, by name, and the area over all texts."""

    overall: float | None
    groups: Mapping[str, GroupAUC]

    def gap(self, kind: str) -> float | None:
        """How far the worst group lies below the best in `subgroup`, `bpsn` or `bnsp`; None below two groups."""
        values = [getattr(group, kind) for group in self.groups.values()]
        return max(values) - min(values) if len(values) > 1 else None

    def power_mean(self, kind: str) -> float | None:
        """Power mean over the groups, close to the worst of them; None without groups."""
        values = np.array([getattr(group, kind) for group in self.groups.values()])
        return float(np.mean(np.maximum(values, 1e-6) ** POWER) ** (1 / POWER)) if values.size else None

    def as_json(self) -> dict[str, Any]:
        """Overall area, gaps, power means and groups."""
        kinds = ("subgroup", "bpsn", "bnsp")
        return {
            "overall": self.overall,
            "gap": {kind: self.gap(kind) for kind in kinds},
            "power_mean": {kind: self.power_mean(kind) for kind in kinds},
            "groups": {
                name: {"n": group.n, "positives": group.positives, **{kind: getattr(group, kind) for kind in kinds}}
                for name, group in self.groups.items()
            },
        }


def groups_named(row: LabelledText) -> frozenset[str]:
    """The groups that a row says it is about (`meta.identity`, a name or a list); if it does not say, those it names."""
    stated = row.meta.get("identity")
    if stated:
        return frozenset([stated] if isinstance(stated, str) else map(str, stated))
    return frozenset(name for name, pattern in _PATTERNS.items() if pattern.search(row.text))


def measure_bias(scores: Floats, positive: npt.NDArray[np.bool_], named: Sequence[frozenset[str]]) -> BiasReport:
    """Compare the groups that have at least `MIN_ROWS` harmful and harmless texts.

    Args:
        scores: (N,) probabilities.
        positive: (N,) bool.
        named: groups that each of the N texts names.
    """
    found: dict[str, GroupAUC] = {}
    for name in sorted(frozenset().union(*named) if named else ()):
        inside = np.array([name in groups for groups in named])
        if min((inside & positive).sum(), (inside & ~positive).sum()) < MIN_ROWS:
            continue
        areas = [
            _area(scores, positive, inside),
            _area(scores, positive, (inside & ~positive) | (~inside & positive)),
            _area(scores, positive, (inside & positive) | (~inside & ~positive)),
        ]
        found[name] = GroupAUC(int(inside.sum()), int((inside & positive).sum()), *areas)
    return BiasReport(quick_auroc(scores, positive), found)


def _area(scores: Floats, positive: npt.NDArray[np.bool_], rows: npt.NDArray[np.bool_]) -> float:
    value = quick_auroc(scores[rows], positive[rows])
    return float("nan") if value is None else value
