"""`guardrail audit`: list decisions, show one whole, verify that the record is what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guardrail.cli import audit_keep, audit_out, audit_replay
from guardrail.cli.audit_common import UrlOption, moment, opened
from guardrail.cli.common import (
    ConfigOption,
    ExitCode,
    InputError,
    JsonOption,
    console,
    emit_json,
    handled,
    note,
)
from guardrail.cli.recorded import as_json, decision_view, decisions_table, verification_view
from guardrail.types import Action, Stage, State

__all__ = ["UrlOption", "app", "decisions_table", "moment"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
audit_out.register(app)
audit_keep.register(app)
audit_replay.register(app)


@app.command("list")
@handled
def list_decisions(
    community: Annotated[str | None, typer.Option("--community", help="Only this community.")] = None,
    rule: Annotated[str | None, typer.Option(help="Only decisions for which this rule gave a reason.")] = None,
    action: Annotated[Action | None, typer.Option(help="Only this action.")] = None,
    state: Annotated[State | None, typer.Option(help="Only this state.")] = None,
    stage: Annotated[Stage | None, typer.Option(help="Only this stage.")] = None,
    min_risk: Annotated[float | None, typer.Option(help="From this risk on, 0 to 1.")] = None,
    max_risk: Annotated[float | None, typer.Option(help="Up to this risk, 0 to 1.")] = None,
    since: Annotated[
        str | None, typer.Option(help="From this time on: 2026-11-21, 2026-11-21T14:30Z, 12h, 7d.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    text: Annotated[
        str | None, typer.Option(help='Words of the source or delivered text; word* and "a phrase" too.')
    ] = None,
    request: Annotated[str | None, typer.Option(help="Only this client call.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Only this conversation.")] = None,
    reviewer: Annotated[str | None, typer.Option(help="Only what this person has reviewed.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only texts of this person.")] = None,
    limit: Annotated[int, typer.Option(help="Rows of a page, 1 to 500.")] = 50,
    after: Annotated[str | None, typer.Option(help="Go on after a page: its `next`.")] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List decisions, newest first.

    With --json one object: {"items": [decision, ...], "next": what --after takes for the page that follows, or null}.
    """
    with opened(url, config) as store:
        page = store.list(
            community=community,
            rule=rule,
            action=action,
            state=state,
            stage=stage,
            min_risk=min_risk,
            max_risk=max_risk,
            since=moment(since, "since"),
            until=moment(until, "until"),
            text=text,
            request_id=request,
            conversation=conversation,
            reviewer=reviewer,
            subject=subject,
            limit=limit,
            after=after,
        )
    if json:
        emit_json({"items": [as_json(item, whole=False) for item in page.items], "next": page.next})
        return
    if not page.items:
        note("No decision matches.")
        return
    console.print(decisions_table(page.items))
    if page.next is not None:
        note(f"There is more: --after '{page.next}'")


@app.command()
@handled
def show(
    decision: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the beginning of it.")],
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show everything on record about one decision: reasons, texts, candidates, policy, models, timings, chain."""
    with opened(url, config) as store:
        found = store.get(decision)
        if found is None:
            matches = store.find_ids(decision)
            if len(matches) > 1:
                raise InputError(f"{decision!r} is the beginning of several ids: {', '.join(matches)}.")
            found = store.get(matches[0]) if matches else None
    if found is None:
        raise InputError(f"no decision {decision!r} is on record. `guardrail audit list` prints the ids.")
    if json:
        emit_json(as_json(found))
    else:
        console.print(decision_view(found))


@app.command()
@handled
def verify(
    community: Annotated[str | None, typer.Option("--community", help="Only this community's chain.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Compare with this checkpoint too.", exists=True, dir_okay=False)
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="PEM file: the checkpoint's signature is FILE.sig.")
    ] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Recompute the hash chains and name every row that was altered, removed or inserted. Exit 1: there is one.

    With a checkpoint that was kept elsewhere a removal at the very end of a chain, and a chain that was written anew,
    are noticed too.
    """
    with opened(url, config) as store:
        found = store.verify(community)
        if checkpoint is not None:
            found = audit_keep.against(store, found, checkpoint, public_key)
    if json:
        emit_json(
            {
                "ok": found.ok,
                "decisions": found.decisions,
                "chains": found.chains,
                "events": found.events,
                "problems": found.problems,
                "sealed": found.sealed,
            }
        )
    else:
        console.print(verification_view(found))
    if not found.ok:
        raise typer.Exit(ExitCode.VIOLATION)
