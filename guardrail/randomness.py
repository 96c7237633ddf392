"""Random bytes and ids from the operating system's generator, fetched a page at a time.

A call makes half a dozen ids and salts; where the system call is slow (in many virtual machines it is), asking for each of
them by itself takes longer than judging a short text.
"""

from __future__ import annotations

import os
import threading

__all__ = ["new_id", "random_bytes"]

_PAGE = 4096  # bytes fetched at once

_lock = threading.Lock()
_page = b""
_used = 0


def random_bytes(count: int) -> bytes:
    """Return `count` (at most 4096) bytes that nobody can guess and nobody else gets. Thread-safe, also after a fork."""
    global _page, _used
    with _lock:
        end = _used + count
        if end > len(_page):
            _page, _used, end = os.urandom(_PAGE), 0, count
        found = _page[_used:end]
        _used = end
        return found


def new_id() -> str:
    """Return a random UUID (RFC 9562, version 4) as 32 hexadecimal digits."""
    number = int.from_bytes(random_bytes(16), "big")
    number = number & ~(0xF << 76) | 4 << 76  # the version
    number = number & ~(0x3 << 62) | 2 << 62  # the variant
    return f"{number:032x}"


def _forget() -> None:
    """In a child process: the page is the parent's."""
    global _lock, _page, _used
    _lock, _page, _used = threading.Lock(), b"", 0


os.register_at_fork(after_in_child=_forget)
