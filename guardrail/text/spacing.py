"""Words spelt with something between their letters: "i d i o t", "i.d.i.o.t", "y o u  i d i o t"."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from guardrail.text.edits import Edit
from guardrail.text.lookalikes import EXACT
from guardrail.text.spelling import LEET, masked, read
from guardrail.text.words import Vocabulary

__all__ = ["spaced"]

_SYMBOLS = re.escape("".join(symbol for symbol in LEET if symbol not in "!|+"))
_ONE = rf"(?:[^\W_]|[{_SYMBOLS}!|*])"
_GAP = rf"(?:[^\w{_SYMBOLS}!|*]|_){{1,3}}"
_REGION = re.compile(rf"(?<![\w'’{_SYMBOLS}]){_ONE}(?:{_GAP}{_ONE}){{2,}}(?![^\W_]|['’][^\W_])")
_LISTED = re.compile(r",?\s+(?:and|or|&)\s")  # after letters that are listed, not spelt
_MEMBER = re.compile(rf"({_ONE})({_GAP}|\Z)")
_ALONE = frozenset("aAiIuU")
_ASCII_LETTER = re.compile("[A-Za-z]")


@dataclass(frozen=True, slots=True)
class _Group:
    """Single letters with the same separator between them."""

    letters: str
    places: tuple[int, ...]  # of the letters in the text
    separator: str


def spaced(text: str, vocabulary: Vocabulary, *, eager: bool = False) -> Iterator[Edit]:
    """Edits that close the gaps of words that are spelt letter by letter.

    Joined are: sensitive words of three letters or more; other known words of four or more (acronyms in capitals only
    if white space stands between the letters); longer runs that fall into known words; and beside any of these, shorter
    known words of the same spelling. `eager` joins every run of four or more letters, known or not (for patterns).
    """
    for region in _REGION.finditer(text):
        if "," in region.group() and _LISTED.match(text, region.end()):
            continue
        groups = _groups(region)
        readings = [_joined(group, vocabulary) for group in groups]
        spelt = any(reading is not None for reading in readings)
        before: _Group | None = None
        for group, certain in zip(groups, readings, strict=True):
            reading = certain
            if reading is None and (_beside(group, spelt, vocabulary) or (eager and _eager(group))):
                reading = (len(group.letters),)
            if before is not None and reading is not None:
                yield from _narrowed(text, before, group)
            if reading is not None:
                yield from _closed(group, reading)
            before = group if reading is not None else None


def _beside(group: _Group, spelt: bool, vocabulary: Vocabulary) -> bool:
    return spelt and (vocabulary.knows(group.letters.lower()) or group.letters in ("a", "I"))


def _eager(group: _Group) -> bool:
    return len(group.letters) >= 4 and group.letters.isalpha()


def _narrowed(text: str, left: _Group, right: _Group) -> Iterator[Edit]:
    """Between two spelt words, the wider gap becomes one space."""
    start, end = left.places[-1] + 1, right.places[0]
    gap = text[start:end]
    if gap != " " and "\n" not in gap and (gap.isspace() or not gap.strip(left.separator)):
        yield start, end, " ", [start]


def _groups(region: re.Match[str]) -> list[_Group]:
    """Split where the separator is not the usual one of the region."""
    members = list(_MEMBER.finditer(region.group()))
    usual = Counter(member.group(2) for member in members[:-1]).most_common(1)[0][0]
    groups: list[_Group] = []
    letters: list[str] = []
    places: list[int] = []
    for member in members:
        letters.append(member.group(1))
        places.append(region.start() + member.start())
        if member.group(2) != usual:
            groups.append(_Group("".join(letters), tuple(places), usual))
            letters, places = [], []
    return groups


def _joined(group: _Group, vocabulary: Vocabulary) -> Sequence[int] | None:
    """The lengths of the words that the letters make, or None if they make none for certain.

    A single "a", "i" or "u" at either end may be a word of its own ("a i d i o t").
    """
    letters = "".join(EXACT.get(char, char) for char in group.letters)
    if not _ASCII_LETTER.search(group.letters) and not (letters.isascii() and letters.lower() in vocabulary.sensitive):
        letters = group.letters
    size = len(letters)
    for skipped, dropped in ((0, 0), (1, 0), (0, 1), (1, 1)):
        apart = letters[:skipped] + letters[size - dropped :]
        if size - len(apart) < 3 or not _ALONE.issuperset(apart):
            continue
        middle = _word(letters[skipped : size - dropped], group.separator, vocabulary)
        if middle:
            return (1,) * skipped + (size - len(apart),) + (1,) * dropped
    plain = letters.isascii() and letters.isalpha() and "\n" not in group.separator
    if size < 5 or not plain or (letters.isupper() and not group.separator.isspace()):
        return None
    return _words(letters.lower(), vocabulary)


def _word(letters: str, separator: str, vocabulary: Vocabulary) -> bool:
    """Whether the letters are the spelling of one word that is meant for certain."""
    size = len(letters)
    if len(set(letters.lower())) < 2 or 5 * sum(map(str.isalpha, letters)) < 2 * size:
        return False
    reading = read(letters, vocabulary)
    if reading is not None and reading.sensitive:
        return True
    if size < 4 or "\n" in separator:
        return False
    if "*" in letters:
        return masked(letters, vocabulary) is not None
    return reading is not None and (separator.isspace() or not letters.isupper())


def _words(letters: str, vocabulary: Vocabulary) -> Sequence[int] | None:
    """The lengths of the words that a run of letters falls into, if most of it does."""
    if len(set(letters)) < 4:
        return None
    words = vocabulary.split(letters)
    known = [word for word, is_known in words if is_known]
    covered = sum(map(len, known))
    sensitive = any(len(word) > 3 and word in vocabulary.sensitive for word in known)
    if covered >= (0.6 if sensitive else 0.9) * len(letters) and (sensitive or covered >= 2.5 * len(known) + 1):
        return [len(word) for word, _ in words]
    return None


def _closed(group: _Group, lengths: Sequence[int]) -> Iterator[Edit]:
    """Edits that drop the separators within words and keep a space between words."""
    ends = set()
    at = 0
    for length in lengths:
        at += length
        ends.add(at)
    for index, (place, following) in enumerate(zip(group.places, group.places[1:], strict=False), 1):
        kept = " " if index in ends else ""
        if following - place - 1 != len(kept) or kept != group.separator[: len(kept)]:
            yield place + 1, following, kept, [place + 1] * len(kept)
