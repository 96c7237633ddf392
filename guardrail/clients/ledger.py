"""The side channel: which decisions belong to which response, without touching the response.

A `Ledger` is one logical call. It is found again by the response object itself, by the HTTP response behind it, or by an
id that the response carries. Both maps are bounded; what falls out of them is in the audit store still.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from guardrail.randomness import new_id
from guardrail.types import Decision, Outcome

__all__ = ["EXTENSION", "Ledger", "find", "remember"]

EXTENSION = "guardrail_ledger"
"""Key of the ledger in `extensions` of an HTTP response."""

_MOST = 2048  # calls remembered by id
_lock = threading.Lock()
_by_object: dict[int, tuple[weakref.ref[Any], Ledger]] = {}
_by_id: OrderedDict[str, Ledger] = OrderedDict()
# Where a client's own objects keep the HTTP response or the stream that they were made from.
_BEHIND = ("response", "http_response", "_raw_stream", "_response", "_raw_response", "_stream")


class Ledger:
    """The decisions of one logical call, in the order in which they were made. Grows while a stream runs."""

    def __init__(self, policy: str, revision: str, request_id: str | None = None) -> None:
        self.request_id = request_id or new_id()
        self._policy, self._revision = policy, revision
        self._decisions: list[Decision] = []
        self.timings: Callable[[], Mapping[str, float]] = dict  # of the stream, if the answer is one

    def add(self, decisions: Iterable[Decision]) -> None:
        """Note further decisions."""
        self._decisions += decisions

    def settle(self, decisions: Iterable[Decision]) -> None:
        """Put decisions as they ended in the place of those that they were; each keeps its id."""
        ended = {decision.id: decision for decision in decisions}
        self._decisions = [ended.get(decision.id, decision) for decision in self._decisions]

    @property
    def decisions(self) -> Sequence[Decision]:
        """What was decided so far."""
        return tuple(self._decisions)

    @property
    def outcome(self) -> Outcome:
        """What was decided so far, as the caller sees it."""
        revision = self._decisions[-1].revision if self._decisions else self._revision
        return Outcome(self.request_id, self._policy, revision, tuple(self._decisions), self.timings())


def remember(ledger: Ledger, *, response: Any = None, ids: Iterable[str | None] = ()) -> None:
    """Make `ledger` findable by a response object and by ids."""
    with _lock:
        for key in (ledger.request_id, *ids):
            if key:
                _by_id[key] = ledger
                _by_id.move_to_end(key)
        while len(_by_id) > _MOST:
            _by_id.popitem(last=False)
    if response is not None:
        _remember_object(response, ledger)


def _remember_object(response: Any, ledger: Ledger) -> None:
    key = id(response)
    try:
        reference = weakref.ref(response, lambda _: _by_object.pop(key, None))
    except TypeError:
        return  # not weakly referenceable: it is found by its id
    with _lock:
        _by_object[key] = (reference, ledger)


def find(response: Any) -> Ledger | None:
    """The ledger of a response, stream or chunk; None if it is not from a guarded call or was forgotten."""
    return _find(response, depth=3)


def _find(response: Any, depth: int) -> Ledger | None:
    if response is None or depth == 0:
        return None
    found = _by_object.get(id(response))
    if found is not None and found[0]() is response:
        return found[1]
    extensions = getattr(response, "extensions", None)
    if isinstance(extensions, Mapping) and isinstance(extensions.get(EXTENSION), Ledger):
        return extensions[EXTENSION]  # type: ignore[no-any-return]
    for name in _BEHIND:
        ledger = _find(getattr(response, name, None), depth - 1)
        if ledger is not None:
            return ledger
    return _by_ids(response)


def _by_ids(response: Any) -> Ledger | None:
    if isinstance(response, Mapping):
        candidates = [response.get("id")]
    else:
        candidates = [getattr(response, name, None) for name in ("_request_id", "id")]
    for candidate in candidates:
        if isinstance(candidate, str) and candidate in _by_id:
            return _by_id[candidate]
    return None
