"""The figures of a head as Markdown, for people who decide whether to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from guardrail.evaluate.bias import BiasReport
from guardrail.evaluate.metrics import Estimate
from guardrail.evaluate.suite import HeadSuite, Slice

__all__ = ["render_suite"]

_TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "recall_at_1pct_fpr": "Recall at 1% false positives",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
}


def render_suite(suite: HeadSuite, tier: str, plot: str | None = None) -> str:
    """Return the card of one head.

    Args:
        suite: its figures.
        tier: what gave the scores.
        plot: name of the picture beside the card, if there is one.
    """
    whole = suite.overall
    intro = (
        f"{whole.n:,} texts, {whole.positives:,} positive. In brackets 95% bootstrap intervals. Recall and false "
        f"positives are counted at {suite.threshold:g}."
    )
    parts = [
        f"# `{suite.name}`, {tier}",
        intro,
        _table(("Metric", "Value"), [(_TITLES[name], _value(each)) for name, each in whole.metrics.items()])
        if whole.metrics
        else "Too few rows of one class for figures of ranking.",
        f"![Precision and recall, reliability, histogram]({plot})" if plot else "",
        _slices("By source", suite.by_source),
        _slices("By length", suite.by_length),
        _bias(suite.bias),
        _slices("By disguise", suite.by_disguise),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _slices(title: str, parts: Mapping[str, Slice]) -> str:
    if not parts:
        return ""
    rows = [
        (
            name,
            f"{part.n:,}",
            f"{part.positives:,}",
            _value(part.metrics.get("auroc")),
            _value(part.metrics.get("auprc")),
            _share(part.recall),
            _share(part.false_positives),
        )
        for name, part in parts.items()
    ]
    header = (
        title.removeprefix("By ").capitalize(),
        "Texts",
        "Positive",
        "AUROC",
        "AUPRC",
        "Recall",
        "False positives",
    )
    return f"## {title}\n\n{_table(header, rows)}"


def _bias(bias: BiasReport) -> str:
    if not bias.groups:
        return ""
    rows = [
        (name, f"{group.n:,}", f"{group.positives:,}", *(f"{v:.3f}" for v in (group.subgroup, group.bpsn, group.bnsp)))
        for name, group in bias.groups.items()
    ]
    gaps = "; ".join(
        f"{kind} {bias.gap(kind) or 0:.3f}" for kind in ("subgroup", "bpsn", "bnsp") if bias.gap(kind) is not None
    )
    intro = "Areas for texts that name a group (Borkan et al. 2019)." + (f" Best less worst: {gaps}." if gaps else "")
    header = ("Group", "Texts", "Positive", "Subgroup AUC", "BPSN AUC", "BNSP AUC")
    return f"## By group of people\n\n{intro}\n\n{_table(header, rows)}"


def _value(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, tuple("---" for _ in header), *rows)]
    return "\n".join(lines)
