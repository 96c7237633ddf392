"""The web application: requests to visits, exceptions to pages, headers on everything."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from guardrail.errors import AuditUnavailable, ConfigurationError
from guardrail.log import Logger
from guardrail.review import filling, queue
from guardrail.review.access import Denied, Route, Visit, enter, login_path, same_origin
from guardrail.review.database import reading, writing
from guardrail.review.desk import Desk
from guardrail.review.pages.signing import HELD, login_form
from guardrail.review.render import HEADERS, document, page, redirect
from guardrail.review.routes import ROUTES

__all__ = ["create_app"]

FILL_EVERY = 5.0
"""Seconds between two looks at the record for what should wait in the queue."""

log = Logger(__name__)


def create_app(desk: Desk, *, fill: bool = True) -> FastAPI:
    """Return the application.

    Args:
        desk: record, keys, passwords.
        fill: look through the record in the background while the application runs.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        worker = threading.Thread(target=_keep_filling, args=(desk, stop), name="guardrail-review-queue", daemon=True)
        if fill:
            worker.start()
        yield
        stop.set()
        if fill:
            await run_in_threadpool(worker.join, 10.0)

    app = FastAPI(title="guardrail review", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    for route in ROUTES:
        app.add_api_route(route.path, _endpoint(desk, route), methods=[route.method], response_model=None)
    app.middleware("http")(_add_headers)

    async def not_found(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return _refusal(Visit(desk, request, _NOWHERE), Denied(status, "There is no such page."))

    app.add_exception_handler(HTTPException, not_found)
    return app


_NOWHERE = next(route for route in ROUTES if route.path == "/healthz")


def _keep_filling(desk: Desk, stop: threading.Event) -> None:
    """Look through every community's record, again and again; a failure is logged and tried again."""
    while not stop.is_set():
        read = 0
        try:
            with reading(desk.store) as connection:
                names = filling.communities(connection)
            for name in names:
                if stop.is_set():
                    return
                read += filling.fill(desk.store, desk.policies, name)
                with writing(desk.store) as connection:
                    queue.calm(connection, name)
        except Exception as error:  # noqa: BLE001 (the pages go on, the next round may work)
            log.error("queue_not_filled", error=f"{type(error).__name__}: {error}")
            read = 0
        stop.wait(0.01 if read else FILL_EVERY)


async def _add_headers(request: Request, following: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await following(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.url.scheme == "https":
        response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    return response


# --------------------------------------------------------------------------------------------------------- requests


def _endpoint(desk: Desk, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        visit = Visit(desk, request, route)
        try:
            visit.fields = await _fields(request, route)
            return await run_in_threadpool(enter, visit)
        except Denied as denied:
            return await run_in_threadpool(_refusal, visit, denied)
        except AuditUnavailable as error:
            log.error("review_unavailable", path=route.path, error=str(error))
            away = Denied(
                503, "The database cannot be reached, so nothing was shown or changed. Try again in a moment.", wait=5
            )
            return await run_in_threadpool(_refusal, visit, away)
        except ConfigurationError as error:
            return await run_in_threadpool(_refusal, visit, Denied(400, f"{error}."))
        except Exception as error:  # noqa: BLE001 (a defect must not show its insides, nor lose the headers)
            log.error("review_failed", path=route.path, error=type(error).__name__, at=_place(error))
            return await run_in_threadpool(
                _refusal, visit, Denied(500, "This is a defect of guardrail; it was logged.")
            )

    return endpoint


def _place(error: BaseException) -> str:
    """Where an exception comes from. Its message stays out of the log: it may quote a text."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"


async def _fields(request: Request, route: Route) -> Mapping[str, str]:
    """The members of the form or of the JSON object in the body, read no further than the route allows."""
    if request.method != "POST":
        return {}
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > route.largest:
            raise Denied(413, f"This is too large: at most {route.largest:,} bytes are taken here.")
    text = body.decode("utf-8", "replace")
    if route.access.scope is None:
        try:
            return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=200))
        except ValueError:
            raise Denied(400, "The form has too many fields.") from None
    return _members(text)


def _members(text: str) -> Mapping[str, str]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise Denied(400, "the body is not JSON") from None
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise Denied(400, "the body has to be a JSON object of strings")
    return value


# --------------------------------------------------------------------------------------------------------- refusals


def _refusal(visit: Visit, denied: Denied) -> Response:
    """What a visitor sees who gets no further."""
    if visit.route.access.scope is not None:
        response: Response = document({"error": {"status": denied.status, "message": denied.message}}, denied.status)
        if denied.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
    elif denied.status == 401:
        response = _to_login(visit, denied)
    else:
        response = _error_page(visit, denied)
    if denied.wait is not None:
        response.headers["Retry-After"] = str(denied.wait)
    return response


def _to_login(visit: Visit, denied: Denied) -> Response:
    """Go and sign in. What was typed into one of our own pages comes along; another site's form does not."""
    if visit.request.method == "GET":
        return redirect(login_path(visit.request))
    held = {name: value for name, value in visit.fields.items() if name in HELD and value}
    if not same_origin(visit.request):
        held = {}
    back = visit.fields.get("back", "/")
    return login_form(visit, status=401, message=denied.message, held={**held, "next": back} if held else None)


def _error_page(visit: Visit, denied: Denied) -> Response:
    context: dict[str, Any] = {"code": denied.status, "message": denied.message}
    try:
        return page(visit, "error.html", denied.status, **context)
    except AuditUnavailable:  # the page's own frame needs the database
        visit.user = None
        return page(visit, "error.html", denied.status, **context)
