"""From a URL to an engine set up for a record that must not be lost, and from a driver's exception to plain words."""

from __future__ import annotations

import json
import os
import sqlite3
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from guardrail.errors import AuditUnavailable, ConfigurationError, MissingDependencyError

__all__ = [
    "WRITE",
    "DatabaseAway",
    "begin_write",
    "configure",
    "describe",
    "execute",
    "explain",
    "in_memory",
    "make_engine",
    "parse_url",
    "sqlite_file",
    "unavailable",
]

WRITE: dict[str, Any] = {"guardrail_write": True}
"""Execution options of a connection that will write: on SQLite its transaction takes the write lock at once."""

_NAMES = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg", "sqlite": "sqlite+pysqlite"}

_SQLITE_PROBLEMS = {  # primary result codes, https://www.sqlite.org/rescode.html
    5: "it is locked by another process",
    6: "it is locked by another connection",
    8: "it is read-only",
    10: "the disk reported an input/output error",
    11: "the file is damaged",
    13: "the disk is full",
    14: "the file cannot be opened",
    26: "the file is not an SQLite database",
}

_POSTGRES_PROBLEMS = {  # SQLSTATE, or its two-character class, https://www.postgresql.org/docs/current/errcodes-appendix.html
    "55P03": "it is locked by another session",
    "57014": "it did not answer in time",
    "40P01": "its transaction was chosen to resolve a deadlock",
    "53100": "its disk is full",
    "53300": "it has no connection left",
    "25006": "it is read-only",
    "42501": "the user lacks the right",
    "3D000": "the database does not exist",
    "08": "the connection was lost",
    "28": "the user or password was refused",
    "53": "it is short of resources",
    "57": "it is shutting down",
}

_SCHEMA_SQLSTATES = {"42P01", "42703"}  # undefined table, undefined column


