"""A real guard whose every verdict is known: an all-pattern policy, an own database, no models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from guardrail import Guardrail
from guardrail.settings import Settings

POLICY = """
policy: clients
classifiers:
  banned: {kind: pattern, words: [zorgle]}
  secret: {kind: pattern, regex: ['\\bsk-[a-z0-9]{8}\\b']}
  split: {kind: pattern, regex: ['\\bgive up\\W+the plan\\b']}
rules:
  no-zorgle:
    stages: [input, output, tool_call, tool_result, retrieved]
    weights: {banned: 1.0, split: 1.0}
    combine: max
    thresholds: {block: 0.9}
  no-secrets:
    stages: [input, output, tool_call, tool_result, retrieved]
    weights: {secret: 1.0}
    combine: max
    thresholds: {redact: 0.9}
disclose: none
refusal: This was withheld.
"""


class OneVector:
    """An encoder that knows one vector: redaction reports a similarity, on which nothing here depends."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 1), dtype=np.float32)


@pytest.fixture(autouse=True, scope="module")  # not for the session: other folders' tests load the real encoder
def _no_models() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("guardrail.encoder.load_encoder", lambda *_: OneVector())
        yield


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guardrail]:
    folder: Path = tmp_path_factory.mktemp("guard")
    (folder / "clients.yaml").write_text(POLICY)
    settings = Settings.model_validate({"audit": {"url": f"sqlite:///{folder / 'audit.sqlite'}"}})
    guard = Guardrail(str(folder / "clients.yaml"), settings=settings)
    yield guard
    guard.close()
