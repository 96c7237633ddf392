"""Guarding the clients of the openai and anthropic packages: the same object, with a transport that moderates."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guardrail.clients.call import ERROR_EXTENSION, Session
from guardrail.clients.ledger import EXTENSION, remember
from guardrail.clients.transport import guarded_http_client
from guardrail.errors import GuardrailError, UnsupportedPath

if TYPE_CHECKING:
    from guardrail.engine import Guardrail

__all__ = ["Guarded", "install", "installed", "is_client", "uninstall"]

_ATTRIBUTE = "_guardrail"
_HOOKS = ("copy", "with_options", "_process_response", "_make_status_error_from_response", "websocket_base_url")


@dataclass(frozen=True, slots=True)
class Guarded:
    """What a wrapped client carries: who moderates it, what was asked for, and what it was before."""

    guard: Guardrail
    spec: tuple[object, ...]
    session: Session
    http_client: Any
    replaced: dict[str, Any]


class _NoWebSocket(str):
    """Stands where a client keeps the address of its web socket: whoever is about to connect reads it."""

    __slots__ = ()

    def _refuse(self, *_: object) -> Any:
        raise UnsupportedPath(
            "A web socket connection (realtime, or responses over a socket) cannot be moderated, so it was not opened. "
            "Use the HTTP calls, or a client that is not wrapped."
        )

    __len__ = __iter__ = __str__ = __format__ = encode = startswith = _refuse  # type: ignore[assignment]


def is_client(client: Any) -> bool:
    """Whether this is a client object of the openai or anthropic package, or of a subclass."""
    roots = {cls.__module__.partition(".")[0] for cls in type(client).__mro__}
    return bool(roots & {"openai", "anthropic"}) and hasattr(client, "_client") and hasattr(client, "_process_response")


def installed(client: Any) -> Guarded | None:
    """What `install` left on the client; None if it is not wrapped."""
    found = getattr(client, "__dict__", {}).get(_ATTRIBUTE)
    return found if isinstance(found, Guarded) else None


def install(client: Any, guard: Guardrail, spec: tuple[object, ...]) -> None:
    """Guard a client, in place. Its copies (`with_options`, `copy`) are guarded too, whatever HTTP client they are given.

    Raises:
        ConfigurationError: its HTTP client is neither httpx nor httpx2.
    """
    session = Session(guard, resign=getattr(client, "_prepare_request", None))
    _attach(client, guard, spec, session)


def _attach(
    client: Any, guard: Guardrail, spec: tuple[object, ...], session: Session, guarded: Any | None = None
) -> None:
    http_client = client._client
    guarded = guarded_http_client(http_client, session) if guarded is None else guarded
    replaced = {name: client.__dict__[name] for name in _HOOKS if name in client.__dict__}
    client.__dict__[_ATTRIBUTE] = Guarded(guard, spec, session, http_client, replaced)
    client._client = guarded
    copying = _copying(client.copy, guard, spec)
    client.copy = client.with_options = copying
    client._process_response = _tagging(client._process_response)
    client._make_status_error_from_response = _raising(client._make_status_error_from_response)
    if hasattr(client, "websocket_base_url"):
        client.websocket_base_url = _NoWebSocket("guarded")


def uninstall(client: Any) -> None:
    """Make a client what it was before `install`; nothing if it was not wrapped."""
    found = installed(client)
    if found is None:
        return
    client._client = found.http_client
    for name in (*_HOOKS, _ATTRIBUTE):
        client.__dict__.pop(name, None)
    client.__dict__.update(found.replaced)


def _copying(copy: Callable[..., Any], guard: Guardrail, spec: tuple[object, ...]) -> Callable[..., Any]:
    """`copy` whose result is guarded. The copy is made of the unguarded HTTP client, so that no call is judged twice."""

    @functools.wraps(copy)
    def guarded_copy(*args: Any, **kwargs: Any) -> Any:
        original = installed(copy.__self__)  # type: ignore[attr-defined]
        if original is not None and not kwargs.get("http_client"):
            kwargs["http_client"] = original.http_client
        made = copy(*args, **kwargs)
        if isinstance(getattr(made, "websocket_base_url", None), _NoWebSocket):
            made.websocket_base_url = original.replaced.get("websocket_base_url") if original else None
        if original is not None and made._client is original.http_client:
            # One guarded HTTP client for both: a second one would close their connections when the copy is dropped.
            _attach(made, guard, spec, original.session, copy.__self__._client)  # type: ignore[attr-defined]
        else:
            _attach(made, guard, spec, Session(guard))
        return made

    return guarded_copy


def _tagging(process: Callable[..., Any]) -> Callable[..., Any]:
    """`_process_response` that notes which call its result belongs to."""

    def tag(result: Any, response: Any) -> Any:
        ledger = response.extensions.get(EXTENSION)
        if ledger is not None:
            remember(ledger, response=result)
        return result

    if inspect.iscoroutinefunction(process):

        @functools.wraps(process)
        async def aprocess(*args: Any, **kwargs: Any) -> Any:
            return tag(await process(*args, **kwargs), kwargs["response"])

        return aprocess

    @functools.wraps(process)
    def processed(*args: Any, **kwargs: Any) -> Any:
        return tag(process(*args, **kwargs), kwargs["response"])

    return processed


def _raising(make_error: Callable[..., Exception]) -> Callable[..., Exception]:
    """`_make_status_error_from_response` that gives the guard's own exception back, as it was raised."""

    @functools.wraps(make_error)
    def error_of(response: Any) -> Exception:
        error = response.extensions.get(ERROR_EXTENSION)
        return error if isinstance(error, GuardrailError) else make_error(response)

    return error_of
