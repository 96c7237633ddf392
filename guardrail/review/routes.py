"""Every path, what answers it, and what it asks of a visitor. This table is the whole of the access rules.

The tests walk it: every route is tried by every role. A route that is not in it does not exist.
"""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.review import api
from guardrail.review.access import Access, Route
from guardrail.review.pages import oversight, people, signing, working
from guardrail.review.roles import Role, Scope

__all__ = ["ROUTES", "find_route"]

_ANYBODY = Access(public=True)
_SIGNED_IN = Access()
_VIEW = Access(Role.VIEWER, subject="community")
_READ = Access(Role.VIEWER, subject="decision")
_WORK = Access(Role.MODERATOR, subject="community")
_DECIDE = Access(Role.MODERATOR, subject="decision")
_LEAD = Access(Role.LEAD, subject="decision")
_ADMIN = Access(Role.ADMIN)

LARGE = 16 * 1_048_576
"""Bytes of a form that carries an edited draft: a million characters take up to nine bytes each on the way."""

HELD = 4 * 1_048_576
"""Bytes of a sign-in form, which may carry what was typed before the session ended."""

ROUTES: Sequence[Route] = (
    Route("GET", "/healthz", signing.healthy, _ANYBODY),
    Route("GET", "/static/{name}", signing.asset, _ANYBODY),
    Route("GET", "/login", signing.login_form, _ANYBODY),
    Route("POST", "/login", signing.login, _ANYBODY, HELD),
    Route("POST", "/logout", signing.logout, _SIGNED_IN),
    Route("GET", "/me", signing.me, _SIGNED_IN),
    Route("POST", "/me", signing.save_me, _SIGNED_IN),
    Route("POST", "/me/password", signing.save_password, _SIGNED_IN),
    Route("POST", "/me/sign-out", signing.sign_out_all, _SIGNED_IN),
    # Reading and deciding
    Route("GET", "/", working.home, _SIGNED_IN),
    Route("GET", "/queue", working.waiting, _VIEW),
    Route("GET", "/queue/urgent", working.urgent, Access(Role.VIEWER, subject="community", logged=False)),
    Route("GET", "/search", working.search, _VIEW),
    Route("POST", "/next", working.take_next, _WORK),
    Route("GET", "/decision", working.decision, _READ),
    Route("GET", "/decision/text", working.text, _READ),
    Route("GET", "/decision/similar", working.similar, _READ),
    Route("GET", "/decision/statement", working.statement_of, _READ),
    Route("POST", "/decision/verdict", working.verdict, _DECIDE, LARGE),
    Route("POST", "/decision/prefer", working.prefer, _DECIDE),
    Route("POST", "/decision/label", working.label, _DECIDE),
    Route("POST", "/decision/comment", working.comment, _DECIDE),
    Route("POST", "/decision/assign", working.assign, _LEAD),
    Route("POST", "/decision/reopen", working.reopen, _LEAD),
    # Appeals and oversight
    Route("GET", "/appeals", oversight.appeals_page, _VIEW),
    Route("GET", "/appeal", oversight.appeal, Access(Role.VIEWER, subject="appeal")),
    Route("POST", "/appeal", oversight.answer, Access(Role.LEAD, subject="appeal")),
    Route("GET", "/dashboard", oversight.overview, _VIEW),
    Route("GET", "/access", oversight.access_log, Access(Role.LEAD, subject="community")),
    # People
    Route("GET", "/people", people.people, _ADMIN),
    Route("POST", "/people", people.add, _ADMIN),
    Route("GET", "/roles", people.community_roles, Access(Role.ADMIN, subject="community")),
    Route("POST", "/roles", people.set_community_role, Access(Role.ADMIN, subject="community")),
    Route("POST", "/people/active", people.activate, _ADMIN),
    Route("POST", "/people/password", people.reset, _ADMIN),
    Route("GET", "/tokens", people.tokens, _ADMIN),
    Route("POST", "/tokens", people.issue, _ADMIN),
    Route("POST", "/tokens/revoke", people.revoke, _ADMIN),
    # For programs
    Route("POST", "/api/v1/appeals", api.file_appeal, Access(scope=Scope.APPEALS_WRITE, subject="decision")),
    Route("GET", "/api/v1/appeals/{ticket}", api.appeal, Access(scope=Scope.APPEALS_READ, subject="appeal")),
    Route(
        "POST",
        "/api/v1/appeals/{ticket}/withdraw",
        api.withdraw_appeal,
        Access(scope=Scope.APPEALS_WRITE, subject="appeal"),
    ),
    Route("GET", "/api/v1/statement", api.reasons, Access(scope=Scope.STATEMENTS_READ, subject="decision")),
    Route("GET", "/api/v1/hold", api.hold, Access(scope=Scope.HOLDS_READ, subject="decision")),
    Route("GET", "/api/v1/queue", api.waiting, Access(scope=Scope.QUEUE_READ, subject="community")),
)


def find_route(method: str, path: str) -> Route | None:
    """The route of a path without parameters."""
    return next((route for route in ROUTES if (route.method, route.path) == (method, path)), None)
