"""`guardrail audit` and `guardrail db`, as a person or a program uses them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner, Result

from guardrail.audit import migrate
from guardrail.audit.store import open_store
from guardrail.audit.tables import decisions
from guardrail.cli.app import app
from guardrail.cli.audit import moment
from guardrail.cli.common import InputError, console
from guardrail.policy import Policy
from guardrail.types import Action, Decision, Reason, Stage, State

Make = Callable[..., Decision]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 100 columns, whatever `COLUMNS` was when the console was made."""
    monkeypatch.setattr(console, "_width", 100)


@pytest.fixture
def filled(policy: Policy, decide: Make, rewritten: Make) -> str:
    """The URL of the store that the settings name, with decisions in it."""
    url = "sqlite:///guardrail.sqlite"
    broken = Reason("violence", Stage.OUTPUT, Action.BLOCK, 1.0, 1.0, {"x": float("nan")}, error="out of memory")
    with open_store(url) as store:
        store.record([decide(id="1f6c-allowed")], policy=policy, community="teen-gaming")
        store.record([rewritten(id="2a-rewritten")], policy=policy, community="teen-gaming", conversation="talk")
        store.record(
            [
                decide(
                    id="2b-blocked",
                    source="\x1b[31mBad\x00 \ud800 \u202etext",
                    text=None,
                    refusal="Not here.",
                    state=State.BLOCKED_UNAVAILABLE,
                    action=Action.BLOCK,
                    risk=1.0,
                    reasons=(broken,),
                )
            ],
            policy=policy,
            community="workplace",
        )
    return url


@pytest.mark.usefixtures("filled")
def test_a_moderator_reads_the_list() -> None:
    done = run("audit", "list")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert "delivered" in lines[1]
    for part in ("workplace", "blocked_unavailable", "violence", "Not here.", "2b-block"):
        assert part in done.stdout
    for part in ("teen-gaming", "rewritten", "0.90", "harassment", "You can do it", "A harmless sentence."):
        assert part in done.stdout
    assert done.stdout.index("2b-block") < done.stdout.index("2a-rewri") < done.stdout.index("1f6c-all")
    assert "\x1b[31m" not in done.stdout


@pytest.mark.usefixtures("filled")
def test_a_program_reads_the_list_page_by_page() -> None:
    first = json.loads(run("audit", "list", "--json", "--limit", 2).stdout)
    second = json.loads(run("audit", "list", "--json", "--limit", 2, "--after", first["next"]).stdout)
    assert [one["id"] for one in first["items"] + second["items"]] == ["2b-blocked", "2a-rewritten", "1f6c-allowed"]
    assert second["next"] is None
    blocked = first["items"][0]
    assert blocked["source_text"] == "\x1b[31mBad\x00 \ud800 \u202etext"
    assert blocked["reasons"][0]["contributions"] == {"x": None}
    assert blocked["reasons"][0]["error"] == "out of memory"
    assert datetime.fromisoformat(blocked["created_at"]).tzinfo is not None
    assert "scores" not in blocked


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--community", "workplace"], ["2b-blocked"]),
        (["--rule", "harassment"], ["2a-rewritten"]),
        (["--action", "rewrite"], ["2a-rewritten"]),
        (["--state", "allowed"], ["1f6c-allowed"]),
        (["--stage", "input"], []),
        (["--min-risk", "0.5", "--max-risk", "0.95"], ["2a-rewritten"]),
        (["--since", "1h", "--text", "IDIOT"], ["2a-rewritten"]),
        (["--until", "1h"], []),
        (["--conversation", "talk"], ["2a-rewritten"]),
        (["--request", "request-1"], ["2b-blocked", "2a-rewritten", "1f6c-allowed"]),
    ],
)
def test_filters_of_the_command(options: list[str], expected: list[str]) -> None:
    found = json.loads(run("audit", "list", "--json", *options).stdout)
    assert [one["id"] for one in found["items"]] == expected


