"""Where disguised words may stand in a text, and where code, addresses and file names keep their spelling."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from guardrail.text.edits import Edit
from guardrail.text.segment import fenced_code
from guardrail.text.spelling import LEET, MASKS, Piece, alternating, leet, masked, read, stretched
from guardrail.text.suspicion import chunks
from guardrail.text.words import Vocabulary
from guardrail.types import Span

__all__ = ["Respeller"]

_SYMBOLS = re.escape("".join(LEET))
_MASK = re.escape(MASKS)
_TOKEN = re.compile(rf"(?<![\w{_SYMBOLS}*])(?:[^\W_]|[{_SYMBOLS}])+(?:[{_MASK}]{{1,6}}(?:[^\W_]|[{_SYMBOLS}])+)*\**")
_PART = re.compile(rf"(?:[^\W_]|[{_SYMBOLS}])+")
_INNER = re.escape("".join(symbol for symbol in LEET if symbol not in "!|+"))  # not punctuation after a word
_SUSPECT = re.compile(
    rf"[^\W\d_](?:[{_INNER}]|[!|+][^\W_])|[{_SYMBOLS}][^\W\d_]|[{_MASK}]|([^\W\d_])\1\1"
    r"|[bcdfgkmnpst]v[bcdfgkmnpst]|(?-i:[a-z][A-Z][a-z][A-Z]|[A-Z][a-z][A-Z][a-z][A-Z])",
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"://|\bwww\.|[\w.+-]+@[\w-]+\.\w|[\w-]\.(?:com|org|net|edu|gov|mil|int|info|io|ai|dev|app|co|me|tv|uk|de|fr|eu|ru|"
    r"cn|jp|kr|html?|php|aspx?|jpe?g|png|gif|svg|pdf|docx?|xlsx?|csv|json|xml|ya?ml|txt|md|py|js|ts|c|h|cpp|java|exe|zip"
    r")\b",
    re.IGNORECASE,
)
_CODE = re.compile(r"[_=<>{}\\`]|::|\(\)|->|\b0x|#[0-9a-fA-F]{3,8}\b|/[^/\s]*/|\b[0-9a-f]{4,}-[0-9a-f]{4}")
_ALTERNATING = re.compile("[a-z][A-Z][a-z][A-Z]|[A-Z][a-z][A-Z][a-z][A-Z]")
_ALTERNATING_WORD = re.compile(r"(?<![^\W_])[A-Za-z]{4,}(?![^\W_])")
_SWING = re.compile("(?:[a-z][A-Z])+[a-z]?\\Z|(?:[A-Z][a-z])+[A-Z]\\Z|(?:[A-Z][a-z]){2,}\\Z")
_LINK = re.compile("[^-_.]+")  # what hyphens and the like join, where the rest has stronger masks
_LINKED = re.compile("[^-_.]+(?:[-_.][^-_.]+)+")
_SPACE = re.compile(r"\s")
_INLINE_CODE = re.compile(r"`[^`\n]+`")
_REACH = 120  # characters on either side that are looked at for an address


class Respeller:
    """Finds disguised words. Made anew for each text: it remembers what it has read.

    Args:
        vocabulary: the words that spellings are read as.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._read: dict[tuple[str, bool, bool], tuple[Piece, ...]] = {}

    def edits(self, text: str) -> Iterator[Edit]:
        """Put plain spellings for disguised ones. In addresses nothing is read, in code only sensitive words."""
        quiet = _Quiet(text)
        swinging = self._swinging(text)
        for token in _TOKEN.finditer(text) if swinging else _tokens(text):
            spelling = token.group()
            if swinging and _SWING.match(spelling) and self._vocabulary.knows(spelling.lower()):
                yield token.start(), token.end(), spelling.lower(), range(*token.span())
                continue
            if _SUSPECT.search(spelling) is None:
                continue
            bold = spelling[-1] == "*" and "*" in text[max(0, token.start() - _REACH) : token.start()]
            pieces = self._pieces(spelling, bold, code=False)
            if pieces:
                address, code = quiet.at(token.start(), token.end())
                yield from _edits(token.start(), self._pieces(spelling, bold, code=code) if not address else ())

    def _swinging(self, text: str) -> bool:
        """Whether a word in aLtErNaTiNg case stands in the text, so that shorter ones are not names either."""
        if _ALTERNATING.search(text) is None:
            return False
        return any(alternating(word.group(), self._vocabulary) for word in _ALTERNATING_WORD.finditer(text))

    def _pieces(self, spelling: str, bold: bool, *, code: bool) -> tuple[Piece, ...]:
        key = (spelling, bold, code)
        if key not in self._read:
            self._read[key] = tuple(_pieces(spelling, self._vocabulary, bold, code))
        return self._read[key]


