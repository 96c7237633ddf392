"""Appeals from ticket to answer, statements of reasons, people and tokens."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import select

from guardrail.audit.tables import events
from guardrail.review import accounts, tables
from guardrail.review.database import reading
from guardrail.review.roles import Scope
from guardrail.review.statement import statement
from guardrail.types import Action, Reason, Stage, State


@pytest.fixture(scope="module")
def api(office: Any) -> Any:
    """A client with a token made on the page, as an admin does it."""
    admin = office.browser("admin")
    scopes = {f"scope:{scope.value}": "1" for scope in Scope}
    page = admin.post("/tokens", name="platform", community="gamers", days="30", **scopes)
    token = re.search(r"<code>(grt_[^<]+)</code>", page.text).group(1)
    assert token not in admin.get("/tokens").text  # shown once
    with reading(office.store) as connection:
        assert token not in str(connection.execute(select(tables.tokens)).all())
    client = office.anybody()
    client.headers["Authorization"] = f"Bearer {token}"
    return client


def test_an_appeal_from_ticket_to_answer(office: Any, api: Any) -> None:
    key = office.rewritten()
    office.browser("moderator").decide(key, "uphold")
    filed = api.post("/api/v1/appeals", json={"id": key, "appellant": "user-7", "statement": "It was <b>irony</b>."})
    assert filed.status_code == 201
    ticket = filed.json()["ticket"]
    assert filed.json()["status"] == "open"
    assert office.item(key).status == "open"  # it is looked at again, first of all
    assert office.item(key).priority > 1
    again = api.post("/api/v1/appeals", json={"id": key, "appellant": "user-7", "statement": "Once more."})
    assert again.status_code == 409
    page = office.browser("moderator").get("/appeal", ticket=ticket).text
    assert "It was &lt;b&gt;irony&lt;/b&gt;." in page
    assert "A lead of the community answers" in page
    lead = office.browser("lead")
    assert "owed a reason" in lead.post("/appeal", ticket=ticket, verdict="granted", answer=" ").text
    assert (
        lead.post("/appeal", ticket=ticket, verdict="granted", answer="You are right, we are sorry.").status_code == 303
    )
    answered = api.get(f"/api/v1/appeals/{ticket}").json()
    assert (answered["status"], answered["answer"]) == ("granted", "You are right, we are sorry.")
    assert lead.post("/appeal", ticket=ticket, verdict="refused", answer="No.").status_code == 409
    assert api.post(f"/api/v1/appeals/{ticket}/withdraw", json={}).status_code == 409
    assert office.store.verify().ok


def test_who_decided_does_not_answer_the_appeal(office: Any, api: Any) -> None:
    key = office.rewritten()
    office.browser("lead").decide(key, "uphold")
    ticket = api.post("/api/v1/appeals", json={"id": key, "appellant": "u", "statement": "Why?"}).json()["ticket"]
    refused = office.browser("lead").post("/appeal", ticket=ticket, verdict="refused", answer="Because I said so.")
    assert refused.status_code == 400
    assert "somebody else has to answer" in refused.text
    assert "Because I said so." in refused.text  # nothing typed is lost
    assert (
        office.browser("boss").post("/appeal", ticket=ticket, verdict="refused", answer="See rule 2.").status_code
        == 303
    )


def test_an_appeal_can_be_withdrawn_and_listed(office: Any, api: Any) -> None:
    key = office.rewritten()
    ticket = api.post("/api/v1/appeals", json={"id": key, "appellant": "u", "statement": "Hmm"}).json()["ticket"]
    assert api.post(f"/api/v1/appeals/{ticket}/withdraw", json={}).json()["status"] == "withdrawn"
    viewer = office.browser("viewer")
    assert ticket in viewer.get("/appeals", community="gamers", status="withdrawn").text
    assert ticket not in viewer.get("/appeals", community="gamers").text
    assert viewer.get("/appeals", community="gamers", status="none").status_code == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not json", 400), (b"[]", 400), (b'{"id": 5}', 400), (b'{"id": "no-such"}', 404), (b"[" * 100_000, 400),
        (b"x" * 400_000, 413), (b"\xff\xfe", 400), (b"", 404),
    ],
)  # fmt: skip
def test_a_bad_body_is_an_error_and_no_more(api: Any, body: bytes, status: int) -> None:
    answer = api.post("/api/v1/appeals", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_an_appeal_needs_words(office: Any, api: Any) -> None:
    key = office.rewritten()
    for fields in ({"appellant": "", "statement": "x"}, {"appellant": "u", "statement": " "}, {"appellant": "u"}):
        assert api.post("/api/v1/appeals", json={"id": key, **fields}).status_code == 422
    long = {"appellant": "u", "statement": "x" * 10_001}
    assert api.post("/api/v1/appeals", json={"id": key, **long}).status_code == 422


def test_a_waiting_client_can_ask_how_a_held_draft_stands(office: Any, api: Any) -> None:
    key = office.held(source="I will find you. \ud83d")
    assert api.get("/api/v1/hold", params={"id": key}).json() == {"decision": key, "status": "held", "text": None}
    office.browser("moderator").decide(key, "overturn")
    assert api.get("/api/v1/hold", params={"id": key}).json()["text"] == "I will find you. \ud83d"
    assert api.get("/api/v1/hold", params={"id": office.rewritten()}).status_code == 404


def test_the_queue_in_numbers(office: Any, api: Any) -> None:
    found = api.get("/api/v1/queue", params={"community": "gamers"}).json()
    assert set(found) == {"community", "waiting", "not_looked_through"}


def test_too_many_calls(office: Any, api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from guardrail.review import limits

    monkeypatch.setattr(limits, "API", replace(limits.API, name="api-test", times=2))
    answers = [api.get("/api/v1/queue", params={"community": "gamers"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["retry-after"]) >= 1


# ------------------------------------------------------------------------------------------------------- statements


def test_the_statement_says_what_why_how_and_what_to_do(office: Any, api: Any) -> None:
    key = office.rewritten()
    office.browser("moderator").decide(key, "overturn")
    found = api.get("/api/v1/statement", params={"id": key}).json()
    assert [part["heading"] for part in found["sections"]] == [
        "What was decided", "Why", "How it was decided", "If you disagree",
    ]  # fmt: skip
    for words in ("rewritten before it was delivered", "overturned it", "“harassment”", "very likely", "“You absolute idiot!”",
                  "automatically", "You can appeal"):  # fmt: skip
        assert words in found["text"]
    assert "moderator" not in found["text"].replace("A moderator", "").replace("a moderator", "")  # nobody is named
    assert "Statement of reasons" in office.browser("viewer").get("/decision/statement", id=key).text


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_statement(office: Any, state: State) -> None:
    reason = Reason("ruled_by", Stage.OUTPUT, Action.FLAG, float("nan"), 0.5, {}, ((0, 4),), "", "broke")
    key = office.rewritten(
        state=state, reasons=(reason, Reason("b", Stage.OUTPUT, Action.FLAG, 0.7, 0.5)), rewrite=None
    )
    found = office.store.get(key)
    assert found is not None
    made = statement(found, {})
    assert len(made.sections) == 4
    assert "ruled by" in made.text


# ----------------------------------------------------------------------------------------------------------- people


def test_people_are_added_changed_and_removed_on_record(office: Any) -> None:
    admin = office.browser("admin")
    added = admin.post("/people", user="Newcomer", password="welcome to the team", community="gamers", role="viewer")
    assert added.status_code == 303
    with reading(office.store) as connection:
        user = accounts.find_user(connection, "newcomer")
    assert user is not None
    admin.post("/roles", user="newcomer", community="gamers", role="lead")
    admin.post("/roles", user="newcomer", community="other", role="viewer")
    admin.post("/roles", user="newcomer", community="other", role="")
    admin.post("/people/password", user_id=user.id, password="another good one")
    admin.post("/people/active", user_id=user.id, active="no")
    with reading(office.store) as connection:
        after = accounts.find_user(connection, "newcomer")
        kinds = [row.kind for row in connection.execute(select(events.c.kind).where(events.c.subject == user.id))]
    assert after is not None
    assert ({name: role.value for name, role in after.roles.items()}, after.active) == ({"gamers": "lead"}, False)
    assert sorted(kinds) == sorted(["person_added", *["role_set"] * 3, "password_reset", "person_shut_out"])


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("/people", {"user": "admin", "password": "a good password"}, "already"),
        ("/people", {"user": "bad name!", "password": "a good password"}, "is not a name"),
        ("/people", {"user": "x", "password": "short"}, "12 to 256"),
        ("/people", {"user": "x", "password": "a good password", "role": "emperor"}, "no role"),
        ("/roles", {"community": "gamers", "user": "no-one", "role": "lead"}, "nobody named"),
        ("/tokens", {"name": "x", "community": "gamers"}, "at least one scope"),
        ("/tokens", {"name": "x", "community": ""}, "needs a community"),
        ("/tokens", {"name": "x", "community": "gamers", "days": "0", "scope:queue:read": "1"}, "1 to 3650"),
    ],
)
def test_what_cannot_be_done_is_said(office: Any, path: str, fields: dict[str, str], message: str) -> None:
    answer = office.browser("admin").post(path, **fields)
    assert answer.status_code == 400
    assert message in answer.text


def test_the_last_admin_stays(office: Any) -> None:
    admin = office.browser("admin")
    with reading(office.store) as connection:
        user = accounts.find_user(connection, "admin")
    assert user is not None
    for path, fields in (
        ("/roles", {"community": "*", "role": "lead", "user": "admin"}),
        ("/people/active", {"active": "no"}),
    ):
        answer = admin.post(path, user_id=user.id, **fields)
        assert answer.status_code == 400
        assert "has to remain admin" in answer.text
    assert admin.get("/people").status_code == 200


def test_an_admin_of_one_community_gives_roles_there_and_nowhere_else(office: Any) -> None:
    boss = office.browser("boss")
    page = boss.get("/roles", community="gamers").text
    assert "moderator" in page
    assert "stranger" not in page
    assert boss.post("/roles", community="gamers", user="nobody", role="viewer").status_code == 303
    assert office.browser("nobody").get("/queue", community="gamers").status_code == 200
    assert boss.post("/roles", community="gamers", user="nobody", role="").status_code == 303
    assert office.browser("nobody").get("/queue", community="gamers").status_code == 404
    for community in ("elsewhere", "*", "", "new"):
        assert boss.post("/roles", community=community, user="boss", role="admin").status_code in {403, 404}
    assert boss.get("/people").status_code == 403


def test_a_revoked_token_is_dead(office: Any) -> None:
    admin = office.browser("admin")
    page = admin.post("/tokens", name="short-lived", community="*", days="1", **{"scope:queue:read": "1"})
    token = re.search(r"<code>(grt_[^<]+)</code>", page.text).group(1)
    headers = {"Authorization": f"Bearer {token}"}
    call = {"url": "/api/v1/queue", "params": {"community": "gamers"}, "headers": headers}
    assert office.anybody().get(**call).status_code == 200
    with reading(office.store) as connection:
        key = connection.scalar(select(tables.tokens.c.id).where(tables.tokens.c.name == "short-lived"))
    admin.post("/tokens/revoke", token_id=key)
    assert office.anybody().get(**call).status_code == 401
