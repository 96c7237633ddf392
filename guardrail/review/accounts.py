"""People and their roles, sessions, and API tokens: made, checked, ended."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from guardrail.errors import ConfigurationError
from guardrail.review import tables
from guardrail.review.keys import digest, new_token
from guardrail.review.passwords import Passwords
from guardrail.review.roles import EVERYWHERE, Role, Scope

__all__ = ["Preferences", "Token", "User", "add_user", "end_sessions", "find_user", "issue_token", "set_password",
           "set_role", "sign_in", "start_session", "token_of", "user_of_session", "users_of"]  # fmt: skip

IDLE = timedelta(hours=2)
"""A session that was not used for so long has ended."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
_SEEN_EVERY = timedelta(minutes=1)  # a session's last use is written no more often


@dataclass(frozen=True, slots=True)
class Preferences:
    """How a person wants to work. `daily_limit`: severe texts a day, after which a break is suggested."""

    theme: str = "system"  # system | light | dark
    blur: bool = True
    greyscale: bool = False
    daily_limit: int = 50


@dataclass(frozen=True, slots=True)
class User:
    """A person as a request sees them."""

    id: str
    name: str
    active: bool
    roles: Mapping[str, Role]
    preferences: Preferences
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Token:
    """An API token as a request sees it."""

    id: str
    name: str
    community: str
    scopes: frozenset[Scope] = field(default_factory=frozenset)


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)


# ---------------------------------------------------------------------------------------------------------- people


def add_user(connection: Connection, passwords: Passwords, name: str, password: str) -> str:
    """Add a person without any role; return their id.

    Raises:
        ConfigurationError: the name is taken or is none, or the password is refused.
    """
    name = name.strip().lower()
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{name[:80]!r} is not a name: letters, digits and . _ @ + -, at most 64")
    hashed = passwords.hash(password, name=name)
    if find_user(connection, name) is not None:
        raise ConfigurationError(f"there is somebody named {name!r} already")
    key, at = uuid.uuid4().hex, now()
    row = {"id": key, "name": name, "password_hash": hashed, "active": True, "preferences": {}, "created_at": at}
    connection.execute(insert(tables.users).values(**row, password_changed_at=at))
    return key


def find_user(connection: Connection, name: str) -> User | None:
    """The person of that name, active or not."""
    row = connection.execute(select(tables.users).where(tables.users.c.name == name.strip().lower())).mappings().first()
    return None if row is None else _user(connection, row)


def get_user(connection: Connection, key: str) -> User | None:
    """The person of that id, active or not."""
    row = connection.execute(select(tables.users).where(tables.users.c.id == key)).mappings().first()
    return None if row is None else _user(connection, row)


def users_of(connection: Connection, communities: Sequence[str] | None) -> list[User]:
    """People with a role in one of `communities` (None: all people), by name."""
    found = [_user(connection, row) for row in connection.execute(select(tables.users).order_by("name")).mappings()]
    if communities is None:
        return found
    return [user for user in found if set(user.roles) & {*communities}]


def set_role(connection: Connection, user_id: str, community: str, role: Role | None) -> None:
    """Give a person a role in a community, or (None) take it away."""
    mine = (tables.roles.c.user_id == user_id) & (tables.roles.c.community == community)
    connection.execute(delete(tables.roles).where(mine))
    if role is not None:
        connection.execute(insert(tables.roles).values(user_id=user_id, community=community, role=role.value))


def set_password(connection: Connection, passwords: Passwords, user: User, password: str) -> None:
    """Change a password and end every session that the old one opened.

    Raises:
        ConfigurationError: the password is refused.
    """
    hashed = passwords.hash(password, name=user.name)
    mine = tables.users.c.id == user.id
    connection.execute(update(tables.users).where(mine).values(password_hash=hashed, password_changed_at=now()))
    end_sessions(connection, user.id)


def set_active(connection: Connection, user_id: str, active: bool) -> None:
    """Let somebody in again, or shut them out: their sessions and the tokens that they issued end at once."""
    connection.execute(update(tables.users).where(tables.users.c.id == user_id).values(active=active))
    if not active:
        end_sessions(connection, user_id)
        theirs = (tables.tokens.c.created_by == user_id) & tables.tokens.c.revoked_at.is_(None)
        connection.execute(update(tables.tokens).where(theirs).values(revoked_at=now()))


def set_preferences(connection: Connection, user_id: str, preferences: Preferences) -> None:
    """Keep how somebody wants to work."""
    value = {name: getattr(preferences, name) for name in Preferences.__dataclass_fields__}
    connection.execute(update(tables.users).where(tables.users.c.id == user_id).values(preferences=value))


def other_admins(connection: Connection, user_id: str) -> bool:
    """Whether somebody else is an active admin everywhere: the last one cannot be removed."""
    table, roles = tables.users, tables.roles
    query = (
        select(table.c.id)
        .join(roles, roles.c.user_id == table.c.id)
        .where(roles.c.role == Role.ADMIN.value, roles.c.community == EVERYWHERE, table.c.active, table.c.id != user_id)
    )
    return connection.execute(query.limit(1)).first() is not None


def _user(connection: Connection, row: Mapping[Any, Any]) -> User:
    held = connection.execute(select(tables.roles).where(tables.roles.c.user_id == row["id"])).mappings()
    known = Preferences.__dataclass_fields__
    preferences = Preferences(**{name: value for name, value in (row["preferences"] or {}).items() if name in known})
    roles = {role["community"]: Role(role["role"]) for role in held}
    return User(row["id"], row["name"], bool(row["active"]), roles, preferences, row["created_at"])


