"""`guardrail audit export` and `stats`: the record as files, and as figures."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from guardrail.cli.audit_common import UrlOption, moment, opened
from guardrail.cli.common import ConfigOption, InputError, JsonOption, console, emit_json, error_console, handled, note
from guardrail.cli.recorded import as_json
from guardrail.types import Action, State

__all__ = ["register"]

CommunityOption = Annotated[str | None, typer.Option("--community", help="Only this community.")]
RuleOption = Annotated[str | None, typer.Option(help="Only decisions for which this rule gave a reason.")]
ActionOption = Annotated[Action | None, typer.Option(help="Only this action.")]
StateOption = Annotated[State | None, typer.Option(help="Only this state.")]
SinceOption = Annotated[str | None, typer.Option(help="From this time on: 2026-11-21, 12h, 7d.")]
UntilOption = Annotated[str | None, typer.Option(help="Before this time.")]
ReviewerOption = Annotated[str | None, typer.Option(help="Only what this person has reviewed.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the group `audit`."""
    app.command()(export)
    app.command()(stats)


@handled
def export(
    out: Annotated[
        Path, typer.Argument(metavar="FILE", help="FILE.jsonl, FILE.parquet, or - for JSON lines on stdout.")
    ],
    community: CommunityOption = None,
    rule: RuleOption = None,
    action: ActionOption = None,
    state: StateOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    reviewer: ReviewerOption = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Write every decision that matches, whole, newest first: JSON lines or, with the extra `parquet`, Parquet.

    The texts are in it. With --json the count and the file are printed as one object.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from guardrail.audit.export import decisions_of, write_parquet
    from guardrail.audit.query import Filters

    if str(out) != "-" and out.suffix not in {".jsonl", ".parquet"}:
        raise InputError(f"{out}: expected a name that ends in .jsonl or .parquet")
    filters = Filters(
        community, rule, action, state, since=moment(since, "since"), until=moment(until, "until"), reviewer=reviewer
    )
    columns = (SpinnerColumn(), TextColumn("{task.completed} decisions exported"), TimeElapsedColumn())
    with opened(url, config) as store, store.engine.connect() as connection:
        found = decisions_of(connection, filters)
        if str(out) == "-":
            for one in found:
                emit_json(as_json(one))
            return
        with Progress(*columns, console=error_console, transient=True) as bar:
            task = bar.add_task("", total=None)

            def advance(count: int) -> None:
                bar.advance(task, count)

            count = (
                write_parquet(found, out, advance) if out.suffix == ".parquet" else _write_lines(found, out, advance)
            )
    if json:
        emit_json({"file": out, "decisions": count})
    else:
        note(f"{count} decisions written to {out}")


def _write_lines(found: Any, out: Path, advance: Any) -> int:
    from guardrail.cli.common import _plain

    count = 0
    with out.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        for one in found:
            stream.write(json_module.dumps(as_json(one), default=_plain, ensure_ascii=False) + "\n")
            count += 1
            advance(1)
    return count


@handled
def stats(
    community: CommunityOption = None,
    rule: RuleOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for volume, actions, rules, overrides as PNG.")] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Count: decisions per day and state, actions, each rule's share and mean risk per day, how often people overturn."""
    from guardrail.audit.query import Filters
    from guardrail.audit.stats import collect, plot

    filters = Filters(community, rule, since=moment(since, "since"), until=moment(until, "until"))
    with opened(url, config) as store, store.engine.connect() as connection:
        found = collect(connection, filters)
    made = [] if plots is None else plot(found, plots)
    if json:
        emit_json({**found.as_json(), "plots": made})
        return
    rate = "no verdicts yet" if found.override_rate is None else f"{found.override_rate:.1%} overturned or edited"
    console.print(f"{found.decisions} decisions, {sum(found.reviews.values())} reviews, {rate}")
    table = Table("rule", "reasons", "reviewed", "overturned", title="Rules")
    for name, days in sorted(found.rules.items()):
        over = found.overrides.get(name, {"reviewed": 0, "overturned": 0})
        total = sum(int(figures["count"]) for figures in days.values())
        table.add_row(name, str(total), str(over["reviewed"]), str(over["overturned"]))
    console.print(table)
    actions = Table("action", "decisions", title="Actions")
    for name, count in sorted(found.actions.items()):
        actions.add_row(name, str(count))
    console.print(actions)
    for path in made:
        note(f"drawn: {path}")
