"""What a round of learning from choices came to, and the card of the checkpoint that it wrote."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from guardrail.learn.preference import Tuning

__all__ = ["Limits", "PreferenceLearned", "card"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How far choices may move the network.

    Attributes:
        cap: choices that one reviewer's weigh together, at most.
        share: of everybody's weight that one reviewer has, at most.
        tuning: with the bound of the divergence.
    """

    cap: float = 10.0
    share: float = 1.0 / 3.0
    tuning: Tuning = field(default_factory=Tuning)


@dataclass(frozen=True, slots=True)
class PreferenceLearned:
    """What a round came to.

    Attributes:
        choices, reviewers: on record. pairs: to learn from, after agreement; aside: kept for the proof.
        accuracy: share of the pairs kept aside that the network denoises in favour of the chosen text, before and after.
        loss: on them after, nats; log 2 is that of the network before.
        control: task -> share of the safety set's proposals on the allowed side, before and after.
        divergence: of the process from that before, nats. steps: of the training. stopped: whether the bound ended it.
        checkpoint: the folder that was written; None where it was refused. refused: why; empty where it was not.
    """

    choices: int
    reviewers: int
    pairs: int
    aside: int
    accuracy: tuple[float, float]
    loss: float
    control: dict[str, tuple[float, float]]
    divergence: float
    steps: int
    stopped: bool
    checkpoint: Path | None = None
    refused: str = ""


def card(found: PreferenceLearned, limits: Limits, parent: str, base: str) -> str:
    """Return `DIFFUSION.md`.

    Args:
        parent: sha256 of the diffusion that was tuned. base: folder in which it is kept.
    """
    chosen = f"chosen text easier to denoise: {found.accuracy[0]:.3f} before, {found.accuracy[1]:.3f} after"
    rows = [
        ("Parent", f"diffusion with sha256 `{parent}`, kept in `{base}/`"),
        ("Data", f"{found.choices} choices between two rewrites by {found.reviewers} reviewers"),
        ("Pairs", f"{found.pairs} to learn from, {found.aside} kept aside"),
        ("Method", "Diffusion-DPO (Wallace et al. 2023, equation 14) on the velocity; `guardrail learn --diffusion`"),
        ("Limits", f"`{json.dumps(asdict(limits))}`"),
        ("Steps", f"{found.steps}{', ended by the bound of the divergence' if found.stopped else ''}"),
        ("Divergence from the parent", f"{found.divergence:.2f} nats (estimate)"),
        ("Choices kept aside", f"{chosen}; loss {found.loss:.3f} (parent: {math.log(2.0):.3f})"),
    ]
    for name, (before, after) in found.control.items():
        rows.append((f"Control on the safety set, {name}", f"{before:.3f} before, {after:.3f} after"))
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"# A diffusion tuned by reviewers' choices\n\n| | |\n|---|---|\n{lines}\n\n"
        "There is no student: the parent's knows nothing of the choices. What the parent's card says of its data and limits\n"
        "holds here too.\n"
    )
