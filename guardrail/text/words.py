"""The words that disguised spellings are read as, and how a run of letters without spaces falls into words."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from importlib.resources import files

__all__ = ["Vocabulary", "load", "plain"]

_LONGEST = 24  # letters of the longest word that is looked for by its shape
_UNCOUNTED = 3000  # rank, in a split, of sensitive words that are not common ones
_SINGLES = frozenset("aiur")  # letters that are words by themselves ("u" and "r" in chats)


class Vocabulary:
    """Words by rank: `sensitive` ones, which people disguise, and `common` ones.

    Args:
        common: word to rank, 0 for the most frequent; lower case.
        sensitive: word to rank, 0 for the most often disguised; lower case, without accents.
    """

    def __init__(self, common: Mapping[str, int], sensitive: Mapping[str, int]) -> None:
        self.common = common
        self.sensitive = sensitive
        self._splitter = self  # long lists of a policy's own words take no part in splits
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
        extended = Vocabulary(self.common, sensitive)
        extended._splitter = self._splitter
        return extended

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
        costs, beginnings = self._splitter._costs
        unknown = max(costs.values())
        size = len(letters)
        best = [math.inf] * (size + 1)
        best[0] = 0.0
        starts = [-1] * (size + 1)  # -1: the letter before belongs to no word
        for start in range(size):
            here = best[start]
            if here + unknown < best[start + 1]:
                best[start + 1], starts[start + 1] = here + unknown, -1
            for end in range(start + 1, size + 1):
                word = letters[start:end]
                if (cost := costs.get(word)) is not None and here + cost < best[end]:
                    best[end], starts[end] = here + cost, start
                if word not in beginnings:
                    break
        return self._pieces(letters, starts)

    @cached_property
    def _costs(self) -> tuple[dict[str, float], frozenset[str]]:
        """The cost of each word in a split, and the beginnings of words."""
        scale = math.log(len(self.common) + len(self.sensitive) + 2)
        ranks = dict.fromkeys(_SINGLES, 200) | dict.fromkeys(self.sensitive, _UNCOUNTED) | dict(self.common)
        costs = {word: math.log((rank + 1) * scale) for word, rank in ranks.items()}
        return costs, frozenset(word[:end] for word in costs for end in range(1, len(word)))

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
