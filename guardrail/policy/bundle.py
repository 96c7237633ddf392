"""A policy compiled for use: one matrix for all linear heads, and the pooling of classifiers into rule risks.

Notation: N texts, d dimensions of the embedding, H linear heads, C classifiers and R rules at one stage; p_i is the
probability that classifier i gives, w_i its weight in a rule, l_i = logit(p_i), clipped to +-30.

`log_pool` is the logarithmic opinion pool (Genest and Zidek, Statistical Science 1986, section 3.2) on the odds:
logit(risk) = sum w_i l_i / sum w_i. A rule of linear heads is then itself one linear head, and its weight vector is the
direction in which the rewriter steers. `noisy_or` is 1 - prod (1 - p_i)^w_i (Pearl, Probabilistic Reasoning, 1988,
section 4.3.2). `max` is the largest of min(1, w_i) p_i.

A classifier that is not a linear head and says exactly 0, such as a word list without a match, abstains from a
`log_pool`: "found nothing" is no evidence that a text is harmless, and would outvote every head.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from guardrail.errors import ClassifierFailure
from guardrail.policy.loader import Policy
from guardrail.policy.schema import Rule
from guardrail.types import Action, Stage

__all__ = ["MAX_LOGIT", "Array", "Bundle", "LinearHead", "compile_policy", "logit"]

MAX_LOGIT = 30.0
"""Logits are clipped here: the odds of 1e13 to 1, still far from where float64 loses 1 - p."""

Array = npt.NDArray[np.floating]


def logit(probability: npt.ArrayLike) -> Array:
    """log(p / (1 - p)) in float64, clipped to +-`MAX_LOGIT`; 0 and 1 are allowed, NaN stays NaN."""
    p = np.asarray(probability, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(np.log(p) - np.log1p(-p), -MAX_LOGIT, MAX_LOGIT))


def _sigmoid(logits: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -MAX_LOGIT, MAX_LOGIT))))


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """Calibrated logistic regression on sentence embeddings: p = sigmoid(weight @ x + bias), calibration folded in.

    Attributes:
        name: what it measures.
        weight: (d,) float32.
        bias: float.
        sha256: hash of the head's weights.
        encoder_sha256: hash of the encoder in whose space it lives.
    """

    name: str
    weight: npt.NDArray[np.float32]
    bias: float
    sha256: str
    encoder_sha256: str


@dataclass(frozen=True, slots=True)
class _Pools:
    """The rules of one stage as matrices, so that all of them are pooled at once."""

    rules: tuple[str, ...]  # R
    classifiers: tuple[str, ...]  # C
    weights: Array  # (R, C); 0 where a rule does not weigh a classifier
    combine: npt.NDArray[np.str_]  # (R,)
    abstains: npt.NDArray[np.bool_]  # (C,) whether a score of 0 means "found nothing"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A compiled policy. Immutable and thread-safe.

    Attributes:
        policy: where it comes from.
        heads: names of the linear classifiers, H of them, in the order of the policy.
        weight: (H, d) float32.
        bias: (H,) float32.
    """

    policy: Policy
    heads: tuple[str, ...]
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    _pools: Mapping[Stage, _Pools] = field(repr=False)
    _actions: Mapping[str, tuple[tuple[Action, float], ...]] = field(repr=False)  # per rule, most severe first

    def head_logits(self, x: Array) -> Array:
        """(N, d) embeddings to (N, H) logits: one matrix product for all heads of all rules."""
        return np.asarray(x @ self.weight.T + self.bias)

    def risks(self, logits: Mapping[str, Array], stage: Stage) -> dict[str, Array]:
        """Risk of every rule that judges `stage`, for N texts.

        Args:
            logits: classifier to (N,) logits; infinite ones are clipped. A rule that weighs a classifier which is not
                given is left out: whoever scored the texts knows why, and applies the rule's `on_error`.
            stage: where the texts stand.

        Returns:
            Rule to (N,) float64 risks in [0, 1], in the order of the policy.

        Raises:
            ClassifierFailure: a logit is NaN.
        """
        pools = self._pools[stage]
        given = [position for position, name in enumerate(pools.classifiers) if name in logits]
        missing = [position for position, name in enumerate(pools.classifiers) if name not in logits]
        complete = np.flatnonzero(~(pools.weights[:, missing] > 0).any(axis=1))
        if not given or not complete.size:
            return {}
        columns = [_checked(name, logits[name]) for name in (pools.classifiers[position] for position in given)]
        pooled = _pool(
            np.stack(columns, axis=1),
            pools.weights[complete][:, given],
            pools.combine[complete],
            pools.abstains[given],
        )
        return {pools.rules[rule]: pooled[:, position] for position, rule in enumerate(complete)}

    def contributions(self, rule: str, logits: Mapping[str, float]) -> dict[str, float]:
        """What each classifier adds to the risk of `rule`.

        Args:
            rule: name of a rule.
            logits: classifier to logit; those that the rule does not weigh are ignored.

        Returns:
            Under `log_pool` w_i l_i / sum w, which sum to logit(risk); a classifier that abstains adds 0. Under `max`
            and `noisy_or` the share of each, which sum to 1: of min(1, w_i) p_i, and of -w_i log(1 - p_i).
        """
        spec = self.policy.document.rules[rule]
        names = [name for name in spec.weights if name in logits]
        if not names:
            return {}
        values = np.clip(np.array([logits[name] for name in names], dtype=np.float64), -MAX_LOGIT, MAX_LOGIT)
        weights = np.array([spec.weights[name] for name in names])
        if spec.combine == "log_pool":
            heard = (values > -MAX_LOGIT) | np.array([name in self.heads for name in names])
            weights = weights * heard if heard.any() else weights
            parts = weights * values / weights.sum()
        else:
            parts = np.minimum(1.0, weights) * _sigmoid(values)
            if spec.combine == "noisy_or":
                parts = weights * np.logaddexp(0.0, values)
            parts = parts / parts.sum()
        return dict(zip(names, parts.tolist(), strict=True))

    def action_for(self, rule: str, risk: float) -> tuple[Action, float]:
        """The most severe action whose threshold `risk` reaches, and that threshold.

        Below all of them: `Action.ALLOW` and the lowest threshold.

        Raises:
            ValueError: the risk is NaN.
        """
        if np.isnan(risk):
            raise ValueError(f"the risk of rule {rule!r} is not a number")
        thresholds = self._actions[rule]
        for action, threshold in thresholds:
            if risk >= threshold:
                return action, threshold
        return Action.ALLOW, thresholds[-1][1]

    def head(self, classifier: str) -> tuple[npt.NDArray[np.float32], float] | None:
        """(weight (d,), bias) of a linear classifier; None for any other."""
        if classifier not in self.heads:
            return None
        position = self.heads.index(classifier)
        return self.weight[position], float(self.bias[position])

    def linear_guide(self, rule: str) -> tuple[npt.NDArray[np.float32], float] | None:
        """The linear part of a rule as one head: logit(risk) = weight @ x + bias.

        Exact for a `log_pool` while its non-linear classifiers abstain. Under `max` and `noisy_or` the pool is not
        linear: the head itself if the rule weighs just one, otherwise None (steer by the head that contributes most).

        Returns:
            (weight (d,), bias), or None if the rule has no such part.
        """
        spec = self.policy.document.rules[rule]
        linear = [name for name in self.heads if name in spec.weights]
        if not linear or (spec.combine != "log_pool" and len(linear) > 1):
            return None
        rows = [self.heads.index(name) for name in linear]
        share = np.array([spec.weights[name] for name in linear])
        share = (share / share.sum()).astype(np.float32)
        return share @ self.weight[rows], float(share @ self.bias[rows])


