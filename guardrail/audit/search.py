"""The database's own full-text index over the source and the delivered texts: FTS5 on SQLite, tsvector on PostgreSQL.

A search asks for words: every word must occur, in any order and any letter case; `word*` stands for all words that begin
so; words in double quotes must follow each other. A word is a run of letters and digits. Of a very long text the first
`INDEXED` characters are searchable: PostgreSQL limits a text's index entry to one megabyte.

Texts that are encrypted (see `guardrail.audit.sealing`) are not in the index; `guardrail.audit.scan` looks for words in them.

On SQLite triggers keep the index at one with the table, an erasure included. It refers to rows by their rowid, which
stays what it is because decisions are only ever added.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, bindparam, func, literal_column, text
from sqlalchemy.dialects import postgresql

from guardrail.audit.escaping import escape
from guardrail.audit.sealing import PREFIX
from guardrail.audit.tables import decisions
from guardrail.errors import ConfigurationError

__all__ = [
    "COLUMN",
    "INDEX",
    "INDEXED",
    "MAX_NEEDLE",
    "Terms",
    "create_search",
    "drop_search",
    "matches",
    "refresh_search",
    "search_problem",
    "terms",
]

Terms = Sequence[tuple[list[str], bool]]
"""(words that follow each other, whether the last is only a beginning) of a search; all of them must occur."""

INDEXED = 100_000
"""Code points of each text that are indexed."""

MAX_NEEDLE = 1000
"""Code points of what is searched for."""

NAME = "decisions_search"
INDEX = "ix_decisions_search"
COLUMN = "words"
"""On PostgreSQL: the words of a decision's texts, kept by the server. To make them anew takes 50 times as long as to read
them, and a search for a frequent word reads many rows in the order of the page."""

_TRIGGERS = ("insert", "update", "delete")

_SPLIT = r"[^[:alnum:]]+"
_DOCUMENT = (
    f"to_tsvector('simple'::regconfig, regexp_replace(left(coalesce(source_text, ''), {INDEXED}) || ' ' || "
    f"left(coalesce(delivered_text, ''), {INDEXED}), '{_SPLIT}', ' ', 'g'))"
)

_HEAD = f"char(26) || '{PREFIX[1:]}'"
_CLEAR = f"{{0}}source_text IS NOT NULL AND substr({{0}}source_text, 1, {len(PREFIX)}) <> {_HEAD}"
"""What is encrypted stays out of the index: its words are none."""

_add = (
    f"INSERT INTO {NAME}(rowid, source_text, delivered_text) "
    f"SELECT new.rowid, new.source_text, new.delivered_text WHERE {_CLEAR.format('new.')}"
)
_take = (  # FTS5 forgets a row by being given what it has indexed of it
    f"INSERT INTO {NAME}({NAME}, rowid, source_text, delivered_text) "
    f"SELECT 'delete', old.rowid, old.source_text, old.delivered_text WHERE {_CLEAR.format('old.')}"
)
_table = (
    f"CREATE VIRTUAL TABLE {NAME} USING fts5(source_text, delivered_text, content='decisions', content_rowid='rowid', "
    "tokenize='unicode61 remove_diacritics 0')"
)
_SQLITE = (
    _table,
    f"INSERT INTO {NAME}({NAME}) VALUES ('rebuild')",  # noqa: S608
    f"CREATE TRIGGER {NAME}_insert AFTER INSERT ON decisions BEGIN {_add}; END",
    f"CREATE TRIGGER {NAME}_update AFTER UPDATE OF source_text, delivered_text ON decisions BEGIN {_take}; {_add}; END",
    f"CREATE TRIGGER {NAME}_delete AFTER DELETE ON decisions BEGIN {_take}; END",
)
_POSTGRES_CLEAR = f"NOT starts_with(source_text, chr(26) || '{PREFIX[1:]}')"
_POSTGRES_COLUMN = (
    f"ALTER TABLE decisions ADD COLUMN {COLUMN} tsvector "
    f"GENERATED ALWAYS AS (CASE WHEN {_POSTGRES_CLEAR} THEN {_DOCUMENT} END) STORED"
)
_POSTGRES_INDEX = f"CREATE INDEX {INDEX} ON decisions USING gin ({COLUMN}) WHERE {COLUMN} IS NOT NULL"
_POSTGRES_UNTIL_0005 = f"CREATE INDEX {INDEX} ON decisions USING gin (({_DOCUMENT})) WHERE {_POSTGRES_CLEAR}"


def create_search(connection: Connection, *, stored: bool = False) -> None:
    """Make the index and fill it from what is stored.

    Args:
        stored: on PostgreSQL, keep the words in a column too (from migration 0006 on; it writes every row anew).
    """
    postgres = (_POSTGRES_COLUMN, _POSTGRES_INDEX) if stored else (_POSTGRES_UNTIL_0005,)
    for statement in postgres if connection.dialect.name == "postgresql" else _SQLITE:
        connection.exec_driver_sql(statement)


def drop_search(connection: Connection) -> None:
    """Remove the index, what it is made from, and nothing else."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"DROP INDEX {INDEX}")
        connection.exec_driver_sql(f"ALTER TABLE decisions DROP COLUMN IF EXISTS {COLUMN}")
        return
    for name in _TRIGGERS:
        connection.exec_driver_sql(f"DROP TRIGGER {NAME}_{name}")
    connection.exec_driver_sql(f"DROP TABLE {NAME}")


