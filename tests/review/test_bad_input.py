"""What the pages must bear: a full disk, a clock that is set back, a form that is not UTF-8."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import event, text

from guardrail.review import queue
from guardrail.review.accounts import now


def test_a_full_disk_takes_no_verdict_and_loses_none(fresh: Callable[..., Any]) -> None:
    office = fresh()
    key = office.rewritten()
    moderator = office.browser("moderator")
    moderator.read(key)
    engine = office.store.engine
    with engine.connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()

    def full(connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    event.listen(engine, "connect", full)
    engine.dispose()
    answer = moderator.decide(key, "uphold", comment="x" * 9_000)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert office.reviews(key) == []
    event.remove(engine, "connect", full)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=1000000"))
    engine.dispose()
    assert moderator.decide(key, "uphold", comment="x" * 9_000).status_code == 303
    assert [one.verdict for one in office.reviews(key)] == ["uphold"]
    assert office.store.verify().ok


def test_a_clock_that_is_set_back_keeps_nobody_from_working(
    fresh: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    office = fresh()
    key = office.rewritten()
    office.fill()
    assert key in office.browser("moderator").post("/next", community="gamers").headers["location"]
    taken = office.browser("second").post("/next", community="gamers").headers["location"]
    assert key not in taken  # somebody works on it
    monkeypatch.setattr(queue, "now", lambda: now() - timedelta(days=3))
    assert key in office.browser("second").post("/next", community="gamers").headers["location"]
    assert office.browser("second").decide(key, "uphold").status_code == 303
    assert office.store.verify().ok


@pytest.mark.parametrize("sent", [b"\xff\xfe words", b"%FF%C3words", b"cut \xf0\x9f\x98", b"a%00b\x00c words"])
def test_a_form_that_is_not_utf_8_is_kept_as_far_as_it_can_be_read(office: Any, sent: bytes) -> None:
    key = office.rewritten()
    moderator = office.browser("moderator")
    body = b"form_token=" + quote(moderator.token(), safe="").encode() + b"&id=" + key.encode() + b"&comment=" + sent
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = moderator.client.post("/decision/comment", content=body, headers=kind, follow_redirects=False)
    assert answer.status_code == 303
    (said,) = office.reviews(key)
    assert "\ufffd" in said.comment or "\x00" in said.comment
    page = moderator.read(key)
    assert page.status_code == 200
    assert "\ufffd" in page.text
    assert office.store.verify().ok
