"""From judged units to a verdict: which rules are broken, by how much, where, and why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from guardrail.judge.reading import inside, minimal, trim
from guardrail.judge.work import Verdict, Work
from guardrail.policy.bundle import MAX_LOGIT, Bundle
from guardrail.types import Action, Evidence, Judgement, Reason, Span, Stage

if TYPE_CHECKING:
    from guardrail.encoder import Encoder

__all__ = ["Verdicts"]

_ON_ERROR = {"block": Action.BLOCK, "flag": Action.FLAG, "allow": Action.ALLOW}


class Verdicts:
    """Says what a compiled policy makes of judged units. Thread-safe; without state.

    Args:
        bundle: the compiled policy.
        needed: the classifiers that the rules of each stage weigh.
        deciding: networks that decide in place of a head; they point at no spans.
    """

    def __init__(self, bundle: Bundle, needed: Mapping[Stage, Collection[str]], deciding: Collection[str]) -> None:
        self._bundle, self._needed, self._deciding = bundle, needed, deciding

    def verdict(self, work: Work, embedding_error: str | None, encoder: Callable[[], Encoder]) -> Verdict:
        """What the units of a work add up to.

        Args:
            work: judged through.
            embedding_error: what went wrong with the encoder, if anything.
            encoder: gives the one whose vectors were kept; asked only where there are any.
        """
        stage = work.passage.stage
        failures = dict(work.failures)
        needed = self._needed[stage]
        if embedding_error is not None:
            failures |= {name: embedding_error for name in self._bundle.heads if name in needed}
        rules = self._bundle.policy.document.rules_at(stage)
        risks = {
            rule: max((unit.risks[rule] for unit in work.units if rule in unit.risks), default=0.0) for rule in rules
        }
        reasons = [reason for rule in rules if (reason := self._reason(work, rule, risks[rule])) is not None]
        reasons += [reason for rule in rules if (reason := self._failed(stage, rule, failures)) is not None]
        reasons.sort(key=lambda reason: (reason.action.severity, reason.risk), reverse=True)
        heads = {name for unit in work.units for name in unit.logits if name in needed}
        scores = {
            name: _probability(max(unit.logits[name] for unit in work.units if name in unit.logits))
            for name in sorted(heads)
        }
        action = reasons[0].action if reasons else Action.ALLOW
        risk = max(risks.values(), default=0.0)
        judgement = Judgement(action, risk, risks, scores, tuple(reasons), failures, scanned=bool(rules))
        acting = {name for reason in reasons if reason.action > Action.FLAG for name in self._weighed(reason.rule)}
        found = [work.scores[name] for name in sorted(acting) if name in work.scores and name not in self._deciding]
        matches = {span for score in found for span in score.spans}
        labels = {span: label for score in found for span, label in zip(score.spans, score.labels, strict=False)}
        kept = _evidence(work, encoder().sha256) if work.rows else None
        return Verdict(judgement, tuple(work.units), tuple(sorted(matches)), labels, kept)

    def _weighed(self, rule: str) -> Mapping[str, float]:
        return self._bundle.policy.document.rules[rule].weights

    def _reason(self, work: Work, rule: str, risk: float) -> Reason | None:
        action, threshold = self._bundle.action_for(rule, risk)
        if action is Action.ALLOW:
            return None
        worst = max((unit for unit in work.units if rule in unit.risks), key=lambda unit: unit.risks[rule])
        return Reason(
            rule=rule,
            stage=work.passage.stage,
            action=action,
            risk=risk,
            threshold=threshold,
            contributions=self._bundle.contributions(rule, worst.logits),
            spans=self._spans(work, rule, threshold),
            description=self._bundle.policy.document.rules[rule].description,
        )

    def _spans(self, work: Work, rule: str, threshold: float) -> tuple[Span, ...]:
        """Where a rule was broken: the matches of its patterns, and the smallest units at or over the threshold."""
        pointing = [name for name in self._weighed(rule) if name in work.scores and name not in self._deciding]
        matches = {span for name in pointing for span in work.scores[name].spans}
        units = minimal([unit.span for unit in work.units if unit.risks.get(rule, 0.0) >= threshold])
        found = {trim(work.passage.text, span) for span in units if not any(inside(match, span) for match in matches)}
        return tuple(sorted(found | matches))

    def _failed(self, stage: Stage, rule: str, failures: Mapping[str, str]) -> Reason | None:
        document = self._bundle.policy.document
        broken = [name for name in document.rules[rule].weights if name in failures]
        if not broken:
            return None
        action = _ON_ERROR[document.on_error_of(rule)]
        description = document.rules[rule].description
        return Reason(rule, stage, action, risk=1.0, threshold=1.0, description=description, error=failures[broken[0]])


def _probability(value: float) -> float:
    return float(1.0 / (1.0 + np.exp(-np.clip(value, -MAX_LOGIT, MAX_LOGIT))))


def _evidence(work: Work, encoder: str) -> Evidence:
    counts = [count for count, _ in work.rows]
    layout = np.repeat(np.array([unit.span for unit in work.units], dtype="<u4"), counts, axis=0)
    vectors = np.concatenate([rows for _, rows in work.rows])
    others = {
        name: tuple(unit.logits[name] for unit, count in zip(work.units, counts, strict=True) for _ in range(count))
        for name, score in work.scores.items()
        if score.value > 0
    }
    return Evidence(encoder, vectors.shape[1], vectors.tobytes(), layout.tobytes(), others)
