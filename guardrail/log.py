"""Logging of a library: structlog where the application has configured it, the standard library's logging where not.

structlog by itself prints every event to stdout, which is the application's. Through `logging`, events below a warning
are dropped and the others go to stderr, unless the application says otherwise.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

__all__ = ["Logger"]


def _message(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    words = str(event.pop("event", ""))
    return " ".join([words, *(f"{key}={value!r}" for key, value in event.items())])


def _nothing(*_: object, **__: object) -> None:
    """What nobody listens to."""


class Logger:
    """Logs events with key-value pairs: `log.warning("what happened", key=value)`.

    Args:
        name: of the module that logs.
    """

    def __init__(self, name: str) -> None:
        self._name, self._plain = name, logging.getLogger(name)

    def __getattr__(self, method: str) -> Any:
        """`debug`, `info`, `warning`, `error`, ...: decided at each call, since applications configure logging late."""
        if "structlog" in sys.modules:  # what nobody has imported, nobody has configured
            import structlog

            if structlog.is_configured():
                return getattr(structlog.get_logger(self._name), method)
        if method == "debug" and not self._plain.isEnabledFor(logging.DEBUG):
            return _nothing  # said at every decision, heard by nobody
        import structlog  # a tenth of a second, which a silent process does not spend

        logger = structlog.wrap_logger(self._plain, wrapper_class=structlog.stdlib.BoundLogger, processors=[_message])
        return getattr(logger, method)
