"""Every route, tried as everybody: the table of routes is what is walked, so a new route without a rule fails here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy import insert, select

from guardrail.review import tables
from guardrail.review.access import Access, Route
from guardrail.review.database import reading, writing
from guardrail.review.render import DONE
from guardrail.review.roles import EVERYWHERE, Role, Scope, role_in
from guardrail.review.routes import ROUTES

PEOPLE = ("nobody", "stranger", "viewer", "moderator", "lead", "boss", "admin")
PAGES = [route for route in ROUTES if not route.access.public and route.access.scope is None]
CALLS = [route for route in ROUTES if route.access.scope is not None]

# What stands in the table, said a second time: a rule that is loosened by accident is seen.
EXPECTED = {
    "public": {"GET /healthz", "GET /static/{name}", "GET /login", "POST /login"},
    "signed in": {"POST /logout", "GET /me", "POST /me", "POST /me/password", "POST /me/sign-out", "GET /"},
    "viewer": {
        "GET /queue", "GET /decision", "GET /decision/text", "GET /decision/similar", "GET /decision/statement",
        "GET /appeals", "GET /queue/urgent", "GET /search", "GET /appeal", "GET /dashboard",
    },
    "moderator": {
        "POST /next", "POST /decision/verdict", "POST /decision/prefer", "POST /decision/label", "POST /decision/comment",
    },
    "lead": {"POST /decision/assign", "POST /decision/reopen", "POST /appeal", "GET /access"},
    "admin": {
        "GET /people", "POST /people", "GET /roles", "POST /roles", "POST /people/active", "POST /people/password", "GET /tokens",
        "POST /tokens", "POST /tokens/revoke",
    },
    "appeals:write": {"POST /api/v1/appeals", "POST /api/v1/appeals/{ticket}/withdraw"},
    "appeals:read": {"GET /api/v1/appeals/{ticket}"},
    "statements:read": {"GET /api/v1/statement"},
    "holds:read": {"GET /api/v1/hold"},
    "queue:read": {"GET /api/v1/queue"},
}  # fmt: skip


def asked(access: Access) -> str:
    if access.public:
        return "public"
    if access.scope is not None:
        return access.scope.value
    return access.role.value if access.role is not None else "signed in"


def allowed(route: Route, roles: dict[str, Role]) -> int:
    """What this person should be told: 200 (or what the handler says), 403, or 404."""
    access = route.access
    if access.role is None:
        return 200
    held = role_in(roles, EVERYWHERE if access.subject == "none" else "gamers")
    if held is not None and held.covers(access.role):
        return 200
    return 404 if held is None and access.subject != "none" else 403


@pytest.fixture(scope="module")
def subject(office: Any) -> dict[str, str]:
    """A decision and an appeal that every request is about."""
    from guardrail.review import appeals

    key = office.rewritten()
    return {"id": key, "ticket": appeals.file(office.desk, key, "user-1", "It was a joke."), "community": "gamers"}


def test_the_application_has_no_route_that_is_not_in_the_table(office: Any) -> None:
    served = {(method, route.path) for route in office.app.routes for method in route.methods if method != "HEAD"}
    assert served == {(route.method, route.path) for route in ROUTES}


def test_every_route_asks_for_what_it_should() -> None:
    found: dict[str, set[str]] = {}
    for route in ROUTES:
        found.setdefault(asked(route.access), set()).add(route.name)
    assert found == EXPECTED


def test_what_reads_or_changes_something_names_whose_it_is() -> None:
    """A role without a subject is one held everywhere: only people and tokens are everybody's."""
    everywhere = {route.path.split("/")[1] for route in PAGES if route.access.role and route.access.subject == "none"}
    assert everywhere == {"people", "tokens"}
    assert all(route.access.role is Role.ADMIN for route in PAGES if route.path.split("/")[1] in everywhere)


