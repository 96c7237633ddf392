from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import guardrail
from guardrail.cli import doctor
from guardrail.settings import load_settings

Run = Callable[..., Result]


def found(**overrides: Any) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine(load_settings(None, overrides))}


def test_a_sound_installation_is_ready(run: Run, tmp_path: Path) -> None:
    done = run("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 0, report
    assert report["ok"] is True
    checks = {check["name"]: check for check in report["checks"]}
    assert {
        "python",
        "packages",
        "extras",
        "device",
        "encoder",
        "heads",
        "dglm",
        "policy general",
        "database",
    } <= checks.keys()
    assert checks["python"]["data"]["guardrail"] == guardrail.__version__
    assert checks["packages"]["data"]["torch"]
    assert len(checks["encoder"]["data"]["sha256"]) == 64
    assert len(checks["dglm"]["data"]["sha256"]) == 64
    assert {"toxicity", "jailbreak", "courtesy"} <= checks["heads"]["data"].keys()
    assert checks["policy general"]["data"]["revision"].startswith("sha256:")
    assert list(tmp_path.iterdir()) == [], "doctor changes nothing"


def test_people_read_one_line_per_check(run: Run) -> None:
    done = run("doctor")
    assert done.exit_code == 0
    assert done.stdout.rstrip().endswith("Ready.")


def test_a_policy_in_use_that_cannot_be_used_is_broken(run: Run, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "ours.yaml").write_text("policy: ours\nextends: base\nrulez: {}\n", encoding="utf-8")
    (tmp_path / "guardrail.yaml").write_text("policy: ours\n", encoding="utf-8")
    done = run("doctor")
    assert done.exit_code == 3
    assert "rulez" in done.stdout
    assert "Broken: policy ours." in done.stdout


def test_a_policy_that_nobody_uses_is_only_noted(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "draft.yaml").write_text("policy: draft\nrulez: {}\n", encoding="utf-8")
    checks = found()
    assert checks["policy draft"].status == "note"
    assert checks["policy general"].status == "ok"


@pytest.mark.parametrize(
    ("overrides", "name", "complaint"),
    [
        ({"encoder": "/nowhere/at-all"}, "encoder", "/nowhere/at-all"),
        ({"rewriter": {"checkpoint": "/nowhere/at-all"}}, "dglm", "/nowhere/at-all"),
        ({"policy": "nosuch"}, "policy nosuch", "no policy named 'nosuch'"),
        ({"audit": {"url": "sqlite:////nowhere/at/all.sqlite"}}, "database", "its folder does not exist"),
        ({"audit": {"url": "postgresql://someone@127.0.0.1:9/none"}}, "database", "127.0.0.1:9"),
        ({"audit": {"url": "mysql://someone@127.0.0.1/none"}}, "database", "mysql"),
    ],
)
def test_what_is_broken_is_named(overrides: dict[str, Any], name: str, complaint: str) -> None:
    check = found(**overrides)[name]
    assert check.status == "broken"
    assert complaint in check.detail


def test_a_file_that_is_no_database_is_broken(tmp_path: Path) -> None:
    (tmp_path / "guardrail.sqlite").write_text("not a database, but longer than its header " * 40, encoding="utf-8")
    assert found()["database"].status == "broken"


def test_a_missing_package_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.version
    gone = {"sqlalchemy", "psycopg"}

    def version(name: str) -> str:
        if name in gone:
            raise doctor.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", version)
    checks = found()
    assert checks["packages"].status == "broken"
    assert "missing: sqlalchemy" in checks["packages"].detail
    assert checks["extras"].status == "note"
    assert "postgres" in checks["extras"].detail


def test_settings_that_cannot_be_read_are_a_usage_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "guardrail.yaml").write_text("polcy: general\n", encoding="utf-8")
    done = run("doctor", "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "polcy" in done.stderr
