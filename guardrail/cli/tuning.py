"""`guardrail policy tune` and `guardrail policy diff`: choose thresholds on data, and see what an edit would change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from guardrail.cli.common import (
    ConfigOption,
    InputError,
    JsonOption,
    console,
    emit_json,
    handled,
    note,
    open_settings,
    read_rows,
)
from guardrail.cli.training import DataOption, ResamplesOption, SeedOption, progress
from guardrail.errors import DataError, did_you_mean
from guardrail.types import Action, Decision, Passage, Stage

if TYPE_CHECKING:
    from guardrail.evaluate.data import LabelledText
    from guardrail.learn.thresholds import Tuned
    from guardrail.policy import Policy
    from guardrail.settings import Settings

__all__ = ["diff", "taught_overlap", "tune"]

BATCH = 64
MOST_LISTED = 30


def taught_overlap(policy: Policy, texts: Sequence[str]) -> list[str]:
    """Those of `texts` that are among the examples from which classifiers of the policy were taught."""
    from guardrail.classifiers.fewshot import overlap
    from guardrail.classifiers.taught import examples_of

    found: dict[str, None] = {}
    for name, spec in policy.document.classifiers.items():
        if spec.kind == "linear" and "examples" in spec.options:
            found |= dict.fromkeys(overlap(examples_of(name, spec.options["examples"], policy.directory), texts))
    return list(found)


def _decisions(policy: Policy, settings: Settings, passages: Sequence[Passage]) -> list[Decision]:
    from guardrail.engine import Guardrail

    guard = Guardrail(policy, settings=settings)
    found: list[Decision] = []
    with progress("texts judged") as advance:
        for start in range(0, len(passages), BATCH):
            found += guard.check_many(passages[start : start + BATCH])
            advance(len(passages[start : start + BATCH]))
    for passage, decision in zip(passages, found, strict=True):
        if decision.failures:
            name, why = next(iter(decision.failures.items()))
            raise DataError(f"{name!r} could not score {passage.text[:60]!r}, so nothing can be said: {why}")
    return found


# ------------------------------------------------------------------------------------------------------------ tune


@handled
def tune(
    policy: Annotated[str, typer.Argument(help="Name or file of the policy.")],
    data: DataOption,
    rule: Annotated[str | None, typer.Option("--rule", help="The rule; needed where there are several.")] = None,
    action: Annotated[Action, typer.Option("--action", help="Whose threshold is chosen.")] = Action.FLAG,
    label: Annotated[str, typer.Option("--label", help="The label that says what a violation is.")] = "violation",
    fpr: Annotated[
        float | None, typer.Option("--fpr", help="False-positive rate to stay within, such as 0.01.")
    ] = None,
    cost: Annotated[
        str | None, typer.Option("--cost", help="MISS:ALARM, what a missed violation and a false alarm cost: 5:1.")
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option("--prevalence", help="With --cost: share of violations in real traffic.")
    ] = None,
    stage: Annotated[Stage, typer.Option(help="Where in a conversation the texts stand.")] = Stage.OUTPUT,
    config: ConfigOption = None,
    seed: SeedOption = 0,
    resamples: ResamplesOption = 1_000,
    as_json: JsonOption = False,
) -> None:
    """Choose a threshold for a stated false-positive rate or cost. Exit 2: these texts cannot support the claim."""
    from guardrail.evaluate.data import labels_of, read_many
    from guardrail.learn.thresholds import tune_for_cost, tune_for_rate
    from guardrail.policy import load_policy

    if (fpr is None) == (cost is None):
        raise InputError("Say what to aim at: either --fpr RATE or --cost MISS:ALARM.")
    settings = open_settings(config)
    loaded = load_policy(policy, settings.policies)
    name = _rule(loaded, rule, stage)
    rows = _fresh(loaded, _labelled(read_many(data), label))
    decisions = _decisions(loaded, settings, [Passage(row.text, stage, row.context) for row in rows])
    risks = [decision.rules[name] for decision in decisions]
    truth = labels_of(rows, label) > 0.5
    if fpr is not None:
        found = tune_for_rate(risks, truth, fpr, resamples=resamples, seed=seed)
    else:
        miss, alarm = _costs(str(cost))
        found = tune_for_cost(risks, truth, miss, alarm, prevalence, resamples=resamples, seed=seed)
    before = loaded.document.rules[name].thresholds.get(action)
    snippet, conflicts = _snippet(loaded, name, action, float(found.threshold.value or 0.0))
    report = {"policy": loaded.name, "revision": loaded.revision, "rule": name, "action": action, "before": before}
    if as_json:
        emit_json({**report, **found.as_json(), "yaml": snippet, "conflicts": conflicts})
        return
    console.print(_table(found, before))
    for conflict in conflicts:
        note(f"note: {conflict}")
    typer.echo(snippet, nl=False)


def _rule(policy: Policy, wanted: str | None, stage: Stage) -> str:
    rules = policy.document.rules_at(stage)
    if wanted is None and len(rules) == 1:
        return next(iter(rules))
    if wanted not in rules:
        asked = f"there is no rule {wanted!r} at {stage}" if wanted else "say which rule (--rule)"
        raise InputError(f"{asked}; there are {', '.join(rules)}.{did_you_mean(wanted or '', rules)}")
    return wanted


def _labelled(rows: Sequence[LabelledText], label: str) -> list[LabelledText]:
    kept = [row for row in rows if label in row.labels and row.labels[label] != 0.5]  # 0.5 is undecided
    if not kept:
        known = sorted({name for row in rows for name in row.labels})
        raise DataError(f"no row has the label {label!r}; there are {', '.join(known)}.{did_you_mean(label, known)}")
    return kept


def _fresh(policy: Policy, rows: list[LabelledText]) -> list[LabelledText]:
    seen = set(taught_overlap(policy, [row.text for row in rows]))
    if seen:
        note(f"warning: {len(seen)} of these texts taught a classifier of the policy; they are left out")
    return [row for row in rows if row.text not in seen]


def _costs(written: str) -> tuple[float, float]:
    try:
        miss, alarm = (float(part) for part in written.split(":"))
    except ValueError:
        raise InputError(f"--cost must be MISS:ALARM, two numbers, not {written!r}.") from None
    return miss, alarm


def _snippet(policy: Policy, rule: str, action: Action, threshold: float) -> tuple[str, list[str]]:
    """What to write into the policy, and which of its other thresholds that would put out of order."""
    others = policy.document.rules[rule].thresholds
    conflicts = [
        f"`{other}` is at {value:g} and is {'more' if other > action else 'less'} severe; move it as well"
        for other, value in others.items()
        if (other > action and value < threshold) or (other < action and value > threshold)
    ]
    return f"rules:\n  {rule}:\n    thresholds: {{{action.value}: {threshold:g}}}\n", conflicts


def _table(found: Tuned, before: float | None) -> Table:
    from guardrail.learn.report import mean_and_interval

    table = Table("", "value (95% interval)", box=None)
    table.add_row("threshold", mean_and_interval(found.threshold))
    table.add_row("threshold now", "none" if before is None else f"{before:g}")
    table.add_row("recall", mean_and_interval(found.recall))
    table.add_row("false-positive rate", mean_and_interval(found.fpr))
    table.add_row("at most, with 95% confidence", f"{found.fpr_bound:.4f}")
    if found.cost is not None:
        table.add_row("cost per text", mean_and_interval(found.cost))
    table.add_row("violations, harmless texts", f"{found.positives:,}, {found.negatives:,}")
    return table


# ------------------------------------------------------------------------------------------------------------ diff


@handled
def diff(
    old: Annotated[str, typer.Argument(help="Name or file of a policy.")],
    new: Annotated[str, typer.Argument(help="Name or file of the policy that may take its place.")],
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help='JSON lines, one {"text": ..., "context": [...]} each; - is stdin.')
    ] = None,
    stage: Annotated[Stage, typer.Option(help="Where in a conversation the texts stand.")] = Stage.OUTPUT,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what differs between two policies, and, given texts, which of them would be treated differently."""
    from guardrail.policy import load_policy

    settings = open_settings(config)
    before, after = (load_policy(name, settings.policies) for name in (old, new))
    keys = _key_changes(_flat(before), _flat(after))
    rows = read_rows(corpus) if corpus is not None else []
    passages = [Passage(row.text, stage, row.context) for row in rows]
    decided = [_decisions(policy, settings, passages) for policy in (before, after)] if passages else [[], []]
    changes = [
        {
            "line": row.line,
            "text": row.text,
            "before": _said(one),
            "after": _said(other),
        }
        for row, one, other in zip(rows, *decided, strict=True)
        if one.action is not other.action
    ]
    report = {
        "before": {"name": before.name, "revision": before.revision},
        "after": {"name": after.name, "revision": after.revision},
        "keys": keys,
        "texts": len(rows),
        "changed": len(changes),
        "moves": [
            {"before": one, "after": other, "texts": count}
            for (one, other), count in Counter(
                (c["before"]["action"], c["after"]["action"]) for c in changes
            ).most_common()
        ],
        "changes": changes,
    }
    if as_json:
        emit_json(report)
    else:
        _print_diff(report, corpus is not None)


