"""One run of head training: embed once, then make head after head, each with its card and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.classifiers.linear import write_head
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import DataError
from guardrail.evaluate.data import LabelledText
from guardrail.evaluate.metrics import RESAMPLES
from guardrail.learn.card import Provenance, render
from guardrail.learn.dataset import Dataset, build_dataset
from guardrail.learn.embeddings import Advance, EmbeddingCache
from guardrail.learn.invariance import identity_scatter
from guardrail.learn.logistic import Floats
from guardrail.learn.report import report
from guardrail.learn.train import Plan, train_head

SUMMARY = "metrics.json"


@dataclass(frozen=True, eq=False)
class HeadTraining:
    """Embedded rows, ready to learn any of their labels."""

    data: Dataset
    identity: Floats
    encoder: Encoder
    plan: Plan

    @classmethod
    def prepare(
        cls,
        rows: Sequence[LabelledText],
        encoder: str,
        device: str = "auto",
        cache: Path | None = None,
        seed: int = 0,
        advance: Advance | None = None,
    ) -> HeadTraining:
        """Embed the rows, and the sentences that teach the heads not to look at groups of people."""
        loaded = load_encoder(encoder, device)
        store = EmbeddingCache(loaded, cache)
        return cls(build_dataset(rows, store, advance), identity_scatter(store), loaded, Plan(seed=seed))

    def make(
        self, name: str, out: Path, origins: Mapping[str, str], command: str, resamples: int = RESAMPLES
    ) -> dict[str, Any]:
        """Train the head `name`, write `NAME.safetensors` and `NAME.md` to `out`, and return its figures.

        Raises:
            DataError: the rows cannot support it.
        """
        trained = train_head(name, self.data, self.encoder.sha256, self.identity, self.plan)
        figures = report(trained, self.data, self.plan, resamples)
        provenance = Provenance(command, self.plan.seed, self.encoder.name, origins)
        header = {"encoder": self.encoder.name, "command": command, "seed": str(self.plan.seed)}
        write_head(out / f"{name}.safetensors", trained.head, header)
        (out / f"{name}.md").write_text(render(trained, figures, self.data.used(name), provenance), encoding="utf-8")
        return {
            "sha256": trained.head.sha256,
            "train": {"n": trained.rows[0], "positives": trained.positives[0]},
            "calibration": {"n": trained.rows[1], "positives": trained.positives[1]},
            "strength": {"C": trained.strength.C, "identity": trained.strength.identity},
            **figures.as_json(),
        }

    def write_summary(self, out: Path, summary: Mapping[str, Any]) -> None:
        """Write the figures of all heads to `metrics.json`; heads of an earlier run in the same folder stay in it."""
        path = out / SUMMARY
        before = json.loads(path.read_text(encoding="utf-8"))["heads"] if path.is_file() else {}
        document = {
            "encoder": {"name": self.encoder.name, "sha256": self.encoder.sha256},
            "seed": self.plan.seed,
            "heads": dict(sorted({**before, **summary}.items())),
        }
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_origins(path: Path) -> dict[str, str]:
    """Read a YAML mapping of source to a line on its origin and licence.

    Raises:
        DataError: the file cannot be read or is no such mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"cannot be read as YAML: {error}", file=str(path)) from error
    if not isinstance(content, dict) or not all(isinstance(line, str) for line in content.values()):
        raise DataError("expected a mapping of source to a line of text", file=str(path))
    return {str(source): line for source, line in content.items()}
