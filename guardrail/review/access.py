"""Who gets in: every request passes here, and every route says what it asks of a visitor.

    identify (session or token) -> form token -> locate (whose community?) -> role or scope -> handler -> access log

A visitor without any role in a community is told that the thing does not exist; one whose role is too weak is told so. What
was seen, and what was tried, is logged before the answer leaves.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from fastapi import Request, Response
from sqlalchemy import Connection, insert, select

from guardrail.audit.escaping import identifier, unescape
from guardrail.audit.tables import appeals, decisions
from guardrail.review import accounts, limits, tables, wellbeing
from guardrail.review.accounts import Token, User
from guardrail.review.database import reading, writing
from guardrail.review.desk import Desk
from guardrail.review.roles import EVERYWHERE, Role, Scope, role_in

__all__ = ["Access", "Denied", "Route", "Visit", "enter"]

COOKIE = "guardrail_session"
FORM_COOKIE = "guardrail_form"

Subject = Literal["none", "community", "decision", "appeal"]


@dataclass(frozen=True, slots=True)
class Access:
    """What a route asks of a visitor.

    Attributes:
        role: the least role in the community concerned; None: being signed in is enough.
        scope: the API token's scope; such a route takes tokens only, all others take sessions only.
        subject: what the community follows from: `community`, `id` (of a decision) or `ticket` in the query or the form,
            or nothing: then `role` must be held everywhere, if one is asked for.
        public: anybody; nothing is checked but the form token.
        logged: who asked is logged; False only for what a page asks by itself and that shows no text.
    """

    role: Role | None = None
    scope: Scope | None = None
    subject: Subject = "none"
    public: bool = False
    logged: bool = True


@dataclass(frozen=True, slots=True)
class Route:
    """One path, what answers it, and what it asks. `largest`: bytes of a body."""

    method: Literal["GET", "POST"]
    path: str
    handler: Callable[[Visit], Response]
    access: Access
    largest: int = 262_144

    @property
    def name(self) -> str:
        """What stands in the access log."""
        return f"{self.method} {self.path}"


class Denied(Exception):
    """The visitor gets no further. `status`: 400 to 503; `wait`: seconds until it is worth trying again."""

    def __init__(self, status: int, message: str, *, wait: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.wait = status, message, wait


@dataclass(slots=True)
class Visit:
    """One request on its way through. `typed`: what was in a form that could not be taken, to be shown again."""

    desk: Desk
    request: Request
    route: Route
    fields: Mapping[str, str] = field(default_factory=dict)  # the form, or the members of a JSON object
    session: str = ""
    user: User | None = None
    token: Token | None = None
    community: str = ""
    decision_id: str = ""
    ticket: str = ""
    typed: Mapping[str, str] = field(default_factory=dict)
    notice: str = ""
    exposed: bool | None = None  # a text was opened: whether it was a severe one

    def given(self, name: str, default: str = "") -> str:
        """A value of the form, else of the query."""
        given = self.request.path_params.get(name) or self.fields.get(name) or self.request.query_params.get(name)
        return str(given or default)

    @property
    def me(self) -> User:
        """Who is signed in; only for routes that ask for it."""
        if self.user is None:
            raise Denied(401, "Please sign in.")
        return self.user

    def role(self, community: str | None = None) -> Role | None:
        """The visitor's role in `community` (default: the one concerned)."""
        return (
            None if self.user is None else role_in(self.user.roles, self.community if community is None else community)
        )

    def may(self, role: Role) -> bool:
        """Whether the visitor's role in the community concerned is at least `role`."""
        held = self.role()
        return held is not None and held.covers(role)

    @property
    def form_token(self) -> str:
        """What every form of the signed-in visitor must bring back."""
        return self.desk.signer.mark(self.session, "form")

    @property
    def actor(self) -> str:
        """Who is in the access log."""
        if self.token is not None:
            return f"token:{self.token.name}"
        return self.user.name if self.user is not None else "nobody"


def enter(visit: Visit, *, signed_in: bool = False) -> Response:
    """Check a visit and, if it may go on, answer it.

    Args:
        signed_in: the visitor has just signed in; all other checks are made.

    Raises:
        Denied: it may not, or the handler found something missing.
        AuditUnavailable: the database is away; nothing is shown that could not be logged.
    """
    access = visit.route.access
    if access.public:
        return visit.route.handler(visit)
    try:
        if access.scope is not None:
            _identify_token(visit)
        elif not signed_in:
            _identify_person(visit)
            _check_form(visit)
        _locate(visit)
        _authorise(visit)
        response = visit.route.handler(visit)
    except Denied as denied:
        if denied.status in {403, 404} and (visit.user or visit.token):
            _log(visit, denied.status)
        raise
    if access.subject != "none" and access.logged:
        _log(visit, response.status_code)
    return response