def _flat(policy: Policy) -> dict[str, Any]:
    """Dotted key to value, for every leaf of the resolved document."""
    found: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, Mapping) and value:
            for name, item in value.items():
                walk(item, f"{key}.{name}" if key else str(name))
        else:
            found[key] = value

    walk(policy.document.model_dump(mode="json", exclude={"policy", "extends"}), "")
    return found


def _key_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, Any]]:
    changed = [key for key in (*old, *(key for key in new if key not in old)) if old.get(key) != new.get(key)]
    return [{"key": key, "before": old.get(key), "after": new.get(key)} for key in changed]


def _said(decision: Decision) -> dict[str, Any]:
    reasons = decision.reasons
    return {"action": decision.action, "risk": decision.risk, "rule": reasons[0].rule if reasons else None}


def _print_diff(report: Mapping[str, Any], judged: bool) -> None:
    from rich.text import Text

    from guardrail.cli.render import printable

    if not report["keys"]:
        typer.echo("the policies say the same")
    for change in report["keys"]:
        old, new = change["before"], change["after"]
        sign = "+" if old is None else "-" if new is None else "~"
        values = f"{new}" if old is None else f"{old}" if new is None else f"{old} -> {new}"
        console.print(Text(printable(f"{sign} {change['key']}: {values}")))
    if not judged:
        return
    typer.echo(f"{report['changed']} of {report['texts']} texts would be treated differently")
    for move in report["moves"]:
        typer.echo(f"  {move['before']} -> {move['after']}: {move['texts']}")
    for change in report["changes"][:MOST_LISTED]:
        one, other = change["before"], change["after"]
        what = f"{one['action']} ({one['rule'] or 'no rule'}) -> {other['action']} ({other['rule'] or 'no rule'})"
        console.print(Text(printable(f"  line {change['line']}: {what}: {change['text'][:160]}")))
    if report["changed"] > MOST_LISTED:
        note(f"and {report['changed'] - MOST_LISTED} more; --json lists all")
