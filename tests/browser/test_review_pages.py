"""The review pages in a real browser: by keyboard, in light and dark, on a phone, for everybody (axe-core), against scripts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from guardrail.audit.people import People
from guardrail.review import accounts, appeals
from guardrail.review.database import reading
from guardrail.review.filling import fill
from guardrail.review.queue import item_of
from guardrail.review.roles import Role
from guardrail.review.verdicts import opinions
from guardrail.types import Action, Reason, Stage, State

Visit = Callable[..., Page]


def outcome(site: Any, key: str) -> str | None:
    with reading(site.desk.store) as connection:
        item = item_of(connection, key)
    return item.outcome if item else None


def settled(site: Any, key: str) -> str | None:
    deadline = time.monotonic() + 10
    while outcome(site, key) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return outcome(site, key)


def test_a_queue_is_worked_through_by_keyboard(site: Any, visit: Visit) -> None:
    keys = [site.record(source=f"You absolute idiot number {at}!") for at in range(3)]
    while fill(site.desk.store, site.desk.policies, "gamers"):
        pass
    page = visit(None, "/login")
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill("correct horse battery")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="gamers")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("[data-item]").nth(1)).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Draft")).to_be_visible()
    first = page.url.partition("id=")[2]
    page.keyboard.press("c")
    page.keyboard.type("u o e: typed, not pressed")
    page.keyboard.press("Escape")
    page.keyboard.press("o")
    page.wait_for_function("old => !location.href.includes(old)", arg=first)
    assert settled(site, first) == "overturn"
    second = page.url.partition("id=")[2]
    page.keyboard.press("e")
    area = page.get_by_label("Text", exact=True)
    expect(area).to_be_focused()
    area.fill("Say it kindly.")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("old => !location.href.includes(old)", arg=second)
    assert settled(site, second) == "edit"
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("q")
    expect(page.get_by_role("heading", name="gamers")).to_be_visible()
    assert {first, second} < set(keys)
    with reading(site.desk.store) as connection:
        assert opinions(connection, first)[0].comment == "u o e: typed, not pressed"


def test_severe_text_is_blurred_until_asked_for(site: Any, visit: Visit) -> None:
    key = site.record(risk=0.97)
    page = visit("ann", f"/decision?id={key}")
    draft = page.locator("section:has(#draft) .text")
    assert "blur" in draft.evaluate("element => getComputedStyle(element).filter")
    page.keyboard.press("b")
    page.wait_for_function(
        "() => getComputedStyle(document.querySelector('section:has(#draft) .text')).filter === 'none'"
    )
    expect(page.get_by_text("1 read · 1 severe")).to_have_count(0)  # it counts from the next page on
    page.reload()
    expect(page.locator(".exposure")).to_contain_text("severe")


def test_a_session_that_ends_while_typing_loses_nothing(site: Any, visit: Visit) -> None:
    key = site.record()
    page = visit("ben", f"/decision?id={key}")
    page.get_by_label("Comment (why; kept on record) c").fill("An hour of thought <b>&amp;</b>\nand more")
    site.end_sessions("ben")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Uphold").click()
    expect(page.get_by_text("What you typed is kept")).to_be_visible()
    page.get_by_label("Name").fill("ben")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#comment")).to_have_value("An hour of thought <b>&amp;</b>\nand more")
    assert outcome(site, key) is None
    page.get_by_role("button", name="Uphold").click()
    page.wait_for_function("() => !document.querySelector('#comment') || !document.querySelector('#comment').value")
    assert settled(site, key) == "uphold"


def test_a_script_is_shown_and_does_not_run(site: Any, visit: Visit) -> None:
    attack = (
        "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"><svg onload=alert(1)>"
    )
    key = site.record(source=attack, text=attack, reasons=(), rewrite=None, action=Action.FLAG, state=State.FLAGGED)
    page = visit("ann", f"/decision?id={key}")
    page.get_by_text("Add a label or a comment").click()
    page.get_by_label("Comment without a verdict").fill(attack)
    page.get_by_role("button", name="Add the comment").click()
    expect(page.locator(".comment")).to_have_text(attack)
    assert page.title() != "owned"
    assert page.locator("main script, main img").count() == 0
    # and if a tag did get into a page, the browser would not run it
    page.evaluate("() => document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    page.wait_for_timeout(100)
    assert page.title() != "1"
    assert len(visit.errors) == 1  # type: ignore[attr-defined]
    assert "inline event handler" in visit.errors.pop()  # type: ignore[attr-defined]


def test_a_text_is_shown_in_its_own_direction(site: Any, visit: Visit) -> None:
    draft = "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643 idiot."  # Arabic, with a Latin word in it
    key = site.record(source=draft, text="Hello.", reasons=(), rewrite=None)
    while fill(site.desk.store, site.desk.policies, "gamers"):
        pass
    page = visit("ann", f"/decision?id={key}")
    direction = "element => getComputedStyle(element).direction"
    assert page.locator("section:has(#draft) .text").evaluate(direction) == "rtl"
    assert page.locator("section:has(#delivered) .text").evaluate(direction) == "ltr"
    page.goto("/queue?community=gamers")
    assert page.locator(f"[href*='{key}'] .excerpt").evaluate(direction) == "rtl"
    assert page.locator("main").evaluate(direction) == "ltr"


PAGES = (
    "queue",
    "decision",
    "dashboard",
    "appeals",
    "appeal",
    "statement",
    "access",
    "people",
    "tokens",
    "me",
    "login",
)


@pytest.fixture(scope="module")
def paths(site: Any) -> dict[str, str]:
    key = site.record(risk=0.9)
    ticket = appeals.file(site.desk, key, "user-1", "It was irony.")
    community = f"community={quote('gamers')}"
    return {
        "queue": f"/queue?{community}", "decision": f"/decision?id={key}", "dashboard": f"/dashboard?{community}",
        "appeals": f"/appeals?{community}", "appeal": f"/appeal?ticket={ticket}", "statement": f"/decision/statement?id={key}",
        "access": f"/access?{community}", "people": "/people", "roles": f"/roles?{community}",
        "search": f"/search?{community}&text=idiot",
        "tokens": "/tokens", "me": "/me", "login": "/login",
    }  # fmt: skip


def violations(page: Page, paths: dict[str, str], names: Sequence[str], **options: Any) -> dict[str, Any]:
    found = {}
    for name in names:
        page.goto(paths[name])
        page.evaluate("() => document.querySelectorAll('details').forEach(place => { place.open = true; })")
        results = Axe().run(page, options={"resultTypes": ["violations"], "preload": False, **options})
        if results.violations_count:
            found[name] = [
                (one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in results.response["violations"]
            ]
    return found


def test_everybody_can_use_it(paths: dict[str, str], visit: Visit) -> None:
    """axe-core finds nothing on any page; in the dark there are other colours, and all else is the same."""
    assert violations(visit("root", "/me", color_scheme="light"), paths, PAGES) == {}
    coloured = ("queue", "decision", "dashboard", "access")
    assert violations(visit("root", "/me", color_scheme="dark"), paths, coloured, runOnly=["color-contrast"]) == {}


def test_it_fits_a_phone(paths: dict[str, str], visit: Visit) -> None:
    page = visit("root", "/me", viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    wide = {}
    for name in PAGES:
        page.goto(paths[name])
        width = page.evaluate("() => document.documentElement.scrollWidth")
        small = page.evaluate(
            "() => [...document.querySelectorAll('main button')].filter(b => b.offsetParent && b.offsetHeight < 40).length"
        )
        if width > 390 or small:
            wide[name] = (width, small)
    assert wide == {}


def test_long_names_fit_a_phone_too(site: Any, visit: Visit) -> None:
    name = "somebody.with.a.long.name@a-company-with-a-long-name.example"
    with People(site.desk.store).change() as change:
        key = accounts.add_user(change.connection, site.desk.passwords, name, "correct horse battery")
        for community in ("gamers", "parents-of-small-children-in-all-countries"):
            accounts.set_role(change.connection, key, community, Role.LEAD)
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
    for who, path in (("root", "/people"), (name, "/me"), (name, "/"), ("root", "/roles?community=gamers")):
        page = visit(who, path, **phone)
        assert page.evaluate("() => document.documentElement.scrollWidth") == 360, path


def test_a_draft_of_a_megabyte_can_be_worked_with(site: Any, visit: Visit) -> None:
    words = [f"word{at * 7919 % 3001}" for at in range(120_000)]
    source = " ".join([*words, "You idiot!", *words])
    text = source.replace("idiot", "friend")
    at = source.index("idiot")
    reason = Reason("harassment", Stage.OUTPUT, Action.REWRITE, 0.9, 0.6, {"toxicity": 1.75}, ((at, at + 6),))
    key = site.record(source=source, text=text, rewrite=None, reasons=(reason,))
    page = visit("ann", f"/decision?id={key}")
    expect(page.locator("mark del")).to_have_text("idiot")
    expect(page.locator("ins")).to_have_text("friend")
    page.keyboard.press("e")
    expect(page.get_by_text("too long to stand here")).to_be_visible()
    page.get_by_label("Text", exact=True).blur()
    page.get_by_role("link", name="The whole text").first.click()
    expect(page.locator("mark")).to_have_text("idiot!")
    page.keyboard.press("q")
    expect(page.get_by_role("button", name="Uphold")).to_be_visible()
    page.keyboard.press("u")
    assert settled(site, key) == "uphold"


def test_it_works_without_scripts(site: Any, visit: Visit) -> None:
    key = site.record()
    page = visit("ann", f"/decision?id={key}", java_script_enabled=False)
    page.get_by_role("link", name="Look for them").click()
    expect(page.get_by_role("heading", name="Similar past decisions")).to_be_visible()
    page.go_back()
    page.get_by_role("button", name="Uphold").click()
    assert settled(site, key) == "uphold"


def test_similar_decisions_load_when_they_come_into_view(site: Any, visit: Visit) -> None:
    key = site.record()
    page = visit("ann", f"/decision?id={key}")
    page.get_by_role("heading", name="Similar past decisions").scroll_into_view_if_needed()
    expect(page.get_by_text("None in this community so far.")).to_be_visible()