def test_nothing_found_is_said(filled: str) -> None:
    done = run("audit", "list", "--url", filled, "--community", "nobody")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "No decision matches." in done.stderr


@pytest.mark.usefixtures("filled")
def test_a_moderator_reads_everything_about_a_decision(policy: Policy) -> None:
    done = run("audit", "show", "2a")
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    for part in (
        "2a-rewritten",
        "conversation talk",
        "failure of judge TimeoutError: 2 s",
        "note one sentence was rewritten",
        "Source (30 characters) Sure. You absolute idiot! Bye.",
        "Delivered instead (25 characters) Sure. You can do it. Bye.",
        "harassment asks to rewrite: its risk 0.90 reaches the threshold 0.60.",
        "Because of toxicity +1.75",
        "At “You absolute idiot!”.",
        "The rule: No insults.",
        "rule harassment 0.100",
        "repaired draft · dglm · risk 0.900 to 0.060 · similarity 0.830",
        "candidate 1 chosen · dglm · risk 0.900 to 0.050",
        "candidate 2 failed",
        "You fool!",
        f"seed {2**64 - 1}",
        "judge 7.250 ms",
        "number 2 of teen-gaming",
    ):
        assert part in text, part
    assert policy.revision[:40] in done.stdout
    assert "previous hash" in done.stdout


@pytest.mark.usefixtures("filled")
def test_strange_text_does_not_reach_the_terminal() -> None:
    done = run("audit", "show", "2b-blocked")
    assert done.exit_code == 0, done.output
    assert not set(done.stdout) & {"\x1b", "\x00", "\ud800", "\u202e"}
    text = " ".join(done.stdout.split())
    assert "it could not be judged (out of memory), and its on_error says so" in text
    assert "Delivered instead: a refusal (9 characters) Not here." in text


@pytest.mark.usefixtures("filled")
def test_a_program_reads_everything_about_a_decision(rewritten: Make) -> None:
    found = json.loads(run("audit", "show", "2a-rewritten", "--json").stdout)
    assert found["scores"] == {"toxicity": 0.1, "insult": 0.25, "courtesy": 1.0}
    assert found["rewrite"]["edits"] == [[[6, 25], "You can do it."]]
    assert [one["chosen"] for one in found["candidates"]] == [True, False]
    assert found["candidates"][1]["seed"] == 2**64 - 1
    assert found["hash"].startswith("sha256:")
    assert found["reasons"][0]["spans"] == [[6, 25]]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("nothing", "no decision 'nothing' is on record"),
        ("2", "is the beginning of several ids: 2a-rewritten, 2b-blocked"),
    ],
)
def test_an_id_that_names_no_single_decision(filled: str, key: str, message: str) -> None:
    done = run("audit", "show", key, "--url", filled)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_verify_says_that_all_is_well(filled: str) -> None:
    done = run("audit", "verify")
    assert done.exit_code == 0
    assert "3 decisions verified: every row is as it was written." in done.stdout
    found = json.loads(run("audit", "verify", "--json", "--community", "teen-gaming").stdout)
    assert (found["ok"], found["decisions"], found["problems"]) == (True, 2, [])
    assert found["chains"][0]["hash"].startswith("sha256:")


def test_verify_names_what_was_changed(filled: str) -> None:
    with open_store(filled) as store, store.engine.begin() as connection:
        connection.execute(update(decisions).where(decisions.c.id == "2a-rewritten").values(risk=0.0))
    done = run("audit", "verify")
    assert done.exit_code == 1
    assert "altered: teen-gaming number 2 2a-rewritten" in done.stdout
    assert "1 problems in 3 decisions" in done.stdout
    found = json.loads(run("audit", "verify", "--json").stdout)
    assert [(one["kind"], one["id"]) for one in found["problems"]] == [("altered", "2a-rewritten")]


