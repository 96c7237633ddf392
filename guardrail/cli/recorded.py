"""Recorded decisions for people and for programs: tables, one decision whole, the outcome of a verification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from guardrail.audit.export import without_nan
from guardrail.cli.render import printable, quoted
from guardrail.types import Reason, State

if TYPE_CHECKING:
    from guardrail.audit.query import StoredCandidate, StoredDecision
    from guardrail.audit.verify import Verification

__all__ = ["as_json", "decision_view", "decisions_table", "verification_view"]

_COLOUR = {
    State.ALLOWED: "green",
    State.FLAGGED: "yellow",
    State.REDACTED: "yellow",
    State.REWRITTEN: "cyan",
    State.ESCALATED: "magenta",
    State.BLOCKED: "red",
    State.BLOCKED_UNAVAILABLE: "red",
    State.NOT_SCANNED: "yellow",
}
_SHORT = 80  # code points of a delivered text in a table
_NOT_STORED = Text("(not stored)", style="dim")
_SEALED = Text("[encrypted]", style="dim")


# ------------------------------------------------------------------------------------------------------ for programs


def as_json(decision: StoredDecision, *, whole: bool = True) -> dict[str, Any]:
    """The shape of `audit show --json`; without scores, rewrite and candidates where not `whole`."""
    left_out = set() if whole else {"scores", "rewrite", "candidates"}
    shape: dict[str, Any] = {
        field.name: getattr(decision, field.name) for field in fields(decision) if field.name not in left_out
    }
    for name in {"reasons", "rewrite", "candidates"} - left_out:
        shape[name] = without_nan(shape[name])
    return shape


# -------------------------------------------------------------------------------------------------------- for people


def decisions_table(decisions: Sequence[StoredDecision]) -> Table:
    """Two lines per decision, for a terminal of 80 columns: when, where, what became of it and what was asked, how sure
    and by which rules, what the reader saw."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("time", "community\nstage", "state\naction"):
        table.add_column(title, no_wrap=True)
    table.add_column("risk\nrules", overflow="fold", max_width=20)
    table.add_column("delivered", ratio=1, overflow="fold")
    table.add_column("id", no_wrap=True, style="dim")
    for decision in decisions:
        local = decision.created_at.astimezone()
        rules = ", ".join(dict.fromkeys(printable(reason.rule) for reason in decision.reasons))
        table.add_row(
            f"{local:%Y-%m-%d}\n{local:%H:%M:%S}",
            Text(f"{printable(decision.community)}\n{decision.stage.value}"),
            Text.assemble(_state(decision), "\n", decision.action.value),
            Text(f"{decision.risk:.2f}\n{rules}"),
            _short(decision.delivered_text) if not decision.locked else _SEALED,
            printable(decision.id[:8]),
        )
    return table


def _state(decision: StoredDecision) -> Text:
    shadow = " (shadow)" if decision.shadow else ""
    return Text(decision.state.value + shadow, style=_COLOUR[decision.state])


def _short(text: str | None) -> Text:
    if text is None:
        return _NOT_STORED
    line = " ".join(text[: 2 * _SHORT].split())
    cut = len(text) > 2 * _SHORT or len(line) > _SHORT
    return Text(printable(line[:_SHORT]) + ("…" if cut else "")) if text else Text("(empty)", style="dim")


