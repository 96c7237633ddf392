"""A review application on a real store, people of every role, and decisions worth a look."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from argon2 import profiles
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event

from guardrail.audit.people import People
from guardrail.audit.store import AuditStore, open_store
from guardrail.policy import Policy, load_policy
from guardrail.review import accounts
from guardrail.review.app import create_app
from guardrail.review.database import reading
from guardrail.review.desk import Desk
from guardrail.review.filling import fill
from guardrail.review.keys import Signer
from guardrail.review.passwords import Passwords
from guardrail.review.queue import Item, item_of
from guardrail.review.roles import EVERYWHERE, Role
from guardrail.review.verdicts import Opinion, opinions
from guardrail.types import Action, Candidate, Decision, Reason, Rewrite, Stage, State

PASSWORD = "correct horse battery"
COMMUNITY = "gamers"
ROLES = {
    "nobody": {},
    "stranger": {"elsewhere": Role.LEAD},
    "viewer": {COMMUNITY: Role.VIEWER},
    "moderator": {COMMUNITY: Role.MODERATOR},
    "second": {COMMUNITY: Role.MODERATOR},
    "lead": {COMMUNITY: Role.LEAD},
    "boss": {COMMUNITY: Role.ADMIN},
    "admin": {EVERYWHERE: Role.ADMIN},
}
_numbers = itertools.count()


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """The general policy, under which two people must agree on what the rule `sexual` does."""
    file = tmp_path_factory.mktemp("policy") / "careful.yaml"
    file.write_text("policy: careful\nextends: general\nrules:\n  sexual: {reviewers: 2}\n", encoding="utf-8")
    return load_policy(file)


def decide(policy: Policy, **fields: Any) -> Decision:
    """A decision with everything in it: a reason, scores, a rewrite with candidates."""
    source, text = "Sure. You absolute idiot! Bye.", "Sure. You can do it. Bye."
    candidates = (
        Candidate("You can do it.", "dglm", 0.05, True, 0.71, -2.5, 0.64, {"toxicity": 0.05, "insult": 0.04}, 11),
        Candidate("You will manage.", "dglm", 0.07, True, 0.69, -2.6, 0.60, {"toxicity": 0.07, "insult": 0.02}, 12),
        Candidate("You fool!", "dglm", 0.85, False, 0.93, -1.5, None, {"toxicity": 0.85}, 13),
    )
    rewrite = Rewrite(source, text, "dglm", 0.83, 0.9, 0.06, candidates, (((6, 25), "You can do it."),), 11)
    reason = Reason("harassment", Stage.OUTPUT, Action.REWRITE, 0.9, 0.6, {"toxicity": 1.75}, ((6, 25),), "No insults.")
    known: dict[str, Any] = {
        "id": f"decision-{next(_numbers):06d}",
        "action": Action.REWRITE,
        "state": State.REWRITTEN,
        "risk": 0.7,
        "stage": Stage.OUTPUT,
        "policy": policy.name,
        "revision": policy.revision,
        "text": text,
        "source": source,
        "rules": {"harassment": 0.7, "violence": 0.01},
        "scores": {"toxicity": 0.9, "insult": 0.8, "courtesy": 0.1},
        "reasons": (reason,),
        "rewrite": rewrite,
        "request_id": "request-1",
        "created_at": time.time(),
    }
    return Decision(**(known | fields))


def held(policy: Policy, **fields: Any) -> Decision:
    """A draft that waits for a person."""
    reason = Reason("violence", Stage.OUTPUT, Action.ESCALATE, 0.8, 0.7, {"threat": 2.0}, ((0, 5),), "No threats.")
    values = {"action": Action.ESCALATE, "state": State.ESCALATED, "risk": 0.8, "text": None, "refusal": "Not here."}
    return decide(policy, **({**values, "source": "I will find you.", "reasons": (reason,), "rewrite": None} | fields))


@dataclass
class Browser:
    """A signed-in client that takes form tokens from the pages, as a person's browser does."""

    client: TestClient
    name: str

    def get(self, path: str, **query: str) -> Any:
        return self.client.get(path, params=query or None, follow_redirects=False)

    def read(self, decision_id: str) -> Any:
        return self.get("/decision", id=decision_id)

    def decide(self, decision_id: str, verdict: str, version: int = 1, **fields: str) -> Any:
        return self.post("/decision/verdict", id=decision_id, verdict=verdict, version=str(version), **fields)

    def token(self) -> str:
        page = self.client.get("/me").text
        found = re.search(r'name="form_token" value="([^"]+)"', page)
        assert found, page[:500]
        return found.group(1)

    def post(self, path: str, **fields: str) -> Any:
        return self.client.post(path, data={"form_token": self.token(), **fields}, follow_redirects=False)


