"""Policy files in the test's own empty working directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from guardrail.policy import Policy, load_policy

Write = Callable[..., Path]
Load = Callable[..., Policy]

MINIMAL = """\
policy: p
classifiers:
  toxicity: {kind: linear}
  insult: {kind: linear}
rules:
  harassment:
    weights: {toxicity: 1.0, insult: 0.5}
    thresholds: {flag: 0.4, rewrite: 0.6, block: 0.9}
"""


@pytest.fixture
def write() -> Write:
    """`write("a/b.yaml", text)` makes the file and returns its path."""

    def _write(name: str, text: str) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return _write


@pytest.fixture
def load(write: Write) -> Load:
    """`load(text)` loads a policy of that text; `load(child=..., base=...)` writes both and loads the first."""

    def _load(text: str | None = None, **files: str) -> Policy:
        if text is not None:
            return load_policy(write("p.yaml", text))
        paths = [write(f"{name}.yaml", content) for name, content in files.items()]
        return load_policy(paths[0])

    return _load


@pytest.fixture
def minimal() -> str:
    """A small policy: two linear heads, one rule."""
    return MINIMAL
