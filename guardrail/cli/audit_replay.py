"""`guardrail audit replay` and `reproduce`: decide again, under a draft policy or exactly as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from guardrail.cli.audit_common import UrlOption, moment, opened
from guardrail.cli.common import (
    ConfigOption,
    ExitCode,
    InputError,
    JsonOption,
    console,
    emit_json,
    error_console,
    handled,
    note,
    open_settings,
)
from guardrail.types import Action, State

if TYPE_CHECKING:
    from guardrail.evaluate.replay import Replay

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the group `audit`."""
    app.command()(replay)
    app.command()(reproduce)


@handled
def replay(
    policy: Annotated[str, typer.Option("--policy", help="The draft: a policy's name or file.")],
    community: Annotated[str | None, typer.Option("--community", help="Only this community.")] = None,
    state: Annotated[State | None, typer.Option(help="Only this state.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on: 2026-11-21, 12h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Changes to show.")] = 10,
    check: Annotated[int, typer.Option(min=0, help="Judge so many again from their texts, and compare.")] = 0,
    from_texts: Annotated[
        bool, typer.Option("--from-texts/--no-from-texts", help="Judge texts where no embedding is stored.")
    ] = True,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Decide stored decisions again under a draft policy and show the difference. Nothing is recorded."""
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from guardrail.assembly import assemble
    from guardrail.audit.query import Filters
    from guardrail.evaluate.replay import replay as run
    from guardrail.policy import load_policy

    settings = open_settings(config)
    assembly = assemble(load_policy(policy, settings.policies), settings)
    filters = Filters(community, state=state, since=moment(since, "since"), until=moment(until, "until"))
    columns = (SpinnerColumn(), TextColumn("decisions replayed"), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        opened(url, config) as store,
        store.engine.connect() as connection,
        Progress(*columns, console=error_console, transient=True) as bar,
    ):
        task = bar.add_task("", total=None)
        found = run(
            connection,
            assembly,
            filters,
            limit=limit,
            from_texts=from_texts,
            examples=examples,
            check=check,
            advance=lambda count: bar.advance(task, count),
        )
    if json:
        emit_json(_as_json(found))
    else:
        _show(found)


def _as_json(found: Replay) -> dict[str, Any]:
    moved = [
        {"before": before, "after": after, "count": count} for (before, after), count in sorted(found.moved.items())
    ]
    return {
        "policy": {"name": found.policy, "revision": found.revision},
        "replayed": found.replayed,
        "from_texts": found.from_texts,
        "skipped": found.skipped,
        "changed": found.changed,
        "moved": moved,
        "examples": found.examples,
        "human": found.human,
        "check": found.check,
    }


def _show(found: Replay) -> None:
    console.print(
        f"{found.replayed} decisions replayed under {found.policy} ({found.revision[:19]}), {found.changed} would change."
    )
    for reason, count in found.skipped.most_common():
        note(f"{count} left out: {reason}")
    table = Table("before \\ after", *Action, title="Decisions")
    for before in Action:
        counts = [found.moved[before, after] for after in Action]
        if any(counts):
            table.add_row(before, *(str(count) if count else "" for count in counts))
    console.print(table)
    if found.examples:
        shown = Table("id", "before", "after", "risk", "rule", title="Largest changes")
        for one in found.examples:
            shown.add_row(one.id, one.before, one.after, f"{one.risk_before:.2f} to {one.risk_after:.2f}", one.rule)
        console.print(shown)
    for when, judged in found.human.items():
        right = judged.get("tp", 0) + judged.get("tn", 0)
        listed = ", ".join(f"{name} {judged.get(name, 0)}" for name in ("tp", "fp", "fn", "tn"))
        console.print(f"{when}: {right} of {sum(judged.values())} as people judged them ({listed})")
    if found.check:
        console.print(
            f"{found.check['texts']:.0f} texts judged again: {found.check['equal']:.1%} equal actions, "
            f"largest difference of risk {found.check['largest_difference']:.3f}"
        )


@handled
def reproduce(
    decision: Annotated[str, typer.Argument(metavar="ID", help="Its id.")],
    policy: Annotated[
        str | None, typer.Option("--policy", help="Lends files that the recorded revision names; default: by name.")
    ] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Make one decision again, by its revision, models and seed, and say what differs. Exit 1: something does."""
    from guardrail.evaluate.reproduce import reproduce as again
    from guardrail.policy import load_policy

    settings = open_settings(config)
    with opened(url, config) as store:
        found = store.get(decision)
        if found is None:
            raise InputError(f"no decision {decision!r} is on record. `guardrail audit list` prints the ids.")
        differences = again(store, found, settings, load_policy(policy or found.policy, settings.policies))
    if json:
        emit_json({"id": found.id, "equal": not differences, "differences": differences})
    else:
        for one in differences:
            console.print(f"{one.what}: recorded {one.recorded!r}, now {one.now!r}", markup=False, soft_wrap=True)
        if not differences:
            console.print("equal")
    if differences:
        raise typer.Exit(ExitCode.VIOLATION)
