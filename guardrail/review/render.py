"""Templates to answers. Everything is escaped; scripts and styles come from files of ours only."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import Connection

from guardrail.review import wellbeing
from guardrail.review.access import Visit
from guardrail.review.accounts import User, now
from guardrail.review.database import reading
from guardrail.review.diff import LONGEST
from guardrail.review.filling import communities
from guardrail.review.roles import EVERYWHERE, Role

__all__ = ["HEADERS", "STATIC", "communities_of", "document", "page", "redirect", "static"]

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
    "Cache-Control": "no-store",  # a shared computer must not keep a draft in its back button
}

STATIC: Mapping[str, str] = {
    "review.css": "text/css; charset=utf-8",
    "review.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

STATES = {
    "allowed": "delivered",
    "flagged": "flagged",
    "redacted": "redacted",
    "rewritten": "rewritten",
    "escalated": "held",
    "blocked": "withheld",
    "blocked_unavailable": "unchecked, withheld",
    "not_scanned": "not scanned",
}

REASONS = {
    "held": "A draft is held: its reader waits",
    "appeal": "A user has appealed",
    "acted": "A rule acted",
    "near": "Close to a threshold",
    "sample": "Random sample",
    "asked": "Somebody opened it",
}

OUTCOMES = {
    "uphold": "upheld",
    "overturn": "overturned",
    "edit": "edited",
    "escalate": "passed to a lead",
    "comment": "commented",
    "prefer": "preferred a rewrite",
}


DONE = {
    "GET /queue": "looked at the queue",
    "GET /search": "searched",
    "POST /next": "took the next item",
    "GET /decision": "read a decision",
    "GET /decision/text": "read a whole text",
    "GET /decision/similar": "looked for similar decisions",
    "GET /decision/statement": "read the statement of reasons",
    "POST /decision/verdict": "gave a verdict",
    "POST /decision/prefer": "chose between rewrites",
    "POST /decision/label": "added a label",
    "POST /decision/comment": "commented",
    "POST /decision/assign": "assigned an item",
    "POST /decision/reopen": "opened an item again",
    "GET /appeals": "looked at the appeals",
    "GET /appeal": "read an appeal",
    "POST /appeal": "answered an appeal",
    "GET /dashboard": "looked at the dashboard",
    "GET /access": "read this log",
    "GET /roles": "looked at the roles",
    "POST /roles": "set a role",
    "POST /api/v1/appeals": "filed an appeal",
    "GET /api/v1/appeals/{ticket}": "asked for an appeal's answer",
    "POST /api/v1/appeals/{ticket}/withdraw": "withdrew an appeal",
    "GET /api/v1/statement": "fetched a statement of reasons",
    "GET /api/v1/hold": "asked how a held draft stands",
    "GET /api/v1/queue": "asked how much waits",
}
"""What the access log has of a route, as people say it."""

EDITED = 200_000
"""Code points of a text that the field for an edit is filled with."""

LOCKED = "The key that encrypts this text is not configured here. Whoever runs these pages can add it."

_UNSHOWABLE = re.compile("[\x00\ud800-\udfff]")  # HTML has no NUL, UTF-8 no lone surrogate


@cache
def static(name: str) -> tuple[bytes, str]:
    """A static file and the hash that its address carries.

    Raises:
        KeyError: there is none of that name.
    """
    if name not in STATIC:
        raise KeyError(name)
    content = (files("guardrail.review") / "static" / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


def ago(moment: datetime | None) -> str:
    """A time as people say it."""
    if moment is None:
        return ""
    seconds = (now() - moment).total_seconds()
    if seconds < 90:
        return "just now"
    for size, name in ((86_400 * 2, "day"), (5400, "hour"), (90, "minute")):
        if seconds >= size:
            number = round(seconds / {"day": 86_400, "hour": 3600, "minute": 60}[name])
            return f"{number} {name}{'' if number == 1 else 's'} ago" if number < 60 or name != "day" else clock(moment)
    return clock(moment)


def clock(moment: datetime) -> str:
    """A time in full."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")


_BROWSERS = {"Edg": "Edge", "OPR": "Opera", "Firefox": "Firefox", "Chrome": "Chrome", "Safari": "Safari"}
_SYSTEMS = {
    "Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Windows": "Windows", "Mac OS": "macOS", "Linux": "Linux",
}  # fmt: skip


def browser(agent: str) -> str:
    """What a browser says of itself, as people call it; the first match counts, as most of them name others too."""
    name, system = (
        next((shown for mark, shown in known.items() if mark in agent), "") for known in (_BROWSERS, _SYSTEMS)
    )
    return f"{name} on {system}" if name and system else name or system or agent[:60] or "unknown browser"


def number(value: float | None) -> str:
    """A risk or score with two digits."""
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


@cache
def environment() -> Environment:
    """The templates."""
    made = Environment(
        loader=PackageLoader("guardrail.review"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        ago=ago, browser=browser, clock=clock, number=number, words=lambda name: str(name).replace("_", " ")
    )
    made.globals.update(
        asset=lambda name: f"/static/{name}?v={static(name)[1]}",
        STATES=STATES,
        REASONS=REASONS,
        OUTCOMES=OUTCOMES,
        LOCKED=LOCKED,
        LONGEST=LONGEST,
        EDITED=EDITED,
        DONE=DONE,
    )
    return made


def communities_of(connection: Connection, user: User | None) -> list[str]:
    """The communities that somebody has a role in."""
    if user is None:
        return []
    named = {name for name in user.roles if name != EVERYWHERE}
    if EVERYWHERE in user.roles:
        named.update(communities(connection))
    return sorted(named)


def page(visit: Visit, template: str, status: int = 200, **context: Any) -> Response:
    """Return a page made from `templates/TEMPLATE`."""
    shown: dict[str, Any] = {"visit": visit, "user": visit.user, "Role": Role, "everywhere": visit.role(EVERYWHERE)}
    if visit.user is not None:
        with reading(visit.desk.store) as connection:
            shown["communities"] = communities_of(connection, visit.user)
            shown["exposure"] = wellbeing.today(connection, visit.user)
    content = environment().get_template(template).render(**shown, **context)
    return HTMLResponse(_UNSHOWABLE.sub("\ufffd", content), status)


def document(value: Any, status: int = 200) -> Response:
    """Return JSON. Escapes stand for all that is not ASCII: a lone surrogate has no other form."""
    return Response(json.dumps(value, allow_nan=False), status, media_type="application/json")


_OURS = re.compile(r"/(?!/)[^\\\x00-\x20]*")  # browsers read a backslash as a slash, and //host as another host


def redirect(path: str) -> Response:
    """Go on to a path of ours, with GET."""
    return RedirectResponse(path if _OURS.fullmatch(path) else "/", 303)
