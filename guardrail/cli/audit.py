"""`guardrail audit`: list decisions, show one whole, verify that the record is what was written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.common import (
    ConfigOption,
    ExitCode,
    InputError,
    JsonOption,
    console,
    emit_json,
    handled,
    note,
    open_settings,
)
from guardrail.cli.recorded import as_json, decision_view, decisions_table, verification_view
from guardrail.types import Action, Stage, State

if TYPE_CHECKING:
    from guardrail.audit.store import AuditStore

__all__ = ["UrlOption", "app", "decisions_table", "moment"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="The audit database; default: audit.url of the settings.", show_default=False),
]

_AGES = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str | None, name: str) -> datetime | None:
    """Read a time: ISO 8601 (local time, if it names no zone), or an age such as `30m`, `12h`, `7d`, `2w`.

    Raises:
        InputError: neither.
    """
    if text is None:
        return None
    age = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    try:
        if age:
            return datetime.now(UTC) - timedelta(**{_AGES[age[2]]: int(age[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise InputError(
            f"--{name} is {text!r}, expected a time such as 2026-11-21 or 2026-11-21T14:30:00Z, or an age such as 12h"
        ) from None


@contextmanager
def _store(url: str | None, config: Any) -> Iterator[AuditStore]:
    from guardrail.audit.store import open_store

    store = open_store(url or open_settings(config).audit.url, create=False)
    try:
        yield store
    finally:
        store.close()


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
    text: Annotated[str | None, typer.Option(help="Part of the source or of the delivered text.")] = None,
    request: Annotated[str | None, typer.Option(help="Only this client call.")] = None,
    conversation: Annotated[str | None, typer.Option(help="Only this conversation.")] = None,
    limit: Annotated[int, typer.Option(help="Rows of a page, 1 to 500.")] = 50,
    after: Annotated[str | None, typer.Option(help="Go on after a page: its `next`.")] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List decisions, newest first.

    With --json one object: {"items": [decision, ...], "next": what --after takes for the page that follows, or null}.
    """
    with _store(url, config) as store:
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
    with _store(url, config) as store:
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
    url: UrlOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Recompute the hash chains and name every row that was altered, removed or inserted. Exit 1: there is one.

    The printed end of each chain (sequence and hash) is worth keeping elsewhere: with it, a removal at the very end of
    the chain can be noticed too.
    """
    with _store(url, config) as store:
        found = store.verify(community)
    if json:
        emit_json({"ok": found.ok, "decisions": found.decisions, "chains": found.chains, "problems": found.problems})
    else:
        console.print(verification_view(found))
    if not found.ok:
        raise typer.Exit(ExitCode.VIOLATION)
