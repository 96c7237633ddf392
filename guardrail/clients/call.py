"""One HTTP call on its way through the guard, without I/O: a generator that asks for what it needs.

It yields `Read`, `Send`, `Close`, passages and checks, and returns the response for the client library.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from guardrail.clients.asking import Steps
from guardrail.clients.event_stream import EventStream
from guardrail.clients.exchange import Exchange
from guardrail.clients.ledger import EXTENSION, Ledger, remember
from guardrail.clients.memory import Memory
from guardrail.errors import GuardrailError, ModerationError, UnsupportedPath
from guardrail.wire import documents
from guardrail.wire.leftovers import leftovers
from guardrail.wire.pieces import Event
from guardrail.wire.routes import Route, route
from guardrail.wire.sse import encode

if TYPE_CHECKING:
    from guardrail.engine import Guardrail

__all__ = ["ERROR_EXTENSION", "Call", "Close", "Read", "Send", "Session"]

ERROR_EXTENSION = "guardrail_error"
"""Key of the exception in `extensions` of the HTTP response that carries it through a client library."""

_BODY_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_RAW_BODY_HEADERS = frozenset(name.encode() for name in _BODY_HEADERS)
_REQUEST_IDS = (b"x-request-id", b"request-id")  # what the client libraries keep of a response
_RETRY = b"x-stainless-retry-count"  # how the openai and anthropic libraries number the attempts of one call
_MOST_RETRIED = 64  # calls whose first attempt is remembered at a time


@dataclass(frozen=True, slots=True)
class Read:
    """Read the whole body of a request or response."""

    message: Any


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request upstream; answered with the response, its body unread."""

    request: Any


@dataclass(frozen=True, slots=True)
class Close:
    """Close a response."""

    response: Any


class Session:
    """What all calls of one wrapped client share. Thread-safe.

    Args:
        guard: who moderates.
        resign: signs a request anew after its body was altered, where a client library signs bodies.
    """

    def __init__(self, guard: Guardrail, resign: Callable[[Any], Any] | None = None) -> None:
        self.guard, self.memory, self.resign = guard, Memory(), resign
        self.http: Any = None  # httpx or httpx2
        self._attempts: OrderedDict[bytes, Exchange] = OrderedDict()
        self._lock = threading.Lock()

    def first_attempt(self, key: bytes, again: bool) -> Exchange | None:
        """The exchange of an earlier attempt of the same call, if this is a later one."""
        with self._lock:
            return self._attempts.get(key) if again else None

    def remember_attempt(self, key: bytes, exchange: Exchange) -> None:
        """Keep an exchange until the call has succeeded."""
        with self._lock:
            self._attempts[key] = exchange
            while len(self._attempts) > _MOST_RETRIED:
                self._attempts.popitem(last=False)

    def forget_attempt(self, key: bytes) -> None:
        """The call has succeeded."""
        with self._lock:
            self._attempts.pop(key, None)

    def response(self, status: int, headers: Mapping[str, str], body: bytes, ledger: Ledger | None) -> Any:
        """A response of our own."""
        extensions = {EXTENSION: ledger} if ledger is not None else {}
        return self.http.Response(status, headers=dict(headers), content=body, extensions=extensions)

    def error_response(self, request: Any, error: GuardrailError) -> Any:
        """An error as a response that no client library retries; its extension carries the exception itself."""
        detail = {"type": "guardrail_error", "code": type(error).__name__, "message": str(error), "param": None}
        headers = {"content-type": "application/json", "x-should-retry": "false"}
        response = self.response(400, headers, json.dumps({"type": "error", "error": detail}).encode(), None)
        response.extensions[ERROR_EXTENSION] = error
        return response