@dataclass
class Office:
    """An application and its people."""

    app: FastAPI
    desk: Desk
    policy: Policy
    community = COMMUNITY
    password = PASSWORD
    roles = ROLES

    @property
    def store(self) -> AuditStore:
        return self.desk.store

    def record(self, *decisions: Decision, community: str = COMMUNITY, conversation: str | None = None) -> str:
        self.store.record(decisions, policy=self.policy, community=community, conversation=conversation)
        return decisions[0].id

    def rewritten(self, **fields: Any) -> str:
        """Record a draft that was rewritten; return its decision."""
        return self.record(decide(self.policy, **fields))

    def held(self, **fields: Any) -> str:
        """Record a draft that waits for a person; return its decision."""
        return self.record(held(self.policy, **fields))

    def item(self, decision_id: str) -> Item:
        with reading(self.store) as connection:
            found = item_of(connection, decision_id)
        assert found is not None
        return found

    def reviews(self, decision_id: str) -> list[Opinion]:
        with reading(self.store) as connection:
            return opinions(connection, decision_id)

    def fill(self) -> int:
        return fill(self.store, self.desk.policies, COMMUNITY)

    def anybody(self) -> TestClient:
        return TestClient(self.app, base_url="http://review.test")

    def browser(self, name: str) -> Browser:
        """Somebody with an open session; their password was checked elsewhere."""
        client = self.anybody()
        with People(self.store).change() as change:
            user = accounts.find_user(change.connection, name)
            assert user is not None
            token = accounts.start_session(change.connection, user, self.desk.session_lasts, "test")
        client.cookies.set("guardrail_session", self.desk.signer.sign(token, "session"))
        return Browser(client, name)


@pytest.fixture(scope="session")
def passwords() -> Passwords:
    return Passwords(profiles.CHEAPEST)


def open_office(store: AuditStore, passwords: Passwords, policy: Policy, **parts: Any) -> Office:
    known: dict[str, Any] = {"signer": Signer("k" * 40), "passwords": passwords, "secure": False}
    desk = Desk(store, **(known | parts))
    with People(store).change() as change:
        for name, roles in ROLES.items():
            key = accounts.add_user(change.connection, passwords, name, PASSWORD)
            for community, role in roles.items():
                accounts.set_role(change.connection, key, community, role)
    return Office(create_app(desk, fill=False), desk, policy)


def quick(store: AuditStore) -> AuditStore:
    """Without waiting for the disk: a power cut is not what is tested here."""
    event.listen(store.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    store.engine.dispose()
    return store


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, passwords: Passwords, policy: Policy) -> Iterator[Office]:
    """One for all tests of a module."""
    with open_store(f"sqlite:///{tmp_path_factory.mktemp('review') / 'audit.sqlite'}", timeout=30) as store:
        yield open_office(quick(store), passwords, policy)


@pytest.fixture
def fresh(tmp_path: Path, passwords: Passwords, policy: Policy) -> Iterator[Callable[..., Office]]:
    """Makes an office of its own for a test."""
    with open_store(f"sqlite:///{tmp_path / 'audit.sqlite'}", timeout=30) as store:
        yield lambda **parts: open_office(quick(store), passwords, policy, **parts)


@pytest.fixture(scope="session")
def new_office() -> Callable[..., Office]:
    """Opens an office on a store."""
    return open_office
