"""Texts encrypted at rest: nothing readable on disk, everything readable with the key, and the chain verifies either way."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Text, select, text, type_coerce, update

from guardrail.audit.erasure import erase
from guardrail.audit.escaping import escape
from guardrail.audit.evidence import similar
from guardrail.audit.export import decisions_of
from guardrail.audit.holds import look
from guardrail.audit.people import People
from guardrail.audit.query import Filters
from guardrail.audit.rekey import rekey
from guardrail.audit.sealing import PREFIX, Locked, SealedBytes, SealedText, Seals, make_seals, seals_of
from guardrail.audit.spool import Spool
from guardrail.audit.store import AuditStore, open_store
from guardrail.audit.tables import decisions, events, metadata, reviews
from guardrail.errors import ConfigurationError
from guardrail.types import Action, Decision, Evidence, State

PATIENCE = 60.0
SECRET = "zitronenfalter"
OLD, NEW = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))


def opened(url: str, key: str | None, **options: Any) -> AuditStore:
    return open_store(url, timeout=PATIENCE, encryption_key=key, **options)


@pytest.fixture
def sealed_store(url: str) -> Iterator[AuditStore]:
    with opened(url, OLD, store_embeddings=True) as store:
        yield store


@pytest.fixture
def fill(policy: Any, rewritten: Callable[..., Decision], decide: Callable[..., Decision]) -> Callable[..., list[str]]:
    """Records one decision of each kind with the secret word in every text, and what people say of them."""

    def make(store: AuditStore) -> list[str]:
        evidence = Evidence("e" * 64, 2, np.ones((1, 2), "<f2").tobytes(), np.zeros((1, 2), "<u4").tobytes(), {})
        repaired = rewritten(source=f"Sure. You absolute {SECRET}! Bye.", text=f"Sure. {SECRET} can do it. Bye.")
        plain = decide(source=f"One {SECRET} flies.", text=f"One {SECRET} flies.", evidence=evidence)
        held = decide(source=f"Held {SECRET}.", text=None, state=State.ESCALATED, action=Action.ESCALATE)
        store.record([repaired, plain, held], policy=policy, community="c", subject="ann")
        with People(store).change() as change:
            change.review(repaired.id, reviewer="r", verdict="edit", comment=f"my {SECRET}", edited_text=f"{SECRET}!")
            ticket = change.appeal(repaired.id, appellant="ann", statement=f"no {SECRET} at all")
            change.answer(ticket, status="refused", answer=f"but {SECRET}", answered_by="boss")
            change.settle(held.id, status="released", by="r", text=f"other {SECRET}")
        return [repaired.id, plain.id, held.id]

    return make


def raw_texts(store: AuditStore) -> list[str]:
    """Every value of a sealed text column as it is stored."""
    found: list[str] = []
    with store.engine.connect() as connection:
        for table in metadata.sorted_tables:
            for column in table.columns:
                if isinstance(column.type, SealedText):
                    found += [one for one in connection.scalars(select(type_coerce(column, Text))) if one]
    return found


# ------------------------------------------------------------------------------------------------------ the cipher


@given(st.text())
def test_what_was_sealed_opens_to_the_same_text(plain: str) -> None:
    seals, stored = Seals(b"k" * 32), escape(plain)
    assert seals.open(seals.close(stored)) == stored
    once = seals.close(stored)
    assert seals.close(once) == once
    assert stored.startswith(PREFIX) is False  # nobody can write a text that is taken for a sealed one


def test_two_seals_of_one_text_differ_and_neither_tells_it() -> None:
    seals = Seals(b"k" * 32)
    one, other = seals.close(SECRET), seals.close(SECRET)
    assert one != other
    assert SECRET not in one
    assert seals.close(one) == one


def test_a_changed_or_foreign_seal_is_locked_and_says_why() -> None:
    seals = Seals(b"k" * 32)
    stored = seals.close(SECRET)
    changed = stored[:-6] + ("AAAA" if stored[-6:-2] != "AAAA" else "BBBB") + stored[-2:]
    for bad in (changed, stored[:-8], stored[: len(PREFIX) + 9], PREFIX + seals.key + ":%%%"):
        opened_text = seals.open(bad)
        assert isinstance(opened_text, Locked)
        assert opened_text.damaged, bad
        assert SECRET not in opened_text.why
    missing = Seals(b"x" * 32).open(stored)
    assert isinstance(missing, Locked)
    assert missing == "[encrypted]"
    assert not missing.damaged
    assert seals.key in missing.why
    assert "GUARDRAIL_AUDIT_ENCRYPTION_KEY" in missing.why


def test_keys_are_checked_and_never_quoted() -> None:
    for bad in ("short", base64.b64encode(b"k" * 31).decode(), f"{OLD},not-a-key", "é" * 44):
        with pytest.raises(ConfigurationError, match="openssl rand -base64 32") as error:
            make_seals(bad)
        assert bad not in str(error.value)
    seals = make_seals(f" {NEW} , {OLD}")
    assert seals is not None
    assert OLD not in repr(seals)
    assert make_seals(None) is None
    assert make_seals(base64.urlsafe_b64encode(b"\xff" * 32).decode()) is not None


# ---------------------------------------------------------------------------------------------------- in the store


def test_no_text_stands_in_the_database_in_the_clear(sealed_store: AuditStore, fill: Any) -> None:
    fill(sealed_store)
    stored = raw_texts(sealed_store)
    assert len(stored) >= 15
    assert all(one.startswith(PREFIX) for one in stored)
    with sealed_store.engine.connect() as connection:
        vectors = text("SELECT vectors FROM embeddings")
        assert all(bytes(one).startswith(PREFIX.encode()) for one in connection.scalars(vectors))


def test_no_file_of_sqlite_or_of_the_spool_holds_a_text(tmp_path: Path, fill: Any, policy: Any, decide: Any) -> None:
    url = f"sqlite:///{tmp_path / 'audit.sqlite'}"
    with opened(url, OLD, durability="spool", spool=tmp_path / "spool") as store:
        first = decide(source=f"spooled {SECRET}", text=f"spooled {SECRET}")
        store.record([first], policy=policy, community="c")
        waiting = b"".join(path.read_bytes() for path, _ in Spool(tmp_path / "spool").waiting())
        assert SECRET.encode() not in waiting
        assert store.recorder.flush(PATIENCE)
        with opened(url, OLD) as direct:
            fill(direct)
        found = store.get(first.id)
        assert found is not None
        assert found.source_text == f"spooled {SECRET}"
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) >= 2
        assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_full_spool_file_holds_no_text_while_the_database_is_away(tmp_path: Path, policy: Any, decide: Any) -> None:
    missing = tmp_path / "not-there" / "audit.sqlite"
    with opened(f"sqlite:///{missing}", OLD, spool=tmp_path / "spool") as store:
        one = decide(source=SECRET, text=SECRET)
        store.record([one], policy=policy, community="c")
        ((path, size),) = Spool(tmp_path / "spool").waiting()
        assert size > 0
        assert SECRET.encode() not in path.read_bytes()
        missing.parent.mkdir()
        assert store.recorder.flush(PATIENCE)
        found = store.get(one.id)
        assert found is not None
        assert found.source_text == SECRET


def test_everything_reads_with_the_key(sealed_store: AuditStore, fill: Any) -> None:
    first, second, held = fill(sealed_store)
    found = sealed_store.get(first)
    assert found is not None
    assert found.source_text == f"Sure. You absolute {SECRET}! Bye."
    assert found.delivered_text == f"Sure. {SECRET} can do it. Bye."
    assert [one.text for one in found.candidates] == ["You can do it.", "You fool!"]
    assert found.locked == ""
    settled = look(sealed_store, held)
    assert settled is not None
    assert settled.text == f"other {SECRET}"
    with sealed_store.engine.connect() as connection:
        assert connection.scalar(select(reviews.c.comment)) == f"my {SECRET}"
        assert {one.id for one in decisions_of(connection, Filters())} == {first, second, held}
        assert similar(connection, second) == []
    verified = sealed_store.verify()
    assert verified.ok
    assert verified.sealed == {}


def test_without_the_key_the_chain_verifies_and_texts_say_what_to_do(url: str, fill: Any) -> None:
    with opened(url, OLD, store_embeddings=True) as store:
        first, second, held = fill(store)
        key = Seals(b"\1" * 32).key
    for wrong in (None, NEW):
        with opened(url, wrong) as store:
            found = store.get(first)
            assert found is not None
            assert (found.source_text, found.delivered_text, found.candidates[0].text) == (None, None, None)
            assert key in found.locked
            assert store.list().items[0].locked
            verified = store.verify()
            assert verified.ok, verified.problems
            assert verified.sealed[key] >= 3
            with store.engine.connect() as connection, pytest.raises(ConfigurationError, match=key):
                list(decisions_of(connection, Filters()))
            with pytest.raises(ConfigurationError, match="GUARDRAIL_AUDIT_ENCRYPTION_KEY"):
                look(store, held)
            with store.engine.connect() as connection:
                assert similar(connection, second) == []


def test_a_changed_hash_is_found_without_the_key_and_a_changed_text_with_it(url: str, fill: Any) -> None:
    with opened(url, OLD) as store:
        first, second, _ = fill(store)
        with store.engine.begin() as connection:
            connection.execute(update(decisions).where(decisions.c.id == first).values(risk=0.1))
            # The text of another decision, sealed with the right key: only its digest shows that it was put there.
            foreign = connection.scalar(select(decisions.c.source_text).where(decisions.c.id == first))
            connection.execute(update(decisions).where(decisions.c.id == second).values(source_text=foreign))
        problems = {(one.id, one.detail) for one in store.verify().problems}
        assert (second, "its source text is not the one that was recorded") in problems
        assert any(key == first for key, _ in problems)
    with opened(url, None) as store:
        verified = store.verify()
        assert [one.id for one in verified.problems] == [first]
        assert sum(verified.sealed.values()) >= 2


def test_a_damaged_seal_is_named_as_altered(url: str, fill: Any) -> None:
    with opened(url, OLD) as store:
        first, _, _ = fill(store)
        with store.engine.begin() as connection:
            stored = connection.scalar(
                select(type_coerce(decisions.c.source_text, Text)).where(decisions.c.id == first)
            )
            assert stored is not None
            spoilt = stored[:-8] + ("A" if stored[-8] != "A" else "B") + stored[-7:]
            connection.execute(text("UPDATE decisions SET source_text = :t WHERE id = :i"), {"t": spoilt, "i": first})
        assert [(one.id, one.kind) for one in store.verify().problems] == [(first, "altered")]
        found = store.get(first)
        assert found is not None
        assert "audit verify" in found.locked


def test_erasure_leaves_nothing_sealed_and_a_whole_chain(sealed_store: AuditStore, fill: Any) -> None:
    fill(sealed_store)
    assert erase(sealed_store, by="boss", subject="ann") == 3
    assert [one for one in raw_texts(sealed_store) if SECRET in one] == []
    with sealed_store.engine.connect() as connection:
        assert set(connection.scalars(select(type_coerce(decisions.c.salt, Text)))) == {""}
        assert set(connection.scalars(select(type_coerce(decisions.c.source_text, Text)))) == {None}
        spoken = select(type_coerce(events.c.salt, Text)).where(events.c.decision_id.is_not(None))
        assert set(connection.scalars(spoken)) == {""}
    assert sealed_store.verify().ok


# ---------------------------------------------------------------------------------------------------------- search


def test_words_are_found_in_sealed_texts_page_by_page(url: str, policy: Any, decide: Any, monkeypatch: Any) -> None:
    from guardrail.audit import scan

    with opened(url, OLD) as store:
        texts = ["the Old dog barks", "old wine, new dogs", "nothing here", "an old DOG, again", "dog old"]
        made = [decide(source=one, text=one, created_at=1_700_000_000.0 + at) for at, one in enumerate(texts)]
        store.record(made, policy=policy, community="c")
        ids = [one.id for one in made]

        def found(needle: str, **options: Any) -> list[int]:
            return [ids.index(one.id) for one in store.list(text=needle, **options).items]

        assert found("old dog") == [4, 3, 0]
        assert found('"old dog"') == [3, 0]
        assert found("dog*") == [4, 3, 1, 0]
        assert found("cat") == []
        page = store.list(text="old", limit=2)
        assert [ids.index(one.id) for one in page.items] == [4, 3]
        assert [ids.index(one.id) for one in store.list(text="old", limit=2, after=page.next).items] == [1, 0]
        monkeypatch.setattr(scan, "SCANNED", 2)  # a page looks no further than that, and says where to go on
        seen, after = [], None
        while True:
            page = store.list(text="dog*", after=after)
            seen += [ids.index(one.id) for one in page.items]
            after = page.next
            if after is None:
                break
        assert seen == [4, 3, 1, 0]


def test_the_index_finds_clear_texts_and_no_sealed_ones(url: str, policy: Any, decide: Any) -> None:
    with opened(url, None) as store:
        clear = decide(source="a clear zebra", text="a clear zebra")
        store.record([clear], policy=policy, community="c")
    with opened(url, OLD) as store:
        store.record([decide(source="a sealed zebra", text="a sealed zebra")], policy=policy, community="c")
        assert len(store.list(text="zebra").items) == 2
    with opened(url, None) as store:
        assert [one.id for one in store.list(text="zebra").items] == [clear.id]
        assert store.list(text="sealed*").items == ()  # the head of a sealed text is no word


# ----------------------------------------------------------------------------------------------------------- rekey


def test_rekey_seals_what_was_clear_and_changes_a_key(url: str, fill: Any, policy: Any, decide: Any) -> None:
    with opened(url, None, store_embeddings=True) as store:
        ids = fill(store)
        head = store.verify().chains[0].hash
    with opened(url, OLD, store_embeddings=True) as store:
        store.record([decide(source=f"later {SECRET}", text=f"later {SECRET}")], policy=policy, community="d")
        told: list[int] = []
        first = rekey(store, told.append)
        assert first == sum(told) > 10
        assert rekey(store) == 0
        assert all(one.startswith(PREFIX) for one in raw_texts(store))
        assert [one.id for one in store.list(text=SECRET, community="c").items]
    with opened(url, f"{NEW},{OLD}") as store:
        assert rekey(store) > first
    with opened(url, NEW) as store:  # the old key is not needed any more
        verified = store.verify()
        assert verified.ok, verified.problems
        assert verified.sealed == {}
        assert {one.community: one.hash for one in verified.chains}["c"] == head
        found = store.get(ids[0])
        assert found is not None
        assert found.source_text == f"Sure. You absolute {SECRET}! Bye."


def test_rekey_leaves_no_clear_text_in_the_files_of_sqlite(tmp_path: Path, fill: Any) -> None:
    url = f"sqlite:///{tmp_path / 'audit.sqlite'}"
    with opened(url, None) as store:
        fill(store)
    with opened(url, OLD) as store:
        rekey(store)
    with sqlite3.connect(tmp_path / "audit.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        words = "SELECT count(*) FROM decisions_search WHERE decisions_search MATCH ?"
        assert connection.execute(words, (SECRET,)).fetchone() == (0,)
    connection.close()
    assert SECRET.encode() not in (tmp_path / "audit.sqlite").read_bytes()


def test_rekey_without_a_key_or_the_old_key_says_so_and_changes_nothing(url: str, fill: Any) -> None:
    with opened(url, OLD) as store:
        fill(store)
        before = sorted(raw_texts(store))
    with opened(url, None) as store, pytest.raises(ConfigurationError, match="no key is configured"):
        rekey(store)
    with opened(url, NEW) as store:
        with pytest.raises(ConfigurationError, match=Seals(b"\1" * 32).key):
            rekey(store)
        assert sorted(raw_texts(store)) == before


def test_every_sealed_column_is_known(tmp_path: Path) -> None:
    """A new column of text must be sealed, or say here why not."""
    clear = {"decisions.note", "reasons.description", "reasons.error", "policy_revisions.document"}
    known = {
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, Text)
    }
    assert known == clear
    sealed = sum(isinstance(c.type, SealedText | SealedBytes) for t in metadata.sorted_tables for c in t.columns)
    assert sealed == 11


def test_the_command_line_reads_and_seals_by_the_variable(tmp_path: Path, fill: Any, monkeypatch: Any) -> None:
    from typer.testing import CliRunner

    from guardrail.cli.app import app

    url = f"sqlite:///{tmp_path / 'audit.sqlite'}"
    with opened(url, None) as store:
        first = fill(store)[0]

    def run(*words: str) -> Any:
        said = CliRunner().invoke(app, ["audit", *words, "--url", url, "--json"])
        return said.exit_code, said.stdout, said.stderr

    monkeypatch.setenv("GUARDRAIL_AUDIT_ENCRYPTION_KEY", OLD)
    code, out, _ = run("rekey")
    assert (code, json.loads(out)["rows"] > 5) == (0, True)
    assert SECRET in run("show", first)[1]
    monkeypatch.setenv("GUARDRAIL_AUDIT_ENCRYPTION_KEY", NEW)
    shown = json.loads(run("show", first)[1])
    assert shown["source_text"] is None
    assert "not configured" in shown["locked"]
    code, out, _ = run("verify")
    assert code == 0
    assert sum(json.loads(out)["sealed"].values()) > 2
    code, _, err = run("export", str(tmp_path / "out.jsonl"))
    assert code == 2
    assert "GUARDRAIL_AUDIT_ENCRYPTION_KEY" in err
    monkeypatch.setenv("GUARDRAIL_AUDIT_ENCRYPTION_KEY", "no-key")
    code, _, err = run("list")
    assert code == 2
    assert "openssl rand" in err
    assert "no-key" not in err


def test_seals_belong_to_one_engine_only(tmp_path: Path) -> None:
    with (
        opened(f"sqlite:///{tmp_path / 'a.sqlite'}", OLD) as one,
        opened(f"sqlite:///{tmp_path / 'b.sqlite'}", None) as other,
    ):
        assert seals_of(one.engine.dialect) is not None
        assert seals_of(other.engine.dialect) is None
