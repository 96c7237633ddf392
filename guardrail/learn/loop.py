"""The closed loop: votes -> heads -> proof -> a draft policy that names the new heads, or a refusal that says why.

Before anything is written for good, two things are proved. On votes that were kept aside (a fifth of the decisions), each
changed head must be no worse than before; one that is worse, or that no vote kept aside speaks of, stays as it was. On the
safety set (the policy's own examples) not one case that passed before may fail.

A new head lies in the output folder beside the one that it came from, `base-NAME.safetensors`: the next round starts there
again, with all votes, so that the bound on one reviewer's influence holds over any number of rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.assembly import Assembly, assemble
from guardrail.audit.store import AuditStore
from guardrail.classifiers.linear import SHIPPED, make_head, read_head, readings, write_head
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import DataError, PolicyError
from guardrail.learn.choices import is_aside
from guardrail.learn.feedback import Vote, collect
from guardrail.learn.update import Limits, Moved, largest_change, loss, move, vote_weights
from guardrail.policy import Policy, load_policy
from guardrail.policy.bundle import LinearHead
from guardrail.policy.corpus import Case
from guardrail.settings import Settings
from guardrail.types import Action, Passage

__all__ = ["HeadChange", "Learned", "learn"]

SUFFIX = "-learned"
MIN_VOTES = 10

DEFAULT_LIMITS = Limits()

Judge = Callable[[Sequence[Passage]], list[Action]]


@dataclass(frozen=True, slots=True)
class HeadChange:
    """What the votes did to one head.

    Attributes:
        head: its name. votes: used to move it. aside: kept aside. reviewers: who voted.
        agreement: mean share of others with the same vote.
        before, after: log loss (nats) on the votes kept aside; None where there are none.
        change: largest change of any text's logit. kept: whether the new head is used, `why` if not.
    """

    head: str
    votes: int
    aside: int
    reviewers: int
    agreement: float
    before: float | None
    after: float | None
    change: float
    kept: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Learned:
    """What a round of learning came to.

    Attributes:
        heads: every head with votes.
        cases: size of the safety set; passed: how many of them before and after.
        broken: texts of the safety set that passed before and fail now.
        policy: the draft policy that was written; None where the change was refused or nothing changed.
        refused: why; empty where it was not.
        bound: logits by which one reviewer can have changed any score.
    """

    heads: tuple[HeadChange, ...]
    cases: int = 0
    passed: tuple[int, int] = (0, 0)
    broken: tuple[str, ...] = field(default=())
    policy: Path | None = None
    refused: str = ""
    bound: float = 0.0


def learn(
    store: AuditStore,
    policy: Policy,
    settings: Settings,
    out: Path,
    cases: Sequence[Case],
    *,
    community: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Learned:
    """Learn from all votes on record and write a draft policy, if it is better.

    Args:
        store: with the reviews.
        policy: whose heads learn.
        settings: with the encoder of these heads.
        out: folder for the heads and the draft policy; files of an earlier round are replaced.
        cases: the safety set.
        community: whose reviews; None: all.
        limits: how far a head may move.

    Raises:
        DataError: too few votes, or no safety set.
    """
    if policy.name.endswith(SUFFIX):
        raise DataError(
            f"{policy.name!r} was learned itself; learn on {policy.name.removesuffix(SUFFIX)!r}, from all votes"
        )
    if not cases:
        raise DataError(f"the policy {policy.name!r} has no examples, so nothing shows that a change is safe")
    assembly = assemble(policy, settings)
    with store.engine.connect() as connection:
        votes = collect(connection, assembly.judge.bundle, community)
    if len(votes) < MIN_VOTES:
        raise DataError(f"there are {len(votes)} votes on heads of {policy.name!r}, at least {MIN_VOTES} are needed")
    encoder = load_encoder(settings.encoder, settings.device)
    anchor = encoder.encode([case.text for case in cases])
    out.mkdir(parents=True, exist_ok=True)
    changes, new = [], {}
    for name in assembly.judge.bundle.heads:
        own = [vote for vote in votes if vote.head == name]
        if own:
            base = _base(policy, name)
            change, moved = _learn_head(own, base, encoder, limits, anchor)
            changes.append(change)
            if change.kept:
                new[name] = base, moved, change
    if not new:
        return Learned(tuple(changes), refused="no head is better on the votes kept aside", bound=limits.bound)
    draft = _write(policy, settings, out, new)
    before, after = _judge(assembly), _judge(assemble(load_policy(draft, settings.policies), settings))
    result = _prove(changes, cases, before, after, draft, limits)
    if result.refused:
        for path in (draft, *(out / f"{name}.safetensors" for name in new)):
            path.unlink()
    return result


def _learn_head(
    votes: Sequence[Vote], base: LinearHead, encoder: Encoder, limits: Limits, anchor: np.ndarray
) -> tuple[HeadChange, Moved]:
    x, logits = _examples(votes, base, encoder)
    values = np.array([vote.value >= 0.5 for vote in votes], dtype=np.float64)
    aside = np.array([is_aside(vote.decision) for vote in votes])
    weights = np.zeros(len(votes))
    for part in (aside, ~aside):  # capped in each part by itself, so that nobody decides the proof alone either
        weights[part] = vote_weights([vote for vote, mine in zip(votes, part, strict=True) if mine], limits.cap)
    rest = ~aside
    moved = move(x[rest], logits[rest], values[rest], weights[rest], limits, anchor)
    before = after = None
    why = "no vote kept aside speaks of it"
    if aside.any():
        before = loss(logits[aside], values[aside], weights[aside])
        after = loss(logits[aside] + moved.logits(x[aside]), values[aside], weights[aside])
        why = "" if after < before else "it is no better on the votes kept aside"
    change = HeadChange(
        head=base.name,
        votes=int(rest.sum()),
        aside=int(aside.sum()),
        reviewers=len({vote.reviewer for vote in votes}),
        agreement=float(np.mean([vote.agreement for vote in votes])),
        before=before,
        after=after,
        change=largest_change(moved),
        kept=not why,
        why=why,
    )
    return change, moved


def _examples(votes: Sequence[Vote], base: LinearHead, encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
    """One vector per vote, (N, d), and its logit (N,): of the window that the head finds worst, as the judge does."""
    pieces = [[text for one in vote.texts for _, text in readings(encoder, one)] for vote in votes]
    vectors = encoder.encode([text for own in pieces for text in own])
    scored = vectors @ base.weight + base.bias
    chosen, start = [], 0
    for own in pieces:
        chosen.append(start + int(np.argmax(scored[start : start + len(own)])))
        start += len(own)
    return vectors[chosen], np.asarray(scored[chosen], dtype=np.float64)


def _base(policy: Policy, name: str) -> LinearHead:
    """The head before any learning: the one that an earlier round has put beside the policy's, or the policy's own."""
    spec = policy.document.classifiers[name].options
    if "file" in spec:
        file = policy.directory / spec["file"]
        first = file.with_name(f"base-{file.name}")
        return read_head(first if first.is_file() else file)
    return read_head(SHIPPED / f"{spec.get('head', name)}.safetensors")


def _parent(policy: Policy, settings: Settings) -> str:
    """How the draft names the policy that it extends: by name where that finds it, else by its file."""
    try:
        if load_policy(policy.name, settings.policies).revision == policy.revision:
            return policy.name
    except PolicyError:
        pass
    own = [
        file for file in policy.files if file.suffix in {".yaml", ".yml"} and file.absolute().parent == policy.directory
    ]
    return str(own[-1].absolute())


def _write(policy: Policy, settings: Settings, out: Path, new: dict[str, tuple[LinearHead, Moved, HeadChange]]) -> Path:
    import yaml

    classifiers: dict[str, Any] = {}
    for name, (base, moved, change) in new.items():
        head = make_head(base.name, base.weight + moved.weight, base.bias + moved.bias, base.encoder_sha256)
        facts = {"learned_from": base.sha256, "votes": str(change.votes), "reviewers": str(change.reviewers)}
        write_head(out / f"{name}.safetensors", head, facts)
        write_head(out / f"base-{name}.safetensors", base)
        own = policy.document.classifiers[name].options
        classifiers[name] = {
            "kind": "linear",
            "file": f"{name}.safetensors",
            **({"head": None} if "head" in own else {}),
        }
    name = policy.name + SUFFIX
    document = {
        "policy": name,
        "extends": _parent(policy, settings),
        "description": f"{policy.name} with heads that reviews have moved.",
        "classifiers": classifiers,
    }
    path = out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def _judge(assembly: Assembly) -> Judge:
    return lambda passages: [verdict.judgement.action for verdict in assembly.judge.judge(passages)]


def _prove(
    changes: Sequence[HeadChange], cases: Sequence[Case], before: Judge, after: Judge, draft: Path, limits: Limits
) -> Learned:
    passages = [case.passage for case in cases]
    old = [action in case.accepted for action, case in zip(before(passages), cases, strict=True)]
    new = [action in case.accepted for action, case in zip(after(passages), cases, strict=True)]
    broken = tuple(case.text for case, was, now in zip(cases, old, new, strict=True) if was and not now)
    refused = f"{len(broken)} of the safety set's {len(cases)} cases passed before and fail now" if broken else ""
    return Learned(
        heads=tuple(changes),
        cases=len(cases),
        passed=(sum(old), sum(new)),
        broken=broken,
        policy=None if refused else draft,
        refused=refused,
        bound=limits.bound,
    )
