"""People, their roles, and API tokens. Every change is chained in the record of the community that it concerns."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

from fastapi import Response
from sqlalchemy import Connection, select

from guardrail.audit.people import People
from guardrail.errors import ConfigurationError
from guardrail.review import accounts, tables
from guardrail.review.access import Denied, Visit
from guardrail.review.accounts import User
from guardrail.review.database import reading
from guardrail.review.render import page, redirect
from guardrail.review.roles import EVERYWHERE, Role, Scope

__all__ = ["activate", "add", "community_roles", "issue", "people", "reset", "revoke", "set_community_role", "tokens"]


def people(visit: Visit, *, status: int = 200, error: str = "") -> Response:
    """Everybody, with their roles."""
    with reading(visit.desk.store) as connection:
        found = accounts.users_of(connection, None)
    return page(visit, "people.html", status, people=found, error=error, roles=list(Role))


def _somebody(visit: Visit, connection: Connection) -> User:
    found = accounts.get_user(connection, visit.fields.get("user_id", ""))
    if found is None:
        raise Denied(404, "There is nobody of that id.")
    return found


def add(visit: Visit) -> Response:
    """Add a person, with a first role."""
    fields = visit.fields
    try:
        role = _role(fields.get("role", ""))
        with People(visit.desk.store).change() as change:
            key = accounts.add_user(
                change.connection, visit.desk.passwords, fields.get("user", ""), fields.get("password", "")
            )
            community = fields.get("community", "").strip()
            if role is not None and community:
                accounts.set_role(change.connection, key, community, role)
            details: dict[str, Any] = {"role": role.value if role else None}
            change.event(
                community or EVERYWHERE, kind="person_added", author=visit.me.name, subject=key, details=details
            )
    except ConfigurationError as error:
        return people(visit, status=400, error=f"Not added: {error}.")
    return redirect("/people")


def _role(name: str) -> Role | None:
    if not name:
        return None
    try:
        return Role(name)
    except ValueError:
        raise ConfigurationError(f"there is no role {name[:40]!r}") from None


def community_roles(visit: Visit, *, status: int = 200, error: str = "") -> Response:
    """Who has which role in one community; `*` is everywhere."""
    with reading(visit.desk.store) as connection:
        found = accounts.users_of(connection, [visit.community, EVERYWHERE])
    return page(visit, "roles.html", status, people=found, error=error, roles=list(Role), place=visit.community)


def set_community_role(visit: Visit) -> Response:
    """Give somebody a role in a community, or take it away. An admin of that community may: nobody else is concerned."""
    community, name = visit.community, visit.fields.get("user", "")
    try:
        wanted = _role(visit.fields.get("role", ""))
        with People(visit.desk.store).change() as change:
            other = accounts.find_user(change.connection, name)
            if other is None:
                return community_roles(visit, status=400, error=f"There is nobody named {name[:80]!r}.")
            accounts.set_role(change.connection, other.id, community, wanted)
            _keep_an_admin(change.connection, other)
            details = {"role": wanted.value if wanted else None}
            change.event(community, kind="role_set", author=visit.me.name, subject=other.id, details=details)
    except ConfigurationError as error:
        return community_roles(visit, status=400, error=f"Not changed: {error}.")
    return redirect(f"/roles?community={quote(community, safe='')}")


def _keep_an_admin(connection: Connection, changed: User) -> None:
    """Refuse a change after which nobody could undo it."""
    after = accounts.get_user(connection, changed.id)
    still = after is not None and after.active and after.roles.get(EVERYWHERE) is Role.ADMIN
    if not still and not accounts.other_admins(connection, changed.id):
        raise ConfigurationError("somebody has to remain admin everywhere")


def activate(visit: Visit) -> Response:
    """Shut somebody out, or let them in again."""
    active = visit.fields.get("active") == "yes"
    try:
        with People(visit.desk.store).change() as change:
            other = _somebody(visit, change.connection)
            accounts.set_active(change.connection, other.id, active)
            _keep_an_admin(change.connection, other)
            kind = "person_let_in" if active else "person_shut_out"
            change.event(EVERYWHERE, kind=kind, author=visit.me.name, subject=other.id)
    except ConfigurationError as error:
        return people(visit, status=400, error=f"Not changed: {error}.")
    return redirect("/people")


def reset(visit: Visit) -> Response:
    """Set somebody's password anew; their sessions end."""
    try:
        with People(visit.desk.store).change() as change:
            other = _somebody(visit, change.connection)
            accounts.set_password(change.connection, visit.desk.passwords, other, visit.fields.get("password", ""))
            change.event(EVERYWHERE, kind="password_reset", author=visit.me.name, subject=other.id)
    except ConfigurationError as error:
        return people(visit, status=400, error=f"Not changed: {error}.")
    return redirect("/people")


# ---------------------------------------------------------------------------------------------------------- tokens


def tokens(visit: Visit, *, status: int = 200, error: str = "", made: str = "") -> Response:
    """All API tokens; a new one is shown once."""
    with reading(visit.desk.store) as connection:
        query = select(tables.tokens).order_by(tables.tokens.c.created_at.desc())
        found = [dict(row) for row in connection.execute(query).mappings()]
    return page(
        visit, "tokens.html", status, tokens=found, error=error, made=made, scopes=list(Scope), now=accounts.now()
    )


def issue(visit: Visit) -> Response:
    """Make an API token."""
    fields = visit.fields
    days = fields.get("days", "90")
    scopes = [scope for scope in Scope if f"scope:{scope.value}" in fields]
    community = fields.get("community", "").strip()
    if not community or not days.isdecimal() or not 1 <= int(days) <= 3650:
        return tokens(visit, status=400, error="A token needs a community (* for all), and lasts 1 to 3650 days.")
    try:
        with People(visit.desk.store).change() as change:
            lasts = timedelta(days=int(days))
            made = accounts.issue_token(change.connection, visit.me, fields.get("name", ""), community, scopes, lasts)
            details = {"scopes": [scope.value for scope in scopes]}
            change.event(community, kind="token_issued", author=visit.me.name, details=details)
    except ConfigurationError as error:
        return tokens(visit, status=400, error=f"Not made: {error}.")
    return tokens(visit, made=made)


def revoke(visit: Visit) -> Response:
    """End an API token at once."""
    key = visit.fields.get("token_id", "")
    with People(visit.desk.store).change() as change:
        accounts.revoke_token(change.connection, key)
        change.event(EVERYWHERE, kind="token_revoked", author=visit.me.name, subject=key)
    return redirect("/tokens")
