"""docs/conformance.md says what was measured, and every test of the suite stands in one of its rows."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from environments import ENVIRONMENTS, RESULTS
from page import PAGE, render
from rows import ROWS, rows_of

HERE = Path(__file__).parent
RECORDED = json.loads(RESULTS.read_text(encoding="utf-8"))


def test_the_page_is_what_the_results_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(RECORDED), "write it anew: python tests/conformance/page.py"


def test_every_environment_was_run_and_passed() -> None:
    assert list(RECORDED) == list(ENVIRONMENTS)
    assert {name: result["failed"] for name, result in RECORDED.items() if result["failed"]} == {}
    assert all(result["tests"] for result in RECORDED.values())


@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if "test_openai_ways.py" in ENVIRONMENTS[name].tests])
def test_every_row_has_a_result(name: str) -> None:
    package = ENVIRONMENTS[name].package
    assert list(RECORDED[name]["rows"]) == [row.name for row in ROWS if row.client == package]


def functions(file: Path) -> Iterator[str]:
    """The ids of a file's tests, as far as its text tells; those that run once per way to call have rows by the way."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        for item in inside:
            named = isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name.startswith("test_")
            if named and "way" not in [argument.arg for argument in item.args.args]:  # type: ignore[union-attr]
                owner = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
                yield f"{file.stem}::{owner}{item.name}["  # type: ignore[union-attr]


def test_every_test_stands_in_a_row() -> None:
    clients = {environment.package: environment.tests for environment in ENVIRONMENTS.values()}
    described = {client: files for client, files in clients.items() if any(row.client == client for row in ROWS)}
    homeless = [
        test
        for client, files in described.items()
        for file in files
        for test in functions(HERE / file)
        if not list(rows_of(client, test))
    ]
    assert sorted(described) == ["anthropic", "litellm", "openai"]
    assert homeless == []
