"""What the record says as a whole: volume, the mix of actions, how rules drift, how often people overturn."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, select

from guardrail.audit.escaping import unescape
from guardrail.audit.query import Filters
from guardrail.audit.tables import decisions, reasons, reviews
from guardrail.errors import MissingDependencyError

__all__ = ["PLOTS", "Stats", "collect", "plot"]

PLOTS = ("volume", "actions", "rules", "overrides")


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures of the decisions that match some filters. Days are UTC, `YYYY-MM-DD`.

    Attributes:
        decisions: how many.
        days: day -> state -> count.
        actions: action -> count.
        rules: rule -> day -> {"count", "share" of the day's decisions, "risk": mean}.
        reviews: verdict -> count of reviews.
        overrides: rule -> {"reviewed", "overturned", "rate"} of its decisions with a verdict.
    """

    decisions: int = 0
    days: dict[str, dict[str, int]] = field(default_factory=dict)
    actions: dict[str, int] = field(default_factory=dict)
    rules: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    reviews: dict[str, int] = field(default_factory=dict)
    overrides: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def override_rate(self) -> float | None:
        """Share of verdicts that overturned or edited; None without verdicts."""
        against = self.reviews.get("overturn", 0) + self.reviews.get("edit", 0)
        total = against + self.reviews.get("uphold", 0)
        return against / total if total else None

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {**asdict(self), "override_rate": self.override_rate}


def collect(connection: Connection, filters: Filters) -> Stats:
    """Count what matches `filters`, in the database.

    Raises:
        ConfigurationError: a filter that makes no sense.
    """
    mine = filters.conditions(connection)
    day = _day(connection)
    days: dict[str, dict[str, int]] = {}
    per_state = select(day, decisions.c.state, func.count()).where(*mine).group_by(day, decisions.c.state).order_by(day)
    for when, state, count in connection.execute(per_state):
        days.setdefault(when, {})[state] = count
    per_action = select(decisions.c.action, func.count()).where(*mine).group_by(decisions.c.action)
    totals = {when: sum(states.values()) for when, states in days.items()}
    rules: dict[str, dict[str, dict[str, float]]] = {}
    joined = reasons.join(decisions, decisions.c.id == reasons.c.decision_id)
    per_rule = select(reasons.c.rule, day, func.count(), func.avg(reasons.c.risk)).select_from(joined)
    for rule, when, count, risk in connection.execute(
        per_rule.where(*mine).group_by(reasons.c.rule, day).order_by(day)
    ):
        figures = {"count": count, "share": count / totals[when], "risk": risk}
        rules.setdefault(unescape(rule), {})[when] = figures
    said = reviews.join(decisions, decisions.c.id == reviews.c.decision_id)
    verdicts = select(reviews.c.verdict, func.count()).select_from(said).where(*mine).group_by(reviews.c.verdict)
    return Stats(
        decisions=sum(totals.values()),
        days=days,
        actions=dict(connection.execute(per_action).all()),
        rules=rules,
        reviews=dict(connection.execute(verdicts).all()),
        overrides=_overrides(connection, mine),
    )


def _overrides(connection: Connection, mine: list[ColumnElement[bool]]) -> dict[str, dict[str, float]]:
    against = case((reviews.c.verdict.in_(("overturn", "edit")), 1), else_=0)
    judged = reviews.join(decisions, decisions.c.id == reviews.c.decision_id)
    judged = judged.join(reasons, reasons.c.decision_id == decisions.c.id)
    query = select(reasons.c.rule, func.count(), func.sum(against)).select_from(judged)
    query = query.where(*mine, reviews.c.verdict.in_(("uphold", "overturn", "edit"))).group_by(reasons.c.rule)
    return {
        unescape(rule): {"reviewed": count, "overturned": int(lost), "rate": int(lost) / count}
        for rule, count, lost in connection.execute(query)
    }


def _day(connection: Connection) -> ColumnElement[str]:
    if connection.dialect.name == "postgresql":
        return func.to_char(func.timezone(str(UTC), decisions.c.created_at), "YYYY-MM-DD")
    return func.substr(decisions.c.created_at, 1, 10)


def plot(stats: Stats, folder: Path) -> list[Path]:
    """Draw the four plots as PNG files and return their paths.

    Raises:
        MissingDependencyError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure  # no pyplot: no global state, no display
    except ImportError:
        raise MissingDependencyError("matplotlib", extra="plots", purpose="Plots of the record") from None
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name in PLOTS:
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        _DRAW[name](axes, stats)
        made.append(folder / f"{name}.png")
        figure.savefig(made[-1], dpi=120)
    return made


def _volume(axes: Any, stats: Stats) -> None:
    days = list(stats.days)
    below = [0] * len(days)
    for state in sorted({state for states in stats.days.values() for state in states}):
        counts = [stats.days[day].get(state, 0) for day in days]
        axes.bar(days, counts, bottom=below, label=state)
        below = [a + b for a, b in zip(below, counts, strict=True)]
    _finish(axes, "Decisions per day", "decisions", bool(days))


def _actions(axes: Any, stats: Stats) -> None:
    axes.bar(list(stats.actions), list(stats.actions.values()))
    _finish(axes, "What the policy asked for", "decisions", False)


def _rules(axes: Any, stats: Stats) -> None:
    for rule, days in sorted(stats.rules.items()):
        axes.plot(list(days), [100 * figures["share"] for figures in days.values()], marker="o", label=rule)
    _finish(axes, "Rules: share of the day's decisions", "percent", bool(stats.rules))


def _overrides_plot(axes: Any, stats: Stats) -> None:
    axes.bar(list(stats.overrides), [100 * figures["rate"] for figures in stats.overrides.values()])
    _finish(axes, "Overturned or edited, of the decisions with a verdict", "percent", False)


def _finish(axes: Any, title: str, unit: str, legend: bool) -> None:
    axes.set_title(title)
    axes.set_ylabel(unit)
    axes.tick_params(axis="x", labelrotation=30)
    if legend:
        axes.legend(fontsize="small")


_DRAW = {"volume": _volume, "actions": _actions, "rules": _rules, "overrides": _overrides_plot}
