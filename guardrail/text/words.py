"""The words that disguised spellings are read as, and how a run of letters without spaces falls into words."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files

__all__ = ["Vocabulary", "load", "plain"]

_LONGEST = 20  # letters of the longest word that a run without spaces is split into
_SINGLES = frozenset("aiur")  # letters that are words by themselves ("u" and "r" in chats)


class Vocabulary:
    """Words by rank: `sensitive` ones, which people disguise, and `common` ones.

    Args:
        common: word to rank, 0 for the most frequent; lower case.
        sensitive: word to rank, 0 for the most often disguised; lower case, without accents.
    """

    __slots__ = ("_shapes", "common", "sensitive")

    def __init__(self, common: Mapping[str, int], sensitive: Mapping[str, int]) -> None:
        self.common = common
        self.sensitive = sensitive
        self._shapes: defaultdict[tuple[str, str, int], list[str]] = defaultdict(list)
        for word in sensitive:
            if len(word) <= _LONGEST:
                self._shapes[word[0], word[-1], len(word)].append(word)
                self._shapes[word[0], "", len(word)].append(word)

    def extended(self, words: Iterable[str]) -> Vocabulary:
        """A vocabulary in which `words` (lower case, without accents) are sensitive too, after the listed ones."""
        sensitive = dict(self.sensitive)
        for word in words:
            if len(word) > 1:
                sensitive.setdefault(word, len(sensitive))
        return Vocabulary(self.common, sensitive)

    def knows(self, word: str) -> bool:
        """Whether it is a word at all. Lower case."""
        return word in self.common or word in self.sensitive

    def shaped(self, first: str, last: str, length: int) -> Sequence[str]:
        """The sensitive words of a length that begin and end with these letters (any end if `last` is ""), by rank."""
        return self._shapes.get((first, last, length), ())

    def split(self, letters: str) -> list[tuple[str, bool]]:
        """The likeliest words that `letters` (lower case) are made of, and whether each is known.

        Least cost over all splits, where a word of rank r costs log((r + 1) log N) (Zipf's law) and a letter outside
        any word costs as much as the rarest word. Linear in the length.
        """
        scale = math.log(len(self.common) + len(self.sensitive) + 2)
        unknown = math.log(len(self.common) * scale + 1)
        costs = [0.0]
        starts = [0]
        for end in range(1, len(letters) + 1):
            cost, begin = costs[end - 1] + unknown, -1  # -1: the letter belongs to no word
            for start in range(max(0, end - _LONGEST), end):
                rank = self._rank(letters[start:end])
                if rank is not None and (total := costs[start] + math.log((rank + 1) * scale)) < cost:
                    cost, begin = total, start
            costs.append(cost)
            starts.append(begin)
        return self._pieces(letters, starts)

    @staticmethod
    def _pieces(letters: str, starts: Sequence[int]) -> list[tuple[str, bool]]:
        """Follow the best starts back from the end; neighbouring letters of no word become one piece."""
        pieces: list[tuple[str, bool]] = []
        end = len(letters)
        while end:
            known = starts[end] >= 0
            start = starts[end] if known else end - 1
            if not known and pieces and not pieces[-1][1]:
                pieces[-1] = (letters[start:end] + pieces[-1][0], False)
            else:
                pieces.append((letters[start:end], known))
            end = start
        return pieces[::-1]

    def _rank(self, word: str) -> int | None:
        if len(word) == 1:
            return 200 if word in _SINGLES else None
        rank = self.common.get(word)
        if rank is None and word in self.sensitive:
            return 3000  # not counted: as frequent as an ordinary rare word
        return rank


def plain(word: str) -> str:
    """Case folded, accents stripped."""
    folded = word.casefold()
    if folded.isascii():
        return folded
    decomposed = unicodedata.normalize("NFKD", folded)
    return "".join(char for char in decomposed if not unicodedata.combining(char))


@cache
def load() -> Vocabulary:
    """The shipped vocabulary (English), read once."""
    folder = files("guardrail.text")
    common = {word: rank for rank, word in enumerate(_entries(folder.joinpath("words.txt").read_text("utf-8")))}
    sensitive: dict[str, int] = {}
    for line in folder.joinpath("sensitive.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            stem, *endings = line.split()
            for ending in endings:
                sensitive.setdefault(stem + ending.removeprefix("-"), len(sensitive))
    return Vocabulary(common, sensitive)


def _entries(text: str) -> Iterable[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            yield from line.split()
