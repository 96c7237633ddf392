"""Guarding litellm: its module, its functions, its `Router`. litellm runs no hooks in its own SDK calls, so these are
wrapped. The module itself is never changed: what comes back is a stand-in for it."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from guardrail.clients.functions import installed, mark
from guardrail.clients.litellm_call import LitellmCalls
from guardrail.errors import ConfigurationError, UnsupportedPath

if TYPE_CHECKING:
    from guardrail.engine import Guardrail

__all__ = ["guarded", "is_litellm"]

# function -> (wire format, name of the argument that holds the conversation)
_GUARDED = {
    "completion": ("chat_completions", "messages"),
    "acompletion": ("chat_completions", "messages"),
    "text_completion": ("completions", "prompt"),
    "atext_completion": ("completions", "prompt"),
    "responses": ("responses", "input"),
    "aresponses": ("responses", "input"),
}
# Other names that call a model: refused, since their texts would pass unmoderated.
_GENERATES = re.compile(
    r"completion|generate|generation|responses|messages|speech|transcription|thread|_run|run_|batch|assistant|passthrough|"
    r"realtime|agent|image|video|ocr|tool_loop|interactions|google_genai|vector_store_search|rag|ingest|query"
)
_HARMLESS = re.compile(
    r"cost|token|valid|support|^get_|^_?list_|^a?list_|^a?(delete|cancel|retrieve|get)_|param|config|error|exception|"
    r"stream_chunk_builder|mark_litellm|register|encode|decode|calculate|check|callback|logging|trim_messages|^create_pretrained"
)


def is_litellm(client: Any) -> bool:
    """Whether this is the litellm module, one of its functions, or a `Router`."""
    if isinstance(client, ModuleType):
        return client.__name__ == "litellm"
    if inspect.isroutine(client) or isinstance(client, functools.partial):
        module = getattr(getattr(client, "func", client), "__module__", None) or ""
        return module.partition(".")[0] == "litellm"
    return any(cls.__module__ == "litellm.router" for cls in type(client).__mro__)


def guarded(client: Any, guard: Guardrail, spec: tuple[object, ...]) -> Any:
    """A guarded stand-in for the module, a function or a router.

    Raises:
        ConfigurationError: a function of litellm that is not one of completion, acompletion, text_completion,
            atext_completion, responses, aresponses.
    """
    if isinstance(client, ModuleType) or not callable(client) or isinstance(client, type):
        return GuardedLitellm(client, guard, spec)
    name = getattr(client, "__name__", "")
    if name not in _GUARDED:
        raise ConfigurationError(f"litellm.{name} cannot be guarded; these can: {', '.join(_GUARDED)}.")
    return _function(name, client, guard, spec)


class GuardedLitellm(ModuleType):
    """Stands for the litellm module or for a router: its attributes are theirs, its generating calls are guarded."""

    def __init__(self, target: Any, guard: Guardrail, spec: tuple[object, ...]) -> None:
        super().__init__(getattr(target, "__name__", type(target).__name__), target.__doc__)
        mark(self, guard, spec, target)
        self.__dict__["_target"] = target
        self.__dict__["_made"] = {}

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # a router stays a Router for those who ask
        target = self.__dict__.get("_target")
        return GuardedLitellm if target is None or isinstance(target, ModuleType) else type(target)

    def __getattr__(self, name: str) -> Any:
        target, made = self.__dict__["_target"], self.__dict__["_made"]
        value = getattr(target, name)
        if not callable(value) or isinstance(value, ModuleType) or name.startswith("_"):
            return value
        if name not in made:
            found = installed(self)
            assert found is not None  # noqa: S101 - set in __init__
            made[name] = _stand_in(name, value, found.guard, found.spec, is_module=isinstance(target, ModuleType))
        return made[name]

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_target"], name, value)

    def __repr__(self) -> str:
        return f"<guarded {self.__dict__['_target']!r}>"


def _stand_in(name: str, value: Any, guard: Guardrail, spec: tuple[object, ...], *, is_module: bool) -> Any:
    if name in _GUARDED:
        return _function(name, value, guard, spec)
    if name == "Router" and is_module:
        return functools.wraps(value, updated=())(lambda *a, **k: GuardedLitellm(value(*a, **k), guard, spec))
    if inspect.isclass(value) or not inspect.isroutine(value):
        return value
    if _GENERATES.search(name) and not _HARMLESS.search(name):
        return _refusing(name, value)
    return value


def _refusing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def refuse(*_: Any, **__: Any) -> Any:
        raise UnsupportedPath(
            f"litellm.{name} is not a call that guardrail can moderate, so it was not made. Guarded are: {', '.join(_GUARDED)}. "
            "For others use litellm as it is."
        )

    return refuse


def _function(
    name: str, function: Callable[..., Any], guard: Guardrail, spec: tuple[object, ...]
) -> Callable[..., Any]:
    form, argument = _GUARDED[name]
    calls = LitellmCalls(function, guard, form, argument)
    stand_in: Callable[..., Any]
    if name.startswith("a"):

        async def acall(*args: Any, **kwargs: Any) -> Any:
            return await calls.acall(args, kwargs)

        stand_in = acall
    else:

        def call(*args: Any, **kwargs: Any) -> Any:
            return calls.call(args, kwargs)

        stand_in = call
    functools.update_wrapper(stand_in, function)
    mark(stand_in, guard, spec, function)
    return stand_in
