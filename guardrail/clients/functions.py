"""Guarding a callable `messages -> text`: sync or async, returning text or yielding it in pieces."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from guardrail.clients.arguments import Arguments
from guardrail.clients.driving import adrive, apump, drive, pump
from guardrail.clients.exchange import Admission, Exchange
from guardrail.clients.ledger import EXTENSION, Ledger
from guardrail.clients.memory import Memory
from guardrail.errors import UnsupportedPath
from guardrail.wire.pieces import Event
from guardrail.wire.routes import FORMATS

if TYPE_CHECKING:
    from guardrail.engine import Guardrail

__all__ = ["GuardedFunction", "ModeratedStream", "ModeratedText", "guarded", "installed"]

_ATTRIBUTE = "__guardrail__"


@dataclass(frozen=True, slots=True)
class GuardedFunction:
    """What a guarded stand-in carries."""

    guard: Guardrail
    spec: tuple[object, ...]
    original: Any


class ModeratedText(str):
    """A text that was moderated: a string like any other, from which `guardrail.outcome` finds the decisions."""

    __slots__ = ("extensions",)

    extensions: dict[str, Ledger]


def installed(client: Any) -> GuardedFunction | None:
    """What `guarded` left on the stand-in; None for anything else."""
    found = getattr(client, "__dict__", {}).get(_ATTRIBUTE)
    return found if isinstance(found, GuardedFunction) else None


def mark(stand_in: Any, guard: Guardrail, spec: tuple[object, ...], original: Any) -> None:
    """Note on a stand-in what it stands for."""
    stand_in.__dict__[_ATTRIBUTE] = GuardedFunction(guard, spec, original)


def guarded(function: Callable[..., Any], guard: Guardrail, spec: tuple[object, ...]) -> Callable[..., Any]:
    """A function with the same signature whose messages and texts are moderated.

    The messages are its parameter `messages`, or else its first argument: a string, or a list of mappings with `role` and
    `content` (objects with these attributes are read too).
    """
    moderated = _Moderated(function, guard)
    target = (
        function if inspect.isroutine(function) or isinstance(function, functools.partial) else type(function).__call__
    )
    stand_in: Callable[..., Any]
    if inspect.iscoroutinefunction(target):

        async def acall(*args: Any, **kwargs: Any) -> Any:
            return await moderated.acall(args, kwargs)

        stand_in = acall
    elif inspect.isasyncgenfunction(target):

        def astream(*args: Any, **kwargs: Any) -> Any:
            return moderated.astream(args, kwargs)

        stand_in = astream
    else:

        def call(*args: Any, **kwargs: Any) -> Any:
            streams = inspect.isgeneratorfunction(target) or bool(kwargs.get("stream"))
            return moderated.call(args, kwargs, streams=streams)

        stand_in = call
    functools.update_wrapper(stand_in, function)
    mark(stand_in, guard, spec, function)
    return stand_in


class _Moderated:
    """The calls of one guarded function."""

    def __init__(self, function: Callable[..., Any], guard: Guardrail) -> None:
        self._function, self._guard, self._memory = function, guard, Memory()

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, streams: bool) -> Any:
        """A plain call; what it returns decides how it goes on: text, an iterator of texts, or an awaitable."""
        arguments, exchange = self._begin(args, kwargs)
        admission: Admission = drive(exchange, exchange.admit())
        if admission.refused is not None:
            words = exchange.refusal_words(admission.refused)
            return ModeratedStream(exchange, None, words) if streams else _text(exchange, words)
        args, kwargs = arguments.with_messages(exchange.body["messages"]) if admission.changed else (args, kwargs)
        result = self._function(*args, **kwargs)
        if inspect.isawaitable(result):
            return self._awaited(exchange, result)
        stream = _stream_of(exchange, result)
        return stream if stream is not None else _delivered(exchange, drive(exchange, _answer(exchange, result)))

    async def acall(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a coroutine function."""
        arguments, exchange = self._begin(args, kwargs)
        admission: Admission = await adrive(exchange, exchange.admit())
        if admission.refused is not None:
            words = exchange.refusal_words(admission.refused)
            return AsyncModeratedStream(exchange, None, words) if kwargs.get("stream") else _text(exchange, words)
        args, kwargs = arguments.with_messages(exchange.body["messages"]) if admission.changed else (args, kwargs)
        return await self._awaited(exchange, self._function(*args, **kwargs))

    def astream(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncModeratedStream:
        """A call of an async generator function; nothing happens before the first text is asked for."""
        arguments, exchange = self._begin(args, kwargs)
        return AsyncModeratedStream(exchange, lambda: self._asource(arguments, exchange, args, kwargs))

    async def _asource(self, arguments: Arguments, exchange: Exchange, args: Any, kwargs: Any) -> Any:
        admission: Admission = await adrive(exchange, exchange.admit())
        if admission.refused is not None:
            return exchange.refusal_words(admission.refused)
        args, kwargs = arguments.with_messages(exchange.body["messages"]) if admission.changed else (args, kwargs)
        return self._function(*args, **kwargs)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Arguments, Exchange]:
        arguments = Arguments(self._function, args, kwargs)
        body = {"messages": arguments.messages()}
        return arguments, Exchange(self._guard, FORMATS["chat_completions"], body, self._memory)

    @staticmethod
    async def _awaited(exchange: Exchange, result: Any) -> Any:
        result = await result
        stream = _stream_of(exchange, result)
        return stream if stream is not None else _delivered(exchange, await adrive(exchange, _answer(exchange, result)))