@pytest.mark.parametrize("person", PEOPLE)
def test_every_route_as_everybody(office: Any, subject: dict[str, str], person: str) -> None:
    browser = office.browser(person)
    token = browser.token()
    wrong = {}
    for route in PAGES:
        if route.path in {"/logout", "/me/sign-out", "/me/password"}:
            continue  # they end the session that this test goes on with; tried below and in test_signing
        if route.method == "GET":
            answer = browser.get(route.path, **subject)
        else:
            answer = browser.client.post(route.path, data={"form_token": token, **subject}, follow_redirects=False)
        expected = allowed(route, office.roles[person])
        seen = answer.status_code if answer.status_code in {401, 403, 404} else 200
        # A handler may say that a form is incomplete (400) or that somebody is not there (404): it was let in.
        if seen == 404 and expected == 200 and route.path.startswith("/people/"):
            seen = 200
        if seen != expected:
            wrong[route.name] = (answer.status_code, expected)
    assert wrong == {}


def test_without_a_session_there_is_only_the_sign_in_page(office: Any, subject: dict[str, str]) -> None:
    client = office.anybody()
    for route in PAGES:
        answer = client.request(route.method, route.path, params=subject, follow_redirects=False)
        if route.method == "GET":
            assert answer.status_code == 303, route.name
            assert answer.headers["location"].startswith("/login"), route.name
        else:
            assert answer.status_code == 401, route.name


@pytest.mark.parametrize("route", [route for route in PAGES if route.method == "POST"], ids=lambda route: route.name)
def test_no_form_is_taken_without_its_token(office: Any, subject: dict[str, str], route: Route) -> None:
    browser = office.browser("admin")
    other = office.browser("lead").token()
    for token in ({}, {"form_token": ""}, {"form_token": other}):
        answer = browser.client.post(route.path, data=subject | token, follow_redirects=False)
        assert answer.status_code == 400
        assert "not from a page of yours" in answer.text


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.test"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]
)
def test_a_form_of_another_site_is_not_taken(office: Any, headers: dict[str, str]) -> None:
    browser = office.browser("moderator")
    form = {"form_token": browser.token(), "theme": "dark"}
    assert browser.client.post("/me", data=form, headers=headers).status_code == 400
    assert browser.client.post("/me", data=form, follow_redirects=False).status_code == 303


def test_every_call_asks_for_its_scope(office: Any, subject: dict[str, str]) -> None:
    from guardrail.audit.people import People
    from guardrail.review import accounts

    def token(community: str, *scopes: Scope) -> dict[str, str]:
        with People(office.store).change() as change:
            admin = accounts.find_user(change.connection, "admin")
            assert admin is not None
            made = accounts.issue_token(change.connection, admin, "test", community, scopes)
        return {"Authorization": f"Bearer {made}"}

    client = office.anybody()
    all_scopes = token("gamers", *Scope)
    foreign = token("elsewhere", *Scope)
    for route in CALLS:
        scope = route.access.scope
        assert scope is not None
        without = token("gamers", *(set(Scope) - {scope}))
        path = route.path.format(ticket=subject["ticket"])

        def call(headers: dict[str, str], route: Route = route, path: str = path) -> int:
            body = {"json": subject} if route.method == "POST" else {"params": subject}
            return client.request(route.method, path, headers=headers, **body).status_code

        assert call({}) == 401, route.name
        assert call({"Authorization": "Bearer grt_made_up"}) == 401, route.name
        assert call(without) == 403, route.name
        assert call(foreign) == 404, route.name
        assert call(all_scopes) not in {401, 403}, route.name


def test_a_session_is_no_token_and_a_token_no_session(office: Any, subject: dict[str, str]) -> None:
    browser = office.browser("admin")
    assert browser.get("/api/v1/queue", community="gamers").status_code == 401
    assert (
        office.anybody().get("/people", headers={"Authorization": "Bearer x"}, follow_redirects=False).status_code
        == 303
    )


