"""Seal what is stored under the first configured key: texts of the time before there was a key, and those of an older one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Table,
    Text,
    and_,
    func,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)

from guardrail.audit.erasure import scrub
from guardrail.audit.people import People
from guardrail.audit.sealing import PREFIX, Locked, SealedBytes, SealedText, Seals, seals_of
from guardrail.audit.tables import metadata
from guardrail.errors import ConfigurationError

if TYPE_CHECKING:
    from guardrail.audit.store import AuditStore

__all__ = ["rekey"]

_CHUNK = 500
_SEALED = (SealedBytes, SealedText)

Row = Mapping[Any, Any]


def rekey(store: AuditStore, advance: Callable[[int], object] = lambda _count: None) -> int:
    """Seal every text, salt and embedding under the first key; return how many rows were changed.

    The chain stays as it is: it speaks of the plain texts. Other processes may go on recording meanwhile, with the same keys.
    On PostgreSQL the old values leave the disk with the next VACUUM.

    Args:
        advance: told of every group of rows.

    Raises:
        ConfigurationError: no key is configured, or one of the older keys is not. What was done until then is done.
        AuditUnavailable: the database cannot be written; the same holds.
    """
    seals = seals_of(store.engine.dialect)
    if seals is None:
        raise ConfigurationError(
            "no key is configured: set audit.encryption_key (GUARDRAIL_AUDIT_ENCRYPTION_KEY), the new key first, then "
            "those that are in use"
        )
    count = 0
    for table in metadata.sorted_tables:
        if any(isinstance(column.type, _SEALED) for column in table.columns):
            count += _table(store, table, seals, advance)
    if count:
        scrub(store)
    return count


def _table(store: AuditStore, table: Table, seals: Seals, advance: Callable[[int], object]) -> int:
    keys = list(table.primary_key)
    count, after = 0, None
    while True:
        with People(store).change() as change:
            rows = _some(change.connection, table, keys, seals, after)
            for row in rows:
                mine = tuple_(*keys) == tuple(row[key.name] for key in keys)
                change.connection.execute(update(table).where(mine).values(**_again(table, row, seals)))
        if not rows:
            return count
        count += len(rows)
        advance(len(rows))
        after = tuple(rows[-1][key.name] for key in keys)


def _some(
    connection: Connection, table: Table, keys: Sequence[Any], seals: Seals, after: tuple[Any, ...] | None
) -> Sequence[Row]:
    raw = [_raw(column) for column in table.columns if isinstance(column.type, _SEALED)]
    query = select(*keys, *raw).where(or_(*(_old(column, seals) for column in raw)))
    if after is not None:
        query = query.where(tuple_(*keys) > after)
    return connection.execute(query.order_by(*keys).limit(_CHUNK).with_for_update()).mappings().all()


def _raw(column: ColumnElement[Any]) -> Any:
    kind = LargeBinary if isinstance(column.type, SealedBytes) else Text
    return type_coerce(column, kind).label(str(column.key))


def _old(label: Any, seals: Seals) -> ColumnElement[bool]:
    """Whether a value is there and not sealed under the first key."""
    column, head = label.element, f"{PREFIX}{seals.key}:"
    binary = isinstance(column.type, LargeBinary)
    value, empty = (head.encode(), b"") if binary else (head, "")
    beginning = func.substr(column, 1, len(head), type_=LargeBinary() if binary else Text())
    return and_(column != empty, beginning != value)


def _again(table: Table, row: Row, seals: Seals) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for column in table.columns:
        if not isinstance(column.type, _SEALED) or row[column.name] is None:
            continue
        stored = row[column.name]
        opened = seals.open_bytes(stored) if isinstance(stored, bytes) else seals.open(stored)
        if isinstance(opened, Locked):
            raise ConfigurationError(f"a row of {table.name} cannot be sealed anew: {opened.why}")
        if opened is None or (opened == b"" and stored):
            raise ConfigurationError(
                f"a row of {table.name} cannot be sealed anew: its embedding is damaged, or its key is not configured"
            )
        values[column.name] = seals.close_bytes(opened) if isinstance(opened, bytes) else seals.close(opened)
    return values
