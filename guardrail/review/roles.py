"""Who may do what: four roles per community, each with all that the one before it may, and scopes for API tokens."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum

__all__ = ["EVERYWHERE", "Role", "Scope", "role_in"]

EVERYWHERE = "*"
"""Stands for every community, in a role or a token."""


class Role(Enum):
    """What a person may do in one community."""

    VIEWER = "viewer"  # read the queue, decisions and the dashboard
    MODERATOR = "moderator"  # decide, label, comment, prefer a rewrite
    LEAD = "lead"  # answer appeals, settle disagreements, assign work, read the access log
    ADMIN = "admin"  # people, roles and tokens

    @property
    def rank(self) -> int:
        """0 for a viewer up to 3 for an admin."""
        return list(Role).index(self)

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may."""
        return self.rank >= needed.rank


class Scope(StrEnum):
    """What an API token may be used for."""

    APPEALS_WRITE = "appeals:write"  # file and withdraw appeals on behalf of users
    APPEALS_READ = "appeals:read"  # follow appeals
    STATEMENTS_READ = "statements:read"  # statements of reasons
    HOLDS_READ = "holds:read"  # what became of an escalated draft, its text included if it was released
    QUEUE_READ = "queue:read"  # how much waits, without any text


def role_in(roles: Mapping[str, Role], community: str) -> Role | None:
    """The stronger of a person's role in `community` and their role everywhere; None: no role."""
    held = [role for role in (roles.get(community), roles.get(EVERYWHERE)) if role is not None]
    return max(held, key=lambda role: role.rank, default=None)
