"""The calls of one guarded litellm function: its own objects in, its own objects out."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from guardrail.clients.arguments import plain, plain_value
from guardrail.clients.driving import adrive, apump, drive, pump
from guardrail.clients.exchange import Admission, Exchange
from guardrail.clients.ledger import EXTENSION, remember
from guardrail.clients.litellm_objects import native_event, native_response, plain_document
from guardrail.clients.memory import Memory
from guardrail.clients.reading import readable
from guardrail.wire.pieces import DONE, Event
from guardrail.wire.routes import FORMATS

if TYPE_CHECKING:
    from guardrail.engine import Guardrail

__all__ = ["LitellmCalls"]


class LitellmCalls:
    """Moderates one function.

    Args:
        function: of litellm, or the method of a router.
        guard: who moderates.
        form: name of the wire format that its arguments and results have.
        argument: name of the argument that holds the conversation.
    """

    def __init__(self, function: Callable[..., Any], guard: Guardrail, form: str, argument: str) -> None:
        self._function, self._guard, self._form, self._argument = function, guard, form, argument
        self._memory = Memory()
        self._names = list(inspect.signature(function).parameters)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A sync call."""
        arguments = self._named(args, kwargs)
        exchange = self._exchange(arguments)
        admission: Admission = drive(exchange, exchange.admit())
        if admission.refused is not None:
            return self._refused(exchange, admission)
        result = self._function(**self._sent(exchange, arguments, admission))
        if exchange.body.get("stream"):
            return GuardedStream(exchange, result, self._form)
        document = plain_document(result)
        changed = drive(exchange, exchange.answer(document))
        return self._answered(exchange, result, document, changed)

    async def acall(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An async call."""
        arguments = self._named(args, kwargs)
        exchange = self._exchange(arguments)
        admission: Admission = await adrive(exchange, exchange.admit())
        if admission.refused is not None:
            return self._refused(exchange, admission)
        result = await self._function(**self._sent(exchange, arguments, admission))
        if exchange.body.get("stream"):
            return GuardedStream(exchange, result, self._form)
        document = plain_document(result)
        changed = await adrive(exchange, exchange.answer(document))
        return self._answered(exchange, result, document, changed)

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """All arguments by name.

        Raises:
            TypeError: more positional arguments than the function has, or one given twice.
        """
        names = [name for name in self._names if name not in ("args", "kwargs")]
        if len(args) > len(names):
            raise TypeError(
                f"{self._argument}: {len(args)} positional arguments were given, at most {len(names)} are known"
            )
        twice = [name for name in names[: len(args)] if name in kwargs]
        if twice:
            raise TypeError(f"got multiple values for argument {twice[0]!r}")
        return {**dict(zip(names, args, strict=False)), **kwargs}

    def _exchange(self, arguments: dict[str, Any]) -> Exchange:
        with readable("The call"):
            body = {key: plain_value(value) for key, value in arguments.items() if key in _OF_THE_CONVERSATION}
            body[self._argument] = _conversation(arguments.get(self._argument))
            wanted = arguments.get("response_format") or arguments.get("text_format")
            if isinstance(wanted, type):
                schema = wanted.model_json_schema() if hasattr(wanted, "model_json_schema") else {}
                body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
                body["text"] = {"format": {"type": "json_schema", "schema": schema}}
        return Exchange(self._guard, FORMATS[self._form], body, self._memory)

    def _sent(self, exchange: Exchange, arguments: dict[str, Any], admission: Admission) -> dict[str, Any]:
        """The arguments to call with: the caller's own objects unless a text was repaired."""
        if not admission.changed:
            return arguments
        altered = {key: exchange.body[key] for key in _WITH_TEXT if key in arguments and key in exchange.body}
        return {**arguments, **altered, self._argument: exchange.body[self._argument]}

    def _refused(self, exchange: Exchange, admission: Admission) -> Any:
        words = exchange.refusal_words(admission.refused)
        if exchange.body.get("stream"):
            events = exchange.form.refusal_events(exchange.body, words, exchange.ledger.request_id)
            return GuardedStream(exchange, None, self._form, events)
        document = exchange.form.refusal(exchange.body, words, exchange.ledger.request_id)
        response = native_response(self._form, document)
        remember(exchange.ledger, response=response, ids=(document["id"],))
        return response

    def _answered(self, exchange: Exchange, result: Any, document: dict[str, Any], changed: bool) -> Any:
        response = native_response(self._form, document, like=result) if changed else result
        remember(exchange.ledger, response=response, ids=(str(document.get("id")),))
        return response


# Arguments that the wire formats read; all others go to litellm untouched.
_OF_THE_CONVERSATION = frozenset(
    "model messages prompt input instructions suffix prediction n stream stream_options response_format text metadata "
    "user safety_identifier conversation previous_response_id tools tool_choice parallel_tool_calls temperature top_p".split()
)
_WITH_TEXT = ("messages", "prompt", "input", "instructions", "suffix", "prediction")


def _conversation(value: Any) -> Any:
    """The conversation as plain JSON; litellm's own message objects are read."""
    if isinstance(value, list | tuple):
        return [plain(item) if not isinstance(item, str | int) else item for item in value]
    return plain_value(value)


class GuardedStream:
    """The moderated chunks of a litellm stream. It passes for the stream that it stands for: same type for those who ask,
    same attributes; closing it closes the upstream."""

    def __init__(self, exchange: Exchange, source: Any, form: str, events: list[Event] | None = None) -> None:
        self.extensions = {EXTENSION: exchange.ledger}
        self._exchange, self._source, self._form = exchange, source, form
        self._own = events
        self._chunks: Iterator[Any] | None = None
        self._achunks: AsyncIterator[Any] | None = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        source = self.__dict__.get("_source")
        return GuardedStream if source is None else type(source)

    def __getattr__(self, name: str) -> Any:
        source = self.__dict__.get("_source")
        if source is None or name.startswith("__"):
            raise AttributeError(name)
        return getattr(source, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._chunks is None:
            self._chunks = self._run()
        return next(self._chunks)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._achunks is None:
            self._achunks = self._arun()
        return await anext(self._achunks)

    def _run(self) -> Iterator[Any]:
        if self._own is not None:
            yield from self._native(self._own)
            return
        moderator = self._exchange.stream()
        try:
            for chunk in self._source:
                yield from self._native(pump(self._exchange, moderator.push(self._event(chunk))))
                if moderator.stopped:
                    return
            yield from self._native(pump(self._exchange, moderator.finish()))
            self._exchange.finished(moderator)
        finally:
            self._close_source()

    async def _arun(self) -> AsyncIterator[Any]:
        for own in self._native(self._own or ()):
            yield own
        if self._own is not None:
            return
        moderator = self._exchange.stream()
        try:
            async for chunk in self._source:
                async for event in apump(self._exchange, moderator.push(self._event(chunk))):
                    for native in self._native((event,)):
                        yield native
                if moderator.stopped:
                    return
            async for event in apump(self._exchange, moderator.finish()):
                for native in self._native((event,)):
                    yield native
            self._exchange.finished(moderator)
        finally:
            await self._aclose_source()

    def _event(self, chunk: Any) -> Event:
        data = plain_document(chunk)
        response = data.get("response")
        holder: dict[str, Any] = response if isinstance(response, dict) else data
        if isinstance(holder.get("id"), str):
            remember(self._exchange.ledger, ids=(holder["id"],))
        return Event(data, raw=chunk)

    def _native(self, events: Iterable[Event]) -> Iterator[Any]:
        """Events as litellm's chunks; it has none for the `[DONE]` of the wire."""
        for event in events:
            if event.data != DONE:
                yield event.raw if event.raw is not None else native_event(self._form, event.data)

    def close(self) -> None:
        """End the stream and close the upstream."""
        if self._chunks is not None:
            self._chunks.close()  # type: ignore[attr-defined]  # a generator
        self._close_source()

    async def aclose(self) -> None:
        """End the stream and close the upstream."""
        if self._achunks is not None:
            await self._achunks.aclose()  # type: ignore[attr-defined]  # an async generator
        await self._aclose_source()

    def _close_source(self) -> None:
        for stream in _behind(self._source):
            close = getattr(stream, "close", None)
            if close is not None and not inspect.iscoroutinefunction(close):
                close()
                return

    async def _aclose_source(self) -> None:
        for stream in _behind(self._source):
            for name in ("aclose", "close"):
                close = getattr(stream, name, None)
                if close is not None:
                    result = close()
                    if inspect.isawaitable(result):
                        await result
                    return


def _behind(stream: Any) -> Iterator[Any]:
    """A stream, the stream of the provider behind it, and the HTTP response behind that."""
    for _ in range(4):
        if stream is None:
            return
        yield stream
        stream = getattr(stream, "completion_stream", None) or getattr(stream, "response", None)
