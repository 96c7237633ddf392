"""The card of the tuned tier: what it is, what it was trained on, what it can do label by label, where it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from guardrail.classifiers.tuned import tuned_facts
from guardrail.evaluate.data import LabelledText
from guardrail.learn.report import mean_and_interval
from guardrail.learn.tuned_data import CHARACTERS, MAX_TOKENS
from guardrail.learn.tuned_measures import MEASURED, TunedFigures

LIMITS = (
    "English. Other languages reach the network as word fragments: there the probability means little.",
    (
        f"At most {CHARACTERS} characters and {MAX_TOKENS} word pieces of a text were read in training and for these "
        "figures; in use, long texts are judged sentence by sentence."
    ),
    "Irony, quotation, reclaimed words and context that stands elsewhere are often misread.",
    "Labels come from projects that disagree about the same text: figures on other sources are lower than these.",
    (
        "`illicit_request`, `refusal`, `unsafe_advice`, the tones of issue comments and `sentiment` each come from one "
        "or two sources: expect them to have learned some of that source's style."
    ),
)


def render_tuned(
    figures: Mapping[str, TunedFigures], drawn: Sequence[LabelledText], origins: Mapping[str, str], path: Path
) -> str:
    """Return the card as Markdown.

    Args:
        figures: label to what it can do.
        drawn: the training rows.
        origins: source to a line on its origin and licence.
        path: the network's file.
    """
    facts = tuned_facts(path)
    pairs = [
        ("Encoder", f"{facts.notes.get('encoder', '')}, sha256 `{facts.encoder_sha256}`"),
        ("Network sha256", f"`{facts.sha256}`"),
        ("Size", f"{path.stat().st_size / 1e6:.1f} MB"),
        ("Layers", f"the first {facts.frozen} of the encoder as they are, the others tuned and kept as float16"),
        ("Labels", str(len(facts.heads))),
        ("Training rows", f"{len(drawn):,}"),
        ("Seed", facts.notes.get("seed", "")),
        ("Command", f"`{facts.notes.get('command', '')}`"),
    ]
    counts = Counter(row.source for row in drawn)
    data = [(source, f"{count:,}", origins.get(source, _own(source))) for source, count in sorted(counts.items())]
    parts = [
        "# The tuned tier",
        (
            "One network for all labels: the upper layers of the sentence encoder, fine-tuned jointly. A policy asks for "
            "it with `{kind: linear, tier: tuned}`; the linear head of the same name still steers the rewriter."
        ),
        _table(("", ""), pairs),
        "## Figures",
        (
            f"On test rows of the same sources, at most {MEASURED['test'].cap} of each source and side (rare positives "
            "are all kept); in brackets 95% bootstrap intervals. *Linear* is the shipped linear head on the same rows."
        ),
        _table(("Label", "Rows", "Positive", "AUROC", "Linear", "AUPRC", "Recall at 1% FPR", "ECE"), _rows(figures)),
        "## By source",
        _by_source(figures),
        "## Training data",
        (
            "Sources with the same label are weighted so that a large one does not set the style; some texts that name a "
            "group of people were read with another group's name, some short ones with some words disguised."
        ),
        _table(("Source", "Rows", "Origin and licence"), data),
        "## Limits",
        "\n".join(f"- {limit}" for limit in LIMITS),
    ]
    return "\n\n".join(parts) + "\n"


def _own(source: str) -> str:
    return "written for this project; Apache-2.0" if source.startswith("own-") else ""


def _rows(figures: Mapping[str, TunedFigures]) -> list[tuple[str, ...]]:
    return [
        (
            f"`{name}`" + ("" if each.calibrated else " (not calibrated)"),
            f"{each.n:,}",
            f"{each.positives:,}",
            mean_and_interval(each.metrics["auroc"]),
            "–" if each.linear is None else f"{each.linear:.3f}",
            *(mean_and_interval(each.metrics[metric]) for metric in ("auprc", "recall_at_1pct_fpr", "ece")),
        )
        for name, each in figures.items()
    ]


def _by_source(figures: Mapping[str, TunedFigures]) -> str:
    lines = []
    for name, each in figures.items():
        if len(each.by_source) < 2:
            continue
        values = [value for _, _, value, _ in each.by_source.values()]
        worst = sorted(each.by_source.items(), key=lambda item: item[1][2])[:5]
        listed = ", ".join(f"{source} {value:.3f}" for source, (_, _, value, _) in worst)
        lines.append(
            f"- `{name}`: median AUROC {float(np.median(values)):.3f} over {len(values)} sources; lowest: {listed}"
        )
    return "\n".join(lines) or "No label has two sources with 20 rows of both classes."


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, tuple("---" for _ in header), *rows)]
    return "\n".join(lines)