def compile_policy(policy: Policy, heads: Mapping[str, LinearHead], classifiers: Container[str]) -> Bundle:
    """Compile a policy with the heads and classifiers that were built for it.

    Args:
        policy: a loaded policy.
        heads: classifier name to head, for every classifier that is linear in the encoder's space.
        classifiers: names of the other classifiers that were built.

    Raises:
        PolicyError: a linear classifier has no head, another one was not built, or heads are of different encoders,
            of different widths, or not finite.
    """
    linear: list[str] = []
    for name, spec in policy.document.classifiers.items():
        if name in heads:
            _check_head(policy, name, heads, linear)
            linear.append(name)
        elif name not in classifiers and spec.kind == "linear":
            raise policy.error(f"there is no head {name!r}; train it, or remove it", "classifiers", name)
        elif name not in classifiers:
            raise policy.error(f"the classifier {name!r} of kind {spec.kind!r} was not built", "classifiers", name)
    width = len(heads[linear[0]].weight) if linear else 0
    weight = np.zeros((len(linear), width), dtype=np.float32)
    for position, name in enumerate(linear):
        weight[position] = heads[name].weight
    rules = policy.document.rules
    return Bundle(
        policy=policy,
        heads=tuple(linear),
        weight=weight,
        bias=np.array([heads[name].bias for name in linear], dtype=np.float32),
        _pools={stage: _pools_of(policy.document.rules_at(stage), linear) for stage in Stage},
        _actions={name: tuple(sorted(rule.thresholds.items(), reverse=True)) for name, rule in rules.items()},
    )