def refresh_search(connection: Connection) -> None:
    """Bring index and triggers of 0003 and 0004 to those of 0005; SQLite's index keeps its entries."""
    if connection.dialect.name == "postgresql":
        drop_search(connection)
        create_search(connection)
        return
    for name in _TRIGGERS:
        connection.exec_driver_sql(f"DROP TRIGGER {NAME}_{name}")
    for statement in _SQLITE[-len(_TRIGGERS) :]:
        connection.exec_driver_sql(statement)


def search_problem(connection: Connection) -> str | None:
    """Say what is wrong with the index: it is missing, or (SQLite) not at one with the table. None: nothing."""
    if connection.dialect.name == "postgresql":
        definition = connection.scalar(text("SELECT pg_get_indexdef(to_regclass(:name))"), {"name": INDEX})
        if definition is None:
            return f"the index {INDEX} is missing"
        return None if f"gin ({COLUMN})" in definition else f"the index {INDEX} is not over the column {COLUMN}"
    names = connection.scalars(text("SELECT name FROM sqlite_master WHERE name LIKE 'decisions\\_search%' ESCAPE '\\'"))
    missing = {NAME, *(f"{NAME}_{name}" for name in _TRIGGERS)} - set(names)
    return f"{', '.join(sorted(missing))} is missing" if missing else None


def matches(connection: Connection, needle: str) -> ColumnElement[bool]:
    """Return the condition that a decision's texts hold what is searched for.

    Raises:
        ConfigurationError: nothing to search for, or too much.
    """
    found = terms(needle)
    if connection.dialect.name == "postgresql":
        return _postgres(found)
    query = " ".join(f'"{" ".join(words)}"{"*" if prefix else ""}' for words, prefix in found)
    sql = f"SELECT rowid FROM {NAME} WHERE {NAME} MATCH :needle"  # noqa: S608
    rows = text(sql).bindparams(bindparam("needle", query, unique=True))
    return literal_column("decisions.rowid").in_(rows)


def _postgres(wanted: Terms) -> ColumnElement[bool]:
    parts = []
    for words, prefix in wanted:
        quoted = [f"'{word.lower()}'" for word in words]  # letters and digits only: no quote can be in a word
        parts.append(" <-> ".join(quoted) + (":*" if prefix else ""))
    query = " & ".join(f"({part})" for part in parts)
    document = literal_column(f"{decisions.name}.{COLUMN}", postgresql.TSVECTOR)
    return document.op("@@", is_comparison=True)(func.to_tsquery(literal_column("'simple'::regconfig"), query))


def terms(needle: str) -> Terms:
    """Read a search into (words that follow each other, whether the last is only a beginning).

    Raises:
        ConfigurationError: nothing to search for, or too much.
    """
    if not needle or len(needle) > MAX_NEEDLE:
        raise ConfigurationError(f"the text searched for has {len(needle)} characters, expected 1 to {MAX_NEEDLE}")
    found: list[tuple[list[str], bool]] = []
    for phrase, plain in re.findall(r'"([^"]*)"|([^\s"]+)', escape(needle)):
        words = re.findall(r"[^\W_]+", phrase or plain)
        if words:
            found.append((words, bool(plain) and plain.endswith("*")))
    if not found:
        raise ConfigurationError(f"the text searched for, {needle[:100]!r}, has no word in it")
    return found
