"""Statements that SQLAlchemy compiles once, for the few that run at every commit.

`Connection.execute(statement, rows)` walks every parameter of every row in Python. Here SQLAlchemy compiles the statement
and provides the conversions of our own types, and each row becomes a tuple in C. All other values are what the driver
takes already: JSON columns arrive as text, because the hash chain has made that text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Dialect,
    Select,
    Table,
    Text,
    Update,
    bindparam,
    cast,
    column,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

from guardrail.audit.database import execute
from guardrail.audit.sealing import SealedBytes, SealedText

__all__ = ["ArrayInsert", "Insert", "Statement", "make_insert"]

Rows = Sequence[Mapping[str, Any]]

_SEALED = (SealedBytes, SealedText)


def _compile(clause: Any, dialect: Dialect, names: list[str] | None = None) -> tuple[str, Sequence[str]]:
    """Return the SQL and the names of its parameters in order."""
    make: Any = type(dialect)
    positional: Dialect = make(paramstyle="qmark" if dialect.name == "sqlite" else "format")
    compiled = clause.compile(dialect=positional, column_keys=names)
    return str(compiled), compiled.positiontup or ()


class Statement:
    """A SELECT or UPDATE whose parameters are plain values.

    Args:
        clause: with named bind parameters.
        dialect: of the engine whose connections will be used.
    """

    def __init__(self, clause: Select[Any] | Update, dialect: Dialect) -> None:
        self._sql, self._names = _compile(clause, dialect)

    def __call__(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Execute it in the open transaction of `connection`; a SELECT has `fetchone()`."""
        return execute(connection, self._sql, tuple(values[name] for name in self._names))


_CHUNKS = (256, 64, 16, 4, 1)
"""Rows per statement. Few sizes, so that drivers and PostgreSQL keep the statements prepared."""

_FEW = 5
"""Fewer rows are not worth an array per column."""

_MAX_PARAMETERS = 16_000
"""Of one statement: SQLite allows 32,766, PostgreSQL 65,535."""


class Insert:
    """Inserts rows (mappings with every column) into one table, many rows in one statement. Texts come sealed already.

    On SQLite one statement is one call into the library, which lets go of Python's lock: an `executemany` would fight for
    the lock again after every row, while other threads prepare theirs.

    Args:
        table: where to.
        dialect: of the engine whose connections will be used.
    """

    def __init__(self, table: Table, dialect: Dialect) -> None:
        sql, names = _compile(table.insert(), dialect, [item.name for item in table.columns])
        head, _, group = sql.partition(" VALUES ")
        self._statements = [
            (size, f"{head} VALUES {', '.join([group] * size)}")
            for size in _CHUNKS
            if size == 1 or size * len(names) <= _MAX_PARAMETERS
        ]
        self._values: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*names)
        self._conversions: dict[str, Callable[[Any], Any]] = {}
        for item in table.columns:
            if isinstance(item.type, TypeDecorator) and not isinstance(item.type, _SEALED):
                convert = item.type.dialect_impl(dialect).bind_processor(dialect)
                if convert is not None:
                    self._conversions[item.name] = convert

    def __call__(self, connection: Connection, rows: Rows) -> None:
        """Insert `rows` in the open transaction of `connection`."""
        if not rows:
            return
        values, conversions = self._values, self._conversions.items()
        if conversions:
            rows = [{**row, **{name: convert(row[name]) for name, convert in conversions}} for row in rows]
        done = 0
        for size, statement in self._statements:
            while len(rows) - done >= size:
                chunk = rows[done : done + size]
                execute(connection, statement, tuple(chain.from_iterable(map(values, chunk))))
                done += size


class ArrayInsert:
    """Inserts rows into one PostgreSQL table as one array per column: one short statement, however many rows.

    Between two statements other threads take Python's lock, and the transaction that all of them wait for must get it back.

    A few rows go the plain way, which costs less to prepare.

    Args:
        table: where to.
        dialect: of the engine whose connections will be used.
    """

    def __init__(self, table: Table, dialect: Dialect) -> None:
        self._few = Insert(table, dialect)
        self._names = [item.name for item in table.columns]
        kinds = [_plain(item.type) for item in table.columns]
        arrays = [bindparam(name, type_=ARRAY(kind)) for name, kind in zip(self._names, kinds, strict=True)]
        columns = [column(name, kind) for name, kind in zip(self._names, kinds, strict=True)]
        given = func.unnest(*arrays).table_valued(*columns).render_derived()
        # JSON arrives as text, because the hash chain has made that text.
        values = [
            cast(given.c[item.name], JSONB) if isinstance(item.type, JSON) else given.c[item.name]
            for item in table.columns
        ]
        self._statement = table.insert().from_select(self._names, select(*values))

    def __call__(self, connection: Connection, rows: Rows) -> None:
        """Insert `rows` in the open transaction of `connection`."""
        if len(rows) < _FEW:
            self._few(connection, rows)
        else:
            connection.execute(self._statement, {name: [row[name] for row in rows] for name in self._names})


def _plain(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type as which a value arrives: JSON as text, what is sealed as what it is stored as."""
    if isinstance(kind, JSON):
        return Text()
    return kind.impl_instance if isinstance(kind, _SEALED) else kind


def make_insert(table: Table, dialect: Dialect) -> Insert | ArrayInsert:
    """Return the faster of the two for a database."""
    return ArrayInsert(table, dialect) if dialect.name == "postgresql" else Insert(table, dialect)
