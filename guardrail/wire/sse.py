"""Server-sent events (WHATWG HTML, section 9.2), read incrementally and written.

The reader takes bytes cut anywhere: inside a character, between CR and LF, inside a field. It keeps each event's own
bytes, so that an event that nobody changed leaves exactly as it came.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any

from guardrail.errors import ModerationError

__all__ = ["KEEP_ALIVE", "MAX_EVENT_CHARS", "Frame", "SSEDecoder", "encode"]

KEEP_ALIVE = b":\n\n"
"""A comment, for a keep-alive of the upstream."""

MAX_EVENT_CHARS = 32_000_000
"""Longest single event in characters; an endless line would otherwise fill the memory."""

_NAME = re.compile(r"[\w.:/-]{1,100}", re.ASCII)
"""What an event may be called; words are a text that nobody judged."""

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as it came.

    `data` is None for a comment or a block without data (a keep-alive). `raw` is the event's own bytes, or None where it
    holds more than data and a name: comments and unknown fields are text that nobody judged, so they do not leave.
    """

    data: str | None
    name: str | None
    raw: bytes | None
    stray: bool = False  # a line is of no kind that event streams have
    blank: bool = False  # nothing but an empty line


class SSEDecoder:
    """Bytes to frames. One per stream; not thread-safe."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""
        self._scanned = 0
        self._lines: list[str] = []
        self._raw: list[str] = []
        self._first = True
        self._size = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes; return the frames that are complete.

        Raises:
            ModerationError: one event is longer than `MAX_EVENT_CHARS`.
        """
        return self._split(self._utf8.decode(data))

    def finish(self) -> list[Frame]:
        """End of the stream: an event that was not closed by an empty line is returned as it is."""
        frames = self._split(self._utf8.decode(b"", final=True), final=True)
        if self._text:
            self._take_line(self._text, self._text, frames)
            self._text = ""
        if self._raw:
            frames.append(self._frame())
        return frames

    def _split(self, text: str, *, final: bool = False) -> list[Frame]:
        if self._first and text:
            text, self._first = text.removeprefix("\ufeff"), False
        self._text += text
        frames: list[Frame] = []
        start = 0
        for match in _LINE_END.finditer(self._text, self._scanned):
            if match.group() == "\r" and match.end() == len(self._text) and not final:
                break  # a LF may follow in the next chunk
            self._take_line(self._text[start : match.start()], self._text[start : match.end()], frames)
            start = match.end()
        self._text = self._text[start:]
        self._scanned = max(len(self._text) - 1, 0)
        if self._size + len(self._text) > MAX_EVENT_CHARS:
            raise ModerationError(f"One event of the stream is longer than {MAX_EVENT_CHARS} characters.")
        return frames

    def _take_line(self, line: str, raw: str, frames: list[Frame]) -> None:
        self._raw.append(raw)
        self._size += len(raw)
        if line:
            self._lines.append(line)
        else:
            frames.append(self._frame())

    def _frame(self) -> Frame:
        data: list[str] = []
        name: str | None = None
        plain, stray = True, False
        for line in self._lines:
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "data":
                data.append(value)
            elif key == "event" and _NAME.fullmatch(value):
                name = value
            else:
                plain, stray = False, stray or key not in ("", "id", "retry", "event")
        raw = "".join(self._raw).encode() if plain and data else None
        frame = Frame("\n".join(data) if data else None, name, raw, stray, not self._lines)
        self._lines, self._raw, self._size = [], [], 0
        return frame


def encode(data: Any, name: str | None = None) -> bytes:
    """One event. `data` is a string as it is (`[DONE]`), anything else as JSON on one line."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    head = f"event: {name}\n" if name else ""
    # A lone surrogate (possible in JSON as an escape) has no UTF-8 form: fall back to escapes for this event.
    try:
        return f"{head}data: {text}\n\n".encode()
    except UnicodeEncodeError:
        return f"{head}data: {json.dumps(data)}\n\n".encode()
