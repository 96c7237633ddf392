"""`verify` finds what somebody with write access to the database has done to it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Table, delete, select, text, update

from guardrail.audit import chain
from guardrail.audit import verify as verify_module
from guardrail.audit.rows import prepare
from guardrail.audit.store import AuditStore
from guardrail.audit.tables import UtcDateTime, chain_heads, decisions, policy_revisions, reasons, rewrites, scores
from guardrail.audit.verify import Problem
from guardrail.policy import Policy
from guardrail.types import Decision

Make = Callable[..., Decision]


@pytest.fixture
def filled(store: AuditStore, policy: Policy, decide: Make, rewritten: Make) -> AuditStore:
    store.record([decide(id="g1"), rewritten(id="g2")], policy=policy, community="gamers")
    store.record([decide(id="w1", text=None, refusal="No.")], policy=policy, community="workers")
    store.record([decide(id="g3"), rewritten(id="g4"), decide(id="g5")], policy=policy, community="gamers")
    return store


def tamper(store: AuditStore, *statements: Any) -> None:
    """Do what a forger does: change rows behind the store's back, foreign keys or not."""
    with store.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
        else:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        if connection.dialect.name == "sqlite":
            connection.connection.driver_connection.execute("PRAGMA foreign_keys=ON")  # type: ignore[union-attr]


def problems(store: AuditStore) -> list[Problem]:
    found = store.verify()
    assert found.ok == (not found.problems)
    return list(found.problems)


def test_an_untouched_record_is_whole(filled: AuditStore) -> None:
    found = filled.verify()
    assert found.ok
    assert found.decisions == 6
    assert [(one.community, one.decisions, one.sequence) for one in found.chains] == [
        ("gamers", 5, 5),
        ("workers", 1, 1),
    ]
    last = filled.get("g5")
    assert last is not None
    assert found.chains[0].hash == last.hash


def test_the_chain_links_every_decision_to_the_one_before(filled: AuditStore) -> None:
    previous = chain.GENESIS
    for key in ("g1", "g2", "g3", "g4", "g5"):
        one = filled.get(key)
        assert one is not None
        assert one.previous_hash == previous
        assert one.hash.startswith("sha256:")
        previous = one.hash


def test_one_community_can_be_verified_alone(filled: AuditStore) -> None:
    tamper(filled, update(decisions).where(decisions.c.id == "w1").values(risk=0.5))
    assert filled.verify("gamers").ok
    assert not filled.verify("workers").ok
    assert filled.verify("nobody").ok


UNCOVERED = {"sequence", "previous_hash", "hash", "salt", "source_text", "delivered_text"}  # tested one by one below
CHANGES: list[tuple[Table, str]] = [
    *((decisions, column.name) for column in decisions.columns if column.name not in UNCOVERED),
    *((scores, column.name) for column in scores.columns if column.name != "decision_id"),
    *((reasons, column.name) for column in reasons.columns if column.name != "decision_id"),
    *((rewrites, column.name) for column in rewrites.columns if column.name not in {"decision_id", "text"}),
]