def _pieces(spelling: str, vocabulary: Vocabulary, bold: bool, code: bool) -> Iterator[Piece]:
    """Read a token whole, then between its weaker masks, then between all its masks."""
    if any(mask in spelling for mask in MASKS):
        reading = None if bold else masked(spelling.rstrip("!|+"), vocabulary, code=code)
        if reading is not None:
            yield from reading
            return
        links = _LINKED.fullmatch(spelling)
        if links is not None:
            for link in _LINK.finditer(spelling):
                for start, end, string in _pieces(link.group(), vocabulary, bold, code):
                    yield link.start() + start, link.start() + end, string
            return
    for part in _PART.finditer(spelling):
        if _SUSPECT.search(part.group()) is not None:
            for start, end, string in _part(part.group(), vocabulary, code) or ():
                yield part.start() + start, part.start() + end, string


def _part(part: str, vocabulary: Vocabulary, code: bool) -> tuple[Piece, ...] | None:
    """Read a token without masks."""
    word = part.rstrip("!|+")
    if word.isalpha():
        return _letters(word, vocabulary, code)
    reading = leet(word, vocabulary, code=code)
    if reading is not None:
        return reading.pieces
    core = word.strip("!|+$@")
    if core != word and core.isalpha() and not word.startswith("@"):
        shift = word.index(core)
        return tuple(
            (shift + start, shift + end, string) for start, end, string in _letters(core, vocabulary, code) or ()
        )
    return None


def _letters(word: str, vocabulary: Vocabulary, code: bool) -> tuple[Piece, ...] | None:
    if re.search(r"(.)\1\1", word, re.IGNORECASE):
        return stretched(word, vocabulary, code=code)
    lower = alternating(word, vocabulary)
    if lower is not None:
        return None if code else ((0, len(word), lower),)
    reading = read(word, vocabulary) if "v" in word.lower() else None
    return reading.pieces if reading is not None and reading.sensitive and len(word) > 3 else None


def _edits(shift: int, pieces: Iterable[Piece]) -> Iterator[Edit]:
    for start, end, string in pieces:
        origins = [shift + start + at for at in range(len(string))]
        yield shift + start, shift + end, string, origins


def _tokens(text: str) -> Iterator[re.Match[str]]:
    for start, end in chunks(text):
        yield from _TOKEN.finditer(text, start, end)


class _Quiet:
    """Answers whether a place is in an address or in code. Looks for code spans only once it is asked."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._spans: list[Span] | None = None

    def at(self, start: int, end: int) -> tuple[bool, bool]:
        """(within an address or file name, within code)."""
        text = self._text
        far = max(0, start - _REACH)
        left = max(far, *(text.rfind(space, far, start) + 1 for space in " \n\t"))
        reach = min(end, start + _REACH) + _REACH
        right = _SPACE.search(text, min(end, reach), reach)
        chunk = text[left : right.start() if right else reach]
        return _ADDRESS.search(chunk) is not None, _CODE.search(chunk) is not None or self._in_code(start)

    def _in_code(self, at: int) -> bool:
        if self._spans is None:
            spans = fenced_code(self._text)
            spans += [found.span() for found in _INLINE_CODE.finditer(self._text)] if "`" in self._text else []
            self._spans = sorted(spans)
        index = bisect_right(self._spans, (at, len(self._text) + 1)) - 1
        return index >= 0 and at < self._spans[index][1]
