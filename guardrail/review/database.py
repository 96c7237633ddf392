"""Transactions on the audit store's database, with its errors in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from guardrail.audit.database import WRITE, begin_write, unavailable
from guardrail.audit.store import AuditStore

__all__ = ["reading", "upsert", "writing"]


@contextmanager
def reading(store: AuditStore) -> Iterator[Connection]:
    """A connection to read with.

    Raises:
        AuditUnavailable: the database cannot be read.
    """
    try:
        with store.engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise unavailable(error, store.engine.url, "read") from error


@contextmanager
def writing(store: AuditStore) -> Iterator[Connection]:
    """One write transaction: it commits at the end, and rolls back on an exception.

    Raises:
        AuditUnavailable: the database cannot be written.
    """
    try:
        with store.engine.connect().execution_options(**WRITE) as connection:
            begin_write(connection, store.timeout)
            yield connection
            connection.commit()
    except SQLAlchemyError as error:
        raise unavailable(error, store.engine.url, "changed") from error


def upsert(connection: Connection, table: Table) -> Any:
    """An INSERT that takes `on_conflict_do_nothing` and `on_conflict_do_update`."""
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)
