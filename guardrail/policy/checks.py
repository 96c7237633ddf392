"""Checks of a policy that look at more than one key, and advice on policies that are valid but odd."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from guardrail import registry
from guardrail.errors import did_you_mean
from guardrail.policy.schema import PolicyDocument, Rule
from guardrail.types import Action
from guardrail.validation import Problem
from guardrail.yamlfile import Key


def check(document: PolicyDocument) -> list[Problem]:
    """Every mistake in `document` that its schema cannot see. Empty: the policy can be used."""
    return [
        *_classifiers(document),
        *_rules(document),
        *_guides(document),
        *_rewriters(document),
        *_preference(document),
    ]


def advise(document: PolicyDocument) -> list[Problem]:
    """What is allowed and probably not meant. An unused linear head is not: it costs nothing, and others may extend."""
    used = {name for rule in document.rules.values() for name in rule.weights} | set(document.guides.toward)
    advice = [
        Problem(("classifiers", name), "is weighed by no rule and steers nothing")
        for name, spec in document.classifiers.items()
        if name not in used and spec.kind != "linear"
    ]
    for name, rule in document.rules.items():
        if rule.combine == "max":
            advice += [
                Problem(("rules", name, "weights", classifier), "`max` treats a weight above 1 as 1")
                for classifier, weight in rule.weights.items()
                if weight > 1
            ]
        if Action.REWRITE in rule.thresholds and not document.rewrite.order:
            advice.append(Problem(("rules", name, "thresholds", "rewrite"), "`rewrite.order` is empty: this blocks"))
    return advice


def _classifiers(document: PolicyDocument) -> Iterator[Problem]:
    for name, spec in document.classifiers.items():
        yield from _known(("classifiers", name, "kind"), spec.kind, "guardrail.classifiers", "kind of classifier")


def _known(key: Key, name: str, group: str, what: str) -> Iterator[Problem]:
    if name in registry.BUILT_IN[group]:
        return  # without a look at the installed plug-ins, which takes a while
    known = registry.names(group)
    if name not in known:
        yield Problem(key, f"unknown {what} {name!r}; expected one of {', '.join(known)}.{did_you_mean(name, known)}")


def _rules(document: PolicyDocument) -> Iterator[Problem]:
    if not document.rules:
        yield Problem(("rules",), "there are no rules; expected at least one, or everything would be let through")
    for name, rule in document.rules.items():
        for classifier in rule.weights:
            yield from _listed(("rules", name, "weights", classifier), classifier, document.classifiers, "classifiers")
        kinds = {document.classifiers[one].kind for one in rule.weights if one in document.classifiers}
        if kinds == {"judge"}:
            message = "a judge may not decide alone; weigh a classifier beside it, by which it is known when to ask"
            yield Problem(("rules", name, "weights"), message)
        yield from _thresholds(name, rule)


def _listed(key: Key, name: str, known: Iterable[str], where: str) -> Iterator[Problem]:
    known = list(known)
    if name not in known:
        listed = ", ".join(known) or "nothing"
        yield Problem(key, f"{name!r} is not in `{where}`, which has {listed}.{did_you_mean(name, known)}")


def _thresholds(name: str, rule: Rule) -> Iterator[Problem]:
    key = ("rules", name, "thresholds")
    if Action.ALLOW in rule.thresholds:
        yield Problem((*key, "allow"), "`allow` needs no threshold: it is what happens below the lowest one")
    milder: tuple[Action, float] | None = None
    for action in sorted(set(rule.thresholds) - {Action.ALLOW}):
        threshold = rule.thresholds[action]
        if milder is not None and threshold < milder[1]:
            message = (
                f"{threshold:g} is out of order: expected at least {milder[1]:g}, the threshold of `{milder[0]}`, "
            )
            yield Problem((*key, action.value), message + "which is milder")
        milder = (action, threshold) if milder is None or threshold >= milder[1] else milder


def _guides(document: PolicyDocument) -> Iterator[Problem]:
    for name in document.guides.away:
        yield from _listed(("guides", "away", name), name, document.rules, "rules")
    for name in document.guides.toward:
        yield from _listed(("guides", "toward", name), name, document.classifiers, "classifiers")


def _rewriters(document: PolicyDocument) -> Iterator[Problem]:
    order = document.rewrite.order
    for position, name in enumerate(order):
        key = ("rewrite", "order", position)
        yield from _known(key, name, "guardrail.rewriters", "rewriter")
        if name in order[:position]:
            yield Problem(key, f"{name!r} stands twice")


def _preference(document: PolicyDocument) -> Iterator[Problem]:
    preference = document.preference
    if preference.safety + preference.fidelity + preference.brevity <= 0:
        yield Problem(("preference",), "expected at least one of safety, fidelity and brevity above 0")
