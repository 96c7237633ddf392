"""Disguised spellings of single words: leetspeak, masks, stretched letters, aLtErNaTiNg case.

A spelling is read as a word only if that word is known (`guardrail.text.words`); digits in names, units, versions,
ordinals and code stay. Only stretched letters are shortened in unknown words too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from guardrail.text.lookalikes import EXACT
from guardrail.text.words import Vocabulary, plain

__all__ = ["LEET", "MASKS", "Piece", "Reading", "alternating", "leet", "masked", "read", "stretched"]

LEET: Mapping[str, str] = MappingProxyType(
    {"0": "o", "1": "il", "2": "z", "3": "e", "4": "a", "5": "s", "6": "gb", "7": "t", "8": "b", "9": "g"}
    | {"@": "a", "$": "s", "!": "il", "|": "il", "+": "t", "€": "e", "£": "l", "¢": "c", "¥": "y", "§": "s"}
)
"""Symbols to the letters that they may stand for."""

MASKS = "*#%^~&?=._-"
"""Characters that stand for a letter or are put between letters."""

Piece = tuple[int, int, str]
"""`token[start:end]` is read as the string, which is not longer."""

_MOST_READINGS = 64  # of one spelling
_LONGEST = 40  # runs of equal characters in the longest spelling that is looked up
_OFTEN = 3000  # rank below which a doubled last letter ("too", "off") is likelier than a single one
_OFTEN_MASKED = 60  # rank up to which two letters and stars are enough ("sh**")
_SHORT_MASKED = frozenset({"sex", "fag", "cum", "tit", "jew"})  # three letters that are read with one masked
_INITIAL_ONLY: Mapping[str, str] = MappingProxyType({"f***": "fuck", "s***": "shit", "b****": "bitch", "c***": "cunt"})
_NOT_DISGUISED = frozenset({"latex", "bibtex"})  # written in alternating case
_VOWELS = frozenset("aeiouyаеёиоуыэюяіїєαεηιουω")
_ROMAN = re.compile(r"m{0,4}(?:cm|cd|d?c{0,4})(?:xc|xl|l?x{0,4})(?:ix|iv|v?i{0,4})\Z")
_ALTERNATING = re.compile(r"(?:[a-z][A-Z]){2,}[a-z]?\Z|(?:[A-Z][a-z]){2,}[A-Z]\Z|(?:[A-Z][a-z]){3,}\Z")
_UNIT = re.compile(r"\d{2,}[^\W\d_]+\Z|\d(?:st|nd|rd|th)\Z", re.IGNORECASE)  # 80mb, 11am, 5th
_INNER_SYMBOLS = frozenset("0123456789!@$")  # read within words of four letters; others from five on
_NUMBERED = re.compile(r"\d+[^\W\d_]+\Z|[^\W\d_]+\d+\Z|[A-Za-z]\d{1,2}[A-Za-z]\Z")  # 11am, area51, i18n, a11y
_CASED = re.compile(r"[^a-z]*\Z|[^A-Z]*\Z|[A-Z][^A-Z]*\Z")  # capitals, small letters, or one capital first
_ALPHABETIC = re.compile("[A-Za-z\u00c0-\u024f\u0370-\u052f\u1e00-\u1fff]+\\Z")  # Latin, Greek, Cyrillic
_MASK_RUN = re.compile(f"[{re.escape(MASKS)}]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """A known word and how a spelling gives it."""

    word: str  # lower case
    pieces: tuple[Piece, ...]
    sensitive: bool

    @property
    def text(self) -> str:
        """The word with the capitals of the spelling."""
        return "".join(piece[2] for piece in self.pieces)


def read(token: str, vocabulary: Vocabulary) -> Reading | None:
    """The likeliest known word that a spelling with symbols, stretched letters or a "v" for "u" stands for.

    Sensitive words come first. None if it stands for none, or would only by reading a common word's "v" as "u".
    """
    units = _units(token)
    if units is None:
        return None
    best: tuple[tuple[bool, int], str, tuple[str, ...]] | None = None
    for options in itertools.islice(itertools.product(*(unit[2] for unit in units)), _MOST_READINGS):
        key = plain("".join(options))
        if (rank := vocabulary.sensitive.get(key)) is not None:
            score = (False, rank)
        elif (rank := vocabulary.common.get(key)) is not None and not _u_for_v(units, options):
            doubled = units[-1][1] - units[-1][0] > 2 and len(options[-1]) == 2 and rank < _OFTEN
            score = (True, -1 if doubled else rank)
        else:
            continue
        if best is None or score < best[0]:
            best = score, key, options
    if best is None:
        return None
    letters = [char for char in token if char.isalpha()]
    upper = len(letters) > 1 and all(char.isupper() for char in letters)
    pieces = tuple(
        (start, end, _in_case(token[start:end], option, upper))
        for (start, end, _), option in zip(units, best[2], strict=True)
    )
    return Reading(best[1], pieces, not best[0][0])


_Unit = tuple[int, int, tuple[str, ...]]


def _units(token: str) -> list[_Unit] | None:
    """The runs of equal characters and what each may stand for; None if it cannot be a spelling."""
    units: list[_Unit] = []
    start = 0
    for char, run in itertools.groupby(token, _lower):
        length = sum(1 for _ in run)
        letters = LEET.get(char) or (char if char.isalpha() else "")
        if not letters or len(units) == _LONGEST:
            return None
        if char == "v" and length == 1:
            letters = "vu"
        units.append((start, start + length, tuple(_options(letters, length))))
        start += length
    return units


def _options(letters: str, length: int) -> Iterator[str]:
    """What a run of equal characters may stand for: as many letters, or one or two for three and more."""
    if length > 2:
        yield from (letter * count for letter in letters for count in (1, 2))
    if length < 3 or (len(letters) > 1 and length == 3):
        yield from map("".join, itertools.product(letters, repeat=length))


def _lower(char: str) -> str:
    lower = char.lower()
    return lower if len(lower) == 1 else char


def _u_for_v(units: list[_Unit], options: tuple[str, ...]) -> bool:
    return any(option == "u" and "v" in unit[2] for unit, option in zip(units, options, strict=True))


def _in_case(run: str, option: str, upper: bool) -> str:
    """The option as the spelling would have it: its own letters where it has them."""
    if _lower(run[0]) == option[0]:
        return run[: len(option)]
    return option.upper() if upper or (run[0].isalpha() and run[0].isupper()) else option


def leet(token: str, vocabulary: Vocabulary, *, code: bool) -> Reading | None:
    """Read a token that mixes letters and symbols; with `code`, as a sensitive word or not at all."""
    letters = sum(map(str.isalpha, token))
    symbols = [char for char in token if char in LEET]
    if not letters or not symbols or _UNIT.match(token):
        return None
    reading = read(token, vocabulary)
    if reading is None:
        return None
    if reading.sensitive:
        return reading if _meant(token, len(reading.word), letters, symbols, code) else None
    return reading if not code and _likely(token, len(reading.word), letters, symbols) else None


def _meant(token: str, size: int, letters: int, symbols: list[str], code: bool) -> bool:
    """Whether a token that reads as a sensitive word is likelier that word than a number, a unit or a code."""
    one_symbol = len(set(symbols)) == 1
    if size <= 3:
        cased = token.islower() or not all(map(str.isdigit, symbols))
        return size == 3 and cased and (one_symbol or len(symbols) < 2)
    if letters == 1:
        return size > 4 and token.islower() and not code  # "1d107", not "H311"
    return size > 4 or one_symbol or len(symbols) <= letters


def _likely(token: str, size: int, letters: int, symbols: list[str]) -> bool:
    """Whether a token that reads as a common word is likelier a disguise than a name, a unit or a code."""
    if letters < 2 or _NUMBERED.match(token) or not _CASED.match(token):
        return False
    if size < (5 if token.isupper() or not _INNER_SYMBOLS.issuperset(symbols) else 4):
        return False
    if len(symbols) > letters and (size < 5 or len(symbols) > letters + 2):
        return False
    inside = any(char in LEET for char in token[1:-1])
    edges = (token[0] in LEET) + (token[-1] in LEET)
    if edges == 0 or (edges == 1 and inside):
        return True
    marked = any(not char.isdigit() for char in (token[0], token[-1]) if char in LEET)
    return size >= 6 if edges == 2 else marked and size >= 5


def stretched(token: str, vocabulary: Vocabulary, *, code: bool) -> tuple[Piece, ...] | None:
    """Shorten letters repeated three times or more, to the known word if there is one, else to one letter each."""
    lower = "".join(map(_lower, token))
    if len(set(lower)) == 1 or _ROMAN.match(lower) or not token.isalpha():
        return None
    reading = read(token, vocabulary)
    if reading is not None and (reading.sensitive or not (code or _abbreviation(token, lower))):
        return reading.pieces if len(reading.text) < len(token) else None
    if code or reading is not None or not _ALPHABETIC.match(token):
        return None
    runs = [(char, sum(1 for _ in run)) for char, run in itertools.groupby(token)]
    if len(runs) > _LONGEST or not _VOWELS.intersection(plain(lower)) or _genuine(token, runs):
        return None
    pieces: list[Piece] = []
    start = 0
    for _, length in runs:
        kept = length if length < 3 else 1
        pieces.append((start, start + length, token[start : start + kept]))
        start += length
    return tuple(pieces)


def _abbreviation(token: str, lower: str) -> bool:
    """Whether a short word in capitals with three equal consonants, or a numeral with a letter, is no word ("UPPP")."""
    if not token.isupper() or len(token) > 5:
        return False
    triple = next(char for char, run in itertools.groupby(lower) if sum(1 for _ in run) > 2)
    return _ROMAN.match(lower[:-1]) is not None or (triple * 4 not in lower and triple not in "aeiouyh")


def _genuine(token: str, runs: list[tuple[str, int]]) -> bool:
    """Whether three equal letters may be meant: an acronym, a code, or the joint of a compound ("Schifffahrt")."""
    if len(set(token.lower())) == 2 and token.isupper():
        return True
    if max(length for _, length in runs) > 3:
        return False
    if token.isupper():
        return True
    start = 0
    for _, length in runs:
        if length == 3 and start >= 3 and len(token) - start - 3 >= 3:
            return True
        start += length
    return False


def alternating(token: str, vocabulary: Vocabulary) -> str | None:
    """The lower-case word, if the token is a known word in alternating case."""
    if len(token) < 4 or _ALTERNATING.match(token) is None:
        return None
    lower = token.lower()
    return lower if vocabulary.knows(lower) and lower not in _NOT_DISGUISED else None


def masked(token: str, vocabulary: Vocabulary, *, code: bool = False) -> tuple[Piece, ...] | None:
    """Read a sensitive word with masks for letters ("f*ck", "sh-t") or between letters ("id-iot")."""
    if token.lower() in _INITIAL_ONLY:
        word = _INITIAL_ONLY[token.lower()]
        return tuple((at, at + 1, char if at else token[0]) for at, char in enumerate(word))
    masks = list(_MASK_RUN.finditer(token))
    hidden = sum(len(mask.group()) for mask in masks)
    if len(token) > _LONGEST or any(len(mask.group()) > 6 for mask in masks):
        return None
    parts = _MASK_RUN.split(token)
    spelt = len(parts) > 3 and all(len(part) == 1 for part in parts)  # letter by letter
    if any(part.isdigit() for part in parts) and not spelt:
        return None
    if not any("*" in mask.group() for mask in masks) and all(vocabulary.knows(part.lower()) for part in parts):
        return None
    common = spelt and (set(token) & set(MASKS) == {"*"} or not token.isupper())
    if code and any(char in LEET for char in token):
        return None
    inserted = _without(token, vocabulary, common) if hidden <= 3 or len(masks) > 2 else None
    if inserted is not None:
        return inserted
    visible = len(token) - hidden
    stars = token.count("*") == hidden
    whole = token[-1] not in MASKS
    if stars and not whole:
        stem = token.rstrip("*").lower()
        readable = hidden > 1 or (visible > 2 and not vocabulary.knows(stem))
    else:
        readable = stars or (visible > 2 and whole and hidden == 1)
    if visible < 2 or not readable:
        return None
    return _filled(token, vocabulary, stars)


def _without(token: str, vocabulary: Vocabulary, common: bool) -> tuple[Piece, ...] | None:
    """The reading with all masks dropped, as a sensitive word or, if `common`, any word."""
    if token[-1] in MASKS:
        return None
    places = [at for at, char in enumerate(token) if char not in MASKS]
    letters = (EXACT.get(token[at], token[at]) if common else token[at] for at in places)
    reading = read("".join(letters), vocabulary)
    if reading is None or not (reading.sensitive or common) or len(reading.word) < 4:
        return None
    bounds = [*places, len(token)]
    pieces = [(0, places[0], "")] if places[0] else []
    return (*pieces, *((bounds[start], bounds[end], string) for start, end, string in reading.pieces))


def _filled(token: str, vocabulary: Vocabulary, stars: bool) -> tuple[Piece, ...] | None:
    """The reading with every mask for one letter; a mask other than "*" must be for a vowel."""
    pattern = "".join(_class(char, stars) for char in token.lower())
    last = "" if token[-1] in MASKS else token[-1].lower()
    for first in _letters(token[0].lower()):
        for final in _letters(last) or ("",):
            for word in vocabulary.shaped(first, final, len(token)):
                often = final or len(token) - token.count("*") > 2 or vocabulary.sensitive[word] < _OFTEN_MASKED
                if often and (len(word) > 3 or word in _SHORT_MASKED) and re.fullmatch(pattern, word):
                    upper = token.isupper() and sum(map(str.isalpha, token)) > 1
                    return tuple(
                        (at, at + 1, token[at] if token[at].lower() == char else char.upper() if upper else char)
                        for at, char in enumerate(word)
                    )
    return None


def _letters(char: str) -> str:
    return LEET.get(char) or char


def _class(char: str, stars: bool) -> str:
    if char in MASKS:
        return "." if stars else "[aeiou]"
    return "[uv]" if char == "v" else f"[{_letters(char)}]"
