"""Signing in and out, and one's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

from fastapi import Response

from guardrail.audit.people import People
from guardrail.errors import ConfigurationError
from guardrail.review import accounts, limits
from guardrail.review.access import COOKIE, FORM_COOKIE, Denied, Route, Visit, enter, same_origin
from guardrail.review.accounts import Preferences, User
from guardrail.review.database import reading, writing
from guardrail.review.keys import new_token
from guardrail.review.render import STATIC, page, redirect, static
from guardrail.review.roles import EVERYWHERE

__all__ = [
    "HELD",
    "asset",
    "healthy",
    "login",
    "login_form",
    "logout",
    "me",
    "save_me",
    "save_password",
    "sign_out_all",
]

HELD = ("comment", "edited_text", "answer", "verdict", "name")
"""Fields whose typed text survives a session that ended meanwhile."""

_HOME = "/"


def healthy(visit: Visit) -> Response:
    """Whether the database answers; for whatever watches the process."""
    with reading(visit.desk.store) as connection:
        connection.exec_driver_sql("SELECT 1")
    return Response("ok\n", media_type="text/plain")


def asset(visit: Visit) -> Response:
    """A style sheet, script or icon. Its address changes with its content, so it may be kept for ever."""
    name = str(visit.request.path_params.get("name", ""))
    try:
        content, _ = static(name)
    except KeyError:
        raise Denied(404, "There is no such file.") from None
    kept = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(content, media_type=STATIC[name], headers=kept)


def login_form(
    visit: Visit, *, status: int = 200, message: str = "", held: Mapping[str, str] | None = None
) -> Response:
    """The page to sign in on. `held`: what was typed into a form whose session had ended."""
    mark = visit.desk.signer.read(visit.request.cookies.get(FORM_COOKIE, ""), "before") or new_token()
    following = visit.given("next", _HOME) if not held else held.get("next", _HOME)
    response = page(
        visit, "login.html", status, message=message, held=dict(held or {}), following=following, name=visit.given("user"),
        token=visit.desk.signer.mark(mark, "login"),
    )  # fmt: skip
    _set_cookie(visit, response, FORM_COOKIE, visit.desk.signer.sign(mark, "before"), 3600)
    return response


def login(visit: Visit) -> Response:
    """Check a name and a password; start a session; go on to where the visitor wanted to go."""
    signer, held = (
        visit.desk.signer,
        {name: visit.fields[name] for name in (*HELD, "id", "ticket") if name in visit.fields},
    )
    if held:
        held["next"] = visit.given("next", _HOME)
    mark = signer.read(visit.request.cookies.get(FORM_COOKIE, ""), "before")
    if (
        mark is None
        or not signer.genuine(mark, visit.fields.get("form_token", ""), "login")
        or not same_origin(visit.request)
    ):
        return login_form(visit, status=400, message="That page was too old. Please sign in again.", held=held)
    name = visit.fields.get("user", "").strip().lower()[:200]
    wait, user = _try(visit, name, visit.fields.get("password", ""))
    if wait is not None:
        minutes = max(1, round(wait.total_seconds() / 60))
        message = f"Too many attempts. Try again in {minutes} minute{'' if minutes == 1 else 's'}."
        response = login_form(visit, status=429, message=message, held=held)
        response.headers["Retry-After"] = str(max(1, round(wait.total_seconds())))
        return response
    if user is None:
        return login_form(visit, status=401, message="The name or the password is not right.", held=held)
    with writing(visit.desk.store) as connection:
        agent = visit.request.headers.get("user-agent", "")
        token = accounts.start_session(connection, user, visit.desk.session_lasts, agent)
    response = _resume(visit, token, user, held) if held else redirect(visit.given("next", _HOME))
    lasts = round(visit.desk.session_lasts.total_seconds())
    _set_cookie(visit, response, COOKIE, signer.sign(token, "session"), lasts)
    return response


def _try(visit: Visit, name: str, password: str) -> tuple[timedelta | None, User | None]:
    """Count the try before the password is looked at, so that a thousand at once are counted too."""
    at, address = accounts.now(), visit.request.client.host if visit.request.client else "unknown"
    pair = f"{name}\0{address}"
    kinds = ((limits.SIGN_IN_PAIR, pair), (limits.SIGN_IN_NAME, name), (limits.SIGN_IN_ADDRESS, address))
    with writing(visit.desk.store) as connection:
        waits = [wait for limit, key in kinds if (wait := limits.count(connection, limit, key, at)) is not None]
    if waits:
        return max(waits), None
    with reading(visit.desk.store) as connection:  # no write lock is held while a password is hashed
        user, renewed = accounts.sign_in(connection, visit.desk.passwords, name, password)
    if user is not None:
        with writing(visit.desk.store) as connection:
            limits.forget(connection, limits.SIGN_IN_PAIR, pair)
            if renewed is not None:
                accounts.renew_hash(connection, user.id, renewed)
    return None, user


def _resume(visit: Visit, token: str, user: User, held: Mapping[str, str]) -> Response:
    """Show the page that was interrupted again, with what was typed in it. Nothing is done with it: that takes a click."""
    from guardrail.review.routes import find_route

    target = urlsplit(held["next"])
    route: Route | None = find_route("GET", target.path)
    if route is None or route.access.public or route.access.scope is not None:
        return redirect(_HOME)
    fields = dict(parse_qsl(target.query))
    notice = "Your session had ended. What you typed is below; nothing was sent yet."
    again = Visit(visit.desk, visit.request, route, fields, typed=held, notice=notice)
    again.session, again.user = token, user
    return enter(again, signed_in=True)


def logout(visit: Visit) -> Response:
    """Sign the visitor out."""
    with writing(visit.desk.store) as connection:
        accounts.end_session(connection, visit.session)
    response = redirect("/login")
    response.delete_cookie(COOKIE, path="/")
    return response


def _set_cookie(visit: Visit, response: Response, name: str, value: str, lasts: int) -> None:
    response.set_cookie(
        name, value, max_age=lasts, path="/", httponly=True, samesite="lax", secure=visit.desk.secure
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------- settings


def me(visit: Visit, *, status: int = 200, message: str = "", error: str = "") -> Response:
    """One's own settings, roles and sessions."""
    with reading(visit.desk.store) as connection:
        sessions = accounts.sessions_of(connection, visit.me.id, visit.session)
    return page(visit, "me.html", status, message=message or visit.notice, error=error, sessions=sessions)


