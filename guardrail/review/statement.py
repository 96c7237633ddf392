"""A statement of reasons in plain language: what was done with a text, why, by whom, and how to disagree.

Follows the list of Article 17(3) of the Digital Services Act (Regulation (EU) 2022/2065): the restriction, the facts, the use of
automated means, the ground, and the redress.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guardrail.audit.query import StoredDecision
from guardrail.types import State

__all__ = ["Statement", "statement"]

_DONE: Mapping[State, str] = {
    State.ALLOWED: "Your text was delivered as you wrote it.",
    State.FLAGGED: "Your text was delivered as you wrote it, and marked for a moderator to look at.",
    State.REDACTED: "Parts of your text were blanked out before it was delivered.",
    State.REWRITTEN: "Parts of your text were rewritten before it was delivered.",
    State.ESCALATED: "Your text was held back for a moderator to look at.",
    State.BLOCKED: "Your text was not delivered.",
    State.BLOCKED_UNAVAILABLE: "Your text was not delivered, because it could not be checked at that moment.",
    State.NOT_SCANNED: "Your text was not checked.",
}

_LATER = {
    "uphold": "A moderator has looked at this decision and has confirmed it.",
    "overturn": "A moderator has looked at this decision and has overturned it.",
    "edit": "A moderator has looked at this decision and has changed the text that is delivered.",
}

_REDRESS = (
    "You can appeal. A person who did not take part in this decision will read what you write and answer with reasons. You may "
    "also turn to a court, or to a dispute settlement body if there is one for this service."
)

_CHANCE = (
    (0.95, "almost certain"),
    (0.8, "very likely"),
    (0.6, "likely"),
    (0.4, "possible"),
    (0.0, "unlikely but possible"),
)


@dataclass(frozen=True, slots=True)
class Statement:
    """Paragraphs by heading, in the order in which they are read."""

    decision_id: str
    sections: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """The whole as plain text."""
        return "\n\n".join(f"{heading}\n{body}" for heading, body in self.sections)


def statement(
    decision: StoredDecision, rules: Mapping[str, Any], *, outcome: str | None = None, people: Sequence[str] = ()
) -> Statement:
    """Return the statement of reasons of a decision.

    Args:
        rules: of the resolved policy document, for the rules' own words.
        outcome: the verdict that stands, if people have looked at it.
        people: who they were; only whether there were any is told.
    """
    when = decision.created_at.strftime("%d %B %Y at %H:%M UTC").lstrip("0")
    restriction = _DONE[decision.state]
    if decision.shadow:
        restriction = "Your text was delivered as you wrote it. What follows is what would have been decided."
    later = _LATER.get(outcome or "", "")
    parts = [
        ("What was decided", f"{restriction} This was decided on {when}.{' ' + later if later else ''}"),
        ("Why", _why(decision, rules)),
        ("How it was decided", _how(decision, bool(people))),
        ("If you disagree", _REDRESS),
    ]
    return Statement(decision.id, tuple(parts))


def _why(decision: StoredDecision, rules: Mapping[str, Any]) -> str:
    lines = []
    for reason in decision.reasons:
        own = (rules.get(reason.rule) or {}).get("description") or reason.description
        name = reason.rule.replace("_", " ")
        rule = f"the rule “{name}”" + (f" ({own.rstrip('.')})" if own else "")
        if reason.error:
            lines.append(f"It could not be checked against {rule}, and such texts are held back.")
        else:
            lines.append(
                f"It is {_likelihood(reason.risk)} that the text breaks {rule}.{_where(decision, reason.spans)}"
            )
    if decision.state is State.BLOCKED and decision.note:
        lines.append("No acceptable way to say the same was found.")
    return " ".join(lines) or "No rule of this community was broken."


def _where(decision: StoredDecision, spans: Sequence[tuple[int, int]]) -> str:
    text = decision.source_text
    if text is None or not spans:
        return ""
    quoted = [text[start:end].strip() for start, end in spans[:3]]
    shown = ", ".join(f"“{part if len(part) <= 120 else part[:119] + '…'}”" for part in quoted if part)
    return f" This is about: {shown}." if shown else ""


def _how(decision: StoredDecision, people: bool) -> str:
    means = "The text was checked automatically, under the policy “" + decision.policy + "”"
    rewritten = ", and rewritten automatically" if decision.state is State.REWRITTEN else ""
    return f"{means}{rewritten}. " + (
        "People have reviewed it since." if people else "No person has reviewed it so far."
    )


def _likelihood(risk: float) -> str:
    return next((words for least, words in _CHANCE if risk >= least), "possible")
