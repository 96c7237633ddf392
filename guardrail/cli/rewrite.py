"""`guardrail rewrite`: repair texts until the policy passes them. Nothing is recorded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

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
from guardrail.types import Candidate, Decision, Passage, State

__all__ = ["command", "exit_code", "rewrite_json"]


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "text": candidate.text,
        "method": candidate.method,
        "risk": candidate.risk,
        "passes": candidate.passes,
        "similarity": candidate.similarity,
        "fluency": candidate.fluency,
        "utility": candidate.utility,
        "seed": candidate.seed,
    }


def rewrite_json(decision: Decision) -> dict[str, Any]:
    """The shape of `rewrite --json`.

    `rewrite` is the text that may be delivered (the draft itself where nothing was wrong, None where it is withheld);
    `method` is None where nothing was rewritten.
    """
    rewrite = decision.rewrite
    return {
        "text": decision.source,
        "rewrite": decision.text,
        "state": decision.state,
        "method": rewrite.method if rewrite else None,
        "similarity": rewrite.similarity if rewrite else (1.0 if decision.text == decision.source else None),
        "risk_before": rewrite.risk_before if rewrite else decision.risk,
        "risk_after": rewrite.risk_after if rewrite else (decision.risk if decision.text is not None else None),
        "candidates": [_candidate_json(candidate) for candidate in rewrite.candidates] if rewrite else [],
        "seed": rewrite.seed if rewrite else None,
        "refusal": decision.refusal if decision.text is None else None,
        "note": decision.note,
    }


def exit_code(decisions: Iterable[Decision]) -> ExitCode:
    """3 if a text could not be judged, else 1 if any text had to be withheld, else 0."""
    worst = ExitCode.DONE
    for decision in decisions:
        if decision.state is State.BLOCKED_UNAVAILABLE:
            return ExitCode.FAILURE
        if decision.text is None:
            worst = ExitCode.VIOLATION
    return worst


def _show(decision: Decision, as_json: bool) -> None:
    if as_json:
        emit_json(rewrite_json(decision))
    else:
        from guardrail.cli.render import before_and_after

        console.print(before_and_after(decision))


@handled
def command(
    text: Annotated[str | None, typer.Argument(help="The draft to repair; - reads it from stdin.")] = None,
    input_file: InputOption = None,
    policy: PolicyOption = None,
    context: Annotated[list[str] | None, typer.Option(help="An earlier turn; repeat it, oldest first.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the rewriter: the same draft gives the same text.")] = None,
    community: CommunityOption = "default",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Repair a draft, or every row of a file, until the whole policy passes it.

    Exit status: 0 every text may be delivered, 1 one had to be withheld, 2 usage or configuration, 3 runtime failure.
    """
    single = read_text(text, input_file)
    rows = read_rows(input_file) if input_file is not None else []
    guard = open_guard(policy, config, community=community)
    earlier = tuple(context or ())
    drafts = [Passage(row.text, context=(*earlier, *row.context)) for row in rows]
    if single is not None:
        drafts = [Passage(single, context=earlier)]
    worst = ExitCode.DONE
    for batch in batches(drafts, 16):
        decisions = guard.rewrite_many(batch, seed=seed)
        for decision in decisions:
            _show(decision, as_json)
        worst = max(worst, exit_code(decisions))
    raise typer.Exit(worst)
