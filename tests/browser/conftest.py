"""A server on this machine and the system's Chromium. Where there is none: a failure on CI, a skip that says so elsewhere."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from argon2 import profiles
from playwright.sync_api import Browser, Page, sync_playwright

from guardrail.audit.people import People
from guardrail.audit.store import AuditStore, open_store
from guardrail.policy import Policy, load_policy
from guardrail.review import accounts
from guardrail.review.app import create_app
from guardrail.review.desk import Desk
from guardrail.review.keys import Signer
from guardrail.review.passwords import Passwords
from guardrail.review.roles import Role
from guardrail.types import Action, Candidate, Decision, Reason, Rewrite, Stage, State

PASSWORD = "correct horse battery"


@dataclass
class Site:
    """The pages as they are served, and the record behind them."""

    url: str
    desk: Desk
    policy: Policy

    def record(self, **fields: Any) -> str:
        source, text = "Sure. You absolute idiot! Bye.", "Sure. You can do it. Bye."
        candidates = (
            Candidate("You can do it.", "dglm", 0.05, True, 0.71, -2.5, 0.64, {"toxicity": 0.05}, 11),
            Candidate("You will manage.", "dglm", 0.07, True, 0.69, -2.6, 0.60, {"toxicity": 0.07}, 12),
        )
        reason = Reason("harassment", Stage.OUTPUT, Action.REWRITE, 0.9, 0.6, {"toxicity": 1.75}, ((6, 25),))
        known: dict[str, Any] = {
            "id": f"d{time.time_ns()}", "action": Action.REWRITE, "state": State.REWRITTEN, "risk": 0.7, "text": text,
            "stage": Stage.OUTPUT, "policy": self.policy.name, "revision": self.policy.revision, "source": source,
            "rules": {"harassment": 0.7}, "scores": {"toxicity": 0.9, "insult": 0.8}, "reasons": (reason,),
            "rewrite": Rewrite(source, text, "dglm", 0.83, 0.9, 0.06, candidates, (((6, 25), "You can do it."),), 11),
            "created_at": time.time(),
        }  # fmt: skip
        decision = Decision(**(known | {"request_id": str(time.time_ns())} | fields))
        self.desk.store.record([decision], policy=self.policy, community="gamers")
        return decision.id

    def end_sessions(self, name: str) -> None:
        with People(self.desk.store).change() as change:
            user = accounts.find_user(change.connection, name)
            assert user is not None
            accounts.end_sessions(change.connection, user.id)


def add_people(store: AuditStore, passwords: Passwords) -> None:
    with People(store).change() as change:
        for name, community, role in (
            ("ann", "gamers", Role.LEAD),
            ("ben", "gamers", Role.MODERATOR),
            ("root", "*", Role.ADMIN),
        ):
            key = accounts.add_user(change.connection, passwords, name, PASSWORD)
            accounts.set_role(change.connection, key, community, role)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    passwords = Passwords(profiles.CHEAPEST)
    with open_store(f"sqlite:///{tmp_path_factory.mktemp('site') / 'audit.sqlite'}", timeout=30) as store:
        desk = Desk(store, signer=Signer("k" * 40), passwords=passwords, secure=False)
        add_people(store, passwords)
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_app(desk), log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.started
        yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}", desk, load_policy("general"))
        server.should_exit = True
        thread.join(30)
        listening.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        message = "there is no Chromium: `apt-get install chromium`; the pages were NOT tested in a browser"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])  # tests may run as root
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Opens a page in a window of its own, signed in as somebody; a script's error fails the test."""
    opened, errors = [], []

    def make(name: str | None = "ann", path: str = "/", **options: Any) -> Page:
        context = chromium.new_context(base_url=site.url, **options)
        opened.append(context)
        if name is not None:
            with People(site.desk.store).change() as change:
                user = accounts.find_user(change.connection, name)
                assert user is not None
                token = accounts.start_session(change.connection, user, site.desk.session_lasts, "browser")
            cookie = site.desk.signer.sign(token, "session")
            context.add_cookies([{"name": "guardrail_session", "value": cookie, "url": site.url}])
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
        page.goto(path)
        return page

    make.errors = errors  # type: ignore[attr-defined]
    yield make
    for context in opened:
        context.close()
    assert errors == []