class ModeratedStream:
    """The moderated texts of an iterator; closing it closes the iterator. `guardrail.outcome` reads its decisions."""

    def __init__(self, exchange: Exchange, source: Iterator[Any] | None, words: str = "") -> None:
        self.extensions = {EXTENSION: exchange.ledger}
        self._source = source
        self._texts = self._run(exchange, source) if source is not None else iter([words])

    @staticmethod
    def _run(exchange: Exchange, source: Iterator[Any]) -> Iterator[str]:
        moderator = exchange.stream()
        try:
            for text in source:
                yield from _texts(pump(exchange, moderator.push(_event(text))))
                if moderator.stopped:
                    return
            yield from _texts(pump(exchange, moderator.finish()))
            exchange.finished(moderator)
        finally:
            _close(source)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._texts)

    def close(self) -> None:
        """End the stream, and the iterator behind it."""
        for stream in (self._texts, self._source):
            _close(stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncModeratedStream:
    """The moderated texts of an async iterator; closing it closes the iterator.

    Args:
        exchange: the call. source: the iterator, or a coroutine function that returns it or the words of a refusal.
        words: a refusal, where there is no source.
    """

    def __init__(self, exchange: Exchange, source: Any, words: str = "") -> None:
        self.extensions = {EXTENSION: exchange.ledger}
        self._texts = self._run(exchange, source, words)

    @staticmethod
    async def _run(exchange: Exchange, source: Any, words: str) -> AsyncIterator[str]:
        if inspect.isfunction(source):
            source = await source()
        if source is None or isinstance(source, str):
            yield source or words
            return
        moderator = exchange.stream()
        try:
            async for text in source:
                async for event in apump(exchange, moderator.push(_event(text))):
                    for part in _texts([event]):
                        yield part
                if moderator.stopped:
                    return
            async for event in apump(exchange, moderator.finish()):
                for part in _texts([event]):
                    yield part
            exchange.finished(moderator)
        finally:
            aclose = getattr(source, "aclose", None)
            if aclose is not None:
                await aclose()

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        return await anext(self._texts)

    async def aclose(self) -> None:
        """End the stream, and the iterator behind it."""
        await self._texts.aclose()  # type: ignore[attr-defined]  # an async generator

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _stream_of(exchange: Exchange, result: Any) -> ModeratedStream | AsyncModeratedStream | None:
    if hasattr(result, "__aiter__"):
        return AsyncModeratedStream(exchange, result)
    return ModeratedStream(exchange, result) if hasattr(result, "__next__") else None


def _event(text: Any) -> Event:
    if not isinstance(text, str):
        raise _not_text("yielded", text)
    return Event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}, raw=text)


def _texts(events: Any) -> Iterator[str]:
    """The texts of chunks; a chunk without one (the end of a refusal) is nothing to a caller who reads texts."""
    for event in events:
        choices = event.data.get("choices") if isinstance(event.data, dict) else None
        text = (
            event.raw
            if event.raw is not None
            else "".join(choice["delta"].get("content") or "" for choice in choices or ())
        )
        if text or event.raw is not None:
            yield text


def _answer(exchange: Exchange, result: Any) -> Any:
    """Judge what a function returned; return the document that it became."""
    if not isinstance(result, str):
        raise _not_text("returned", result)
    document = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": str(result)}, "finish_reason": "stop"}]
    }
    yield from exchange.answer(document)
    return document


def _delivered(exchange: Exchange, document: dict[str, Any]) -> ModeratedText:
    return _text(exchange, document["choices"][0]["message"]["content"])


def _text(exchange: Exchange, words: str) -> ModeratedText:
    text = ModeratedText(words)
    text.extensions = {EXTENSION: exchange.ledger}
    return text


def _not_text(did: str, value: Any) -> UnsupportedPath:
    return UnsupportedPath(
        f"The wrapped callable {did} a {type(value).__name__}. Only text can be judged: return a string, or yield strings."
    )


def _close(stream: Any) -> None:
    close = getattr(stream, "close", None)
    if close is not None:
        close()
