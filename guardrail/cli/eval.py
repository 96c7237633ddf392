"""`guardrail eval policy`: measure a policy on labelled texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from guardrail.cli.common import ConfigOption, JsonOption, PolicyOption, console, emit_json, handled, open_guard
from guardrail.cli.heads import DataOption, ResamplesOption, SeedOption, progress
from guardrail.types import Action, Stage

if TYPE_CHECKING:
    from guardrail.evaluate.policy import PolicyReport

__all__ = ["app"]

app = typer.Typer(help="Measure a policy on labelled texts.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Measure a policy on labelled texts."""


@app.command("policy")
@handled
def policy_command(
    data: DataOption,
    policy: PolicyOption = None,
    stage: Annotated[Stage, typer.Option(help="Where in a conversation the texts stand.")] = Stage.OUTPUT,
    at: Annotated[Action, typer.Option(help="The mildest action that counts as acting.")] = Action.FLAG,
    config: ConfigOption = None,
    seed: SeedOption = 0,
    resamples: ResamplesOption = 1_000,
    as_json: JsonOption = False,
) -> None:
    """Precision, recall, F1 and false-positive rate of a policy on rows with `labels: {"violation": 0 or 1}`."""
    from guardrail.evaluate.data import read_many
    from guardrail.evaluate.policy import evaluate_policy

    rows = read_many(data)
    guard = open_guard(policy, config)
    with progress("texts judged") as advance:
        report = evaluate_policy(rows, guard, stage=stage, at=at, resamples=resamples, seed=seed, advance=advance)
    if as_json:
        emit_json(report.as_json())
    else:
        console.print(_table(report))


def _table(report: PolicyReport) -> Table:
    from guardrail.learn.report import mean_and_interval

    table = Table("metric", "value (95% interval)", box=None, title=f"{report.policy} {report.revision[:19]}")
    for name, estimate in report.metrics.items():
        table.add_row(name, mean_and_interval(estimate))
    for name, count in report.confusion.items():
        table.add_row(name.replace("_", " "), f"{count:,}")
    if report.failures:
        table.add_row("could not be judged", f"{report.failures:,}")
    return table
