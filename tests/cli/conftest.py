"""A policy that needs no model, so that the commands are tested through the real engine in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from guardrail.cli.app import app

POLICY = """
policy: garden
description: A gardening forum without vegetables that nobody likes.
classifiers:
  sprouts: {kind: pattern, words: [sprouts]}
  weeds: {kind: pattern, words: [bindweed]}
rules:
  vegetables:
    stages: [input, output]
    weights: {sprouts: 1.0}
    thresholds: {redact: 0.5}
  plants:
    stages: [input, output]
    weights: {weeds: 1.0}
    thresholds: {block: 0.5}
rewrite: {order: [redact]}
refusal: Not in this garden.
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "garden.yaml"
    file.write_text(POLICY, encoding="utf-8")
    return file


@pytest.fixture
def run() -> Callable[..., Result]:
    """Call `guardrail` with these arguments, and what is to be read from stdin."""

    def call(*arguments: object, stdin: str | bytes = "") -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)

    return call


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Path]:
    """Write rows to a JSON-lines file."""

    def write(*values: object) -> Path:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
        return file

    return write