def parse_url(url: str) -> URL:
    """Return the URL with the driver that we use.

    Raises:
        ConfigurationError: not a URL, or neither SQLite nor PostgreSQL.
        MissingDependencyError: PostgreSQL without its driver.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the cause may quote the password: it is left out
        raise ConfigurationError(
            "audit.url is not a database URL; expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    name = _NAMES.get(parsed.drivername, parsed.drivername)
    if name not in _NAMES.values():
        raise ConfigurationError(
            f"audit.url names the database {parsed.drivername!r}; expected sqlite:///FILE or "
            "postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    if name == "postgresql+psycopg" and find_spec("psycopg") is None:
        raise MissingDependencyError("psycopg", extra="postgres", purpose="An audit store in PostgreSQL")
    return parsed.set(drivername=name)


def describe(url: URL) -> str:
    """Return what a message may say of a URL: never a password, wherever it stands in it."""
    if url.get_backend_name() == "sqlite":
        return f"SQLite database {url.database or ':memory:'!r}"
    host = url.host or url.query.get("host") or "the local socket"
    port = f":{url.port}" if url.port else ""
    user = f" as {url.username!r}" if url.username else ""
    return f"PostgreSQL database {url.database or url.username or 'postgres'!r} on {host}{port}{user}"


def sqlite_file(url: URL) -> Path | None:
    """Return the file of an SQLite URL; None for a database in memory, an SQLite URI, or another database."""
    if url.get_backend_name() != "sqlite" or in_memory(url) or str(url.database).startswith("file:"):
        return None
    return Path(str(url.database))


def in_memory(url: URL) -> bool:
    """Whether the database ends with its connection."""
    return url.get_backend_name() == "sqlite" and (url.database or ":memory:") == ":memory:"


def make_engine(url: str, *, timeout: float = 5.0) -> Engine:
    """Return an engine for the audit store. Nothing is opened yet.

    Args:
        url: `sqlite:///FILE` or `postgresql://...`.
        timeout: seconds to wait for a connection, a lock or a free pool slot.

    Raises:
        ConfigurationError, MissingDependencyError: see `parse_url`.
    """
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    if file is not None:  # now, not when a connection is opened: the process may change its directory
        parsed = parsed.set(database=str(file.absolute()))
    options: dict[str, Any] = {
        "hide_parameters": True,  # parameters are users' texts: they must not reach a log through an exception
        "json_serializer": json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode,
        "pool_timeout": timeout,
    }
    if in_memory(parsed):  # one connection, handed around: a second one would be a second database
        options |= {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
        options["connect_args"] = {"check_same_thread": False, "timeout": timeout}
    elif parsed.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": timeout}
    else:
        options |= {"pool_pre_ping": True, "connect_args": _postgres_arguments(timeout)}
    engine = create_engine(parsed, **options)
    configure(engine)
    return engine


def _postgres_arguments(timeout: float) -> dict[str, Any]:
    # A host that has vanished must not hold a reply for the two hours of TCP's default keep-alive.
    seconds = max(2, round(timeout))  # libpq's least connect_timeout is 2
    return {
        "connect_timeout": seconds,
        "tcp_user_timeout": seconds * 1000,
        "keepalives_idle": seconds,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "application_name": "guardrail",
    }


def configure(engine: Engine) -> None:
    """Make an SQLite engine durable and strict: foreign keys, synchronous=FULL, explicit transactions. Idempotent."""
    if engine.dialect.name != "sqlite" or event.contains(engine, "connect", _on_connect):
        return
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "connect", _remember_file)
    event.listen(engine, "begin", _on_begin)


def _remember_file(connection: Any, record: Any) -> None:
    file = connection.execute("PRAGMA database_list").fetchone()[2]
    record.info["guardrail_file"] = (file, _file_identity(file)) if file else None


def _file_identity(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)  # noqa: PTH116 - once per commit: pathlib costs more than the call
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _require_file(connection: Connection) -> None:
    """Refuse to write to a file that was deleted or replaced: the rows would go to where nobody finds them."""
    opened = connection.info.get("guardrail_file")
    if opened is None or _file_identity(opened[0]) == opened[1]:
        return
    connection.engine.dispose()  # the next call opens the file that is there then
    raise DatabaseAway(
        f"{describe(connection.engine.url)} was deleted or replaced while it was open, so nothing was recorded. "
        "Put it back, or restart to begin a new one."
    )


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves; the driver's implicit one comes too late for a SELECT
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=FULL")  # in WAL mode: the log is on disk before COMMIT returns
    cursor.close()


def _on_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("guardrail_write", False)
    execute(connection, "BEGIN IMMEDIATE" if write else "BEGIN")


def execute(connection: Connection, sql: str, values: tuple[Any, ...] = ()) -> Any:
    """Run a statement whose parameters are what the driver takes already; return what it has found.

    On SQLite the driver itself runs it: what SQLAlchemy does around a statement takes several times as long as SQLite
    needs for a small one. Transactions, connections and errors stay SQLAlchemy's.

    Raises:
        DBAPIError: as SQLAlchemy would raise it.
    """
    if connection.dialect.name != "sqlite":
        return connection.exec_driver_sql(sql, values)
    driver: Any = connection.connection.driver_connection
    try:
        return driver.execute(sql, values)
    except sqlite3.Error as error:
        raise DBAPIError.instance(
            sql, None, error, sqlite3.Error, hide_parameters=True, dialect=connection.dialect
        ) from error


def begin_write(connection: Connection, timeout: float) -> None:
    """Begin a transaction that is durable when it commits and that waits at most `timeout` seconds for a lock.

    `connection` must have been made with the execution options `WRITE`.
    """
    milliseconds = max(1, round(timeout * 1000))
    if connection.dialect.name == "sqlite":
        _require_file(connection)
        if milliseconds > 1000:
            milliseconds -= milliseconds % 100  # so that it is mostly what it was the last time
        if connection.info.get("guardrail_timeout") != milliseconds:
            connection.connection.driver_connection.execute(f"PRAGMA busy_timeout={milliseconds}")  # type: ignore[union-attr]
            connection.info["guardrail_timeout"] = milliseconds
        connection.begin()
        return
    connection.begin()
    connection.execute(_POSTGRES_BEGIN, {"lock": f"{milliseconds}ms", "statement": f"{4 * milliseconds}ms"})


# `on` is the least that survives a crash; a server set to wait for its standbys too is left to do so.
_POSTGRES_BEGIN = text(
    "SELECT set_config('lock_timeout', :lock, true), set_config('statement_timeout', :statement, true), "
    "set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') = 'remote_apply' "
    "THEN 'remote_apply' ELSE 'on' END, true)"
)


def explain(error: BaseException, url: URL) -> str:
    """Return in plain words what a driver's exception means, without any stored value in it."""
    if isinstance(error, PoolTimeout):
        return "all of its connections are in use"
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None)
    if code is not None:
        return _explain_sqlite(code & 0xFF, cause, url)
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        known = _POSTGRES_PROBLEMS.get(state) or _POSTGRES_PROBLEMS.get(state[:2])
        message = getattr(getattr(cause, "diag", None), "message_primary", None)  # DETAIL would quote stored rows
        if state in _SCHEMA_SQLSTATES:
            return f"its tables are missing or old ({message}); run `guardrail db upgrade`"
        return known or f"it answered {message or type(cause).__name__} ({state})"
    if cause is not None and url.get_backend_name() == "postgresql":
        return f"it cannot be reached ({_first_line(cause)})"
    return f"{type(cause).__name__}: {_first_line(cause)}"


def _explain_sqlite(code: int, cause: BaseException | None, url: URL) -> str:
    if code == 14:
        return _explain_file(sqlite_file(url))
    if code == 1 and "no such" in str(cause):
        return f"its tables are missing or old ({cause}); run `guardrail db upgrade`"
    return _SQLITE_PROBLEMS.get(code, str(cause))


def _explain_file(file: Path | None) -> str:
    if file is None:
        return _SQLITE_PROBLEMS[14]
    if file.is_dir():
        return "it is a directory, not a file"
    if not file.parent.is_dir():
        return f"its directory {str(file.parent)!r} does not exist"
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        return "there is no right to write it"
    return _SQLITE_PROBLEMS[14]


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class DatabaseAway(AuditUnavailable):
    """The database cannot be used at this moment. What was to be written may be written later."""


def unavailable(error: SQLAlchemyError, url: URL, doing: str = "recorded") -> DatabaseAway:
    """Return the `AuditUnavailable` that says what is wrong with the database and what to do."""
    return DatabaseAway(
        f"{describe(url)} cannot be used, so nothing was {doing}: {explain(error, url)}. "
        "Check it with `guardrail db check`, or set audit.url (GUARDRAIL_AUDIT_URL) to another database."
    )
