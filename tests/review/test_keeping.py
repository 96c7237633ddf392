"""What the review pages forget: the access log, daily counts, sessions and tokens that have ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from typer.testing import CliRunner

from guardrail.audit.store import AuditStore, open_store
from guardrail.cli.app import app
from guardrail.review import keeping, tables
from guardrail.review.accounts import add_user
from guardrail.review.database import reading, writing
from guardrail.review.keeping import Forgotten, forget

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def filled(tmp_path: Path, passwords: Any) -> Iterator[AuditStore]:
    """Rows of 1, 20 and 400 days ago in every table that grows, in two communities."""
    with open_store(f"sqlite:///{tmp_path / 'audit.sqlite'}", timeout=30) as store:
        with writing(store) as connection:
            ann = add_user(connection, passwords, "ann", "correct horse battery")
            for days in (1, 20, 400):
                past = NOW - timedelta(days=days)
                for community in ("gamers", "cooks"):
                    row = {"id": f"{community}-{days}", "created_at": past, "actor": "ann", "community": community}
                    connection.execute(insert(tables.access_log).values(**row, what="GET /decision", status=200))
                day = {"user_id": ann, "day": past.date().isoformat(), "seen": 3, "severe": 1}
                connection.execute(insert(tables.exposure).values(**day))
                session = {"id": f"s{days}", "user_id": ann, "created_at": past, "seen_at": past, "agent": "test"}
                connection.execute(insert(tables.sessions).values(**session, expires_at=past + timedelta(days=10)))
                token = {"id": f"t{days}", "hash": f"h{days}", "name": "bot", "community": "*", "scopes": []}
                known = {**token, "created_by": ann, "created_at": past - timedelta(days=1)}
                connection.execute(insert(tables.tokens).values(**known, revoked_at=past if days > 1 else None))
        yield store


def count(store: AuditStore, table: Any) -> int:
    with reading(store) as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def left(store: AuditStore) -> tuple[int, ...]:
    return tuple(count(store, table) for table in (tables.access_log, tables.exposure, tables.sessions, tables.tokens))


def test_nothing_but_ended_sessions_goes_unless_it_is_asked_for(filled: AuditStore) -> None:
    assert left(filled) == (6, 3, 3, 3)
    assert forget(filled, now=NOW) == Forgotten(sessions=2)
    assert left(filled) == (6, 3, 1, 3)


def test_what_is_older_than_it_may_be_goes_and_the_rest_stays(filled: AuditStore, monkeypatch: Any) -> None:
    monkeypatch.setattr(keeping, "_CHUNK", 1)  # group by group
    assert forget(filled, keep_access=30, keep_exposure=10, now=NOW) == Forgotten(2, 2, 2, 1)
    assert left(filled) == (4, 1, 1, 2)
    with reading(filled) as connection:
        assert min(connection.scalars(select(tables.access_log.c.created_at))) == NOW - timedelta(days=20)
        assert set(connection.scalars(select(tables.tokens.c.id))) == {"t1", "t20"}  # in use, and revoked of late
    assert forget(filled, keep_access=30, keep_exposure=10, now=NOW) == Forgotten()


def test_the_command_carries_out_what_the_settings_say(filled: AuditStore, tmp_path: Path, monkeypatch: Any) -> None:
    url = filled.engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("GUARDRAIL_AUDIT_URL", url)
    refused = CliRunner().invoke(app, ["audit", "retain"])
    assert refused.exit_code == 2
    assert "review.keep_access" in refused.stderr
    monkeypatch.setenv("GUARDRAIL_REVIEW_KEEP_ACCESS", "30")
    done = CliRunner().invoke(app, ["audit", "retain", "--keep-exposure", "100000", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    days = (datetime.now(UTC) - NOW).days
    assert said["access"] == 2 * sum(age + days > 30 for age in (1, 20, 400))
    assert (said["exposure"], said["texts"], said["decisions"]) == (0, 0, 0)
