"""The pages where texts are encrypted at rest: readable with the key, and without it "[encrypted]" and never an error."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Text, select, type_coerce

from guardrail.audit.sealing import PREFIX, make_seals
from guardrail.audit.sealing import install as install_seals
from guardrail.audit.store import open_store
from guardrail.audit.tables import appeals as stored_appeals
from guardrail.audit.tables import decisions, reviews
from guardrail.review import appeals
from guardrail.review.database import reading

KEY = base64.b64encode(b"k" * 32).decode()


def test_pages_with_and_without_the_key(
    tmp_path: Path, new_office: Callable[..., Any], passwords: Any, policy: Any
) -> None:
    with open_store(f"sqlite:///{tmp_path / 'audit.sqlite'}", timeout=30, encryption_key=KEY) as store:
        office = new_office(store, passwords, policy)
        key = office.rewritten(source="Sure. You absolute idiot! Bye.")
        other = office.rewritten(source="Sure. You absolute idiot! Ciao.")
        office.browser("moderator").post("/decision/comment", id=key, comment="a private remark")
        office.browser("moderator").decide(other, "edit", edited_text="my own words")
        ticket = appeals.file(office.desk, key, "user-1", "my private reasons")
        office.browser("lead").post("/appeal", ticket=ticket, verdict="granted", answer="you are right")
        private = ("absolute idiot", "a private remark", "my private reasons", "you are right", "my own words")
        with reading(store) as connection:
            columns = (reviews.c.comment, reviews.c.edited_text, stored_appeals.c.statement, stored_appeals.c.answer,
                       decisions.c.source_text, decisions.c.delivered_text)  # fmt: skip
            raw = [one for c in columns for one in connection.scalars(select(type_coerce(c, Text))) if one]
        assert len(raw) >= 8
        assert all(one.startswith(PREFIX) for one in raw)

        viewer = office.browser("viewer")
        paths = [
            ("/decision", {"id": key}), ("/decision", {"id": other}), ("/decision/text", {"id": key}),
            ("/decision/similar", {"id": key}), ("/decision/statement", {"id": key}), ("/queue", {"community": "gamers"}),
            ("/search", {"community": "gamers", "text": "idiot"}), ("/appeals", {"community": "gamers"}),
            ("/appeals", {"community": "gamers", "status": "granted"}), ("/appeal", {"ticket": ticket}),
        ]  # fmt: skip
        seen = "".join(_page(viewer, path, query) for path, query in paths)
        assert [words for words in private if words not in seen] == []
        assert "[encrypted]" not in seen
        assert store.verify().ok

        for wrong in (None, base64.b64encode(b"x" * 32).decode()):
            install_seals(store.engine, make_seals(wrong))
            seen = "".join(_page(viewer, path, query) for path, query in paths)
            assert [words for words in private if words in seen] == []
            assert seen.count("[encrypted]") >= 5
            assert PREFIX[1:] not in seen
            assert store.verify().ok


def _page(browser: Any, path: str, query: dict[str, str]) -> str:
    answer = browser.get(path, **query)
    assert answer.status_code == 200, (path, query, answer.text[:300])
    return str(answer.text)
