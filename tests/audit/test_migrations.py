"""Migrations on SQLite and PostgreSQL: from blank, by steps with data, back, interrupted, and without drift."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Column, Engine, MetaData, Table, inspect, text

from guardrail.audit import chain, migrate
from guardrail.audit.database import WRITE, begin_write, make_engine
from guardrail.audit.people import People
from guardrail.audit.rows import prepare
from guardrail.audit.store import AuditStore, open_store
from guardrail.audit.tables import metadata
from guardrail.audit.writer import policy_row
from guardrail.errors import ConfigurationError
from guardrail.policy import Policy
from guardrail.types import Decision

Make = Callable[..., Decision]


@pytest.fixture
def engine(blank_url: str) -> Iterator[Engine]:
    made = make_engine(blank_url)
    yield made
    made.dispose()


def drift(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        return migrate.drift(connection)


def run(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def record_at_first(engine: Engine, decision: Decision, policy: Policy) -> None:
    """Record as the first version did: its columns, its hash."""
    made = prepare(decision, community="gamers")
    row = made.decision | {"sequence": 1, "previous_hash": chain.GENESIS, "content_version": 1}
    scored = {score["classifier"]: score["value"] for score in made.scores}
    row["hash"] = chain.link(chain.GENESIS, 1, chain.content(row, scored, made.reasons, made.rewrites))
    head = {"community": "gamers", "sequence": 1, "hash": row["hash"]}
    old = MetaData()
    with engine.connect().execution_options(**WRITE) as connection:
        begin_write(connection, 30.0)
        for name, rows in (
            ("policy_revisions", [policy_row(policy, [decision])]),
            ("chain_heads", [head]),
            ("decisions", [row]),
            ("scores", made.scores),
            ("reasons", made.reasons),
            ("rewrites", made.rewrites),
        ):
            table = Table(name, old, autoload_with=connection, extend_existing=True)
            names = [column.name for column in table.columns]
            values = [{column: _value(table.c[column], one[column]) for column in names} for one in rows]
            connection.execute(table.insert(), values)
        connection.commit()


def _value(column: Column[Any], value: Any) -> Any:
    return json.loads(value) if isinstance(column.type, JSON) and value is not None else value


def test_from_blank_to_head_without_drift(engine: Engine) -> None:
    assert migrate.upgrade(engine) == (None, migrate.head())
    assert drift(engine) == []
    assert set(metadata.tables) <= set(inspect(engine).get_table_names())
    assert migrate.upgrade(engine) == (migrate.head(), migrate.head())


def test_every_constraint_has_the_name_of_the_convention(engine: Engine) -> None:
    migrate.upgrade(engine)
    found = inspect(engine)
    for name in metadata.tables:
        assert found.get_pk_constraint(name)["name"] == f"pk_{name}"
        for key in found.get_foreign_keys(name):
            assert key["name"] == f"fk_{name}_{'_'.join(key['constrained_columns'])}_{key['referred_table']}"
        for index in found.get_indexes(name):
            assert index["name"] is not None
            assert index["name"].startswith((f"ix_{name}_", f"uq_{name}_"))


def test_an_upgrade_keeps_what_the_first_version_recorded(engine: Engine, policy: Policy, rewritten: Make) -> None:
    migrate.upgrade(engine, "0001")
    assert "reviews" not in inspect(engine).get_table_names()
    decision = rewritten()
    record_at_first(engine, decision, policy)
    assert migrate.upgrade(engine) == ("0001", migrate.head())
    store = AuditStore(engine)
    found = store.get(decision.id)
    assert found is not None
    assert found.reasons == decision.reasons
    store.record([rewritten()], policy=policy, community="gamers")
    assert store.verify().decisions == 2
    assert store.verify().ok
    assert drift(engine) == []


def test_down_and_up_again(engine: Engine, policy: Policy, rewritten: Make) -> None:
    migrate.upgrade(engine)
    AuditStore(engine).record([rewritten()], policy=policy, community="gamers")
    migrate.downgrade(engine, "0002")
    assert "events" not in inspect(engine).get_table_names()
    assert "subject" not in {column["name"] for column in inspect(engine).get_columns("decisions")}
    migrate.downgrade(engine, "0001")
    migrate.downgrade(engine, "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    migrate.upgrade(engine)
    assert drift(engine) == []


def test_what_0006_adds_to_reasons_and_words_goes_and_comes_back(
    engine: Engine, policy: Policy, rewritten: Make
) -> None:
    migrate.upgrade(engine)
    AuditStore(engine).record([rewritten(id="d1")], policy=policy, community="gamers")
    before = inspect(engine).get_columns("reasons")
    migrate.downgrade(engine, "0005")
    for table, gone in (("reasons", {"community", "created_at"}), ("decisions", {"words"})):
        assert not gone & {column["name"] for column in inspect(engine).get_columns(table)}
    assert drift(engine) != []
    migrate.upgrade(engine)
    assert [column["name"] for column in inspect(engine).get_columns("reasons")] == [one["name"] for one in before]
    store = AuditStore(engine)
    assert [one.id for one in store.list(community="gamers", rule="harassment", text="idiot").items] == ["d1"]
    assert store.verify().ok
    assert drift(engine) == []


def test_what_0007_adds_goes_and_comes_back(engine: Engine, policy: Policy, rewritten: Make) -> None:
    migrate.upgrade(engine)
    store = AuditStore(engine)
    store.record([rewritten(id="d1")], policy=policy, community="gamers")
    with People(store).change() as change:
        review = change.review("d1", reviewer="ann", verdict="edit", edited_text="Bye.")
        change.label("d1", name="harassment", value=1.0, author="ann", review_id=review)
    kept = {name: inspect(engine).get_columns(name) for name in ("reasons", "reviews")}
    migrate.downgrade(engine, "0006")
    for table, gone in (("reasons", "decision_state"), ("reviews", "decided_at")):
        assert gone not in {column["name"] for column in inspect(engine).get_columns(table)}
    assert drift(engine) != []
    migrate.upgrade(engine)
    for table, columns in kept.items():
        assert [one["name"] for one in inspect(engine).get_columns(table)] == [one["name"] for one in columns]
    found = store.list(rule="harassment", state="rewritten", action="rewrite", min_risk=0.9, community="gamers").items
    assert [one.id for one in found] == ["d1"]
    assert [one.id for one in store.list(reviewer="ann", community="gamers").items] == ["d1"]
    assert store.verify().ok
    assert drift(engine) == []


def test_a_reason_astray_stops_a_migration_of_sqlite_and_is_not_dropped(
    tmp_path: Path, policy: Policy, rewritten: Make
) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'audit.sqlite'}")
    migrate.upgrade(engine, "0005")
    with engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
        reason = "INSERT INTO reasons VALUES ('gone', 0, 'harassment', 'output', 'block', 0.9, 0.5, '{}', '[]', '', '')"
        connection.execute(text(reason))
        connection.commit()
    with pytest.raises(ConfigurationError, match="a row of 'reasons' refers to a row of 'decisions'"):
        migrate.upgrade(engine)
    with engine.connect() as connection:
        assert migrate.current(connection) == "0005"
        assert connection.scalar(text("SELECT count(*) FROM reasons")) == 1
    engine.dispose()


@pytest.mark.parametrize(
    "change",
    [
        "DROP INDEX ix_decisions_conversation",
        "ALTER TABLE reviews ADD COLUMN mood VARCHAR",
        "ALTER TABLE labels DROP COLUMN source",
        "CREATE INDEX ix_extra ON appeals (answer)",
        "DROP TABLE labels",
    ],
)
def test_drift_is_seen(engine: Engine, change: str) -> None:
    migrate.upgrade(engine)
    run(engine, change)
    assert drift(engine) != []


@pytest.mark.parametrize(
    ("script", "half_way"),
    [
        ("0002_people.py", '    op.create_index(op.f("ix_labels_review_id")'),
        ("0003_events.py", "\n\ndef create_embeddings() -> None:"),  # after the last step of `upgrade`
        ("0006_pages.py", '    op.create_index(op.f("ix_reasons_" + "_".join(BY_RULE))'),  # `reasons` is rebuilt
        ("0006_pages.py", "\n\ndef place_reasons() -> None:"),
        ("0007_outcomes.py", "    for kind, columns in OF_REASONS.items():"),  # `reasons` and `reviews` are rebuilt
        ("0007_outcomes.py", "\n\ndef name(table: str"),
    ],
)
def test_a_migration_that_breaks_off_leaves_the_database_as_it_was(
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: Policy,
    rewritten: Make,
    script: str,
    half_way: str,
) -> None:
    migrate.upgrade(engine, "0001")
    record_at_first(engine, rewritten(), policy)
    broken = tmp_path / "migrations"
    shutil.copytree(migrate.migrations_directory(), broken, ignore=shutil.ignore_patterns("__pycache__"))
    step = broken / "versions" / script
    source = step.read_text()
    assert source.count(half_way) == 1
    step.write_text(source.replace(half_way, '    raise RuntimeError("power cut")\n' + half_way))
    monkeypatch.setattr(migrate, "migrations_directory", lambda: broken)
    with pytest.raises(RuntimeError, match="power cut"):
        migrate.upgrade(engine)
    monkeypatch.undo()
    tables = set(inspect(engine).get_table_names())
    assert not tables & {"reviews", "appeals", "labels", "events", "embeddings", "decisions_search"}
    assert "subject" not in {column["name"] for column in inspect(engine).get_columns("decisions")}
    assert "community" not in {column["name"] for column in inspect(engine).get_columns("reasons")}
    assert migrate.upgrade(engine) == ("0001", migrate.head())
    assert drift(engine) == []
    assert AuditStore(engine).verify().ok
    assert len(AuditStore(engine).list(community="gamers", rule="harassment").items) == 1


def test_a_database_newer_than_the_code_is_refused(engine: Engine, blank_url: str) -> None:
    migrate.upgrade(engine)
    run(engine, "UPDATE alembic_version SET version_num = '9999'")
    for open_it in (lambda: open_store(blank_url), lambda: migrate.upgrade(engine)):
        with pytest.raises(ConfigurationError, match=r"stands at migration 9999.*newer than the code.*Upgrade"):
            open_it()


def test_tables_of_something_else_are_left_alone(engine: Engine) -> None:
    run(engine, "CREATE TABLE labels (id INTEGER)")
    run(engine, "INSERT INTO labels VALUES (7)")
    with pytest.raises(ConfigurationError, match="tables named labels that guardrail did not make"):
        migrate.upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT id FROM labels")) == 7
    assert inspect(engine).get_table_names() == ["labels"]


def test_other_tables_in_the_database_do_no_harm(engine: Engine) -> None:
    run(engine, "CREATE TABLE shoes (id INTEGER)")
    migrate.upgrade(engine)
    assert "shoes" in inspect(engine).get_table_names()


def test_sqlite_migrates_itself_and_postgresql_says_what_to_run(blank_url: str) -> None:
    if blank_url.startswith("sqlite"):
        with open_store(blank_url) as store:
            assert store.list().items == ()
        return
    with pytest.raises(ConfigurationError, match=r"has no tables yet\. Run: guardrail db upgrade"):
        open_store(blank_url)


def test_an_old_database_is_upgraded_on_sqlite_and_named_on_postgresql(engine: Engine, blank_url: str) -> None:
    migrate.upgrade(engine, "0001")
    if blank_url.startswith("sqlite"):
        with open_store(blank_url) as store:
            assert drift(store.engine) == []
        return
    with pytest.raises(
        ConfigurationError, match=r"stands at migration 0001, this version needs .* guardrail db upgrade"
    ):
        open_store(blank_url)


def test_a_broken_reference_stops_a_migration_of_sqlite(tmp_path: Path, policy: Policy, rewritten: Make) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'audit.sqlite'}")
    migrate.upgrade(engine, "0001")
    record_at_first(engine, rewritten(), policy)
    with engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
        connection.execute(text("DELETE FROM policy_revisions"))
        connection.commit()
        connection.connection.driver_connection.execute("PRAGMA foreign_keys=ON")  # type: ignore[union-attr]
    with pytest.raises(ConfigurationError, match="a row of 'decisions' refers to a row of 'policy_revisions'"):
        migrate.upgrade(engine)
    with engine.connect() as connection:
        assert migrate.current(connection) == "0001"
    engine.dispose()


def test_foreign_keys_are_enforced_again_after_a_migration(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'audit.sqlite'}") as store, store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_the_installed_copy_of_the_migrations_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "guardrail"
    monkeypatch.setattr(migrate, "__file__", str(package / "audit" / "migrate.py"))
    with pytest.raises(ConfigurationError, match="migrations are missing from the installation"):
        migrate.migrations_directory()
    for place in (tmp_path / "site-packages" / "migrations", package / "_shipped" / "migrations"):
        place.mkdir(parents=True)
        (place / "env.py").touch()
        assert migrate.migrations_directory() == place


def test_a_path_with_a_percent_sign(tmp_path: Path) -> None:
    folder = tmp_path / "100% ours"
    folder.mkdir()
    with open_store(f"sqlite:///{folder / 'audit.sqlite'}") as store:
        assert store.list().items == ()
