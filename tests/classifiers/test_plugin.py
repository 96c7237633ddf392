"""A classifier from another distribution: a real wheel, built and unpacked, found through its entry point."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from guardrail import registry
from guardrail.engine import Guardrail
from guardrail.errors import PolicyError
from guardrail.policy import load_policy
from guardrail.settings import Settings
from guardrail.types import Action

MODULE = '''
"""Scores how much of a text is shouted."""
from guardrail.classifiers.base import check_options
from guardrail.types import Score


class Shouting:
    kind = "shouting"
    fingerprint = "sha256:shouting-1"

    def __init__(self, name):
        self.name = name

    def score(self, passages):
        found = []
        for passage in passages:
            letters = [char for char in passage.text if char.isalpha()]
            found.append(Score(sum(char.isupper() for char in letters) / max(1, len(letters))))
        return found


def build(name, options, context):
    check_options("shouting", name, options, ())
    return Shouting(name)
'''
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "made-up-shouting"
version = "1.0"
[project.entry-points."guardrail.classifiers"]
shouting = "made_up_shouting:build"
"""
POLICY = """
policy: p
classifiers: {loud: {kind: shouting}}
rules: {calm: {weights: {loud: 1}, thresholds: {flag: 0.8}}}
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hatchling.build import build_wheel

    project, site = tmp_path / "project", tmp_path / "site"
    (project / "made_up_shouting").mkdir(parents=True)
    (project / "made_up_shouting" / "__init__.py").write_text(MODULE)
    (project / "pyproject.toml").write_text(PROJECT)
    monkeypatch.chdir(project)
    wheel = build_wheel(str(tmp_path))
    with zipfile.ZipFile(tmp_path / wheel) as archive:
        archive.extractall(site)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(site)
    registry.resolve.cache_clear()


@pytest.mark.usefixtures("installed")
def test_a_plugin_is_a_kind_like_any_other(tmp_path: Path) -> None:
    assert "shouting" in registry.names("guardrail.classifiers")
    (tmp_path / "p.yaml").write_text(POLICY)
    guard = Guardrail(load_policy(tmp_path / "p.yaml"), settings=Settings())
    assert guard.check("STOP IT NOW").action is Action.FLAG
    assert guard.check("Please stop.").action is Action.ALLOW
    assert guard.check("STOP").models["loud"] == "sha256:shouting-1"
    (tmp_path / "p.yaml").write_text(POLICY.replace("kind: shouting", "kind: shouting, volume: 3"))
    with pytest.raises(PolicyError, match="'volume' is not an option of kind 'shouting'"):
        Guardrail(load_policy(tmp_path / "p.yaml"), settings=Settings()).check("x")


def test_without_the_distribution_the_kind_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(POLICY)
    with pytest.raises(PolicyError, match="unknown kind of classifier 'shouting'"):
        load_policy(tmp_path / "p.yaml")