# -------------------------------------------------------------------------------------------------------- sessions


def sign_in(connection: Connection, passwords: Passwords, name: str, password: str) -> tuple[User | None, str | None]:
    """The person, if the password is theirs and they may come in; None says nothing about which it was.

    The second value is a new hash to store, where argon2's parameters were raised since the password was set.
    """
    found = find_user(connection, name[:200])
    stored: str | None = None
    if found is not None:
        stored = connection.scalar(select(tables.users.c.password_hash).where(tables.users.c.id == found.id))
    if not passwords.check(stored, password) or found is None or stored is None or not found.active:
        return None, None
    return found, passwords.hash(password) if passwords.outdated(stored) else None


def renew_hash(connection: Connection, user_id: str, hashed: str) -> None:
    """Store the same password hashed anew."""
    connection.execute(update(tables.users).where(tables.users.c.id == user_id).values(password_hash=hashed))


def start_session(connection: Connection, user: User, lasts: timedelta, agent: str) -> str:
    """Return the token of a new session. Old sessions are swept out by the way."""
    token, at = new_token(), now()
    connection.execute(delete(tables.sessions).where(tables.sessions.c.expires_at < at))
    row = {"id": digest(token), "user_id": user.id, "created_at": at, "seen_at": at, "expires_at": at + lasts}
    connection.execute(insert(tables.sessions).values(**row, agent=agent[:120]))
    return token


def user_of_session(connection: Connection, token: str) -> tuple[User | None, bool]:
    """Whose session this is, and whether its last use should be written down now (`touch_session`).

    None where it has ended, was idle for too long, or its owner was shut out.
    """
    at, table = now(), tables.sessions
    row = connection.execute(select(table).where(table.c.id == digest(token))).mappings().first()
    if row is None or row["expires_at"] <= at or row["seen_at"] + IDLE <= at:
        return None, False
    user = get_user(connection, row["user_id"])
    if user is None or not user.active:
        return None, False
    return user, row["seen_at"] + _SEEN_EVERY <= at


def touch_session(connection: Connection, token: str) -> None:
    """Write down that a session is in use."""
    connection.execute(update(tables.sessions).where(tables.sessions.c.id == digest(token)).values(seen_at=now()))


@dataclass(frozen=True, slots=True)
class Session:
    """One of somebody's open sessions."""

    started_at: datetime
    seen_at: datetime
    agent: str
    this: bool


def sessions_of(connection: Connection, user_id: str, token: str) -> list[Session]:
    """Somebody's open sessions, newest first; `token` says which one is this."""
    table = tables.sessions
    query = select(table).where(table.c.user_id == user_id, table.c.expires_at > now(), table.c.seen_at > now() - IDLE)
    rows = connection.execute(query.order_by(table.c.created_at.desc())).mappings()
    return [Session(row["created_at"], row["seen_at"], row["agent"], row["id"] == digest(token)) for row in rows]


def end_session(connection: Connection, token: str) -> None:
    """Sign out."""
    connection.execute(delete(tables.sessions).where(tables.sessions.c.id == digest(token)))


def end_sessions(connection: Connection, user_id: str) -> None:
    """Sign somebody out everywhere."""
    connection.execute(delete(tables.sessions).where(tables.sessions.c.user_id == user_id))


# ---------------------------------------------------------------------------------------------------------- tokens


def issue_token(
    connection: Connection,
    user: User,
    name: str,
    community: str,
    scopes: Sequence[Scope],
    lasts: timedelta | None = None,
) -> str:
    """Return a new API token. It is shown this once: only its hash is kept.

    Raises:
        ConfigurationError: no name, or no scope.
    """
    if not name.strip() or not scopes:
        raise ConfigurationError("a token needs a name and at least one scope")
    token, at = f"grt_{new_token()}", now()
    row: dict[str, Any] = {
        "id": uuid.uuid4().hex,
        "hash": digest(token),
        "name": name.strip()[:100],
        "community": community,
    }
    row |= {"created_by": user.id, "created_at": at, "expires_at": None if lasts is None else at + lasts}
    connection.execute(insert(tables.tokens).values(**row, scopes=sorted({scope.value for scope in scopes})))
    return token


def token_of(connection: Connection, token: str) -> Token | None:
    """What a token allows; None where it is unknown, has expired or was revoked."""
    at, table = now(), tables.tokens
    row = connection.execute(select(table).where(table.c.hash == digest(token))).mappings().first()
    if row is None or row["revoked_at"] is not None or (row["expires_at"] is not None and row["expires_at"] <= at):
        return None
    if row["used_at"] is None or row["used_at"] + _SEEN_EVERY <= at:
        connection.execute(update(table).where(table.c.id == row["id"]).values(used_at=at))
    known = {scope.value for scope in Scope}
    scopes = frozenset(Scope(scope) for scope in row["scopes"] if scope in known)
    return Token(row["id"], row["name"], row["community"], scopes)


def revoke_token(connection: Connection, key: str) -> None:
    """End a token."""
    mine = (tables.tokens.c.id == key) & tables.tokens.c.revoked_at.is_(None)
    connection.execute(update(tables.tokens).where(mine).values(revoked_at=now()))
