"""Model cards: what a head measures, what it was trained on, what it can do, and where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardrail.learn.report import Report, mean_and_interval
from guardrail.learn.train import Trained

DESCRIPTIONS: Mapping[str, str] = {
    "toxicity": "Rude, hateful or aggressive text of any kind: what makes people leave a conversation.",
    "insult": "Demeaning words aimed at a person or a few people.",
    "profanity": "Swear words and obscene language, aimed at somebody or not.",
    "identity_hate": "Contempt for people because of a group that they belong to; naming a group is not enough.",
    "threat": "An intention or wish to harm somebody.",
    "sexual": "Sexually explicit or lewd text, and requests for it.",
    "violence": "Calls for, threats of, glorification of, or requests about violence against people or animals.",
    "self_harm": "Wishes, plans, encouragement or instructions to harm oneself; grief and help are not meant.",
    "jailbreak": "Prompts that try to talk a model out of its rules by role-play, invented modes or pressure.",
    "prompt_injection": "Instructions to the model that hide in content which it should only read.",
    "severe_toxicity": "Toxicity of the worst kind: hateful, obscene and aggressive at once.",
    "sexism": "Contempt, threats or stereotypes aimed at people because of their sex.",
    "harassment": "Abuse aimed at somebody who takes part in the conversation.",
    "illicit_request": "Requests for help with something illegal or harmful; dangerous words alone are not meant.",
    "unsafe_advice": "Replies that could hurt a person who follows them.",
    "offensive_in_context": "Replies that are offensive to the one they answer. Judged here without the context.",
    "prompt_extraction": "Attempts to make a model show its instructions.",
    "refusal": "A model declines to do what was asked.",
    "impatience": "Issue comments that press others to hurry.",
    "frustration": "Issue comments that vent bitter frustration.",
    "mocking": "Issue comments that make fun of others.",
    "sentiment": "Positive feeling (high) against negative feeling (low). A mood, not a harm.",
    "courtesy": "Polite, considerate wording (high) against brusque or insulting wording (low). A style, not a harm.",
}

LIMITS = (
    "English. Other languages reach the encoder as word fragments: there the probability means little.",
    "One sentence or a few: irony, quotation, reclaimed words and context that stands elsewhere are often misread.",
    "A linear head sees only what the frozen encoder kept of a text: a first filter and a guide for rewriting.",
    "Labels come from projects that disagree about the same text; see the figures on sources left out.",
)


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a head was made.

    Attributes:
        command: the command line.
        seed: of every draw.
        encoder: name of the encoder.
        sources: source to a line on its origin and licence; sources that are not described are listed by name.
    """

    command: str
    seed: int
    encoder: str
    sources: Mapping[str, str]


def render(trained: Trained, report: Report, used: Mapping[str, tuple[int, int]], provenance: Provenance) -> str:
    """Return the card as Markdown.

    Args:
        trained: the head.
        report: its figures.
        used: source to (positive, negative) training rows.
        provenance: how it was made.
    """
    head = trained.head
    parts = [
        f"# Head `{head.name}`",
        DESCRIPTIONS.get(head.name, f"The label `{head.name}` of the training data."),
        "Calibrated logistic regression on the unit sentence embedding: p = sigmoid(weight @ x + bias).",
        _facts(trained, provenance),
        "## Figures",
        _figures(report),
        "## On sources left out",
        _left_out(report),
        "## By source",
        _by_source(report),
        "## Training data",
        _data(used, provenance),
        "## Limits",
        "\n".join(f"- {limit}" for limit in LIMITS),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(trained: Trained, provenance: Provenance) -> str:
    head, strength = trained.head, trained.strength
    rows = [
        ("Encoder", f"{provenance.encoder}, sha256 `{head.encoder_sha256}`"),
        ("Head sha256", f"`{head.sha256}`"),
        ("Training rows", f"{trained.rows[0]:,}, of them {trained.positives[0]:,} positive"),
        ("Calibration rows", f"{trained.rows[1]:,}, of them {trained.positives[1]:,} positive"),
        ("Penalty", f"C {strength.C:g}, on named groups {strength.identity:g}"),
        ("Seed", str(provenance.seed)),
        ("Command", f"`{provenance.command}`"),
    ]
    return _table(("", ""), rows)


def _figures(report: Report) -> str:
    names = {
        "auroc": "AUROC",
        "auprc": "AUPRC",
        "recall_at_1pct_fpr": "Recall at 1% false positives",
        "ece": "Calibration error (ECE), rows as they are",
        "ece_balanced": "Calibration error (ECE), mixture as calibrated: 15% positive, sources levelled",
    }
    rows = [(label, mean_and_interval(report.metrics[name])) for name, label in names.items() if name in report.metrics]
    intro = (
        f"On {report.n:,} {report.split} rows ({report.positives:,} positive) of the same sources; "
        "in brackets the 95% bootstrap interval."
    )
    return f"{intro}\n\n{_table(('Metric', 'Value'), rows)}"


def _left_out(report: Report) -> str:
    if not report.left_out:
        return "Fewer than two sources have enough positives, so none could be left out."
    values = list(report.left_out.values())
    rows = [(source, f"{value:.3f}") for source, value in sorted(report.left_out.items(), key=lambda item: item[1])]
    intro = (
        f"AUROC on each source under a fit that never saw it: median {np.median(values):.3f}, worst {min(values):.3f}. "
        "These fits saw at most 20,000 rows. A source without negatives of its own is ranked against everyday text."
    )
    return f"{intro}\n\n{_table(('Source left out', 'AUROC'), rows)}"


def _by_source(report: Report) -> str:
    ranked = [
        (source, f"{n:,}", f"{positives:,}", f"{value:.3f}")
        for source, (n, positives, value) in sorted(report.by_source.items())
    ]
    clean = [(source, f"{n:,}", f"{share:.1%}") for source, (n, share) in sorted(report.false_positives.items())]
    parts = [_table(("Source", "Rows", "Positive", "AUROC"), ranked)] if ranked else []
    if clean:
        parts.append("Share at or over 0.5 on sources without a positive row:")
        parts.append(_table(("Source", "Rows", "Flagged"), clean))
    return "\n\n".join(parts) or "No source has 20 rows of both classes."


def _data(used: Mapping[str, tuple[int, int]], provenance: Provenance) -> str:
    rows = [
        (source, f"{positives:,}", f"{negatives:,}", provenance.sources.get(source, ""))
        for source, (positives, negatives) in sorted(used.items())
    ]
    intro = "Sources with the same label are weighted so that a large one does not set the style."
    return f"{intro}\n\n{_table(('Source', 'Positive', 'Negative', 'Origin and licence'), rows)}"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, tuple("---" for _ in header), *rows)]
    return "\n".join(lines)
