"""What was judged before: earlier turns are not judged again, and an old bad one does not block every later one."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

__all__ = ["WITHHELD", "Memory", "Verdict"]

WITHHELD = None
"""Verdict for a text that must not go upstream."""

Verdict = tuple[str | None, ...] | None
"""What each text of a unit became (None: it was merged into an earlier one), or `WITHHELD`."""


class Memory:
    """Least recently used verdicts by content hash. Thread-safe; one per wrapped client.

    Args:
        most: verdicts kept.
    """

    def __init__(self, most: int = 8192) -> None:
        self._most = most
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def key(conversation: str | None, revision: str, stage: str, texts: Sequence[str]) -> bytes:
        """Hash of texts at one stage of one conversation under one policy revision."""
        parts = repr((conversation or "", revision, str(stage), *texts))  # quoted, so that no two lists read the same
        return hashlib.sha256(parts.encode()).digest()  # and lone surrogates are escaped

    def get(self, key: bytes) -> tuple[bool, Verdict]:
        """(known, verdict)."""
        with self._lock:
            if key not in self._verdicts:
                return False, None
            self._verdicts.move_to_end(key)
            return True, self._verdicts[key]

    def put(self, key: bytes, verdict: Verdict) -> None:
        """Remember a verdict; the one unused for longest makes room."""
        with self._lock:
            self._verdicts[key] = verdict
            self._verdicts.move_to_end(key)
            while len(self._verdicts) > self._most:
                self._verdicts.popitem(last=False)
