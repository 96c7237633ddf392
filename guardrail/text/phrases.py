"""Finds many words and phrases in one pass, by hash: the cost does not grow with their number.

Entries and text are folded (`guardrail.text.normalise.fold`). An entry of words matches whole words, its words apart by
white space, a hyphen, an apostrophe or the like; a "*" at its end lets the last word go on. An entry with other symbols
("c++", an emoji) matches as it is, and one in a script that is written without spaces inside longer words too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from guardrail.types import Span

__all__ = ["Phrases"]

# Words with the marks that Brahmic scripts need and the joiners of Persian; "_" separates
_WORD = re.compile(
    "(?:[^\\W_]|[\u0900-\u0963\u0966-\u0dff\u0f00-\u0fff\u1700-\u17d3\u1b00-\u1bff\ua880-\uaaff\u200c\u200d])+"
)
_ASCII_WORD = re.compile("[A-Za-z0-9]+")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_GAP = re.compile(r"[\s\-_'/&]{1,3}|\.(?!\s)")  # between the words of a phrase


class Phrases:
    """A set of folded entries to look for.

    Args:
        entries: folded words and phrases; a trailing "*" stands for any ending.

    Raises:
        ValueError: an entry is empty, or has a "*" anywhere but after its last word; the message quotes it.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._words: set[str] = set()
        self._prefixes: set[str] = set()
        self._phrases: set[tuple[str, ...]] = set()
        self._open_phrases: set[tuple[str, ...]] = set()
        self._literals: set[str] = set()
        # first word of a phrase -> (number of words, length of the last one if it may go on, else 0)
        self._shapes: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
        for entry in entries:
            self._add(entry)
        self._prefix_lengths = sorted({len(prefix) for prefix in self._prefixes})
        self._heads = self._words | self._shapes.keys()
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for literal in self._literals:
            lengths[literal[0]].add(len(literal))
        self._literal_lengths = {first: sorted(found) for first, found in lengths.items()}
        self._starts = re.compile("[" + "".join(map(re.escape, sorted(lengths))) + "]") if lengths else None

    def _add(self, entry: str) -> None:
        stem = entry.removesuffix("*").strip()
        words = tuple(_WORD.findall(stem))
        is_open = entry.endswith("*")
        if not stem or "*" in stem or (is_open and not (words and stem.endswith(words[-1]))):
            raise ValueError(f"{entry!r} is not a word or phrase ('*' may only follow the last word)")
        if _UNSPACED.search(stem) or not _is_phrase(stem):
            self._literals.add(stem)
        elif len(words) > 1:
            (self._open_phrases if is_open else self._phrases).add(words)
            self._shapes[words[0]].add((len(words), len(words[-1]) if is_open else 0))
        else:
            (self._prefixes if is_open else self._words).add(words[0])

    def __len__(self) -> int:
        """How many different entries there are."""
        single = len(self._words) + len(self._prefixes) + len(self._literals)
        return single + len(self._phrases) + len(self._open_phrases)

    @property
    def words(self) -> Iterable[str]:
        """The entries that are single words, without those that a "*" prolongs."""
        return self._words

    def find(self, text: str) -> list[Span]:
        """All occurrences in a folded text, in ascending order of their start; they may overlap."""
        spans = list(self._occurrences(text)) if self._may_occur(text) else []
        if self._starts is not None:
            spans += self._anywhere(text, self._starts)
            spans.sort()
        return spans

    def _may_occur(self, text: str) -> bool:
        words = (_ASCII_WORD if text.isascii() else _WORD).findall(text)
        if not self._heads.isdisjoint(words):
            return True
        return bool(self._prefixes) and any(map(self._begins, words))

    def _begins(self, word: str) -> bool:
        return any(word[:length] in self._prefixes for length in self._prefix_lengths)

    def _occurrences(self, text: str) -> Iterator[Span]:
        for word in _WORD.finditer(text):
            token = word.group()
            if token in self._words or self._begins(token):
                yield word.span()
            shapes = self._shapes.get(token)
            if shapes:
                yield from self._phrases_at(text, word, shapes)

    def _phrases_at(self, text: str, first: re.Match[str], shapes: Iterable[tuple[int, int]]) -> Iterator[Span]:
        words = [first.group()]
        ends = [first.end()]
        for _ in range(max(shapes)[0] - 1):
            gap = _GAP.match(text, ends[-1])
            word = _WORD.match(text, gap.end()) if gap else None
            if word is None:
                break
            words.append(word.group())
            ends.append(word.end())
        for count, begun in shapes:
            if count <= len(words):
                found = (*words[: count - 1], words[count - 1][: begun or None])
                if found in (self._open_phrases if begun else self._phrases):
                    yield first.start(), ends[count - 1]

    def _anywhere(self, text: str, starts: re.Pattern[str]) -> Iterator[Span]:
        for found in starts.finditer(text):
            at = found.start()
            for length in self._literal_lengths[text[at]]:
                if text[at : at + length] in self._literals and _whole(text, at, at + length):
                    yield at, at + length


def _is_phrase(entry: str) -> bool:
    """Whether an entry is words with nothing but the usual gaps between them."""
    at = 0
    while (word := _WORD.match(entry, at)) is not None:
        gap = _GAP.match(entry, word.end())
        if gap is None:
            return word.end() == len(entry)
        at = gap.end()
    return False


def _whole(text: str, start: int, end: int) -> bool:
    """Whether no word of a spaced script is cut by either end."""
    return not (_cut(text, start) or _cut(text, end))


def _cut(text: str, at: int) -> bool:
    beside = text[max(0, at - 1) : at + 1]
    return len(beside) == 2 and _WORD.fullmatch(beside) is not None and _UNSPACED.search(beside) is None
