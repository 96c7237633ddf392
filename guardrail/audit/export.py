"""The record as files: JSON lines with everything, or Parquet with one row per decision."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from guardrail.audit.query import MAX_PAGE, Filters, StoredDecision, find, read_many
from guardrail.errors import MissingDependencyError

__all__ = ["decisions_of", "whole", "without_nan", "write_parquet"]

Advance = Callable[[int], object]


def decisions_of(connection: Connection, filters: Filters) -> Iterator[StoredDecision]:
    """Yield every decision that matches, whole, newest first, a page at a time.

    Raises:
        ConfigurationError: a text is encrypted with a key that is not configured.
    """
    after: str | None = None
    while True:
        page = find(connection, filters, limit=MAX_PAGE, after=after)
        yield from (one.readable() for one in read_many(connection, [item.id for item in page.items]))
        after = page.next
        if after is None:
            return


def whole(connection: Connection, ids: Sequence[str]) -> Iterator[StoredDecision]:
    """Yield decisions by their ids, whole, a page at a time; those that do not exist are left out.

    Raises:
        ConfigurationError: a text is encrypted with a key that is not configured.
    """
    for start in range(0, len(ids), MAX_PAGE):
        yield from (one.readable() for one in read_many(connection, ids[start : start + MAX_PAGE]))


def write_parquet(found: Iterator[StoredDecision], path: Path, advance: Advance = lambda _count: None) -> int:
    """Write one row per decision and return how many. Mappings and lists (scores, reasons, ...) are columns of JSON text.

    Args:
        path: replaced where it exists.
        advance: told of every batch of rows.

    Raises:
        MissingDependencyError: without pyarrow.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependencyError("pyarrow", extra="parquet", purpose="Export to Parquet") from None
    schema = pa.schema([(name, getattr(pa, kind)(*arguments)) for name, kind, *arguments in _COLUMNS])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for rows in _batches(found):
            columns = {name: [_cell(getattr(row, name)) for row in rows] for name, *_ in _COLUMNS}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(rows)
            advance(len(rows))
    return count


_COLUMNS: Sequence[tuple[Any, ...]] = (
    *((name, "string") for name in ("id", "community")),
    ("sequence", "int64"),
    ("created_at", "timestamp", "us", "UTC"),
    *((name, "string") for name in ("request_id", "conversation", "subject", "stage", "state", "action")),
    ("risk", "float64"),
    *((name, "string") for name in ("policy", "revision")),
    *((name, "bool_") for name in ("shadow", "withheld", "altered", "text_stored")),
    *((name, "string") for name in ("source_text", "delivered_text")),
    *((name, "int32") for name in ("source_length", "delivered_length")),
    *((name, "string") for name in (
        "source_digest", "delivered_digest", "scores", "rules", "reasons", "rewrite", "candidates", "failures",
        "models", "timings_ms", "masked", "note", "previous_hash", "hash",
    )),
    ("erased_at", "timestamp", "us", "UTC"),
)  # fmt: skip


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # Parquet's strings are UTF-8: no lone surrogates
    if value is None or isinstance(value, bool | int | float) or hasattr(value, "isoformat"):
        return value
    return json.dumps(without_nan(value), sort_keys=True, allow_nan=False)


def without_nan(value: Any) -> Any:
    """Return a value as JSON has it: dataclasses and mappings as dicts, and null for NaN, which JSON does not have and as
    which an unknown number of a reason is read."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: without_nan(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value


def _batches(found: Iterator[StoredDecision], size: int = 2000) -> Iterator[list[StoredDecision]]:
    rows: list[StoredDecision] = []
    for one in found:
        rows.append(one)
        if len(rows) == size:
            yield rows
            rows = []
    if rows:
        yield rows
