"""Bring a database to the tables of this version, and tell whether it is there. The steps themselves are Alembic's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from guardrail.audit.database import WRITE, begin_write, describe, unavailable
from guardrail.audit.search import COLUMN, INDEX, search_problem
from guardrail.audit.tables import metadata
from guardrail.errors import ConfigurationError

__all__ = [
    "current",
    "downgrade",
    "drift",
    "head",
    "include_object",
    "migrations_directory",
    "require_current",
    "upgrade",
]

MIGRATION_TIMEOUT = 300.0
"""Seconds to wait for another process that is migrating the same database."""

_ALEMBIC = threading.Lock()  # `alembic.context` is one for the whole process

_ADVISORY_LOCK = 0x67756172  # "guar"; serialises migrations of one PostgreSQL database


def migrations_directory() -> Path:
    """Return the installed copy of `migrations/`, or the checkout's.

    Raises:
        ConfigurationError: neither is there; the installation is damaged.
    """
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "_shipped" / "migrations", package.parent / "migrations"):
        if (candidate / "env.py").is_file():
            return candidate
    raise ConfigurationError(f"the migrations are missing from the installation in {package}; reinstall guardrail-dglm")


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@cache
def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def head() -> str:
    """Return the migration that this version of the code needs."""
    revision = _script().get_current_head()
    if revision is None:
        raise ConfigurationError(f"there is no migration in {migrations_directory()}; reinstall guardrail-dglm")
    return revision


def current(connection: Connection) -> str | None:
    """Return the migration at which a database stands; None where it is blank."""
    return MigrationContext.configure(connection).get_current_revision()


def require_current(connection: Connection) -> None:
    """Return if the tables are those of this version.

    Raises:
        ConfigurationError: they are not there, older, or newer; the message says what to run.
    """
    at = current(connection)
    if at == head():
        return
    _require_known(connection, at)
    found = "has no tables yet" if at is None else f"stands at migration {at}, this version needs {head()}"
    raise ConfigurationError(f"{describe(connection.engine.url)} {found}. Run: guardrail db upgrade")


def upgrade(engine: Engine, to: str = "head", *, timeout: float = MIGRATION_TIMEOUT) -> tuple[str | None, str | None]:
    """Upgrade in one transaction, so that an interrupted upgrade leaves the database as it was.

    Safe when several processes do it at once: the first one migrates, the others wait and find it done.

    Returns:
        The migrations before and after.

    Raises:
        ConfigurationError: the database is newer than this code, or its tables are not ours.
        AuditUnavailable: the database is locked, away, read-only, damaged or full.
    """
    with _ALEMBIC, _migrating(engine, timeout) as connection:
        before = current(connection)
        _require_known(connection, before)
        if before is None:
            _require_blank(connection)
        command.upgrade(_config(connection), to)
        return before, current(connection)


def downgrade(engine: Engine, to: str, *, timeout: float = MIGRATION_TIMEOUT) -> None:
    """Go back to the migration `to` ("base": no tables). What only later tables held is lost.

    Raises:
        ConfigurationError, AuditUnavailable: see `upgrade`.
    """
    with _ALEMBIC, _migrating(engine, timeout) as connection:
        _require_known(connection, current(connection))
        command.downgrade(_config(connection), to)


def drift(connection: Connection) -> list[Any]:
    """Return what Alembic would change to turn the database into `tables.metadata`; empty where nothing differs."""
    options = {"compare_type": True, "include_object": include_object}
    found: list[Any] = list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))
    problem = search_problem(connection)
    return found if problem is None else [*found, ("full-text search", problem)]


def include_object(_item: Any, name: str | None, kind: str, reflected: bool, _counterpart: Any) -> bool:
    """Tell Alembic to leave alone what is in the database but none of ours, and what full-text search is made of."""
    if not reflected:
        return True
    return name in metadata.tables if kind == "table" else name not in {INDEX, COLUMN}


@contextmanager
def _migrating(engine: Engine, timeout: float) -> Iterator[Connection]:
    try:
        with engine.connect().execution_options(**WRITE) as connection:
            if engine.dialect.name == "sqlite":
                with _sqlite_migration(connection, timeout):
                    yield connection
            else:
                begin_write(connection, timeout)
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
                yield connection
                connection.commit()
    except SQLAlchemyError as error:
        raise unavailable(error, engine.url, "migrated") from error


@contextmanager
def _sqlite_migration(connection: Connection, timeout: float) -> Iterator[None]:
    driver: Any = connection.connection.driver_connection
    _write_ahead_log(driver, timeout)
    # Rebuilding a table drops the old one, which foreign keys would refuse; they are checked as a whole afterwards.
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        begin_write(connection, timeout)
        yield
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise ConfigurationError(
                f"{describe(connection.engine.url)} was not migrated: a row of {broken[0]!r} refers to a row of "
                f"{broken[2]!r} that does not exist. Restore the database from a backup."
            )
        connection.commit()
    finally:
        connection.rollback()
        driver.execute("PRAGMA foreign_keys=ON")


def _write_ahead_log(driver: Any, timeout: float) -> None:
    """Switch to WAL, in which readers do not stop writers. SQLite does not wait for the lock that this takes: we do."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if driver.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                driver.execute("PRAGMA journal_mode=WAL")
            return
        except driver.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (5, 6) or time.monotonic() > deadline:
                raise DBAPIError.instance("PRAGMA journal_mode", None, error, driver.Error) from error
        time.sleep(0.02)


def _require_known(connection: Connection, at: str | None) -> None:
    if at is None:
        return
    if at not in {script.revision for script in _script().walk_revisions()}:
        raise ConfigurationError(
            f"{describe(connection.engine.url)} stands at migration {at}, which this version of guardrail does not "
            f"know (it ends at {head()}): the database is newer than the code. Upgrade guardrail-dglm, or set audit.url"
            " to another database."
        )


def _require_blank(connection: Connection) -> None:
    foreign = sorted(set(inspect(connection).get_table_names()) & set(metadata.tables))
    if foreign:
        raise ConfigurationError(
            f"{describe(connection.engine.url)} holds tables named {', '.join(foreign)} that guardrail did not make. "
            "Set audit.url to a database of its own."
        )
