from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

Run = Callable[..., Result]
KEYS = ["text", "rewrite", "state", "method", "similarity", "risk_before", "risk_after", "candidates", "seed"]


def test_json_of_a_repaired_draft(run: Run, policy: Path) -> None:
    done = run("rewrite", "Peas are fine. Sprouts are not.", "--policy", policy, "--seed", "7", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert list(found)[:9] == KEYS
    assert (found["state"], found["method"], found["text"]) == ("redacted", "redact", "Peas are fine. Sprouts are not.")
    assert "Peas are fine." in found["rewrite"]
    assert "prouts" not in found["rewrite"]
    assert found["risk_after"] < 0.5 <= found["risk_before"]
    assert found["candidates"]


def test_json_of_a_draft_that_needs_no_repair(run: Run, policy: Path) -> None:
    found = json.loads(run("rewrite", "Peas are fine.", "--policy", policy, "--json").stdout)
    assert {key: found[key] for key in KEYS if key not in {"risk_before", "risk_after"}} == {
        "text": "Peas are fine.",
        "rewrite": "Peas are fine.",
        "state": "allowed",
        "method": None,
        "similarity": 1.0,
        "candidates": [],
        "seed": None,
    }
    assert found["risk_after"] == found["risk_before"] < 0.5


def test_a_draft_that_is_withheld_exits_with_1(run: Run, policy: Path) -> None:
    done = run("rewrite", "Plant bindweed.", "--policy", policy, "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["state"], found["rewrite"], found["risk_after"]) == (1, "blocked", None, None)
    assert found["refusal"] == "Not in this garden."


def test_rows_come_back_in_order(run: Run, policy: Path, rows: Callable[..., Path]) -> None:
    file = rows({"text": "one"}, {"text": "two sprouts", "context": ["before"]}, {"text": "three bindweed"})
    done = run("rewrite", "--input", file, "--policy", policy, "--json")
    assert done.exit_code == 1
    assert [(row["text"], row["state"]) for row in map(json.loads, done.stdout.splitlines())] == [
        ("one", "allowed"),
        ("two sprouts", "redacted"),
        ("three bindweed", "blocked"),
    ]


def test_the_same_seed_gives_the_same_text(run: Run, policy: Path) -> None:
    first, second = (
        run("rewrite", "No sprouts.", "--policy", policy, "--seed", "3", "--json").stdout for _ in range(2)
    )
    assert json.loads(first)["rewrite"] == json.loads(second)["rewrite"]


def test_people_see_before_and_after(run: Run, policy: Path) -> None:
    done = run("rewrite", "Peas. Sprouts.", "--policy", policy)
    for part in ("REDACTED", "before", "after", "by redact"):
        assert part in done.stdout


def test_nothing_is_recorded(run: Run, policy: Path, tmp_path: Path) -> None:
    run("rewrite", "No sprouts.", "--policy", policy, "--json")
    run("check", "No sprouts.", "--policy", policy, "--json")
    assert list(tmp_path.rglob("*.sqlite*")) == []


def test_wrong_use_exits_with_2(run: Run, rows: Callable[..., Path]) -> None:
    for arguments in ([], ["x", "--seed", "seven"], ["x", "--policy", "nosuch"], ["--input", rows([1])]):
        done = run("rewrite", *arguments)
        assert (done.exit_code, done.stdout) == (2, ""), arguments
        assert done.stderr
