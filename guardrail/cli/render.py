"""Decisions for people: what was found, how sure, where in the text, and what became of it.

Texts come from strangers, so nothing of them reaches the terminal unfiltered: control characters, escape sequences and
direction overrides are shown as visible marks, one for one, so that spans stay where they are.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from guardrail.types import Action, Candidate, Decision, Reason, Span, State

__all__ = [
    "bar",
    "because",
    "before_and_after",
    "candidates_table",
    "decision_view",
    "printable",
    "quoted",
    "risks_table",
    "verdict",
]

_COLOUR = {
    Action.ALLOW: "green",
    Action.FLAG: "yellow",
    Action.REDACT: "yellow",
    Action.REWRITE: "dark_orange",
    Action.ESCALATE: "magenta",
    Action.BLOCK: "red",
}
_STATE_COLOUR = {
    State.ALLOWED: "green",
    State.FLAGGED: "yellow",
    State.REDACTED: "yellow",
    State.REWRITTEN: "cyan",
    State.ESCALATED: "magenta",
    State.BLOCKED: "red",
    State.BLOCKED_UNAVAILABLE: "red",
    State.NOT_SCANNED: "yellow",
}
_WIDTH = 20
_MOST_SHOWN = 2000  # code points of one text; the rest is counted


def _mark(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code < 0x20:
        return chr(0x2400 + code)  # the control picture of that character
    if code == 0x7F:
        return "␡"
    if (
        unicodedata.category(character) in {"Cc", "Cs"}
        or character in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    ):
        return "�"
    return character


def printable(text: str) -> str:
    """`text` with every character that could steer a terminal replaced by one visible mark; the length stays."""
    return text if text.isprintable() else "".join(map(_mark, text))


def quoted(text: str, spans: Iterable[Span] = (), *, style: str = "bold red") -> Text:
    """A text for the terminal with `spans` (code points, half open) highlighted; a long one is cut, and says so."""
    shown = Text(printable(text[:_MOST_SHOWN]))
    for start, end in spans:
        shown.stylize(style, start, min(end, _MOST_SHOWN))
    if len(text) > _MOST_SHOWN:
        shown.append(f" … and {len(text) - _MOST_SHOWN:,} more characters", style="dim")
    return shown if text else Text("(empty)", style="dim")


def bar(risk: float, colour: str) -> Text:
    """A risk in [0, 1] as a bar of fixed width."""
    full = round(max(0.0, min(1.0, risk)) * _WIDTH)
    return Text.assemble(("█" * full, colour), ("░" * (_WIDTH - full), "dim"))


def _because(contributions: Mapping[str, float]) -> str:
    strongest = sorted(contributions.items(), key=lambda item: -abs(item[1]))[:3]
    return ", ".join(f"{name} {value:+.2f}" for name, value in strongest)


def risks_table(decision: Decision) -> Table:
    """Every rule with its risk as a bar, the worst first; the rules that acted with threshold and contributions."""
    table = Table(box=None, show_header=True, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("rule", "risk", "", "asks for", "because"):
        table.add_column(title, no_wrap=title != "because", overflow="fold")
    reasons = {reason.rule: reason for reason in decision.reasons}
    for rule, risk in sorted(decision.rules.items(), key=lambda item: -item[1]):
        reason = reasons.get(rule)
        colour = _COLOUR[reason.action] if reason else "green"
        table.add_row(
            Text(printable(rule), style=f"bold {colour}" if reason else ""),
            bar(risk, colour),
            f"{risk:.2f}",
            Text(f"{reason.action} (from {reason.threshold:.2f})", style=colour)
            if reason
            else Text("nothing", style="dim"),
            Text(_because(reason.contributions) if reason else "", style="dim"),
        )
    return table


def verdict(decision: Decision, *, judged_only: bool = False) -> Text:
    """One line: what became of the text (what the policy asks for, if it was only judged), its risk, the policy."""
    colour = _COLOUR[decision.action] if judged_only else _STATE_COLOUR[decision.state]
    name = str(decision.action if judged_only else decision.state).replace("_", " ").upper()
    return Text.assemble(
        (f" {name} ", f"bold reverse {colour}"),
        f"  risk {decision.risk:.2f}",
        (f"  ·  {decision.stage}  ·  policy {printable(decision.policy)} {decision.revision[:14]}", "dim"),
        ("  ·  shadow: delivered all the same" if decision.shadow else "", "yellow"),
    )


def _spans(reasons: Sequence[Reason]) -> list[Span]:
    return [span for reason in reasons for span in reason.spans]


def _notes(decision: Decision) -> list[RenderableType]:
    notes: list[RenderableType] = [
        Text(f"{printable(name)} could not score this text: {printable(why)}", style="red")
        for name, why in decision.failures.items()
    ]
    if decision.note:
        notes.append(Text(printable(decision.note), style="dim"))
    return notes


def decision_view(decision: Decision) -> Group:
    """One text that was judged, not repaired: verdict, the text with flagged parts marked, the risk of every rule."""
    parts: list[RenderableType] = [
        verdict(decision, judged_only=decision.state is not State.BLOCKED_UNAVAILABLE),
        Padding(quoted(decision.source, _spans(decision.reasons)), (0, 2)),
    ]
    if decision.rules:
        parts.append(Padding(risks_table(decision), (0, 2)))
    parts += [Padding(line, (0, 2)) for line in _notes(decision)]
    return Group(*parts)


def because(reason: Reason) -> Text:
    """One line: the rule that acted, its risk, and what it is for."""
    what = f": {printable(reason.description)}" if reason.description else ""
    asked = f"{reason.action} from {reason.threshold:.2f}"
    return Text(f"because of {printable(reason.rule)} ({reason.risk:.2f}, {asked}){what}", style="dim")


def _similarity(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def candidates_table(candidates: Sequence[Candidate], most: int) -> Table:
    """Proposed rewrites, best first as far as they were ranked: whether they pass, risk, similarity, text."""
    table = Table(box=None, show_header=True, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("passes", "risk", "similar", "by", "candidate"):
        table.add_column(title, no_wrap=title != "candidate", overflow="fold")
    for candidate in sorted(candidates, key=lambda one: (not one.passes, -(one.utility or 0.0)))[:most]:
        passes = Text("yes", style="green") if candidate.passes else Text("no", style="red")
        numbers = (f"{candidate.risk:.2f}", _similarity(candidate.similarity))
        table.add_row(passes, *numbers, candidate.method, quoted(candidate.text))
    return table


def before_and_after(decision: Decision, *, candidates: int = 0) -> Group:
    """A draft and what is delivered in its place, with the risk of both.

    Args:
        decision: what became of a text.
        candidates: how many of the candidates that were weighed to list.
    """
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    rewrite = decision.rewrite
    before = rewrite.risk_before if rewrite else decision.risk
    table.add_row("before", bar(before, "red"), f"{before:.2f}", quoted(decision.source, _spans(decision.reasons)))
    parts: list[RenderableType] = [verdict(decision), Padding(table, (0, 2))]
    if rewrite is not None and decision.text is not None:
        table.add_row(
            "after", bar(rewrite.risk_after, "green"), f"{rewrite.risk_after:.2f}", quoted(decision.delivered)
        )
        passed = sum(candidate.passes for candidate in rewrite.candidates)
        line = (
            f"by {rewrite.method}: {passed} of {len(rewrite.candidates)} candidates passed the whole policy; "
            f"similarity to the draft {_similarity(rewrite.similarity)}"
        )
        parts.append(Padding(Text(line, style="dim"), (0, 2)))
        if candidates and len(rewrite.candidates) > 1:
            parts.append(Padding(candidates_table(rewrite.candidates, candidates), (0, 2)))
    elif decision.altered:
        table.add_row("shown", Text(""), "", quoted(decision.delivered, style=""))
    parts += [Padding(line, (0, 2)) for line in _notes(decision)]
    return Group(*parts)
