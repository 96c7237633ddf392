"""The HTTP transport that moderates, for `httpx` and `httpx2` alike.

It stands between a client library and the network: the library builds the request and parses the answer as always, and
what it parses has been moderated. Neither package is imported here; the classes are made for the one that the client uses.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from functools import cache
from types import ModuleType
from typing import Any

from guardrail.clients.call import Call, Close, Read, Send, Session
from guardrail.clients.driving import adecide, apump, decide, pump
from guardrail.errors import ConfigurationError, GuardrailError

__all__ = ["guarded_http_client", "http_module"]


def http_module(http_client: Any) -> ModuleType:
    """The package, `httpx` or `httpx2`, that an HTTP client is an object of.

    Raises:
        ConfigurationError: neither.
    """
    for cls in type(http_client).__mro__:
        root = cls.__module__.partition(".")[0]
        if root in ("httpx", "httpx2"):
            return sys.modules[root]
    raise ConfigurationError(
        f"The client's HTTP client is a {type(http_client).__module__}.{type(http_client).__qualname__}, neither httpx nor "
        "httpx2, so its calls cannot be guarded."
    )


def guarded_http_client(http_client: Any, session: Session) -> Any:
    """A copy of `http_client` whose transports moderate. It shares the connections of the original, which is not changed.

    Raises:
        ConfigurationError: it is no httpx client.
    """
    module = http_module(http_client)
    session.http = module
    copied = object.__new__(type(http_client))
    copied.__dict__.update(http_client.__dict__)
    make = _sync_class(module) if isinstance(http_client, module.Client) else _async_class(module)
    copied.__dict__["_transport"] = make(http_client._transport, session)
    copied.__dict__["_mounts"] = {
        pattern: None if transport is None else make(transport, session)
        for pattern, transport in http_client._mounts.items()
    }
    return copied


class _SyncTransport:
    """Mixin for `BaseTransport`."""

    def __init__(self, inner: Any, session: Session) -> None:
        self.inner, self._session = inner, session

    def handle_request(self, request: Any) -> Any:
        """Moderate one request and its response."""
        call = Call(self._session, request, _sync_stream(self._session.http))
        try:
            return self._run(call)
        except GuardrailError as error:
            return self._session.error_response(request, error)

    def _run(self, call: Call) -> Any:
        steps = call.steps()
        answer, failure = None, None
        while True:
            try:
                asked = steps.throw(failure) if failure is not None else steps.send(answer)
            except StopIteration as stop:
                return stop.value
            try:
                answer, failure = self._do(call, asked), None
            except BaseException as error:  # noqa: BLE001 - handed to the generator, which closes the upstream and raises it
                failure = error

    def _do(self, call: Call, asked: Any) -> Any:
        if isinstance(asked, Send):
            return self.inner.handle_request(asked.request)
        if isinstance(asked, Read):
            return asked.message.read()
        if isinstance(asked, Close):
            return asked.response.close()
        return decide(call.exchange, asked)

    def close(self) -> None:
        """Close the connections."""
        self.inner.close()


class _AsyncTransport:
    """Mixin for `AsyncBaseTransport`."""

    def __init__(self, inner: Any, session: Session) -> None:
        self.inner, self._session = inner, session

    async def handle_async_request(self, request: Any) -> Any:
        """Moderate one request and its response."""
        call = Call(self._session, request, _async_stream(self._session.http))
        try:
            return await self._run(call)
        except GuardrailError as error:
            return self._session.error_response(request, error)

    async def _run(self, call: Call) -> Any:
        steps = call.steps()
        answer, failure = None, None
        while True:
            try:
                asked = steps.throw(failure) if failure is not None else steps.send(answer)
            except StopIteration as stop:
                return stop.value
            try:
                answer, failure = await self._do(call, asked), None
            except BaseException as error:  # noqa: BLE001 - handed to the generator, which closes the upstream and raises it
                failure = error

    async def _do(self, call: Call, asked: Any) -> Any:
        if isinstance(asked, Send):
            return await self.inner.handle_async_request(asked.request)
        if isinstance(asked, Read):
            return await asked.message.aread()
        if isinstance(asked, Close):
            return await asked.response.aclose()
        return await adecide(call.exchange, asked)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.inner.aclose()


class _SyncStream:
    """Mixin for `SyncByteStream`: the moderated bytes of an event stream."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        events, exchange, upstream = self._call.events, self._call.exchange, self._call.upstream
        try:
            for chunk in upstream.iter_bytes():
                yield from pump(exchange, events.receive(chunk))
                if events.stopped:
                    return
            yield from pump(exchange, events.finish())
        finally:
            upstream.close()

    def close(self) -> None:
        """Close the upstream."""
        self._call.upstream.close()


class _AsyncStream:
    """Mixin for `AsyncByteStream`: the moderated bytes of an event stream."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        events, exchange, upstream = self._call.events, self._call.exchange, self._call.upstream
        try:
            async for chunk in upstream.aiter_bytes():
                async for data in apump(exchange, events.receive(chunk)):
                    yield data
                if events.stopped:
                    return
            async for data in apump(exchange, events.finish()):
                yield data
        finally:
            await upstream.aclose()

    async def aclose(self) -> None:
        """Close the upstream."""
        await self._call.upstream.aclose()


@cache
def _sync_class(module: ModuleType) -> Any:
    return type("GuardedTransport", (_SyncTransport, module.BaseTransport), {})


@cache
def _async_class(module: ModuleType) -> Any:
    return type("AsyncGuardedTransport", (_AsyncTransport, module.AsyncBaseTransport), {})


@cache
def _sync_stream(module: ModuleType) -> Any:
    return type("GuardedStream", (_SyncStream, module.SyncByteStream), {})


@cache
def _async_stream(module: ModuleType) -> Any:
    return type("AsyncGuardedStream", (_AsyncStream, module.AsyncByteStream), {})
