"""Make a recorded decision again from its text, policy revision, models and seed, and say what differs, if anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.query import StoredDecision
from guardrail.audit.store import AuditStore
from guardrail.audit.tables import policy_revisions
from guardrail.engine import Guardrail
from guardrail.errors import ConfigurationError
from guardrail.policy.loader import Policy
from guardrail.policy.revision import content_hash
from guardrail.policy.schema import FILE_OPTIONS, PolicyDocument
from guardrail.settings import Settings
from guardrail.types import Decision, Passage

__all__ = ["TOLERANCE", "Difference", "policy_at", "reproduce"]

TOLERANCE = 1e-4
"""Numbers may differ by this: a text that is embedded alone and one in a batch differ in the last bits of float32."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What was recorded, and what comes out now."""

    what: str
    recorded: Any
    now: Any


def reproduce(store: AuditStore, found: StoredDecision, settings: Settings, current: Policy) -> list[Difference]:
    """Decide the text of a recorded decision again; an empty list says that everything is equal.

    Compared are the models' hashes, action, state, risk, scores, rules, reasons, candidates and what was delivered.
    Classifiers that ask another machine may answer differently, and so may a rewriter that reads the conversation
    around the text, which is not on record.

    Args:
        store: where the policy revision is kept.
        found: whole, as `store.get` returns it.
        settings: with the encoder and the rewriter that are there now.
        current: the policy of that name as it is now; lends the files that the recorded one names by their hash.

    Raises:
        ConfigurationError: the text is not on record or cannot be decrypted, or the policy of that revision cannot be put together.
    """
    text = found.readable().source_text
    if text is None:
        raise ConfigurationError(f"decision {found.id!r} cannot be reproduced: its text is not stored, or was erased")
    if found.masked:
        raise ConfigurationError(f"decision {found.id!r} cannot be reproduced: personal data was masked in its text")
    policy = policy_at(store, found.revision, current)
    guard = Guardrail(policy, settings=settings, community=found.community, audit=store)
    seeds = [one.seed for one in (found.rewrite, *found.candidates) if one is not None and one.seed is not None]
    passage = Passage(text, found.stage)
    if "cannot be rewritten without breaking it" in found.note:
        passage = replace(passage, editable=False)
    made = guard.rewrite_many([passage], seed=seeds[0] if seeds else None)[0]
    return list(_compare(found, made))


def policy_at(store: AuditStore, revision: str, current: Policy) -> Policy:
    """Return the policy as it was at `revision`.

    Raises:
        ConfigurationError: the revision is not on record, or a file that it names has changed since.
    """
    if current.revision == revision:
        return current
    with store.engine.connect() as connection:
        row = connection.execute(
            select(policy_revisions).where(policy_revisions.c.revision == identifier(revision))
        ).first()  # fmt: skip
    if row is None:
        raise ConfigurationError(f"the policy revision {revision} is not on record")
    canonical = unescape(row.document)
    plain = json.loads(canonical)
    files = []
    for name, spec in plain["classifiers"].items():
        for option in FILE_OPTIONS:
            if str(spec.get(option, "")).startswith("sha256:"):
                spec[option] = str(_file(name, option, spec[option], current))
                files.append(Path(spec[option]))
    document = PolicyDocument.model_validate(plain)
    return Policy(document.policy, revision, document, tuple(files), current.directory, canonical)


def _file(classifier: str, option: str, digest: str, current: Policy) -> Path:
    spec = current.document.classifiers.get(classifier)
    path = None if spec is None else spec.options.get(option)
    if not isinstance(path, str) or not Path(path).is_file() or content_hash(Path(path).read_bytes()) != digest:
        raise ConfigurationError(
            f"the classifier {classifier!r} read a file with the hash {digest}, which is not there any more; put the "
            "file back as it was, or pass a policy that names it"
        )
    return Path(path)


def _compare(found: StoredDecision, made: Decision) -> Iterator[Difference]:
    for name in sorted({*found.models, *made.models}):
        if found.models.get(name) != made.models.get(name):
            yield Difference(f"model {name}", found.models.get(name), made.models.get(name))
    plain: tuple[tuple[str, Any, Any], ...] = (
        ("action", found.action.value, made.action.value),
        ("state", found.state.value, made.state.value),
        ("rules that gave reasons", _rules(found), _rules(made)),
        ("delivered text", found.delivered_text, made.delivered),
        ("candidates", [one.text for one in found.candidates], _candidates(made)),
    )
    for what, recorded, now in plain:
        if recorded != now:
            yield Difference(what, recorded, now)
    if abs(found.risk - made.risk) > TOLERANCE:
        yield Difference("risk", found.risk, made.risk)
    yield from _numbers("score", found.scores, made.scores)
    yield from _numbers("rule", found.rules, made.rules)


def _rules(decision: StoredDecision | Decision) -> list[str]:
    return [reason.rule for reason in decision.reasons]


def _candidates(made: Decision) -> list[str]:
    return [one.text for one in (made.rewrite.candidates if made.rewrite is not None else made.tried)]


def _numbers(kind: str, recorded: Mapping[str, float | None], now: Mapping[str, float]) -> Iterator[Difference]:
    for name in sorted({*recorded, *now}):
        old, new = recorded.get(name), now.get(name)
        if old is None or new is None or abs(old - new) > TOLERANCE:
            if old is new:
                continue
            yield Difference(f"{kind} {name}", old, new)