@pytest.mark.parametrize("command", [["audit", "list"], ["audit", "show", "x"], ["audit", "verify"]])
def test_reading_makes_no_file(command: list[str]) -> None:
    done = run(*command)
    assert done.exit_code == 2
    assert "there is no audit store at" in done.stderr
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("options", [["--since", "yesterday"], ["--limit", "0"], ["--action", "x"], ["--after", "x"]])
def test_options_that_make_no_sense(filled: str, options: list[str]) -> None:
    assert run("audit", "list", *options).exit_code == 2


def test_times() -> None:
    assert moment(None, "since") is None
    assert moment("2026-11-21T14:30:00Z", "since") == datetime(2026, 11, 21, 14, 30, tzinfo=UTC)
    local = moment("2026-11-21", "since")
    assert local is not None
    assert local.tzinfo is not None
    age = moment("90m", "since")
    assert age is not None
    assert abs(datetime.now(UTC) - timedelta(minutes=90) - age) < timedelta(minutes=1)
    for wrong in ("", "7", "d", "-1d", "999999w", "2026-13-01"):
        with pytest.raises(InputError, match="--since is"):
            moment(wrong, "since")


# ------------------------------------------------------------------------------------------------------------ db


def test_db_upgrade_and_check(blank_url: str) -> None:
    done = run("db", "check", "--url", blank_url)
    assert done.exit_code == 2
    assert "guardrail db upgrade" in " ".join(done.stdout.split())
    upgraded = json.loads(run("db", "upgrade", "--url", blank_url, "--json").stdout)
    assert (upgraded["before"], upgraded["after"]) == (None, migrate.head())
    assert "already" in run("db", "upgrade", "--url", blank_url).stdout
    done = run("db", "check", "--url", blank_url)
    assert done.exit_code == 0
    assert "no difference" in done.stdout
    with open_store(blank_url) as store, store.engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX ix_decisions_conversation")
        connection.exec_driver_sql("ALTER TABLE reviews ADD COLUMN mood VARCHAR")
    found: dict[str, Any] = json.loads(run("db", "check", "--url", blank_url, "--json").stdout)
    assert not found["ok"]
    assert sorted(found["differences"]) == ["add index: ix_decisions_conversation", "remove column: reviews mood"]
    assert run("db", "check", "--url", blank_url).exit_code == 2


def test_db_commands_take_the_url_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDRAIL_AUDIT_URL", f"sqlite:///{tmp_path / 'other.sqlite'}")
    assert run("db", "upgrade").exit_code == 0
    assert (tmp_path / "other.sqlite").exists()
    assert run("db", "check").exit_code == 0


def test_a_database_that_is_away_fails_without_its_password() -> None:
    for command in (["db", "check"], ["db", "upgrade"], ["audit", "list"]):
        done = run(*command, "--url", "postgresql://moderator:hunter2@127.0.0.1:1/audit")
        assert done.exit_code == 3
        assert "cannot be reached" in " ".join(done.stderr.split())
        assert "hunter2" not in done.output


# ---------------------------------------------------------------------------------------------------- the document


def shown(language: str) -> list[str]:
    return [code for name, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if name == language]


@pytest.mark.usefixtures("filled")
def test_python_on_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = shown("python")
    exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})  # noqa: S102 - the page is ours
    printed = capsys.readouterr().out
    assert "['harassment']" in printed
    assert "next page: None - record whole: True" in printed


@pytest.mark.usefixtures("filled")
def test_commands_on_the_page_run(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for block in shown("sh") for line in block.splitlines()]
    assert len(lines) == 17
    for line in lines:
        if line.startswith("export "):
            name, made = line.removeprefix("export ").split("=", 1)
            value = subprocess.run(made[2:-1], shell=True, check=True, capture_output=True, text=True)  # noqa: S602
            monkeypatch.setenv(name, value.stdout.strip())
            continue
        if line.startswith("openssl"):
            subprocess.run(line, shell=True, check=True, capture_output=True)  # noqa: S602 - the page is ours
            continue
        if " replay " in line or " reproduce " in line:  # they need a draft and models: tests/evaluate/test_replay.py
            continue
        done = run(*shlex.split(line)[1:])
        assert done.exit_code == 0, f"{line}: {done.output}"
