"""A database that is locked, away, full, damaged or not one: a clear error, nothing half-written, no password shown."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event, make_url, text

from guardrail.audit import database
from guardrail.audit.database import describe, make_engine, parse_url
from guardrail.audit.store import AuditStore, open_store
from guardrail.errors import AuditUnavailable, ConfigurationError, MissingDependencyError
from guardrail.policy import Policy
from guardrail.types import Decision

Make = Callable[..., Decision]

NOWHERE = "postgresql://moderator:hunter2@127.0.0.1:1/audit"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.sqlite"


@pytest.fixture
def postgres_store(empty_postgres: str) -> Iterator[AuditStore]:
    with open_store(empty_postgres, timeout=0.3) as opened:
        yield opened


def refused(store: AuditStore, policy: Policy, decision: Decision) -> str:
    with pytest.raises(AuditUnavailable) as caught:
        store.record([decision], policy=policy, community="gamers")
    assert decision.source not in str(caught.value)
    return str(caught.value)


# -------------------------------------------------------------------------------------------------------- locked


def test_a_locked_file(sqlite_store: AuditStore, file: Path, policy: Policy, decide: Make) -> None:
    sqlite_store.record([decide()], policy=policy, community="gamers")
    other = make_engine(f"sqlite:///{file}")
    with other.connect().execution_options(**database.WRITE) as connection:
        connection.begin()
        message = refused(sqlite_store, policy, decide())
        assert "is locked by another process" in message
        assert "nothing was recorded" in message
        assert len(sqlite_store.list().items) == 1  # reading goes on
        connection.rollback()
    other.dispose()
    sqlite_store.record([decide()], policy=policy, community="gamers")
    assert sqlite_store.verify().decisions == 2
    assert sqlite_store.verify().ok


def test_a_lock_that_ends_in_time_is_waited_for(file: Path, policy: Policy, decide: Make) -> None:
    with open_store(f"sqlite:///{file}", timeout=30.0) as store:
        other = make_engine(f"sqlite:///{file}")
        connection = other.connect().execution_options(**database.WRITE)
        connection.begin()
        done = threading.Event()

        def record() -> None:
            store.record([decide()], policy=policy, community="gamers")
            done.set()

        thread = threading.Thread(target=record)
        thread.start()
        assert not done.wait(0.2)
        connection.rollback()
        thread.join(30)
        assert done.is_set()
        connection.close()
        other.dispose()
        assert store.verify().decisions == 1


def test_everybody_who_waits_for_a_locked_file_is_told(
    sqlite_store: AuditStore, file: Path, policy: Policy, decide: Make
) -> None:
    other = make_engine(f"sqlite:///{file}")
    messages: list[str] = []
    with other.connect().execution_options(**database.WRITE) as connection:
        connection.begin()
        threads = [
            threading.Thread(target=lambda: messages.append(refused(sqlite_store, policy, decide()))) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        connection.rollback()
    other.dispose()
    assert len(messages) == 6
    assert sqlite_store.verify().decisions == 0


def test_a_locked_chain_on_postgresql(postgres_store: AuditStore, policy: Policy, decide: Make) -> None:
    postgres_store.record([decide()], policy=policy, community="gamers")
    with postgres_store.engine.connect() as connection:
        connection.execute(text("SELECT * FROM chain_heads FOR UPDATE"))
        assert "is locked by another session" in refused(postgres_store, policy, decide())
        connection.rollback()
    postgres_store.record([decide()], policy=policy, community="gamers")
    assert postgres_store.verify().decisions == 2
    assert postgres_store.verify().ok


def test_other_communities_do_not_wait_for_a_locked_chain(
    postgres_store: AuditStore, policy: Policy, decide: Make
) -> None:
    postgres_store.record([decide()], policy=policy, community="gamers")
    with postgres_store.engine.connect() as connection:
        connection.execute(text("SELECT * FROM chain_heads WHERE community = 'gamers' FOR UPDATE"))
        postgres_store.record([decide()], policy=policy, community="workers")
        connection.rollback()


# ---------------------------------------------------------------------------------------------------------- away


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(AuditUnavailable) as caught:
        open_store(NOWHERE, timeout=0.5)
    message = str(caught.value)
    assert "PostgreSQL database 'audit' on 127.0.0.1:1 as 'moderator'" in message
    assert "cannot be reached" in message
    assert "guardrail db check" in message


def test_a_database_that_is_not_there(postgres: str) -> None:
    url = make_url(postgres).set(database="nothing").render_as_string(hide_password=False)
    with pytest.raises(AuditUnavailable, match=r"cannot be reached|does not exist"):
        open_store(url)


def test_a_server_that_drops_its_connections_is_reached_again(
    postgres_store: AuditStore, migrated_postgres: str, policy: Policy, decide: Make
) -> None:
    postgres_store.record([decide()], policy=policy, community="gamers")
    kill(migrated_postgres)
    postgres_store.record([decide()], policy=policy, community="gamers")
    assert postgres_store.verify().decisions == 2


def kill(url: str) -> None:
    """End every other session of the database."""
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    engine.dispose()


def test_a_connection_lost_in_the_middle_writes_nothing(
    migrated_postgres: str, empty_postgres: str, policy: Policy, decide: Make
) -> None:
    with open_store(empty_postgres, timeout=20.0) as store:
        store.record([decide()], policy=policy, community="gamers")
        killed: list[bool] = []

        def before_heads_move(connection: object, cursor: object, statement: str, *rest: object) -> None:
            if statement.startswith("INSERT INTO decisions") and not killed:
                killed.append(True)
                kill(migrated_postgres)

        event.listen(store.engine, "before_cursor_execute", before_heads_move)
        message = refused(store, policy, decide())
        assert killed
        assert "nothing was recorded" in message
        assert store.verify().decisions == 1
        store.record([decide()], policy=policy, community="gamers")
        assert store.verify().decisions == 2
        assert store.verify().ok


def test_no_connection_left(sqlite_store: AuditStore, policy: Policy, decide: Make) -> None:
    pool = sqlite_store.engine.pool
    held = [sqlite_store.engine.connect() for _ in range(pool.size() + pool._max_overflow)]  # type: ignore[attr-defined]
    assert "all of its connections are in use" in refused(sqlite_store, policy, decide())
    for connection in held:
        connection.close()
    sqlite_store.record([decide()], policy=policy, community="gamers")


# --------------------------------------------------------------------------------------- files that cannot be used


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(AuditUnavailable, match="it is a directory, not a file"):
        open_store(f"sqlite:///{tmp_path}")


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(AuditUnavailable, match=r"its directory '.*nowhere' does not exist"):
        open_store(f"sqlite:///{tmp_path / 'nowhere' / 'audit.sqlite'}")


def test_a_file_of_another_kind(file: Path) -> None:
    file.write_text("This is a letter, not a database.\n" * 100)
    with pytest.raises(AuditUnavailable, match="the file is not an SQLite database"):
        open_store(f"sqlite:///{file}")
    assert file.read_text().startswith("This is a letter")


def test_a_damaged_file(file: Path, policy: Policy, decide: Make) -> None:
    with open_store(f"sqlite:///{file}") as store:
        store.record([decide() for _ in range(50)], policy=policy, community="gamers")
    content = bytearray(file.read_bytes())
    content[200:] = b"\xff" * (len(content) - 200)
    file.write_bytes(content)
    with pytest.raises(AuditUnavailable, match="the file is damaged"):
        open_store(f"sqlite:///{file}")


def test_a_file_that_may_only_be_read(file: Path, policy: Policy, decide: Make) -> None:
    with open_store(f"sqlite:///{file}") as store:
        store.record([decide()], policy=policy, community="gamers")
    with open_store(f"sqlite:///file:{file}?mode=ro&uri=true") as store:
        assert len(store.list().items) == 1
        assert "it is read-only" in refused(store, policy, decide())


def test_a_full_disk(sqlite_store: AuditStore, policy: Policy, decide: Make) -> None:
    sqlite_store.record([decide(id="before")], policy=policy, community="gamers")
    limit: list[int] = []

    @event.listens_for(sqlite_store.engine, "begin")
    def quota(connection: object) -> None:  # SQLite's own limit fails in the way a full disk does
        if limit:
            connection.exec_driver_sql(f"PRAGMA max_page_count={limit[0]}")  # type: ignore[attr-defined]

    with sqlite_store.engine.connect() as connection:
        limit.append(int(connection.exec_driver_sql("PRAGMA page_count").scalar_one()))
    large = decide(id="large", source="x" * 500_000)
    assert "the disk is full" in refused(sqlite_store, policy, large)
    limit[0] = 1_000_000
    sqlite_store.record([large], policy=policy, community="gamers")
    assert [one.id for one in sqlite_store.list().items] == ["large", "before"]
    assert sqlite_store.verify().ok


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_goes_away_while_it_is_open(
    sqlite_store: AuditStore, file: Path, policy: Policy, decide: Make, replaced: bool
) -> None:
    sqlite_store.record([decide()], policy=policy, community="gamers")
    file.rename(file.with_suffix(".moved"))
    if replaced:
        file.touch()
    assert "was deleted or replaced while it was open" in refused(sqlite_store, policy, decide())
    assert "its tables are missing" in refused(sqlite_store, policy, decide())


def test_the_file_does_not_move_with_the_process(tmp_path: Path, policy: Policy, decide: Make) -> None:
    with open_store("sqlite:///here.sqlite") as store:
        (tmp_path / "elsewhere").mkdir()
        os.chdir(tmp_path / "elsewhere")
        store.engine.dispose()  # every connection from now on is a new one
        store.record([decide()], policy=policy, community="gamers")
    assert (tmp_path / "here.sqlite").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_commands_that_read_do_not_make_a_file(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no audit store at"):
        open_store(f"sqlite:///{file}", create=False)
    assert not file.exists()


# ---------------------------------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    "url", ["", "rubbish", "postgresql://u:hunter2@host:port/db", "mysql://u:hunter2@host/db", "sqlite+aiosqlite:///x"]
)
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(ConfigurationError, match="expected sqlite:///FILE or postgresql://") as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'guardrail-dglm\[postgres\]'"):
        make_engine(NOWHERE)


@pytest.mark.parametrize("url", [NOWHERE, "postgresql://host/db?user=u&password=hunter2", "postgres://u:hunter2@/db"])
def test_passwords_are_not_shown(url: str) -> None:
    assert parse_url(url).drivername == "postgresql+psycopg"
    engine = make_engine(url)
    assert "hunter2" not in describe(engine.url)
    assert "hunter2" not in repr(engine) or "password=hunter2" in url  # SQLAlchemy masks the usual place itself


def test_stored_values_are_not_shown_in_errors(sqlite_store: AuditStore, policy: Policy, decide: Make) -> None:
    with sqlite_store.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER stop BEFORE INSERT ON decisions BEGIN SELECT RAISE(ABORT, 'no more'); END"
        )
    message = refused(sqlite_store, policy, decide(source="my secret"))
    assert "my secret" not in message
    assert "holds rows that contradict the record (no more)" in message


def test_a_dead_store_can_be_closed_twice(sqlite_store: AuditStore) -> None:
    sqlite_store.close()
    sqlite_store.close()
    assert sqlite_store.list().items == ()  # and used again: connections are opened when they are needed
