"""The record as files and figures, and the commands that keep and erase it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from guardrail.audit.export import decisions_of, write_parquet
from guardrail.audit.people import People
from guardrail.audit.query import Filters
from guardrail.audit.stats import PLOTS, collect, plot
from guardrail.audit.store import AuditStore, open_store
from guardrail.cli.app import app
from guardrail.policy import Policy
from guardrail.types import Action, Decision, Reason, Stage

Make = Callable[..., Decision]

DAY = 86_400.0
MONDAY = 1_792_368_000.0  # 2026-10-19, 00:00 UTC


@pytest.fixture
def filled(store: AuditStore, policy: Policy, decide: Make, rewritten: Make) -> AuditStore:
    for day in range(3):
        moment = MONDAY + day * DAY
        made = [decide(id=f"d{day}", created_at=moment), rewritten(id=f"r{day}", created_at=moment + 1)]
        store.record(made, policy=policy, community="gamers", subject="ann")
    store.record([decide(id="odd", source="\x00 \ud800", created_at=MONDAY)], policy=policy, community="workers")
    with People(store).change() as change:
        change.review("r0", reviewer="eve", verdict="uphold")
        change.review("r1", reviewer="eve", verdict="overturn")
        change.review("r2", reviewer="eve", verdict="edit", edited_text="Better.")
        change.review("r2", reviewer="bob", verdict="comment", comment="Hm.")
    return store


def test_figures(filled: AuditStore, tmp_path: Path) -> None:
    with filled.engine.connect() as connection:
        found = collect(connection, Filters(community="gamers"))
        everything = collect(connection, Filters())
        nothing = collect(connection, Filters(community="nobody"))
    assert found.decisions == 6
    days = ["2026-10-19", "2026-10-20", "2026-10-21"]
    assert found.days == {day: {"allowed": 1, "rewritten": 1} for day in days}
    assert found.actions == {"allow": 3, "rewrite": 3}
    assert found.rules["harassment"] == {day: {"count": 1, "share": 0.5, "risk": pytest.approx(0.9)} for day in days}
    assert found.reviews == {"uphold": 1, "overturn": 1, "edit": 1, "comment": 1}
    assert found.override_rate == pytest.approx(2 / 3)
    assert found.overrides == {"harassment": {"reviewed": 3, "overturned": 2, "rate": pytest.approx(2 / 3)}}
    assert everything.decisions == 7
    assert (nothing.decisions, nothing.override_rate) == (0, None)
    for stats in (found, nothing):
        made = plot(stats, tmp_path / "plots")
        assert [path.name for path in made] == [f"{name}.png" for name in PLOTS]
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)


def test_parquet_holds_every_decision(filled: AuditStore, tmp_path: Path) -> None:
    with filled.engine.connect() as connection:
        assert write_parquet(decisions_of(connection, Filters()), tmp_path / "all.parquet") == 7
        assert write_parquet(decisions_of(connection, Filters(community="nobody")), tmp_path / "none.parquet") == 0
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "all.parquet").to_pylist()}
    assert rows["r1"]["risk"] == 0.9
    assert rows["r1"]["created_at"].isoformat() == "2026-10-20T00:00:01+00:00"
    assert json.loads(rows["r1"]["scores"]) == {"courtesy": 1.0, "insult": 0.25, "toxicity": 0.1}
    assert json.loads(rows["r1"]["reasons"])[0]["rule"] == "harassment"
    assert len(json.loads(rows["r1"]["candidates"])) == 2
    assert rows["odd"]["source_text"] == "\x00 ?"


def test_what_is_no_number_is_null_in_parquet(store: AuditStore, policy: Policy, decide: Make, tmp_path: Path) -> None:
    broken = Reason(
        "violence", Stage.OUTPUT, Action.FLAG, float("nan"), 0.5, {"x": float("nan")}, error="out of memory"
    )
    store.record([decide(id="broken", reasons=(broken,))], policy=policy, community="gamers")
    with store.engine.connect() as connection:
        write_parquet(decisions_of(connection, Filters()), tmp_path / "all.parquet")
    (row,) = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert "NaN" not in row["reasons"]
    (reason,) = json.loads(row["reasons"])
    assert (reason["risk"], reason["contributions"], reason["error"]) == (None, {"x": None}, "out of memory")


@pytest.fixture
def file_store(policy: Policy, decide: Make, rewritten: Make) -> None:
    with open_store("sqlite:///guardrail.sqlite", timeout=60.0) as opened:
        made = [decide(id="a", source="\ud800 text"), rewritten(id="b")]
        opened.record(made, policy=policy, community="gamers", subject="ann")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.usefixtures("file_store")
def test_export_commands(tmp_path: Path) -> None:
    done = run("audit", "export", "all.jsonl", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"file": "all.jsonl", "decisions": 2}), done.output
    lines = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == {"a", "b"}
    assert len(next(line for line in lines if line["id"] == "b")["candidates"]) == 2
    done = run("audit", "export", "-", "--rule", "harassment")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["b"]
    assert run("audit", "export", "all.parquet").exit_code == 0
    assert run("audit", "export", "all.csv").exit_code == 2
    done = run("audit", "stats", "--plots", "plots", "--json")
    assert json.loads(done.stdout)["decisions"] == 2, done.output
    assert run("audit", "stats").exit_code == 0


@pytest.mark.usefixtures("file_store")
def test_keeping_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("audit", "checkpoint", "c.json").exit_code == 0
    assert run("audit", "verify", "--checkpoint", "c.json").exit_code == 0
    forged = Path("c.json").read_text().replace('"sequence": 2', '"sequence": 9')
    Path("c.json").write_text(forged)
    done = run("audit", "verify", "--checkpoint", "c.json", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["problems"][0]["kind"] == "removed"
    assert run("audit", "verify", "--checkpoint", "c.json", "--public-key", "none.pem").exit_code == 2
    done = run("audit", "erase", "--subject", "ann", "--reason", "asked", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"erased": 2}), done.output
    assert run("audit", "erase").exit_code == 2
    assert run("audit", "retain").exit_code == 2
    done = run("audit", "retain", "--keep-text", "30", "--json")
    parts = {"texts", "decisions", "appeals", "access", "exposure", "sessions", "tokens"}
    assert json.loads(done.stdout) == dict.fromkeys(parts, 0)
    assert run("audit", "verify").exit_code == 0
    assert run("audit", "spool").exit_code == 2
    monkeypatch.setenv("GUARDRAIL_AUDIT_SPOOL", "spool")
    assert json.loads(run("audit", "spool", "--drain", "--json").stdout)["files"] == []


def test_left_over_spools_are_drained_by_command(monkeypatch: pytest.MonkeyPatch, policy: Policy, decide: Make) -> None:
    monkeypatch.setenv("GUARDRAIL_AUDIT_SPOOL", "spool")
    monkeypatch.setenv("GUARDRAIL_AUDIT_URL", "sqlite:///later/audit.sqlite")
    with open_store("sqlite:///later/audit.sqlite", timeout=0.1, spool=Path("spool")) as store:
        store.record([decide(id="a")], policy=policy, community="gamers")
    assert run("audit", "spool", "--drain", "--timeout", "0.2").exit_code == 3
    Path("later").mkdir()
    done = run("audit", "spool", "--drain", "--json")
    assert (done.exit_code, json.loads(done.stdout)["files"]) == (0, []), done.output
    with open_store("sqlite:///later/audit.sqlite") as store:
        assert [one.id for one in store.list().items] == ["a"]
