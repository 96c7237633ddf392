"""`guardrail check`: judge texts under a policy and say why. Nothing is repaired and nothing is recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.common import (
    CommunityOption,
    ConfigOption,
    ExitCode,
    InputOption,
    JsonOption,
    PolicyOption,
    batches,
    console,
    emit_json,
    handled,
    open_guard,
    read_rows,
    read_text,
)
from guardrail.types import Action, Decision, Passage, Reason, Stage, State

if TYPE_CHECKING:
    from guardrail.engine import Guardrail
    from guardrail.explain.explanation import Explanation

__all__ = ["command", "decision_json", "exit_code"]


def _reason_json(reason: Reason) -> dict[str, Any]:
    return {
        "rule": reason.rule,
        "stage": reason.stage,
        "action": reason.action,
        "risk": reason.risk,
        "threshold": reason.threshold,
        "contributions": reason.contributions,
        "spans": [list(span) for span in reason.spans],
        "description": reason.description,
        "error": reason.error,
    }


def decision_json(decision: Decision) -> dict[str, Any]:
    """The shape of `check --json`; `risk` is the largest risk of any rule, spans are code points of the text."""
    return {
        "action": decision.action,
        "state": decision.state,
        "risk": decision.risk,
        "rules": decision.rules,
        "reasons": [_reason_json(reason) for reason in decision.reasons],
        "scores": decision.scores,
        "policy": {"name": decision.policy, "revision": decision.revision},
        "timings_ms": decision.timings_ms,
        "failures": decision.failures,
        "note": decision.note,
    }


def exit_code(decisions: Iterable[Decision]) -> ExitCode:
    """3 if a text could not be judged, else 1 if a rule acted on any text, else 0."""
    worst = ExitCode.DONE
    for decision in decisions:
        if decision.state is State.BLOCKED_UNAVAILABLE or any(reason.error for reason in decision.reasons[:1]):
            return ExitCode.FAILURE
        if decision.action is not Action.ALLOW:
            worst = ExitCode.VIOLATION
    return worst


def _show(decision: Decision, as_json: bool, explanation: Explanation | None) -> None:
    if as_json:
        emit_json(decision_json(decision) | ({"explanation": explanation.as_json()} if explanation else {}))
        return
    from guardrail.cli.explain import explanation_view
    from guardrail.cli.render import decision_view

    console.print(decision_view(decision))
    if explanation is not None:
        console.print(explanation_view(explanation))


def _explained(guard: Guardrail, passage: Passage, decision: Decision, wanted: bool) -> Explanation | None:
    return guard.explain(passage) if wanted and decision.action is not Action.ALLOW else None


@handled
def command(
    text: Annotated[str | None, typer.Argument(help="The text to judge; - reads it from stdin.")] = None,
    input_file: InputOption = None,
    policy: PolicyOption = None,
    stage: Annotated[Stage, typer.Option(help="Where in a conversation the text stands.")] = Stage.OUTPUT,
    context: Annotated[list[str] | None, typer.Option(help="An earlier turn; repeat it, oldest first.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say of every flagged text which words did it.")] = False,
    community: CommunityOption = "default",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a text, or every row of a file, under a policy and say why.

    Exit status: 0 nothing found, 1 a rule acted, 2 usage or configuration, 3 a text could not be judged.
    """
    single = read_text(text, input_file)
    rows = read_rows(input_file) if input_file is not None else []
    guard = open_guard(policy, config, community=community)
    if single is not None:
        passage = Passage(single, stage, tuple(context or ()))
        decisions = guard.check_many([passage])
        _show(decisions[0], as_json, _explained(guard, passage, decisions[0], explain))
        raise typer.Exit(exit_code(decisions))
    worst = ExitCode.DONE
    for batch in batches(rows):
        passages = [Passage(row.text, stage, (*(context or ()), *row.context)) for row in batch]
        decisions = guard.check_many(passages)
        for passage, decision in zip(passages, decisions, strict=True):
            _show(decision, as_json, _explained(guard, passage, decision, explain))
        worst = max(worst, exit_code(decisions))
    raise typer.Exit(worst)