def _check_head(policy: Policy, name: str, heads: Mapping[str, LinearHead], before: Sequence[str]) -> None:
    head = heads[name]
    if head.weight.ndim != 1 or not np.isfinite(head.weight).all() or not np.isfinite(head.bias):
        raise policy.error(f"the head {name!r} is damaged: expected a finite vector and bias", "classifiers", name)
    if not before:
        return
    first = heads[before[0]]
    if head.encoder_sha256 != first.encoder_sha256 or head.weight.shape != first.weight.shape:
        message = f"the heads {name!r} and {before[0]!r} belong to different encoders; train both for the same one"
        raise policy.error(message, "classifiers", name)


def _pools_of(rules: Mapping[str, Rule], linear: Sequence[str]) -> _Pools:
    classifiers = tuple(dict.fromkeys(name for rule in rules.values() for name in rule.weights))
    weights = np.array([[rule.weights.get(name, 0.0) for name in classifiers] for rule in rules.values()])
    return _Pools(
        rules=tuple(rules),
        classifiers=classifiers,
        weights=weights.reshape(len(rules), len(classifiers)),
        combine=np.array([rule.combine for rule in rules.values()], dtype=np.str_),
        abstains=np.array([name not in linear for name in classifiers], dtype=np.bool_),
    )


def _checked(name: str, logits: Array) -> Array:
    values = np.asarray(logits, dtype=np.float64)
    if np.isnan(values).any():
        raise ClassifierFailure(name, ValueError("its score is not a number"))
    return np.clip(values, -MAX_LOGIT, MAX_LOGIT)


def _pool(logits: Array, weights: Array, combine: npt.NDArray[np.str_], abstains: npt.NDArray[np.bool_]) -> Array:
    """(N, C) clipped logits and (R, C) weights to (N, R) risks."""
    risks = np.empty((len(logits), len(weights)))
    of = {kind: np.flatnonzero(combine == kind) for kind in ("log_pool", "noisy_or", "max")}
    if (rows := of["log_pool"]).size:
        heard = ~(abstains & (logits <= -MAX_LOGIT))  # (N, C)
        total = heard @ weights[rows].T  # (N, R'): the weight of those that gave an opinion
        pooled = np.full(total.shape, -MAX_LOGIT)
        np.divide((logits * heard) @ weights[rows].T, total, out=pooled, where=total > 0)
        risks[:, rows] = _sigmoid(pooled)
    if (rows := of["noisy_or"]).size:
        # log(1 - p) = -softplus(l), so the product is a sum that loses nothing for p near 0 or 1
        risks[:, rows] = -np.expm1(-np.logaddexp(0.0, logits) @ weights[rows].T)
    if (rows := of["max"]).size:
        scaled = np.minimum(1.0, weights[rows]) * _sigmoid(logits)[:, None, :]  # (N, R', C)
        risks[:, rows] = scaled.max(axis=2)
    return risks
