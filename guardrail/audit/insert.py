"""Two ways to insert many rows, each compiled once by SQLAlchemy.

`Connection.execute(table.insert(), rows)` walks every parameter of every row in Python. `Insert` takes from SQLAlchemy
the statement and the conversions of our own types, and turns each row into a tuple in C. All other values are what the
driver takes already: JSON columns arrive as text, because the hash chain has made that text.

`ArrayInsert` is for the scores, a dozen per decision, on PostgreSQL: there each row of an `executemany` is a message of
its own to the server, while `INSERT ... SELECT FROM unnest(...)` is one, with one array per column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table, bindparam, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeDecorator

__all__ = ["ArrayInsert", "Insert", "score_insert"]

Rows = Sequence[Mapping[str, Any]]


class Insert:
    """Inserts rows (mappings with every column) into one table.

    Args:
        table: where to.
        dialect: of the engine whose connections will be used.
    """

    def __init__(self, table: Table, dialect: Dialect) -> None:
        make: Any = type(dialect)
        positional: Dialect = make(paramstyle="qmark" if dialect.name == "sqlite" else "format")
        compiled = table.insert().compile(dialect=positional, column_keys=[item.name for item in table.columns])
        names: Sequence[str] = compiled.positiontup or ()
        self._statement = str(compiled)
        self._values: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*names)
        self._conversions: dict[str, Callable[[Any], Any]] = {}
        for item in table.columns:
            if isinstance(item.type, TypeDecorator):
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
        connection.exec_driver_sql(self._statement, [values(row) for row in rows])


class ArrayInsert:
    """Inserts rows into one PostgreSQL table of plain columns (strings and numbers).

    Args:
        table: where to.
    """

    def __init__(self, table: Table) -> None:
        self._names = [item.name for item in table.columns]
        arrays = [bindparam(item.name, type_=ARRAY(item.type)) for item in table.columns]
        given = func.unnest(*arrays).table_valued(*[column(item.name, item.type) for item in table.columns])
        self._statement = table.insert().from_select(self._names, select(given.render_derived()))

    def __call__(self, connection: Connection, rows: Rows) -> None:
        """Insert `rows` in the open transaction of `connection`."""
        if rows:
            connection.execute(self._statement, {name: [row[name] for row in rows] for name in self._names})


def score_insert(table: Table, dialect: Dialect) -> Insert | ArrayInsert:
    """Return the faster of the two for a narrow table with many rows."""
    return ArrayInsert(table) if dialect.name == "postgresql" else Insert(table, dialect)