# ------------------------------------------------------------------------------------------------- who is it?


def _identify_person(visit: Visit) -> None:
    token = visit.desk.signer.read(visit.request.cookies.get(COOKIE, ""), "session")
    due = False
    if token:
        with reading(visit.desk.store) as connection:
            visit.user, due = accounts.user_of_session(connection, token)
    if visit.user is None or not token:
        raise Denied(401, "Your session has ended. Please sign in.")
    visit.session = token
    if due:  # most requests only read
        with writing(visit.desk.store) as connection:
            accounts.touch_session(connection, token)


def _identify_token(visit: Visit) -> None:
    scheme, _, value = visit.request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        raise Denied(401, "send the header: Authorization: Bearer TOKEN")
    at = accounts.now()
    address = visit.request.client.host if visit.request.client else "unknown"
    with writing(visit.desk.store) as connection:
        visit.token = accounts.token_of(connection, value.strip())
        known = visit.token is not None
        key = visit.token.id if visit.token is not None else f"unknown from {address}"
        wait = limits.count(connection, limits.API if known else limits.SIGN_IN_ADDRESS, key, at)
    if wait is not None:
        raise _too_often(wait)
    if not known:
        raise Denied(401, "the token is unknown, has expired or was revoked")


def _too_often(wait: timedelta) -> Denied:
    seconds = max(1, round(wait.total_seconds()))
    return Denied(429, f"too often; try again in {seconds} seconds", wait=seconds)


# ----------------------------------------------------------------------------------- is it from one of our pages?


def same_origin(request: Request) -> bool:
    """Whether a browser says that the request comes from a page of this host (or says nothing, as older ones do)."""
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host", "")


def _check_form(visit: Visit) -> None:
    if visit.request.method == "GET":
        return
    genuine = visit.desk.signer.genuine(visit.session, visit.fields.get("form_token", ""), "form")
    if not genuine or not same_origin(visit.request):
        raise Denied(
            400, "This form is not from a page of yours that is still open. Go back, reload the page, try again."
        )


# ----------------------------------------------------------------------------------------- whose is it, may they?


def _locate(visit: Visit) -> None:
    subject = visit.route.access.subject
    if subject == "none":
        return
    if subject == "community":
        visit.community = visit.given("community")
        return
    with reading(visit.desk.store) as connection:
        if subject == "appeal":
            visit.ticket = visit.given("ticket")
            visit.decision_id = _decision_of(connection, visit.ticket)
        else:
            visit.decision_id = visit.given("id")
        visit.community = _community_of(connection, visit.decision_id)


def _decision_of(connection: Connection, ticket: str) -> str:
    found = connection.scalar(select(appeals.c.decision_id).where(appeals.c.id == identifier(ticket)))
    if found is None:
        raise Denied(404, "There is no such appeal, or you have no access to its community.")
    return unescape(found)


def _community_of(connection: Connection, decision_id: str) -> str:
    found = connection.scalar(select(decisions.c.community).where(decisions.c.id == identifier(decision_id)))
    if found is None:
        raise Denied(404, "There is no such decision, or you have no access to its community.")
    return unescape(found)


def _authorise(visit: Visit) -> None:
    access = visit.route.access
    if access.scope is not None:
        token = visit.token
        if token is None or access.scope not in token.scopes:
            raise Denied(403, f"this token lacks the scope {access.scope.value}")
        if access.subject != "none" and token.community not in {EVERYWHERE, visit.community}:
            raise Denied(404, "there is no such thing in the community of this token")
        return
    if access.role is None:
        return
    held = visit.role(EVERYWHERE if access.subject == "none" else visit.community)
    if held is None and access.subject != "none":
        raise Denied(404, "There is no such thing, or you have no access to its community.")
    if held is None or not held.covers(access.role):
        where = "everywhere" if access.subject == "none" else f"in {visit.community!r}"
        raise Denied(403, f"This needs the role {access.role.value} {where}.")


def _log(visit: Visit, status: int) -> None:
    row: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "created_at": accounts.now(),
        "actor": identifier(visit.actor),
        "community": identifier(visit.community),
        "what": visit.route.name,
        "decision_id": identifier(visit.decision_id) if visit.decision_id else None,
        "status": status,
    }
    with writing(visit.desk.store) as connection:
        connection.execute(insert(tables.access_log).values(**row))
        if visit.exposed is not None and visit.user is not None and status == 200:
            wellbeing.expose(connection, visit.user, visit.exposed)


def login_path(request: Request) -> str:
    """Where to sign in, and to come back from."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "/login" if wanted == "/" else f"/login?next={quote(wanted)}"
