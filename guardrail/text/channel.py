"""One text of a stream on its way through moderation: what came, how far it may leave, and what of it was altered."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from guardrail.text.holding import HoldingBuffer
from guardrail.types import Stage

__all__ = ["Altered", "Channel", "Seam"]

_CONTEXT_CHARS = 2000  # of what was delivered, that the next sentence is judged with


@dataclass(slots=True)
class Seam:
    """The end of what has left, where the next text is put beside it; shared by the texts that a reader sees in a row."""

    WIDTH: ClassVar[int] = 300  # characters on either side: the longest entry of a list of words
    tail: str = ""

    def meets(self, text: str, forbidden: Callable[[str], bool]) -> str:
        """What stands around the place where `text` begins, if something forbidden stands across it, else nothing."""
        head = text[: self.WIDTH]
        if not self.tail.strip() or not head.strip() or not forbidden(self.tail + head):
            return ""
        return "" if forbidden(self.tail) or forbidden(head) else self.tail + head

    def add(self, text: str) -> None:
        """`text` leaves."""
        self.tail = (self.tail + text)[-self.WIDTH :]


@dataclass(slots=True)
class Altered:
    """A stretch of a channel that leaves as another text."""

    start: int
    end: int
    text: str


@dataclass(slots=True)
class Channel:
    """One text of a stream: what came, how far it is cleared, what was altered."""

    stage: Stage
    buffer: HoldingBuffer | None  # None: judged whole when it is complete
    editable: bool
    received: int = 0
    cleared: int = 0
    source: list[str] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)
    altered: list[Altered] = field(default_factory=list)
    closed: bool = False
    seam: Seam = field(default_factory=Seam)
    template: Any = None  # the last event that carried text of this channel
    _first: int = 0  # stretches before this one have left
    _arrivals: deque[tuple[int, float]] = field(default_factory=deque)  # (end of a part, when it came), not yet cleared

    def receive(self, text: str, now: float) -> int:
        """Take the next text, which came at `now`; return its offset."""
        start = self.received
        self.received += len(text)
        self.source.append(text)
        if text:
            self._arrivals.append((self.received, now))
        return start

    def waited(self, now: float) -> float:
        """How long the last cleared character has been held."""
        while self._arrivals and self._arrivals[0][0] < self.cleared:
            self._arrivals.popleft()
        return now - self._arrivals[0][1] if self._arrivals else 0.0

    def tail(self) -> tuple[str, ...]:
        """The end of what was delivered, as context for what follows."""
        text, size = [], 0
        for part in reversed(self.delivered):
            text.append(part)
            size += len(part)
            if size >= _CONTEXT_CHARS:
                break
        joined = "".join(reversed(text))[-_CONTEXT_CHARS:]
        return (joined,) if joined.strip() else ()

    def clear(self, run: str, text: str) -> None:
        """The next `len(run)` characters may leave, as `text`."""
        end = self.cleared + len(run)
        if text != run:
            self.altered.append(Altered(self.cleared, end, text))
        self.cleared = end
        self.delivered.append(text)

    def rendered(self, part: Any, until: int) -> str:
        """What leaves for `part`, up to offset `until`: an altered stretch leaves with the part in which it began."""
        out: list[str] = []
        at = part.start
        while self._first < len(self.altered) and self.altered[self._first].end <= at:
            self._first += 1
        for stretch in self.altered[self._first :]:
            if stretch.start >= until:
                break
            if stretch.start >= part.start:
                out += [part.text[at - part.start : stretch.start - part.start], stretch.text]
            at = min(stretch.end, until)
        out.append(part.text[at - part.start : until - part.start])
        return "".join(out)
