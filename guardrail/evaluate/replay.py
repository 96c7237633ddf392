"""Replay: decide stored decisions again under a draft policy, and say what would change.

From stored embeddings nothing is embedded again: a chunk of decisions is one matrix product, and its rules are pooled and
compared with their thresholds all at once. Two things are taken as they were: which stretches of a text were judged (a
policy that looks at other sentences more closely may find more), and what classifiers that are not linear said, where
they are still the same by their fingerprints. `check` judges a sample again from its texts and tells how much that matters.

Decisions without usable embeddings are judged again from their texts, if those are stored and `from_texts` allows it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Text, cast, select, type_coerce

from guardrail.assembly import Assembly
from guardrail.audit.escaping import unescape
from guardrail.audit.query import Filters
from guardrail.audit.sealing import must_be_open
from guardrail.audit.tables import decisions, embeddings, reviews
from guardrail.policy.bundle import MAX_LOGIT
from guardrail.types import Action, Passage, Stage

__all__ = ["Change", "Replay", "replay"]

CHUNK = 4096
Floats = npt.NDArray[np.floating[Any]]
_ACTIONS = tuple(Action)
_ACTS = Action.REDACT.severity
"""From this action on readers see something other than the draft."""


@dataclass(frozen=True, slots=True)
class Change:
    """A decision that the draft policy would make differently."""

    id: str
    before: Action
    after: Action
    risk_before: float
    risk_after: float
    rule: str  # the riskiest under the draft policy


@dataclass(slots=True)
class Replay:
    """What a draft policy would change.

    Attributes:
        policy, revision: the draft's.
        replayed: decisions decided again, of which `from_texts` from their texts; `skipped`: why -> how many were not.
        moved: (before, after) -> count, over all replayed decisions.
        examples: the changes with the largest change of risk.
        human: "before" and "after" against people's verdicts: true and false positives and negatives (tp, fp, fn, tn).
        check: sample size, share of equal actions and largest difference of risk against judging the texts again.
    """

    policy: str
    revision: str
    replayed: int = 0
    from_texts: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    moved: Counter[tuple[Action, Action]] = field(default_factory=Counter)
    examples: list[Change] = field(default_factory=list)
    human: dict[str, dict[str, int]] = field(default_factory=dict)
    check: dict[str, float] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """Decisions with another action."""
        return sum(count for (before, after), count in self.moved.items() if before is not after)


def replay(
    connection: Connection,
    assembly: Assembly,
    filters: Filters,
    *,
    limit: int | None = None,
    from_texts: bool = True,
    examples: int = 10,
    check: int = 0,
    advance: Callable[[int], object] = lambda _count: None,
) -> Replay:
    """Decide the decisions that match `filters` again, newest first.

    Args:
        assembly: the draft policy, ready to judge.
        limit: at most so many; None: all.
        from_texts: judge from the text where there is no usable embedding.
        examples: changes to show.
        check: texts to judge again, to see how far the replay from embeddings can be trusted.
        advance: told of every chunk of decisions.

    Raises:
        ConfigurationError: a filter that makes no sense.
    """
    policy = assembly.policy
    found = Replay(policy.name, policy.revision)
    verdicts = _verdicts(connection)
    human = {"before": Counter[str](), "after": Counter[str]()}
    decider = _Decider(assembly)
    checked: list[tuple[bool, float]] = []
    for rows in _chunks(connection, filters, limit):
        after, risks, top, skipped, texts = decider.decide(rows, from_texts)
        found.skipped.update(reason for reason in skipped if reason)
        found.from_texts += texts
        _count(found, rows, after, risks, top, skipped, examples)
        _against_people(human, rows, after, skipped, verdicts)
        if len(checked) < check:
            checked += decider.check(rows, after, risks, skipped, check - len(checked))
        advance(len(rows))
    found.human = {when: dict(counts) for when, counts in human.items() if counts}
    if checked:
        found.check = {
            "texts": len(checked),
            "equal": sum(equal for equal, _ in checked) / len(checked),
            "largest_difference": max(difference for _, difference in checked),
        }
    return found


def _count(
    found: Replay, rows: Sequence[Any], after: Sequence[int], risks: Floats, top: Sequence[str], skipped: Sequence[str],
    examples: int,
) -> None:  # fmt: skip
    changes: list[Change] = []
    for row, severity, risk, rule, reason in zip(rows, after, risks, top, skipped, strict=True):
        if reason:
            continue
        found.replayed += 1
        before, now = Action(row.action), _ACTIONS[severity]
        found.moved[before, now] += 1
        if before is not now:
            changes.append(Change(unescape(row.id), before, now, row.risk, float(risk), rule))
    ranked = sorted([*found.examples, *changes], key=lambda one: -abs(one.risk_after - one.risk_before))
    found.examples = ranked[:examples]


def _against_people(
    human: Mapping[str, Counter[str]], rows: Sequence[Any], after: Sequence[int], skipped: Sequence[str],
    verdicts: Mapping[str, int],
) -> None:  # fmt: skip
    if not verdicts:
        return
    for row, severity, reason in zip(rows, after, skipped, strict=True):
        right = verdicts.get(row.id)
        if reason or not right:
            continue
        acted = Action(row.action).severity >= _ACTS
        should = acted if right > 0 else not acted
        for when, acts in (("before", acted), ("after", severity >= _ACTS)):
            human[when][("t" if acts == should else "f") + ("p" if acts else "n")] += 1


def _verdicts(connection: Connection) -> dict[str, int]:
    """decision -> above 0: people say that acting (or not acting) was right; below 0: wrong; a draw is left out.

    The last verdict of each reviewer counts; one that edited the rewrite agrees that the draft had to change.
    """
    query = select(reviews.c.decision_id, reviews.c.reviewer, reviews.c.verdict)
    query = query.where(reviews.c.verdict.in_(("uphold", "overturn", "edit"))).order_by(reviews.c.created_at)
    last = {
        (row.decision_id, row.reviewer): -1 if row.verdict == "overturn" else 1 for row in connection.execute(query)
    }
    sums: dict[str, int] = defaultdict(int)
    for (key, _), vote in last.items():
        sums[key] += vote
    return sums


def _chunks(connection: Connection, filters: Filters, limit: int | None) -> Iterator[Sequence[Any]]:
    def raw(column: Any) -> Any:  # parsed once per distinct text, not once per row
        return (type_coerce if connection.dialect.name == "sqlite" else cast)(column, Text).label(column.name)

    table, vectors = decisions.c, embeddings.c
    mine = (table.id, table.stage, table.action, table.state, table.risk, table.source_text)
    judged = (vectors.encoder, vectors.vectors, vectors.layout)
    columns = (*mine, raw(table.models), raw(table.failures), *judged, raw(vectors.others))
    query = select(*columns).select_from(decisions.outerjoin(embeddings, embeddings.c.decision_id == decisions.c.id))
    query = query.where(*filters.conditions(connection)).order_by(table.created_at.desc(), table.id.desc())
    if limit is not None:
        query = query.limit(limit)
    with connection.execution_options(stream_results=True).execute(query) as result:
        yield from result.partitions(CHUNK)


def _text_of(row: Any) -> str:
    return unescape(must_be_open(row.source_text, f"the text of decision {row.id!r}") or "")


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Any:
    return json.loads(text)


class _Decider:
    """Decides chunks of rows under one policy."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._bundle = assembly.judge.bundle
        document = assembly.policy.document
        self._needed = {
            stage.value: {name for rule in document.rules_at(stage).values() for name in rule.weights}
            for stage in Stage
        }
        self._linear = set(self._bundle.heads) - assembly.others

    def decide(self, rows: Sequence[Any], from_texts: bool) -> tuple[list[int], Floats, list[str], list[str], int]:
        """Return for each row its severity, risk, riskiest rule and why it was skipped (''), and how many used texts."""
        after, risks, top = [0] * len(rows), np.zeros(len(rows)), [""] * len(rows)
        skipped = [self._unfit(row) for row in rows]
        fit: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            if not skipped[place]:
                fit[row.stage].append(place)
        for stage, places in fit.items():
            self._from_vectors([rows[place] for place in places], places, Stage(stage), after, risks, top)
        again = [place for place, row in enumerate(rows) if from_texts and skipped[place] and row.source_text]
        for place, (severity, risk, rule) in zip(
            again, self._from_texts([rows[place] for place in again]), strict=True
        ):
            after[place], risks[place], top[place], skipped[place] = severity, risk, rule, ""
        return after, risks, top, skipped, len(again)

    def check(
        self, rows: Sequence[Any], after: Sequence[int], risks: Floats, skipped: Sequence[str], count: int
    ) -> list[tuple[bool, float]]:
        """Judge some rows again from their texts: (same action?, difference of risk)."""
        able = [p for p, row in enumerate(rows) if not skipped[p] and row.vectors and row.source_text][:count]
        exact = self._from_texts([rows[place] for place in able])
        return [
            (after[place] == severity, abs(float(risks[place]) - risk))
            for place, (severity, risk, _) in zip(able, exact, strict=True)
        ]

    def _unfit(self, row: Any) -> str:
        """Why a row cannot be decided from its embedding; '' where it can."""
        if row.state == "not_scanned":
            return "not a text, or not scanned"
        needed = self._needed[row.stage]
        if not row.vectors:
            return "no embedding is stored" if row.vectors is None else "its embedding is damaged"
        if needed & self._linear and row.encoder != self._assembly.encoder_sha256:
            return "its embedding is of another encoder"
        if row.failures != "{}" and needed & set(_parsed(row.failures)):
            return "a classifier failed then"
        models = _parsed(row.models)
        for name in needed - self._linear:
            if models.get(name) != self._assembly.models[name]:
                return "a classifier that is not linear was another one then"
        return ""

    def _from_vectors(
        self, rows: Sequence[Any], places: Sequence[int], stage: Stage, after: list[int], risks: Floats, top: list[str]
    ) -> None:
        counts = np.array([len(row.layout) // 8 for row in rows])
        layout = np.frombuffer(b"".join(row.layout for row in rows), dtype="<u4").reshape(-1, 2)
        owner = np.repeat(np.arange(len(rows)), counts)
        new = np.ones(len(owner), dtype=bool)  # where a unit begins: another owner, or another span
        new[1:] = (owner[1:] != owner[:-1]) | (layout[1:] != layout[:-1]).any(axis=1)
        starts = np.flatnonzero(new)
        logits = self._logits(rows, counts, starts)
        pooled = self._bundle.risks(logits, stage)
        firsts = np.searchsorted(owner[starts], np.arange(len(rows)))
        severity = np.zeros(len(rows), dtype=np.int64)
        best, rule_of = np.zeros(len(rows)), np.full(len(rows), -1)
        names = list(pooled)
        for number, name in enumerate(names):
            worst = np.maximum.reduceat(pooled[name], firsts)
            for action, threshold in self._assembly.policy.document.rules[name].thresholds.items():
                severity = np.maximum(severity, np.where(worst >= threshold, action.severity, 0))
            rule_of = np.where(worst > best, number, rule_of)
            best = np.maximum(best, worst)
        for position, place in enumerate(places):
            after[place], risks[place] = int(severity[position]), best[position]
            top[place] = names[rule_of[position]] if rule_of[position] >= 0 else ""

    def _logits(
        self, rows: Sequence[Any], counts: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]
    ) -> dict[str, Floats]:
        """Classifier to the logits of all units."""
        found: dict[str, Floats] = {}
        if self._bundle.heads:
            joined = np.frombuffer(b"".join(row.vectors for row in rows), dtype="<f2")
            heads = self._bundle.head_logits(joined.astype(np.float32).reshape(int(counts.sum()), -1))
            worst = np.maximum.reduceat(heads, starts, axis=0)
            found = {name: worst[:, column] for column, name in enumerate(self._bundle.heads)}
        ends = np.cumsum(counts)
        said: dict[str, Floats] = {}
        for row, end, count in zip(rows, ends, counts, strict=True):
            for name, values in json.loads(row.others).items() if row.others else ():
                own = said.setdefault(unescape(name), np.full(int(ends[-1]), np.nan))
                own[end - count : end] = values
        for name in self._assembly.others:  # one that was not asked leaves the word to its head, if it has one
            silent = found.get(name, np.full(len(starts), -MAX_LOGIT))
            heard = np.maximum.reduceat(said[name], starts) if name in said else np.full(len(starts), np.nan)
            found[name] = np.where(np.isnan(heard), silent, heard)
        return found

    def _from_texts(self, rows: Sequence[Any]) -> list[tuple[int, float, str]]:
        found = []
        for start in range(0, len(rows), 64):
            passages = [Passage(_text_of(row), Stage(row.stage)) for row in rows[start : start + 64]]
            for verdict in self._assembly.judge.judge(passages):
                judged = verdict.judgement
                rule = max(judged.rules, key=lambda name: judged.rules[name], default="")
                found.append((judged.action.severity, judged.risk, rule))
        return found
