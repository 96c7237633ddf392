"""The scanner behind `guardrail.text.segment`: where sentences end, and when that is certain.

Every decision depends on the sentence so far and at most one character beyond `max_chars`; until those characters are
there the scanner answers "not certain yet". That makes the sentences of a stream independent of how it was cut.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from guardrail.text.abbreviations import MAYBE, NUMBERED, STARTERS, TITLES

__all__ = ["Scanner", "cut"]

_UNSPACED = "。！？｡︒"  # end a sentence without white space after them
_WIDE = _UNSPACED + "؟۔।॥։።៕᠃᠉⸮‽⁇⁈⁉"
_CLOSERS = "\"'”’»›)]}」』）】〉》〕］｝〗〙*_~`"
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029"
_STOP = re.compile(f"([.!?…{_WIDE}]+)([{re.escape(_CLOSERS)}]*)|[{_LINE_ENDS}]\\s*")
_SPACE = re.compile(r"\s*")
_LINE_END = re.compile(f"\r\n|[{_LINE_ENDS}]")
_ABBREVIATION = re.compile(r"[^\W_](?:[^\W_]|[.'’])*\Z")
_ABBREVIATION_REACH = 16
_DOTTED = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]\Z")
_ENUMERATOR = re.compile(r"\s*[(\[]?(?:\d{1,3}|[^\W\d_]|[ivxlc]{1,5})\Z")
_NEXT_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_STARTER_REACH = 12  # the longest sentence starter and the character that shows where it ends
_WRAPPED = 50  # a line at least this long that goes on with a small letter was wrapped by a mailer
_FENCE = re.compile(r"`{3,}|~{3,}")
_SOFT_CUTS = (re.compile(r"\s(?=\S)|\s\Z"), re.compile("[，、；：,;:。！？)）」]"))

_NEVER_FIRST = f".!?…{_WIDE}{_CLOSERS}，、,;:；"  # a sentence does not begin with these


class Scanner:
    """Finds sentence ends. Keeps what later decisions need of sentences that are no longer in the buffer.

    Args:
        max_chars: the longest sentence, in code points.

    Raises:
        ValueError: `max_chars` is below 1.
    """

    def __init__(self, max_chars: int) -> None:
        if max_chars < 1:
            raise ValueError(f"max_chars must be at least 1, not {max_chars}")
        self._max = max_chars
        self._looked = 0  # no undecided stop lies before this offset in the current sentence
        self._column = 0  # where in its line the current sentence begins
        self._fresh = True  # only white space stands before it in its line
        self._fence = ""  # the opening marker, while the sentence begins inside a code block that had to be cut

    def ends(self, text: str) -> Iterator[int]:
        """Yield the end of each sentence of `text` that is certain. `text` begins where the last one ended."""
        start = 0
        while (end := self._end(text, start)) is not None:
            self._leave(text, start, end)
            yield end
            start = end

    def _leave(self, text: str, start: int, end: int) -> None:
        self._looked = 0
        lines = text[start:end].splitlines(keepends=True)  # the line ends of str.splitlines are those of _LINE_ENDS
        last = "" if lines[-1][-1] in _LINE_ENDS else lines[-1]
        if len(lines) == 1 and last:
            self._column, self._fresh = self._column + len(last), self._fresh and last.isspace()
        else:
            self._column, self._fresh = len(last), not last or last.isspace()

    def _end(self, text: str, start: int) -> int | None:
        limit = start + self._max
        if self._looked == 0:
            fenced = self._fenced(text, start, limit)
            if fenced != 0:
                return fenced
        at = start + self._looked
        while (stop := _STOP.search(text, at, limit + 1)) is not None:
            end = self._boundary(text, start, stop, limit)
            if end is None:
                self._looked = stop.start() - start
                return None
            if end:
                return end
            at = stop.end()
        if len(text) > limit:
            return cut(text, start, limit)
        self._looked = len(text) - start
        return None

    def _boundary(self, text: str, start: int, stop: re.Match[str], limit: int) -> int | None:
        """The end of the sentence if it ends at this stop, 0 if it goes on, None if that cannot be told yet."""
        after = stop.end()
        end = _space_end(text, after, limit)
        if end > limit:
            return 0
        if end == len(text):
            return None
        if stop.group(1) is None:
            blank = _space_end(text, start, limit) >= stop.start()
            return 0 if blank or self._wrapped(text, start, stop.start(), end) else end
        if end == after:
            return end if _ends_unspaced(stop, text[end]) else 0
        if len(_LINE_END.findall(text, after, end)) > 1:
            return end
        if stop.group(1) != ".":
            return 0 if _goes_on(stop, text[end]) else end
        if self._fresh and stop.start() - start < 64 and _ENUMERATOR.match(text, start, stop.start()):
            return 0
        return _after_period(text, start, stop, end, limit)

    def _wrapped(self, text: str, start: int, at: int, end: int) -> bool:
        """Whether the line break at `at` lies within a hard-wrapped sentence that goes on at `end`."""
        if not text[end].islower() or len(_LINE_END.findall(text, at, end)) > 1:
            return False
        line = text[start:at].splitlines()[-1]
        return len(line) + (self._column if len(line) == at - start else 0) >= _WRAPPED

    def _fenced(self, text: str, start: int, limit: int) -> int | None:
        """End of the code block that begins here, 0 if none does, None if that cannot be told yet."""
        if self._fence:
            return self._fence_end(text, start, start, limit, self._fence)
        first = _space_end(text, start, limit)
        if first > limit:
            return 0
        if first == len(text):
            return None
        if not (self._fresh or _LINE_END.search(text, start, first)):
            return 0
        marker = _FENCE.match(text, first, limit + 1)
        if marker is None:
            return None if len(text) <= limit and text[first:] in ("`", "``", "~", "~~") else 0
        line = text.find("\n", first, limit + 1)
        if marker.group()[0] == "`" and "`" in text[marker.end() : line if line >= 0 else limit + 1]:
            return 0
        if line < 0:
            return None if len(text) <= limit else 0
        return self._fence_end(text, start, line, limit, marker.group())

    def _fence_end(self, text: str, start: int, at: int, limit: int, marker: str) -> int | None:
        """Where the block opened by `marker` ends, looking from `at`; a block over the limit is cut at a line."""
        line_start = r"(?:^|\n)" if at == start and self._fresh else r"\n"
        closing = re.compile(rf"{line_start}[ \t]*{marker[0]}{{{len(marker)},}}[ \t\r]*\n")
        closed = closing.search(text[at : limit + 1])
        end = _space_end(text, at + closed.end(), limit) if closed else limit + 1
        if end <= limit:
            if end == len(text):
                return None
            self._fence = ""
            return end
        if len(text) <= limit:
            return None
        self._fence = "" if closed else marker
        return cut(text, start, limit, lines=True)


def cut(text: str, start: int, limit: int, *, lines: bool = False) -> int:
    """Where to cut a sentence that is too long: in (start, limit], after a word (or line) if there is one.

    Falls back to a comma, then to any character, but not within a grapheme if 32 characters are enough to avoid it.
    """
    low = start + (limit - start) // 2
    if lines and (line := text.rfind("\n", low, limit)) >= 0:
        return line + 1
    for soft in _SOFT_CUTS:
        ends = [found.end() for found in soft.finditer(text, low, limit)]
        if ends:
            return ends[-1]
    at = limit
    while at > max(start + 1, limit - 32) and at < len(text) and _joined(text[at - 1], text[at]):
        at -= 1
    return at


def _joined(left: str, right: str) -> bool:
    """Whether a cut between the two characters would break a grapheme (UAX 29, approximately)."""
    if left == "\u200d" or right in "\u200d\u200c\ufe0e\ufe0f" or "\U0001f3fb" <= right <= "\U0001f3ff":
        return True
    return unicodedata.category(right)[0] == "M" or (left, right) == ("\r", "\n")


def _space_end(text: str, at: int, limit: int) -> int:
    """End of the white space from `at` on, looking no further than one character beyond `limit`."""
    found = _SPACE.match(text, at, limit + 1)
    return found.end() if found else at


def _ends_unspaced(stop: re.Match[str], follower: str) -> bool:
    """Whether a sentence ends at a stop that no white space follows."""
    stops, closers = stop.group(1), stop.group(2)
    if follower in _NEVER_FIRST:
        return False
    if any(mark in _UNSPACED for mark in stops):
        return not (closers and follower in "とっ")  # Japanese: the quotation is part of the sentence
    return stops[-1] in "!?" and "\u3040" <= follower <= "\u9fff"


def _goes_on(stop: re.Match[str], follower: str) -> bool:
    """Whether a sentence goes on after a stop other than a single period, white space and `follower`."""
    if not follower.islower():
        return False
    return bool(stop.group(2)) or stop.group(1).strip(".") == "" or stop.group(1)[-1] == "…"


def _after_period(text: str, start: int, stop: re.Match[str], end: int, limit: int) -> int | None:
    """Decide a single period followed by white space: abbreviation, initial, or the end."""
    follower = text[end]
    if stop.group(2):
        return 0 if follower.islower() else end
    word = _ABBREVIATION.search(text[max(start, stop.start() - _ABBREVIATION_REACH) : stop.start()])
    if word is None:
        return end
    bare = word.group().lower()
    if bare in TITLES or (bare in NUMBERED and follower.isdigit()):
        return 0
    initial = _DOTTED.match(word.group()) is not None and word.group() not in ("I", "i")
    if bare not in MAYBE and not initial:
        return end
    if follower.islower() or follower.isdigit():
        return 0
    reach = min(end + _STARTER_REACH, limit + 1)
    following = _NEXT_WORD.match(text, end, reach)
    if following is None:
        return end
    if following.end() == len(text) and len(text) < reach:
        return None
    return end if following.group().lower().replace("’", "'") in STARTERS else 0