def changed(column: Any, old: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(old, bool):
        return not old
    if isinstance(column.type, UtcDateTime):
        return datetime(2000, 1, 1, tzinfo=UTC)
    if isinstance(old, int | float):
        return old + 100
    if isinstance(old, dict):
        return {"forged": 0.5}
    if isinstance(old, list):
        return [[0, 1]]
    return {"similarity": 0.5, "fluency": 0.5, "utility": 0.5}.get(column.name, "forged") if old is None else old + "x"


def test_any_changed_column_is_found(filled: AuditStore) -> None:
    missed = []
    for table, name in CHANGES:
        column = table.columns[name]
        key = table.columns["id" if table is decisions else "decision_id"]
        with filled.engine.connect() as connection:
            row = connection.execute(select(table).where(key == "g4").order_by(*table.primary_key)).mappings().first()
        assert row is not None, table.name
        mine = [one == row[one.name] for one in table.primary_key]
        tamper(filled, update(table).where(*mine).values({name: changed(column, row[name])}))
        found = {(one.kind, one.sequence) for one in problems(filled)}
        if ("altered", 4) not in found and name != "community":
            missed.append(f"{table.name}.{name}: {found}")
        where = [
            one == (changed(one, row[one.name]) if one.name == name else row[one.name]) for one in table.primary_key
        ]
        tamper(filled, update(table).where(*where).values({name: row[name]}))
    assert missed == []
    assert problems(filled) == []  # everything was put back, so each finding was of its own change


@pytest.mark.parametrize(
    ("table", "values", "detail"),
    [
        (decisions, {"source_text": "Harmless."}, "its source text is not the one that was recorded"),
        (decisions, {"source_text": None}, "its source text is missing"),
        (decisions, {"delivered_text": "Worse."}, "its delivered text is not the one that was recorded"),
        (decisions, {"salt": "00" * 16}, "its source text is not the one that was recorded"),
        (rewrites, {"text": "Other."}, "its rewrite 0 is not the one that was recorded"),
        (rewrites, {"text": None}, "its rewrite 2 is missing"),
    ],
)
def test_a_changed_text_is_named(filled: AuditStore, table: Table, values: dict[str, Any], detail: str) -> None:
    key = table.columns["id" if table is decisions else "decision_id"]
    tamper(filled, update(table).where(key == "g4").values(**values))
    found = problems(filled)
    assert detail in {one.detail for one in found}
    assert {(one.kind, one.community, one.sequence, one.id) for one in found} == {("altered", "gamers", 4, "g4")}


def test_the_text_of_a_json_value_is_not_the_value(filled: AuditStore) -> None:
    one = filled.get("g4")
    assert one is not None
    tamper(filled, update(decisions).where(decisions.c.id == "g4").values(rules=chain.canonical(dict(one.rules))))
    assert [(found.kind, found.id) for found in problems(filled)] == [("altered", "g4")]


def test_values_of_a_wrong_kind_are_found(sqlite_store: AuditStore, policy: Policy, rewritten: Make) -> None:
    sqlite_store.record([rewritten(id="g1"), rewritten(id="g2"), rewritten(id="g3")], policy=policy, community="gamers")
    missed = []
    for table in (decisions, scores, reasons, rewrites):
        key = "id" if table is decisions else "decision_id"
        for name in {column.name for column in table.columns} - {key, "community"}:
            for value in ("x'ff00'", "'rubbish'", "'2026-13-45'"):
                with sqlite_store.engine.connect() as connection:
                    statement = f"UPDATE OR REPLACE {table.name} SET {name} = {value} WHERE {key} = 'g2'"  # noqa: S608
                    connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
                    connection.exec_driver_sql(statement)
                    found = verify_module.verify(connection)
                    connection.rollback()
                if found.ok:
                    missed.append((table.name, name, value))
    assert missed == []
    assert sqlite_store.verify().ok


def test_a_text_added_to_an_unaltered_decision_is_found(filled: AuditStore) -> None:
    tamper(filled, update(decisions).where(decisions.c.id == "g3").values(delivered_text="Something else."))
    assert [one.detail for one in problems(filled)] == ["its delivered text was added"]


@pytest.mark.parametrize("table", [scores, reasons, rewrites], ids=lambda table: table.name)
def test_removed_parts_are_found(filled: AuditStore, table: Table) -> None:
    tamper(filled, delete(table).where(table.c.decision_id == "g2"))
    assert {(one.kind, one.id) for one in problems(filled)} == {("altered", "g2")}


def forget(key: str) -> list[Any]:
    parts = [delete(table).where(table.c.decision_id == key) for table in (scores, reasons, rewrites)]
    return [*parts, delete(decisions).where(decisions.c.id == key)]


@pytest.mark.parametrize(
    ("gone", "sequence", "detail"),
    [
        (["g1"], 1, "decision 1 of the chain is gone"),
        (["g3"], 3, "decision 3 of the chain is gone"),
        (["g2", "g3", "g4"], 2, "decisions 2 to 4 of the chain are gone"),
        (["g5"], 5, "decision 5 of the chain is gone"),
        (["g4", "g5"], 4, "decisions 4 to 5 of the chain are gone"),
        (["g1", "g2", "g3", "g4", "g5"], 1, "decisions 1 to 5 of the chain are gone"),
    ],
)
def test_removed_decisions_are_found(filled: AuditStore, gone: list[str], sequence: int, detail: str) -> None:
    tamper(filled, *(statement for key in gone for statement in forget(key)))
    assert problems(filled) == [Problem("removed", "gamers", sequence, None, detail)]


def test_a_decision_removed_without_its_parts_leaves_them_astray(filled: AuditStore) -> None:
    tamper(filled, delete(decisions).where(decisions.c.id == "g2"))
    found = problems(filled)
    assert found[0] == Problem("removed", "gamers", 2, None, "decision 2 of the chain is gone")
    assert [(one.kind, one.id, one.detail) for one in found[1:]] == [
        ("inserted", "g2", "3 scores belong to no decision"),
        ("inserted", "g2", "1 reasons belong to no decision"),
        ("inserted", "g2", "3 rewrites belong to no decision"),
    ]


def forged(connection: Connection, policy: Policy, decision: Decision, sequence: int, previous: str) -> None:
    """Insert a decision as the store would, hash and all."""
    made = prepare(decision, community="gamers")
    values = made.decision | {
        "sequence": sequence,
        "previous_hash": previous,
        "hash": chain.link(previous, sequence, made.content),
        "rules": {"harassment": 0.1, "violence": 1e-7},
        "failures": {},
        "models": dict(decision.models),
        "timings_ms": dict(decision.timings_ms),
    }
    connection.execute(decisions.insert(), values)
    connection.execute(scores.insert(), made.scores)


def test_a_decision_added_beyond_the_end_is_found(filled: AuditStore, policy: Policy, decide: Make) -> None:
    last = filled.get("g5")
    assert last is not None
    with filled.engine.begin() as connection:
        forged(connection, policy, decide(id="forged"), 6, last.hash)
    assert problems(filled) == [Problem("inserted", "gamers", 6, "forged", "it stands beyond the end of its chain")]


def test_a_decision_added_before_the_start_is_found(filled: AuditStore, policy: Policy, decide: Make) -> None:
    with filled.engine.begin() as connection:
        forged(connection, policy, decide(id="forged"), 0, chain.GENESIS)
    (found, *_) = problems(filled)
    assert (found.kind, found.sequence, found.id) == ("inserted", 0, "forged")


def test_a_decision_put_in_the_place_of_another_is_found(filled: AuditStore, policy: Policy, decide: Make) -> None:
    before = filled.get("g2")
    assert before is not None
    tamper(filled, *forget("g3"))
    with filled.engine.begin() as connection:
        forged(connection, policy, decide(id="forged"), 3, before.hash)
    found = problems(filled)
    assert [(one.kind, one.sequence, one.id) for one in found] == [("altered", 4, "g4")]
    assert "one of the two was replaced" in found[0].detail


def test_a_place_taken_twice_is_found(filled: AuditStore, policy: Policy, decide: Make) -> None:
    if filled.engine.dialect.name == "postgresql":  # SQLite would have to build the table anew to drop it
        drop = "ALTER TABLE decisions DROP CONSTRAINT uq_decisions_community_sequence"
        restore = "ALTER TABLE decisions ADD CONSTRAINT uq_decisions_community_sequence UNIQUE (community, sequence)"
        before = filled.get("g2")
        assert before is not None
        tamper(filled, text(drop))
        with filled.engine.begin() as connection:
            forged(connection, policy, decide(id="zz-forged"), 3, before.hash)
        found = problems(filled)
        tamper(filled, *forget("zz-forged"), text(restore))
        assert ("inserted", 3, "zz-forged") in {(one.kind, one.sequence, one.id) for one in found}
    else:  # there the constraint itself refuses it
        with pytest.raises(Exception, match="UNIQUE"), filled.engine.begin() as connection:
            forged(connection, policy, decide(id="zz-forged"), 3, chain.GENESIS)


def test_a_moved_decision_is_found_in_both_chains(filled: AuditStore) -> None:
    tamper(filled, update(decisions).where(decisions.c.id == "g5").values(community="workers", sequence=2))
    found = {(one.kind, one.community, one.sequence) for one in problems(filled)}
    assert ("removed", "gamers", 5) in found
    assert ("inserted", "workers", 2) in found


def test_a_head_that_was_set_back_is_found(filled: AuditStore) -> None:
    tamper(filled, update(chain_heads).where(chain_heads.c.community == "gamers").values(sequence=4))
    assert [(one.kind, one.id) for one in problems(filled)] == [("inserted", "g5")]


def test_a_head_with_another_hash_is_found(filled: AuditStore) -> None:
    tamper(filled, update(chain_heads).where(chain_heads.c.community == "gamers").values(hash="sha256:0"))
    (found,) = problems(filled)
    assert found.detail == "the end of the chain is not the hash of its last row"


def test_a_removed_head_is_found(filled: AuditStore) -> None:
    tamper(filled, delete(chain_heads).where(chain_heads.c.community == "workers"))
    assert [(one.kind, one.id) for one in problems(filled)] == [("inserted", "w1")]


def test_a_chain_cut_together_with_its_head_needs_a_head_kept_elsewhere(filled: AuditStore) -> None:
    kept = filled.verify("gamers").chains[0]
    before = filled.get("g4")
    assert before is not None
    end = update(chain_heads).where(chain_heads.c.community == "gamers").values(sequence=4, hash=before.hash)
    tamper(filled, *forget("g5"), end)
    found = filled.verify("gamers")
    assert found.ok  # the chain alone cannot show it
    assert found.chains[0].sequence < kept.sequence  # what was kept can


@pytest.mark.parametrize("value", ["md5:00", "", "plain"])
def test_a_hash_of_an_unknown_algorithm_is_not_taken_on_trust(filled: AuditStore, value: str) -> None:
    tamper(filled, update(decisions).where(decisions.c.id == "g5").values(hash=value))
    assert any("names an unknown algorithm" in one.detail for one in problems(filled))


def test_an_altered_policy_revision_is_found(filled: AuditStore, policy: Policy) -> None:
    tamper(filled, update(policy_revisions).values(document=policy.canonical.replace("block", "allow")))
    (found,) = problems(filled)
    assert (found.kind, found.id) == ("altered", policy.revision)


def test_chains_longer_than_a_slice(
    sqlite_store: AuditStore, policy: Policy, decide: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "_SLICE", 7)
    sqlite_store.record([decide(id=f"d{index}") for index in range(50)], policy=policy, community="gamers")
    assert sqlite_store.verify().decisions == 50
    assert sqlite_store.verify().ok
    tamper(sqlite_store, update(decisions).where(decisions.c.id == "d35").values(risk=0.9))
    assert [one.id for one in problems(sqlite_store)] == ["d35"]


def test_the_next_decision_does_not_hide_a_forgery(filled: AuditStore, policy: Policy, decide: Make) -> None:
    tamper(filled, update(decisions).where(decisions.c.id == "g2").values(risk=0.1))
    filled.record([decide(id="g6")], policy=policy, community="gamers")
    assert [(one.sequence, one.id) for one in problems(filled)] == [(2, "g2")]