def save_me(visit: Visit) -> Response:
    """Keep how somebody wants to work."""
    theme = visit.fields.get("theme", "system")
    limit = visit.fields.get("daily_limit", "50")
    if theme not in {"system", "light", "dark"} or not limit.isdecimal() or not 1 <= int(limit) <= 10_000:
        return me(visit, status=400, error="The theme is system, light or dark; the daily limit 1 to 10,000.")
    wanted = Preferences(theme, "blur" in visit.fields, "greyscale" in visit.fields, int(limit))
    with writing(visit.desk.store) as connection:
        accounts.set_preferences(connection, visit.me.id, wanted)
    return redirect("/me")


def save_password(visit: Visit) -> Response:
    """Change one's password; every other session ends."""
    user, passwords = visit.me, visit.desk.passwords
    new = visit.fields.get("new", "")
    wait, known = _try(visit, user.name, visit.fields.get("password", ""))
    if wait is not None:
        return me(visit, status=429, error="Too many attempts. Wait a few minutes.")
    if known is None:
        return me(visit, status=400, error="That is not your password.")
    try:
        with People(visit.desk.store).change() as change:
            accounts.set_password(change.connection, passwords, user, new)
            change.event(EVERYWHERE, kind="password_changed", author=user.name, subject=user.id)
            token = accounts.start_session(
                change.connection, user, visit.desk.session_lasts, visit.request.headers.get("user-agent", "")
            )
    except ConfigurationError as error:
        return me(visit, status=400, error=f"Not changed: {error}.")
    response = redirect("/me")
    lasts = round(visit.desk.session_lasts.total_seconds())
    _set_cookie(visit, response, COOKIE, visit.desk.signer.sign(token, "session"), lasts)
    return response


def sign_out_all(visit: Visit) -> Response:
    """End all of one's sessions."""
    with writing(visit.desk.store) as connection:
        accounts.end_sessions(connection, visit.me.id)
    return redirect("/login")