def test_what_was_seen_and_what_was_tried_is_on_the_log(office: Any, subject: dict[str, str]) -> None:
    office.browser("viewer").read(subject["id"])
    office.browser("stranger").read(subject["id"])
    table = tables.access_log
    with reading(office.store) as connection:
        rows = connection.execute(select(table).where(table.c.decision_id == subject["id"])).mappings().all()
    seen = {(row["actor"], row["what"], row["status"]) for row in rows}
    assert ("viewer", "GET /decision", 200) in seen
    assert ("stranger", "GET /decision", 404) in seen
    log = office.browser("lead").get("/access", community="gamers", decision=subject["id"]).text
    assert "viewer" in log
    assert "stranger" in log


def test_the_access_log_is_read_in_pages(fresh: Callable[..., Any]) -> None:
    office = fresh()
    with writing(office.store) as connection:
        moment = datetime(2026, 1, 1, tzinfo=UTC)
        rows = [
            {"id": f"{at:04d}", "created_at": moment + timedelta(seconds=at // 7), "actor": "eve", "community": "gamers",
             "what": "GET /queue", "decision_id": f"seen-{at:04d}", "status": 200}
            for at in range(250)
        ]  # fmt: skip
        connection.execute(insert(tables.access_log), rows)
    lead, seen, after = office.browser("lead"), [], ""
    for _ in range(5):
        page = lead.get("/access", community="gamers", actor="eve", after=after)
        seen += re.findall(r"id=(seen-\d{4})", page.text)
        following = re.search(r"after=([^\"]+)\">Older", page.text)
        if following is None:
            break
        after = unquote(following[1])
    assert seen == [f"seen-{at:04d}" for at in reversed(range(250))]
    assert ">Newest<" in page.text
    assert lead.get("/access", community="gamers", after="rubbish").status_code == 400


def test_nothing_is_shown_that_cannot_be_logged(
    office: Any, subject: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from guardrail.errors import AuditUnavailable
    from guardrail.review import access

    def away(*_: object) -> None:
        raise AuditUnavailable("the disk is full")

    browser = office.browser("viewer")
    monkeypatch.setattr(access, "_log", away)
    answer = browser.read(subject["id"])
    assert answer.status_code == 503
    assert "idiot" not in answer.text
    assert answer.headers["retry-after"]


def test_a_defect_shows_and_logs_nothing_of_a_text(
    office: Any, subject: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from guardrail.review.pages import working

    def broken(*_: object) -> None:
        raise RuntimeError("a secret text")

    browser = office.browser("viewer")
    monkeypatch.setattr(working, "gather", broken)
    answer = browser.read(subject["id"])
    assert answer.status_code == 500
    assert "it was logged" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    captured = capsys.readouterr()
    assert "secret" not in answer.text + captured.out + captured.err


def test_headers_are_on_every_kind_of_answer(office: Any) -> None:
    client = office.anybody()
    for path in ("/login", "/nowhere", "/static/review.css", "/static/none.css", "/api/v1/queue"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
    assert "no-store" in client.get("/login").headers["cache-control"]


def test_only_our_files_are_served(office: Any) -> None:
    client = office.anybody()
    for name in ("..%2Fapp.py", "../templates/base.html", "app.py", "%2Fetc%2Fpasswd"):
        assert client.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize("role", list(Role))
def test_a_role_covers_itself_and_all_below(role: Role) -> None:
    assert [role.covers(other) for other in Role] == [other.rank <= role.rank for other in Role]


def test_the_stronger_of_two_roles_counts() -> None:
    roles = {"gamers": Role.LEAD, EVERYWHERE: Role.VIEWER}
    assert role_in(roles, "gamers") is Role.LEAD
    assert role_in(roles, "others") is Role.VIEWER
    assert role_in({}, "gamers") is None
    assert replace(Access(), public=True).public


def test_every_logged_route_has_words() -> None:
    routes = {
        f"{route.method} {route.path}" for route in ROUTES if route.access.subject != "none" and route.access.logged
    }
    assert set(DONE) == routes