class Call:
    """One attempt of one call.

    Args:
        session: of the wrapped client.
        request: the HTTP request that the client library made.
        stream: makes the body of a streamed response of this call.
    """

    def __init__(self, session: Session, request: Any, stream: Callable[[Call], Any]) -> None:
        self._session, self._request, self._stream = session, request, stream
        self.exchange: Exchange = None  # type: ignore[assignment]  # set before anything is judged
        self.events: EventStream = None  # type: ignore[assignment]  # set with `upstream`
        self.upstream: Any = None
        self._given: dict[bytes, bytes] = {}  # the upstream's headers, by their names in small letters
        self._began = time.perf_counter()

    def steps(self) -> Steps:
        """Moderate the request, send it, moderate the response.

        Raises:
            GuardrailError: the call is refused, or could not be moderated.
        """
        known = route(self._request.method, self._request.url.path)
        if known.format is None:
            return (yield Send(self._request))
        key, request, refused = yield from self._admit(known)
        if refused is not None:
            return refused
        response = yield Send(request)
        if not 200 <= response.status_code < 300:
            return response
        try:
            answered = yield from self._answer(response)
        except BaseException:
            yield Close(response)
            raise
        self._session.forget_attempt(key)
        return answered

    def _admit(self, known: Route) -> Steps:
        """Return (key of the logical call, the request to send, None), or a response that refuses."""
        data: bytes = (yield Read(self._request)) if known.has_input else b""
        key = hashlib.sha256(self._request.url.raw_path + b"\0" + data).digest()
        # Headers are read as bytes: httpx decodes all of them whenever it is asked for one.
        again = any(value != b"0" for name, value in self._request.headers.raw if name.lower() == _RETRY)
        earlier = self._session.first_attempt(key, again)
        if earlier is not None:
            self.exchange = earlier
            return key, self._altered(earlier) if earlier.changed else self._request, None
        self.exchange = Exchange(self._session.guard, _format(known), _body(data, known), self._session.memory)
        if not known.has_input:
            return key, self._request, None
        admission = yield from self.exchange.admit()
        if admission.refused is not None:
            return key, None, self._refused(self.exchange.refusal_words(admission.refused))
        self.exchange.changed = admission.changed
        self._session.remember_attempt(key, self.exchange)
        return key, self._altered(self.exchange) if admission.changed else self._request, None

    def _altered(self, exchange: Exchange) -> Any:
        """The request with the repaired body, signed anew where bodies are signed."""
        old = self._request
        headers = [(name, value) for name, value in old.headers.multi_items() if name.lower() not in _BODY_HEADERS]
        body = _dump(exchange.body)
        request = self._session.http.Request(
            old.method, old.url, headers=headers, content=body, extensions=old.extensions
        )
        if old.headers.get("authorization", "").startswith("AWS4-"):
            if self._session.resign is None:
                raise ModerationError(
                    "The request had to be altered, but its body is signed (AWS Signature 4) and cannot be signed anew here."
                )
            self._session.resign(request)
        return request

    def _refused(self, words: str) -> Any:
        """The response for a request that never went upstream."""
        exchange = self.exchange
        ledger, body = exchange.ledger, exchange.body
        headers = self._headers({"content-type": "application/json"})
        if body.get("stream") or self._request.url.path.endswith((":streamRawPredict", "-stream")):
            events = exchange.form.refusal_events(body, words, ledger.request_id)
            headers["content-type"] = "text/event-stream; charset=utf-8"
            return self._sealed(headers, b"".join(_event_bytes(event) for event in events), _ids(events[0].data))
        document = exchange.form.refusal(body, words, ledger.request_id)
        return self._sealed(headers, _dump(document), _ids(document))

    def _answer(self, response: Any) -> Steps:
        self._given = {name.lower(): value for name, value in response.headers.raw}
        kind = self._given.get(b"content-type", b"").lower()
        # What a caller reads whole is judged before it is handed over; an error then reaches the caller as it is.
        if self._wants_stream() and b"json" not in kind:
            self.upstream = response
            self.events = EventStream(self.exchange)
            remember(self.exchange.ledger, ids=self._header_ids())
            return self._rebuilt(response, None)
        data: bytes = yield Read(response)
        if not data.strip():
            return self._kept(response)
        if data.lstrip()[:6] in (b"event:", b"data: ") or data.lstrip().startswith(b"data:"):
            return (yield from self._buffered_stream(response, data))
        document = documents.as_mapping(documents.parse(data, "The upstream's answer"), "The upstream's answer")
        if document.get("error") is not None and not _has_answer(document) and not leftovers(document, {("error",)}):
            return self._kept(response)
        changed = yield from self.exchange.answer(document)
        remember(self.exchange.ledger, ids=(*_ids(document), *self._header_ids()))
        return self._rebuilt(response, _dump(document)) if changed else self._kept(response)

    def _buffered_stream(self, response: Any, data: bytes) -> Steps:
        """An event stream that says it is something else."""
        events = EventStream(self.exchange)
        out: list[bytes] = []
        for steps in (events.receive(data), events.finish()):
            answer = None
            while not events.stopped:
                try:
                    asked = steps.send(answer)
                except StopIteration:
                    break
                if isinstance(asked, bytes):
                    out.append(asked)
                    answer = None
                else:
                    answer = yield asked
        return self._rebuilt(response, b"".join(out))

    def _wants_stream(self) -> bool:
        url = self._request.url
        in_query = bool(url.query) and url.params.get("stream") == "true"
        return bool(self.exchange.body.get("stream")) or in_query or url.path.endswith(":streamRawPredict")

    def _kept(self, response: Any) -> Any:
        """The upstream's own response, which has been read and was not altered."""
        for name, value in self._names().items():
            response.headers[name] = value
        response.extensions = {**response.extensions, EXTENSION: self.exchange.ledger}
        return self._timed(response)

    def _rebuilt(self, response: Any, data: bytes | None) -> Any:
        """The upstream's response with another body: decoded, and of the length it has now. None: a stream follows."""
        headers = [item for item in response.headers.raw if item[0].lower() not in _RAW_BODY_HEADERS]
        headers += [(name.encode(), value.encode()) for name, value in self._names().items()]
        body = {"stream": self._stream(self)} if data is None else {"content": data}
        extensions = {**response.extensions, EXTENSION: self.exchange.ledger}
        make = self._session.http.Response
        rebuilt = make(response.status_code, headers=headers, extensions=extensions, **body)
        return rebuilt if data is None else self._timed(rebuilt)

    def _names(self) -> dict[str, str]:
        """The headers that lead from the upstream's response to the outcome."""
        own = self._headers({})
        own |= {name.decode(): self.exchange.ledger.request_id for name in _REQUEST_IDS if name not in self._given}
        return own

    def _header_ids(self) -> tuple[str, ...]:
        return tuple(self._given[name].decode("utf-8", "replace") for name in _REQUEST_IDS if name in self._given)

    def _timed(self, response: Any) -> Any:
        """A response that was read here: the HTTP client, which takes the time until a body is read, sees none."""
        response.elapsed = timedelta(seconds=time.perf_counter() - self._began)
        return response

    def _sealed(self, headers: Mapping[str, str], body: bytes, ids: tuple[str, ...]) -> Any:
        remember(self.exchange.ledger, ids=ids)
        named = {**headers, **{name.decode(): self.exchange.ledger.request_id for name in _REQUEST_IDS}}
        return self._timed(self._session.response(200, named, body, self.exchange.ledger))

    def _headers(self, headers: dict[str, str]) -> dict[str, str]:
        headers["x-guardrail-request-id"] = self.exchange.ledger.request_id
        if self.exchange.policy.document.disclose == "header" and self.upstream is None:
            headers["x-guardrail-state"] = self.exchange.state.value
        return headers


def _format(known: Route) -> Any:
    return known.format


def _body(data: bytes, known: Route) -> dict[str, Any]:
    if not known.has_input:
        return {}
    try:
        return documents.as_mapping(documents.parse(data, "The request's body"), "The request's body")
    except ModerationError as error:
        raise UnsupportedPath(f"{error} Generative calls must be sent as JSON.") from None


def _dump(document: Any) -> bytes:
    """JSON as the client libraries write it; lone surrogates as escapes, since they have no UTF-8 form."""
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(document, separators=(",", ":")).encode()


def _event_bytes(event: Event) -> bytes:
    return encode(event.data, event.name)


def _ids(document: Any) -> tuple[str, ...]:
    holder = document
    for key in ("response", "message"):
        if isinstance(holder, dict) and isinstance(holder.get(key), dict):
            holder = holder[key]
    found = holder.get("id") if isinstance(holder, dict) else None
    return (found,) if isinstance(found, str) else ()


def _has_answer(document: Mapping[str, Any]) -> bool:
    return any(document.get(key) for key in ("choices", "output", "content"))