def decision_view(decision: StoredDecision) -> Group:
    """Everything on record about one decision."""
    parts: list[RenderableType] = [_facts(decision), *_texts(decision)]
    if decision.reasons:
        parts += [_title("Reasons"), *(Padding(line, (0, 2)) for line in _reasons(decision))]
    if decision.rules or decision.scores:
        parts += [_title("Risks and scores"), Padding(_measures(decision), (0, 2))]
    if decision.rewrite is not None or decision.candidates:
        parts += [_title("Rewrites"), *(Padding(line, (0, 2)) for line in _rewrites(decision))]
    parts += [_title("Proof"), Padding(_proof(decision), (0, 2))]
    return Group(*parts)


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _pairs(rows: Sequence[tuple[str, RenderableType]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _facts(decision: StoredDecision) -> Table:
    rows: list[tuple[str, RenderableType]] = [
        ("id", printable(decision.id)),
        ("time", f"{decision.created_at.astimezone():%Y-%m-%d %H:%M:%S.%f %Z}"),
        ("community", printable(decision.community)),
        ("request", printable(decision.request_id) or "-"),
        ("conversation", printable(decision.conversation or "-")),
        ("stage", decision.stage.value),
        ("state", _state(decision)),
        ("action", decision.action.value),
        ("risk", f"{decision.risk:.4f}"),
    ]
    if decision.note:
        rows.append(("note", Text(printable(decision.note))))
    if decision.locked:
        rows.append(("texts", Text(decision.locked, style="yellow")))
    rows += [
        (f"failure of {printable(name)}", Text(printable(why), style="red")) for name, why in decision.failures.items()
    ]
    return _pairs(rows)


def _texts(decision: StoredDecision) -> Iterator[RenderableType]:
    spans = [span for reason in decision.reasons for span in reason.spans]
    yield _title(f"Source ({decision.source_length:,} characters)")
    source = decision.source_text
    yield Padding(_NOT_STORED if source is None else quoted(source, spans), (0, 2))
    if not decision.altered:
        yield Text("\nDelivered unchanged", style="bold")
        return
    what = "Delivered instead: a refusal" if decision.withheld else "Delivered instead"
    yield _title(f"{what} ({decision.delivered_length:,} characters)")
    delivered = decision.delivered_text
    yield Padding(_NOT_STORED if delivered is None else quoted(delivered), (0, 2))


def _reasons(decision: StoredDecision) -> Iterator[Text]:
    for reason in decision.reasons:
        line = Text.assemble((printable(reason.rule), "bold"), f" asks to {reason.action.value}: ")
        if reason.error:
            line.append(f"it could not be judged ({printable(reason.error)}), and its on_error says so.")
        else:
            line.append(f"its risk {reason.risk:.2f} reaches the threshold {reason.threshold:.2f}.")
        if reason.contributions:
            strongest = sorted(reason.contributions.items(), key=lambda item: -abs(item[1]))
            line.append(
                " Because of " + ", ".join(f"{printable(name)} {share:+.2f}" for name, share in strongest) + "."
            )
        line.append(_passages(decision, reason))
        if reason.description:
            line.append(f" The rule: {printable(reason.description)}", style="dim")
        yield line


def _passages(decision: StoredDecision, reason: Reason) -> str:
    if not reason.spans:
        return ""
    if decision.source_text is None:
        return " At " + ", ".join(f"{start} to {end}" for start, end in reason.spans) + "."
    shown = [f"“{printable(decision.source_text[start:end][:60])}”" for start, end in reason.spans[:5]]
    return " At " + ", ".join(shown) + (" and more." if len(reason.spans) > len(shown) else ".")


def _measures(decision: StoredDecision) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "before"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    after = decision.rewrite.scores_after if decision.rewrite else {}
    if after:
        table.add_column("after", justify="right", no_wrap=True)
    for name, risk in _falling(decision.rules):
        table.add_row(Text(f"rule {printable(name)}"), _number(risk), *([""] if after else []))
    for name, score in _falling(decision.scores):
        table.add_row(printable(name), _number(score), *([_number(after.get(name))] if after else []))
    return table


def _falling(values: Mapping[str, float | None]) -> list[tuple[str, float | None]]:
    return sorted(values.items(), key=lambda item: (-(item[1] if item[1] is not None else -1.0), item[0]))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _rewrites(decision: StoredDecision) -> Iterator[RenderableType]:
    for one in (*([decision.rewrite] if decision.rewrite else []), *decision.candidates):
        figures = [
            printable(one.method),
            f"risk {_number(one.risk_before)} to {_number(one.risk_after)}",
            f"similarity {_number(one.similarity)}",
            *([f"fluency {_number(one.fluency)}"] if one.fluency is not None else []),
            *([f"utility {_number(one.utility)}"] if one.utility is not None else []),
            *([f"seed {one.seed}"] if one.seed is not None else []),
        ]
        yield Text.assemble(_role(one), (" · " + " · ".join(figures), "dim"))
        yield Padding(_NOT_STORED if one.text is None else quoted(one.text), (0, 4))


def _role(one: StoredCandidate) -> Text:
    if one.position == 0:
        return Text("repaired draft", style="bold")
    what = "chosen" if one.chosen else "passed" if one.passes else "failed"
    return Text(f"candidate {one.position} {what}", style={"chosen": "cyan", "passed": "green", "failed": "red"}[what])


def _proof(decision: StoredDecision) -> Table:
    rows: list[tuple[str, RenderableType]] = [
        ("policy", f"{printable(decision.policy)} {printable(decision.revision)}"),
        *((f"model {printable(name)}", printable(sha)) for name, sha in sorted(decision.models.items())),
        ("timings", ", ".join(f"{name} {_number(spent)} ms" for name, spent in decision.timings_ms.items()) or "-"),
        ("source digest", decision.source_digest),
        ("delivered digest", decision.delivered_digest),
        ("salt", decision.salt),
        ("chain", f"number {decision.sequence} of {printable(decision.community)}"),
        ("previous hash", decision.previous_hash),
        ("hash", decision.hash),
    ]
    return _pairs(rows)


def verification_view(found: Verification) -> Group:
    """Every chain with its end, then every problem."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("community", "decisions", "ends at", "with hash"):
        table.add_column(title, no_wrap=title != "with hash", overflow="fold")
    for chain in found.chains:
        table.add_row(printable(chain.community), f"{chain.decisions:,}", str(chain.sequence), chain.hash)
    parts: list[RenderableType] = [table]
    for problem in found.problems:
        where = " ".join(
            [
                *([printable(problem.community)] if problem.community else []),
                *([f"number {problem.sequence}"] if problem.sequence is not None else []),
                *([printable(problem.id)] if problem.id else []),
            ]
        )
        parts.append(Text.assemble((f"{problem.kind}: ", "bold red"), f"{where}: {problem.detail}"))
    for key, count in found.sealed.items():
        parts.append(
            Text(
                f"{count:,} texts are encrypted with the key {key}, which is not configured: they were not compared with their "
                "digests. Add the key to GUARDRAIL_AUDIT_ENCRYPTION_KEY.",
                style="yellow",
            )
        )
    if found.ok:
        parts.append(Text(f"{found.decisions:,} decisions verified: every row is as it was written.", style="green"))
    else:
        parts.append(Text(f"{len(found.problems)} problems in {found.decisions:,} decisions.", style="bold red"))
    return Group(*parts)
