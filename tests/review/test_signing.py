"""Passwords, sessions, keys and limits."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from argon2 import profiles
from sqlalchemy import select, update

from guardrail.errors import ConfigurationError
from guardrail.review import accounts, limits, tables
from guardrail.review.database import reading, writing
from guardrail.review.keys import Signer, digest
from guardrail.review.passwords import Passwords
from guardrail.review.render import browser


def sign_in(office: Any, client: Any, name: str, password: str, **more: str) -> Any:
    token = re.search(r'name="form_token" value="([^"]+)"', client.get("/login").text).group(1)
    form = {"form_token": token, "user": name, "password": password, **more}
    return client.post("/login", data=form, follow_redirects=False)


# -------------------------------------------------------------------------------------------------------- passwords


def test_passwords_are_hashed_with_the_profile_of_the_rfc() -> None:
    chosen = Passwords()._hasher
    assert (chosen.memory_cost, chosen.time_cost, chosen.parallelism) == (65_536, 3, 4)


def test_a_password_is_told_from_another(passwords: Passwords) -> None:
    stored = passwords.hash("correct horse battery", name="ann")
    assert stored.startswith("$argon2id$")
    assert passwords.check(stored, "correct horse battery")
    assert not passwords.check(stored, "correct horse batterz")
    assert not passwords.check(None, "correct horse battery")
    assert not passwords.check(None, "nobody has this password")
    assert not passwords.check(stored, "x" * 1_000_000)
    assert not passwords.check("not a hash", "correct horse battery")
    assert passwords.check(passwords.hash("Zoe\u0308 und der Hund"), "Zoë und der Hund")


@pytest.mark.parametrize("password", ["short", "x" * 257, "aaaaaaaaaaaaaa", "my name is Ann, hello", ""])
def test_a_bad_password_is_refused(passwords: Passwords, password: str) -> None:
    with pytest.raises(ConfigurationError):
        passwords.hash(password, name="ann")


def test_a_hash_with_older_parameters_is_renewed_at_sign_in(fresh: Callable[..., Any]) -> None:
    office = fresh()
    stronger = profiles.CHEAPEST
    stronger = type(stronger)(stronger.type, 19, 16, 32, time_cost=2, memory_cost=64, parallelism=1)
    object.__setattr__(office.desk, "passwords", Passwords(stronger))
    assert sign_in(office, office.anybody(), "lead", office.password).status_code == 303
    with reading(office.store) as connection:
        stored = connection.scalar(select(tables.users.c.password_hash).where(tables.users.c.name == "lead"))
    assert "m=64,t=2" in stored
    assert sign_in(office, office.anybody(), "lead", office.password).status_code == 303


# --------------------------------------------------------------------------------------------------------- sessions


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(fresh: Callable[..., Any]) -> None:
    office = fresh(secure=True)
    client = office.anybody()
    client.base_url = "https://review.test"
    header = sign_in(office, client, "viewer", office.password).headers["set-cookie"]
    assert all(part in header for part in ("guardrail_session=", "HttpOnly", "SameSite=lax", "Secure", "Path=/"))
    assert client.get("/login").headers["strict-transport-security"]


def test_only_the_hash_of_a_session_is_stored(office: Any) -> None:
    client = office.anybody()
    sign_in(office, client, "viewer", office.password)
    token = client.cookies["guardrail_session"].partition(".")[0]
    with reading(office.store) as connection:
        stored = set(connection.scalars(select(tables.sessions.c.id)))
    assert digest(token) in stored
    assert token not in stored


@pytest.mark.parametrize("cookie", ["", "x", "made.up", "a.b.c", "…", "'; DROP TABLE review_sessions; --"])
def test_a_cookie_that_is_not_ours_is_no_session(office: Any, cookie: str) -> None:
    client = office.anybody()
    answer = client.get("/me", headers={"Cookie": f"guardrail_session={cookie}".encode()}, follow_redirects=False)
    assert answer.status_code == 303


@pytest.mark.parametrize(("column", "back"), [("expires_at", timedelta(hours=13)), ("seen_at", timedelta(hours=3))])
def test_a_session_ends(office: Any, column: str, back: timedelta) -> None:
    browser = office.browser("viewer")
    assert browser.get("/me").status_code == 200
    table = tables.sessions
    with writing(office.store) as connection:
        token = browser.client.cookies["guardrail_session"].partition(".")[0]
        mine = table.c.id == digest(token)
        connection.execute(update(table).where(mine).values({column: accounts.now() - back}))
    assert browser.get("/me").status_code == 303


def test_signing_out_ends_it_on_the_server(office: Any) -> None:
    browser = office.browser("viewer")
    cookie = browser.client.cookies["guardrail_session"]
    browser.post("/logout")
    browser.client.cookies.set("guardrail_session", cookie)
    assert browser.get("/me").status_code == 303


def test_a_new_password_ends_every_other_session(fresh: Callable[..., Any]) -> None:
    office = fresh()
    one, other = office.browser("viewer"), office.browser("viewer")
    assert "not your password" in one.post("/me/password", password="wrong password!", new="a much better one").text
    assert "12 to 256" in one.post("/me/password", password=office.password, new="short").text
    assert one.post("/me/password", password=office.password, new="a much better one").status_code == 303
    assert one.get("/me").status_code == 200
    assert other.get("/me").status_code == 303
    assert sign_in(office, office.anybody(), "viewer", office.password).status_code == 401
    assert sign_in(office, office.anybody(), "viewer", "a much better one").status_code == 303
    assert one.post("/me/sign-out").status_code == 303
    assert one.get("/me").status_code == 303


def test_who_is_shut_out_is_out_at_once(fresh: Callable[..., Any]) -> None:
    office = fresh()
    viewer = office.browser("viewer")
    with reading(office.store) as connection:
        user = accounts.find_user(connection, "viewer")
    office.browser("admin").post("/people/active", user_id=user.id, active="no")
    assert viewer.get("/me").status_code == 303
    assert sign_in(office, office.anybody(), "viewer", office.password).status_code == 401


def test_the_sign_in_form_needs_its_own_token(office: Any) -> None:
    client = office.anybody()
    form = {"user": "viewer", "password": office.password}
    assert client.post("/login", data=form).status_code == 400
    token = re.search(r'name="form_token" value="([^"]+)"', client.get("/login").text).group(1)
    other = office.anybody()
    other.get("/login")
    assert other.post("/login", data=form | {"form_token": token}).status_code == 400
    assert "guardrail_session" not in other.cookies


@pytest.mark.parametrize("place", ["https://evil.test/", "//evil.test/", "javascript:alert(1)", "/\\evil.test"])
def test_sign_in_never_leads_to_another_site(office: Any, place: str) -> None:
    answer = sign_in(office, office.anybody(), "viewer", office.password, next=place)
    assert answer.headers["location"] == "/"


# ----------------------------------------------------------------------------------------------------------- limits


def test_guessing_stops_after_five_tries(fresh: Callable[..., Any]) -> None:
    office = fresh()
    client = office.anybody()
    answers = [sign_in(office, client, "viewer", f"wrong guess {at}").status_code for at in range(7)]
    assert answers == [401] * 5 + [429] * 2
    late = sign_in(office, client, "viewer", office.password)
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) > 600
    assert sign_in(office, client, "moderator", office.password).status_code == 303  # others are not locked out


def test_a_name_that_is_not_there_looks_like_one_that_is(office: Any) -> None:
    pages = {}
    for name in ("lead", "no-such-person"):
        page = sign_in(office, office.anybody(), name, "wrong password!")
        assert page.status_code == 401
        pages[name] = re.sub(r'value="[^"]*"', "", page.text)
    assert pages["lead"] == pages["no-such-person"]


def test_a_window_ends(office: Any) -> None:
    limit, at = limits.Limit("test", 2, timedelta(minutes=1)), accounts.now()
    with writing(office.store) as connection:
        waits = [
            limits.count(connection, limit, "key", at + timedelta(seconds=step)) for step in (0, 10, 20, 61, 62, 63)
        ]
    assert [wait is None for wait in waits] == [True, True, False, True, True, False]
    assert waits[2] == timedelta(seconds=40)
    with writing(office.store) as connection:
        limits.forget(connection, limit, "key")
        assert limits.count(connection, limit, "key", at) is None


# ------------------------------------------------------------------------------------------------------------- keys


def test_a_mark_is_good_for_one_purpose_and_one_key() -> None:
    one, other = Signer("k" * 32), Signer("j" * 32)
    signed = one.sign("value.with.dots", "session")
    assert one.read(signed, "session") == "value.with.dots"
    assert one.read(signed, "form") is None
    assert other.read(signed, "session") is None
    assert one.read(signed[:-1] + ("A" if signed[-1] != "A" else "B"), "session") is None
    assert Signer().read(Signer().sign("x", "p"), "p") is None
    with pytest.raises(ConfigurationError, match="at least 32"):
        Signer("short")


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
            "Chrome on Linux",
        ),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/130.0 Safari/537.36 Edg/130.0", "Edge on Windows"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 14.1; rv:132.0) Gecko/20100101 Firefox/132.0", "Firefox on macOS"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Version/17.0 Mobile Safari/604.1", "Safari on iPhone"),
        ("curl/8.5", "curl/8.5"),
        ("", "unknown browser"),
    ],
)
def test_sessions_are_named_as_people_name_browsers(agent: str, shown: str) -> None:
    assert browser(agent) == shown
