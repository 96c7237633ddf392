"""Guides of the diffusion against each other, on the same network, noise and heads: control, what it costs, what it spoils.

Every way of guiding edits the same toxic drafts or continues after the same prefixes from the same noise. Control is the
share of proposals on the wanted side, in the latents and, where asked for, again after the decoder has written them out
without the draft in view; strain is how unlikely a latent has become.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guardrail.dglm.generate import Decoding
from guardrail.dglm.guidance import Guide, Heads
from guardrail.dglm.latents import Array, LatentStatistics
from guardrail.dglm.propose import STUDENT, ProposalSettings

if TYPE_CHECKING:
    from guardrail.dglm.pipeline import Pipeline
    from guardrail.dglm.propose import Diffusion

SCALES = (2.0, 8.0, 32.0, 128.0)
REFERENCE = ProposalSettings(sampler="ddim", steps=250, guide="backward")
"""The paper's guide at the paper's number of steps."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is proposed for: prefixes or drafts, unit embeddings (N, d), one proposal each.

    Attributes:
        name: of the task. guides: heads and sides. before: prefixes, None without. start: drafts to edit, None to continue.
        strength: of the edit.
    """

    name: str
    guides: tuple[Guide, ...]
    before: Array | None = None
    start: Array | None = None
    strength: float = 1.0

    @property
    def count(self) -> int:
        """Number of proposals."""
        known = self.start if self.start is not None else self.before
        return 0 if known is None else len(known)


def ways(student: bool, scales: Sequence[float] = SCALES, steps: int = 15) -> Iterator[tuple[str, ProposalSettings]]:
    """Yield named settings: none, C_t w, S w, w and the full backward at equal steps, the reference, and the student."""
    plain = ProposalSettings(steps=steps)
    yield "unguided", replace(plain, guide="none")
    for scale in scales:
        yield f"C_t w, s={scale:g}", replace(plain, scale=scale)
        yield f"C_t w, CFG++, s={scale:g}", replace(plain, scale=scale, renoise="unguided")
        yield f"S w, s={scale:g}", replace(plain, guide="covariance", scale=scale)
        yield f"w, s={scale:g}", replace(plain, guide="bare", scale=scale)
        yield f"backward, s={scale:g}", replace(plain, guide="backward", scale=scale)
        yield f"reference: backward, 250 steps, s={scale:g}", replace(REFERENCE, scale=scale)
        if student:
            yield f"student, 4 steps, s={scale:g}", replace(STUDENT, scale=scale)
    if student:
        yield "student, 4 steps, unguided", replace(STUDENT, guide="none")
    for preset in ("weak", "medium", "strong", "max"):
        yield f"safe latent, {preset}", replace(plain, safe_latent=preset)


def compare_guides(
    diffusion: Diffusion,
    task: Task,
    named: Sequence[tuple[str, ProposalSettings]],
    pipeline: Pipeline | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Return one row for each way of guiding.

    Keys: `name`, `task`; `control` (share of proposals whose P(allowed) is at least half), `log_odds` (mean over proposals
    of the smallest logit on the wanted side, nats), `control_decoded`, `log_odds_decoded` (the same of the decoder's greedy
    texts, embedded again; with a pipeline only), `similarity` (mean cosine to the draft, edits only), `strain` (mean squared
    Mahalanobis length over dimensions; about 1 for real sentences), `evaluations` per proposal, `ms` per proposal.
    """
    rows = []
    for name, settings in named:
        found = diffusion.propose(
            task.count, task.guides, before=task.before, start=task.start, strength=task.strength, settings=settings
        )
        row: dict[str, Any] = {
            "name": name,
            "task": task.name,
            **_control(found.embeddings, task, diffusion.statistics),
        }
        if pipeline is not None:
            texts = _written(pipeline, found.embeddings)
            again = _control(pipeline.encoder.encode(texts), task, diffusion.statistics)
            row |= {f"{key}_decoded": again[key] for key in ("control", "log_odds")}
        if task.start is not None:
            row["similarity"] = float(np.mean(np.sum(found.embeddings * task.start, axis=1)))
        row |= {
            "strain": float(strain(found.embeddings, diffusion.statistics).mean()),
            "evaluations": found.evaluations,
            "ms": 1000.0 * found.seconds / task.count,
        }
        rows.append(row)
        advance()
    return rows


def strain(x: Array, statistics: LatentStatistics) -> npt.NDArray[np.float64]:
    """Return the squared Mahalanobis length of embeddings (N, d), divided by d, (N,)."""
    values, vectors = statistics.spectrum()
    turned = statistics.normalise(x) @ vectors
    kept = values > 1e-6
    found: npt.NDArray[np.float64] = (turned[:, kept] ** 2 / values[kept]).mean(axis=1)
    return found


def _control(x: Array, task: Task, statistics: LatentStatistics) -> dict[str, float]:
    logits = Heads(task.guides, statistics).logits(statistics.normalise(x)).min(axis=1)
    return {"control": float((logits > 0.0).mean()), "log_odds": float(logits.mean())}


def _written(pipeline: Pipeline, embeddings: Array, rows: int = 64, tokens: int = 24) -> list[str]:
    """Write embeddings out greedily, with nothing else in view."""
    texts: list[str] = []
    for start in range(0, len(embeddings), rows):
        part = embeddings[start : start + rows]
        prefixes = [pipeline.prefix("", "")] * len(part)
        texts += [row.text for row in pipeline.write(part, prefixes, Decoding([0.0] * len(part), max_tokens=tokens))]
    return texts
