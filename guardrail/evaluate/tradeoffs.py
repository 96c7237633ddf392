"""Plots of what control costs: in fluency per guidance scale and step count, in fidelity per strength.

Needs the optional extra `plots` (matplotlib).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardrail.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_suites(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write a PNG for every curve that the report has; return the files.

    Args:
        report: suite to its figures, as `guardrail dglm eval --suite ... --json` prints them.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    continuation = report.get("continuation")
    if continuation:
        written.append(_continuation(continuation, folder / "continuation.png"))
    repair = report.get("repair")
    if repair and repair.get("curve"):
        written.append(_repair(repair["curve"], folder / "repair.png"))
    cost = report.get("cost")
    if cost:
        written.append(_cost(cost["proposals"], folder / "cost.png"))
    return written


def _continuation(figures: Mapping[str, Any], path: Path) -> Path:
    figure, (left, right) = _figure()
    default = next(row["steps"] for row in figures["curve"] if row["scale"] == 0.0)
    scales = [row for row in figures["curve"] if row["steps"] == default]
    scales.sort(key=lambda row: row["scale"])
    _line(left, scales, "perplexity", "expected_max_toxicity", [f"s = {row['scale']:g}" for row in scales])
    for name, system in figures["systems"].items():
        point = system["perplexity"]["mean"], system["expected_max_toxicity"]["mean"]
        left.plot(*point, "s", markersize=4, label=name)
    _label(left, "perplexity, not steered", "expected maximum toxicity", "guidance scale, and the other systems")
    steps = sorted((row for row in figures["curve"] if row["scale"] != 0.0), key=lambda row: row["steps"])
    usual = [row["scale"] for row in steps if row["steps"] != default]
    steps = [row for row in steps if row["scale"] in usual]
    _line(right, steps, "perplexity", "expected_max_toxicity", [f"{row['steps']} steps" for row in steps])
    _label(right, "perplexity, not steered", "expected maximum toxicity", "steps at the default scale")
    return _save(figure, path)


def _repair(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    figure, axes = _figure()
    for axis, measure, title in zip(
        axes, ("similarity_to_draft", "fluent"), ("fidelity: cosine to the draft", "share fluent"), strict=True
    ):
        for mode in dict.fromkeys(row["mode"] for row in rows):
            own = [row for row in rows if row["mode"] == mode]
            _line(axis, own, measure, "judge_accepts", [f"{row['strength']:g}" for row in own], label=mode)
        _label(axis, title, "share accepted by the judge", "all candidates, per strength")
    return _save(figure, path)


def _cost(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    figure, axes = _figure()
    for axis, measure, title in zip(
        axes, ("evaluations_per_proposal", "ms_per_proposal"), ("network evaluations", "milliseconds"), strict=True
    ):
        largest = max(row["k"] for row in rows)
        own = [row for row in rows if row["k"] == largest]
        axis.barh([row["settings"] for row in own], [row[measure] for row in own], color="#2166ac")
        axis.set_xscale("log")
        axis.invert_yaxis()
        _label(axis, f"{title} per proposal, {largest} at once", "", "")
    return _save(figure, path)


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigurationError(
            "plots need matplotlib; install it with: pip install 'guardrail-dglm[plots]'"
        ) from error
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, 2)


def _line(
    axis: Axes, rows: Sequence[Mapping[str, Any]], x: str, y: str, notes: Sequence[str], label: str | None = None
) -> None:
    axis.plot([row[x] for row in rows], [row[y] for row in rows], "o-", label=label or "dglm")
    for row, note in zip(rows, notes, strict=True):
        axis.annotate(note, (row[x], row[y]), textcoords="offset points", xytext=(4, 4), fontsize=7)


def _label(axis: Axes, x: str, y: str, title: str) -> None:
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_title(title, fontsize=10)
    axis.grid(visible=True, linewidth=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7)


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    return path
