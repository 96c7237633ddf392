"""Broken English on purpose: sentences with a known broken place, for training the acceptability detector.

The ways in which a rewriter breaks a sentence: words left out, cut ends, doubled, swapped or foreign words, two halves
that do not fit, wrong agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

_TAIL = ".,!?;:"
_FUNCTION = frozenset(
    "a an the to of is are was were be been am and or but in on at for with that this it its i you he she we they my your "
    "not do does did has have had will would can could should if as by from so than then there what who how".split()
)
_SWAPS = {
    "a": "an", "an": "a", "is": "are", "are": "is", "was": "were", "were": "was", "do": "does", "does": "do", "has": "have",
    "have": "has", "his": "he", "their": "they", "them": "they", "him": "he", "my": "me", "your": "you", "to": "too",
}  # fmt: skip


@dataclass(slots=True)
class Word:
    """A word of a sentence; `broken` where a reader stumbles."""

    text: str
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Marked:
    """A text, the character spans of its words with whether each is broken, and whether its end is.

    `end`: something is missing behind the last word.
    """

    text: str
    spans: tuple[tuple[int, int, bool], ...]
    end: bool = False


class Breaker:
    """Break sentences in the ways a rewriter does. All randomness comes from the generator handed in.

    Args:
        sentences: where foreign words and second halves come from.
    """

    def __init__(self, sentences: Sequence[str]) -> None:
        self._sentences = sentences
        self._ways: tuple[tuple[float, Callable[[list[Word], np.random.Generator], bool]], ...] = (
            (0.30, self._leave_out),
            (0.14, self._leave_out_function_word),
            (0.10, self._cut_end),
            (0.12, self._replace),
            (0.06, self._insert),
            (0.06, self._double),
            (0.10, self._agree_wrongly),
            (0.05, self._swap),
            (0.07, self._splice),
        )
        shares = np.array([share for share, _ in self._ways])
        self._shares = shares / shares.sum()

    def __call__(self, sentence: str, rng: np.random.Generator) -> Marked:
        """Return the sentence broken in one or two places; intact where no way applied."""
        words = [Word(word) for word in sentence.split()]
        end = False
        for _ in range(1 + int(rng.random() < 0.3)):
            end |= self._ways[int(rng.choice(len(self._ways), p=self._shares))][1](words, rng)
        return marked(words, end)

    def _leave_out(self, words: list[Word], rng: np.random.Generator) -> bool:
        count = 1 + int(rng.random() < 0.35) + int(rng.random() < 0.2)
        if len(words) <= count + 1:
            return False
        return _remove(words, int(rng.integers(len(words) - count + 1)), count)

    def _leave_out_function_word(self, words: list[Word], rng: np.random.Generator) -> bool:
        places = [place for place, word in enumerate(words) if word.text.lower() in _FUNCTION]
        return bool(places) and len(words) > 2 and _remove(words, places[int(rng.integers(len(places)))], 1)

    def _cut_end(self, words: list[Word], rng: np.random.Generator) -> bool:
        if len(words) < 4:
            return False
        keep = int(rng.integers(2, len(words)))
        return _remove(words, keep, len(words) - keep)

    def _replace(self, words: list[Word], rng: np.random.Generator) -> bool:
        place = int(rng.integers(len(words)))
        old = words[place].text
        words[place] = Word(self._foreign(rng) + old[len(old.rstrip(_TAIL)) :], broken=True)
        return False

    def _insert(self, words: list[Word], rng: np.random.Generator) -> bool:
        words.insert(int(rng.integers(len(words))), Word(self._foreign(rng), broken=True))
        return False

    def _double(self, words: list[Word], rng: np.random.Generator) -> bool:
        place = int(rng.integers(len(words)))
        words.insert(place, Word(words[place].text.rstrip(_TAIL)))
        words[place + 1].broken = True
        return False

    def _agree_wrongly(self, words: list[Word], rng: np.random.Generator) -> bool:
        places = [place for place, word in enumerate(words) if word.text.lower() in _SWAPS]
        if places:
            place = places[int(rng.integers(len(places)))]
            words[place] = Word(_SWAPS[words[place].text.lower()], broken=True)
        return False

    def _swap(self, words: list[Word], rng: np.random.Generator) -> bool:
        if len(words) < 4:
            return False
        place = int(rng.integers(len(words) - 2))
        words[place], words[place + 1] = words[place + 1], words[place]
        words[place].broken = words[place + 1].broken = True
        return False

    def _splice(self, words: list[Word], rng: np.random.Generator) -> bool:
        other = self._sentences[int(rng.integers(len(self._sentences)))].split()
        if len(words) < 4 or len(other) < 4:
            return False
        place, start = int(rng.integers(2, len(words))), int(rng.integers(1, len(other) - 1))
        words[place:] = [Word(text) for text in other[start:]]
        words[place].broken = True
        return False

    def _foreign(self, rng: np.random.Generator) -> str:
        words = self._sentences[int(rng.integers(len(self._sentences)))].split()
        return words[int(rng.integers(len(words)))].strip(_TAIL).lower() or "it"


def intact(sentence: str) -> Marked:
    """Return a sentence with nothing broken."""
    return marked([Word(word) for word in sentence.split()], end=False)


def differences(written: str, target: str) -> Marked:
    """Mark what a writer wrote otherwise than the target: its words are broken, and so is the word behind a gap."""
    words = [Word(word) for word in written.split()]
    end = False
    mine, wanted = ([_bare(word) for word in text.split()] for text in (written, target))
    for kind, start, stop, _, _ in SequenceMatcher(None, mine, wanted, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        for word in words[start : max(stop, start + 1)]:  # "insert": the word before which something is missing
            word.broken = True
        end |= kind == "insert" and start >= len(words)
    return marked(words, end)


def marked(words: Sequence[Word], end: bool) -> Marked:
    """Join words with single spaces."""
    spans, place = [], 0
    for word in words:
        spans.append((place, place + len(word.text), word.broken))
        place += len(word.text) + 1
    return Marked(" ".join(word.text for word in words), tuple(spans), end)


def _remove(words: list[Word], start: int, count: int) -> bool:
    """Leave words out; final punctuation stays. The word behind the gap is where a reader stumbles, or the end."""
    last = words[start + count - 1].text
    tail = last[len(last.rstrip(_TAIL)) :]
    del words[start : start + count]
    if start < len(words):
        words[start].broken = True
        return False
    if tail and words:
        words[-1] = Word(words[-1].text.rstrip(_TAIL) + tail, words[-1].broken)
    return True


def _bare(word: str) -> str:
    return word.strip(_TAIL + "\"'").lower()
