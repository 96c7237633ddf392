from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from guardrail.cli.check import exit_code
from guardrail.types import Action, Decision, Reason, Stage, State

Run = Callable[..., Result]


def test_json_has_the_published_shape(run: Run, policy: Path) -> None:
    done = run("check", "More sprouts, please", "--policy", policy, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert list(found)[:8] == ["action", "state", "risk", "rules", "reasons", "scores", "policy", "timings_ms"]
    assert found["action"] == "redact"
    assert found["risk"] == max(found["rules"].values())
    assert found["rules"].keys() == {"vegetables", "plants"}
    assert found["scores"].keys() == {"sprouts", "weeds"}
    (reason,) = found["reasons"]
    assert {"rule", "stage", "risk", "threshold", "contributions", "spans"} <= reason.keys()
    assert (reason["rule"], reason["stage"], reason["threshold"], reason["spans"]) == (
        "vegetables",
        "output",
        0.5,
        [[5, 12]],
    )
    assert reason["contributions"].keys() == {"sprouts"}
    assert found["policy"]["name"] == "garden"
    assert found["policy"]["revision"].startswith("sha256:")
    assert found["timings_ms"]["judge"] >= 0


def test_a_clean_text_exits_with_0(run: Run, policy: Path) -> None:
    done = run("check", "More tomatoes, please", "--policy", policy, "--json")
    assert (done.exit_code, json.loads(done.stdout)["action"]) == (0, "allow")


def test_people_read_what_was_found(run: Run, policy: Path) -> None:
    done = run("check", "More bindweed, please", "--policy", policy)
    assert done.exit_code == 1
    for part in ("BLOCK", "More bindweed, please", "plants", "block (from 0.50)", "policy garden"):
        assert part in done.stdout


def test_stdin(run: Run, policy: Path) -> None:
    assert run("check", "-", "--policy", policy, "--json", stdin="no bindweed\n").exit_code == 1


def test_rows_come_back_in_order_as_json_lines(run: Run, policy: Path, rows: Callable[..., Path]) -> None:
    texts = [f"{number} {'sprouts' if number % 3 == 0 else 'peas'}" for number in range(150)]
    done = run("check", "--input", rows(*({"text": text} for text in texts)), "--policy", policy, "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 1
    assert [row["action"] for row in found] == ["redact" if number % 3 == 0 else "allow" for number in range(150)]


def test_clean_rows_and_no_rows_exit_with_0(run: Run, policy: Path, rows: Callable[..., Path]) -> None:
    assert run("check", "--input", rows({"text": "peas"}), "--policy", policy, "--json").exit_code == 0
    empty = run("check", "--input", rows(), "--policy", policy, "--json")
    assert (empty.exit_code, empty.stdout) == (0, "")


def test_a_bad_row_stops_everything_before_it_starts(run: Run, policy: Path, rows: Callable[..., Path]) -> None:
    done = run("check", "--input", rows({"text": "sprouts"}, {"txt": "sprouts"}), "--policy", policy, "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "rows.jsonl:2: `text` must be a string, found nothing" in done.stderr


def test_stage_decides_which_rules_judge(run: Run, policy: Path) -> None:
    found = json.loads(run("check", "bindweed", "--policy", policy, "--stage", "tool_call", "--json").stdout)
    assert (found["action"], found["state"], found["rules"]) == ("allow", "not_scanned", {})


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Pass either a TEXT"),
        (["x", "--input", "rows.jsonl"], "Pass either a TEXT"),
        (["x", "--policy", "gardn"], "no policy named 'gardn'"),
        (["x", "--policy", "none.yaml"], "none.yaml"),
        (["x", "--policy", "."], "no policy named '.'"),
        (["x", "--config", "none.yaml"], "none.yaml"),
        (["--input", "none.jsonl"], "none.jsonl: cannot be read"),
        (["x", "--stage", "outptu"], "outptu"),
        (["x", "--polcy", "general"], "--polcy"),
    ],
)
def test_wrong_use_exits_with_2_and_says_why(run: Run, arguments: list[str], complaint: str) -> None:
    done = run("check", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert complaint in done.stderr


BAD_TEXTS = ["", "   ", "\x00", "\u202espuor\u202c", "x" * 1_000_000, "\ud800 bindweed", "a\x1b]0;owned\x07b"]


@pytest.mark.parametrize("text", BAD_TEXTS, ids=["empty", "blank", "nul", "override", "long", "surrogate", "escape"])
@pytest.mark.parametrize("as_json", [True, False])
def test_bad_input_is_judged_like_any_other(run: Run, policy: Path, text: str, as_json: bool) -> None:
    done = run("check", text, "--policy", policy, *(["--json"] if as_json else []))
    assert done.exit_code == ("bindweed" in text)
    assert "\x1b" not in done.stdout
    if as_json:
        assert json.loads(done.stdout)["action"] == ("block" if "bindweed" in text else "allow")


def decision(**changes: Any) -> Decision:
    fields: dict[str, Any] = {
        "id": "d", "action": Action.ALLOW, "state": State.ALLOWED, "risk": 0.0, "stage": Stage.OUTPUT, "policy": "p",
        "revision": "sha256:0", "text": "t", "source": "t",
    }  # fmt: skip
    return Decision(**{**fields, **changes})


def test_exit_codes() -> None:
    failed = Reason("r", Stage.OUTPUT, Action.BLOCK, 1.0, 0.5, error="the classifier timed out")
    assert exit_code([]) == 0
    assert exit_code([decision()]) == 0
    assert exit_code([decision(), decision(action=Action.FLAG, state=State.FLAGGED), decision()]) == 1
    assert exit_code([decision(action=Action.BLOCK, state=State.BLOCKED_UNAVAILABLE, text=None)]) == 3
    assert exit_code([decision(action=Action.BLOCK, state=State.BLOCKED, reasons=(failed,))]) == 3
