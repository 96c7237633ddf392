"""Charts as rectangles, for templates to draw as inline SVG. Numbers are in the picture's own units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Bar", "Chart", "stacked"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle; `title` says what it stands for."""

    x: float
    y: float
    width: float
    height: float
    series: str
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A bar chart over days. `top` is what its full height stands for."""

    width: int
    height: int
    bars: tuple[Bar, ...]
    top: int
    first: str
    last: str
    summary: str  # what somebody who cannot see it is told


def stacked(days: Sequence[str], series: Mapping[str, Sequence[int]], *, width: int = 720, height: int = 180) -> Chart:
    """Return a chart with one stack per day.

    Args:
        days: names of the days, oldest first.
        series: name to counts, one per day; the first stands at the bottom.
    """
    totals = [sum(counts[at] for counts in series.values()) for at in range(len(days))]
    top = max([1, *totals])
    step = width / max(1, len(days))
    gap = min(2.0, step / 4)
    bars = []
    for at, day in enumerate(days):
        base = float(height)
        for name, counts in series.items():
            if counts[at]:
                tall = height * counts[at] / top
                base -= tall
                title = f"{day}: {counts[at]} {name.replace('_', ' ')}"
                bars.append(Bar(round(at * step, 2), round(base, 2), round(step - gap, 2), round(tall, 2), name, title))
    most = max(range(len(days)), key=lambda at: totals[at], default=0)
    summary = f"{sum(totals)} in {len(days)} days"
    if any(totals):
        summary += f"; most on {days[most]}: {totals[most]}"
    return Chart(width, height, tuple(bars), top, days[0] if days else "", days[-1] if days else "", summary)
