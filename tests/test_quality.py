"""The repository keeps its own rules: lint, format, types, import direction. Fails with the tool's own words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = {
    "ruff check": ["ruff", "check", "--no-cache", "."],
    "ruff format": ["ruff", "format", "--no-cache", "--check", "--diff", "."],
    "mypy": ["mypy", "--cache-dir", "{cache}"],
    "import direction": ["lint-imports", "--no-cache"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_the_repository_passes(tool: str, tmp_path: Path) -> None:
    program, *arguments = TOOLS[tool]
    command = [str(Path(sys.executable).with_name(program)), *(part.format(cache=tmp_path) for part in arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_bite(tmp_path: Path) -> None:
    """A file that breaks them is found, so a pass above means something."""
    bad = tmp_path / "bad.py"
    bad.write_text("import os, torch\ndef f(x): return eval(x)\n", encoding="utf-8")
    ruff = Path(sys.executable).with_name("ruff")
    config = ROOT / "pyproject.toml"
    done = subprocess.run([ruff, "check", "--config", config, bad], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    for rule in ("F401", "S307", "E401"):
        assert rule in done.stdout
