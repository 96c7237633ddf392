"""The holding buffer: cuts the text of a stream into what is judged, and released, together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from guardrail.text.segment import SentenceSplitter, fenced_code

__all__ = ["Batch", "HoldingBuffer", "Run"]


@dataclass(frozen=True, slots=True)
class Run:
    """Held text that is judged as one passage. Fenced code is not editable."""

    text: str
    editable: bool = True


Batch = tuple[Run, ...]
"""What is released together."""


class HoldingBuffer:
    """Cuts a stream of text into batches to judge. The batches joined are everything that was fed.

    Args:
        hold: `sentence`, `paragraph` (up to an empty line) or `all` (to the end).
        max_chars: a longer sentence is cut at a word, a longer paragraph between sentences (code points).

    Raises:
        ValueError: `hold` is none of the three.
    """

    def __init__(self, hold: str = "sentence", max_chars: int = 2000) -> None:
        if hold not in ("sentence", "paragraph", "all"):
            raise ValueError(f"hold must be 'sentence', 'paragraph' or 'all', not {hold!r}")
        self._hold, self._max = hold, max_chars
        self._splitter = SentenceSplitter(max_chars)
        self._pending: list[str] = []
        self._size = 0
        self._fence = ""  # the text of a code fence that is still open

    def feed(self, delta: str) -> list[Batch]:
        """Take the next text; return the batches that are complete, often none."""
        if self._hold == "all":
            self._pending.append(delta)
            return []
        return [batch for sentence in self._splitter.feed(delta) for batch in self._take(sentence)]

    def flush(self) -> list[Batch]:
        """The end: return what is held."""
        if self._hold == "all":
            text, self._pending = "".join(self._pending), []
            return [tuple(_runs(text))] if text else []
        rest = self._splitter.flush()
        return [*(self._take(rest) if rest else ()), *self._release()]  # one sentence: the splitter knows its line

    def _take(self, sentence: str) -> Iterable[Batch]:
        if self._hold == "sentence":
            return [(self._run(sentence),)]
        self._pending.append(sentence)
        self._size += len(sentence)
        tail = sentence[len(sentence.rstrip()) :]
        ends = tail.count("\n") > 1 or self._size >= self._max
        return self._release() if ends else []

    def _release(self) -> list[Batch]:
        pending, self._pending, self._size = self._pending, [], 0
        runs: list[Run] = []
        for sentence in pending:
            run = self._run(sentence)
            if runs and runs[-1].editable == run.editable:
                runs[-1] = Run(runs[-1].text + run.text, run.editable)
            else:
                runs.append(run)
        return [tuple(runs)] if runs else []

    def _run(self, sentence: str) -> Run:
        """Mark code: a sentence with a fence in it, or one of a block that was cut because it was long."""
        text = self._fence + sentence
        spans = fenced_code(text)
        open_at_end = bool(spans) and spans[-1][1] == len(text) and fenced_code(text + "\n\n~")[-1][1] > len(text)
        self._fence = text[spans[-1][0] :].split("\n", 1)[0] + "\n" if open_at_end else ""
        return Run(sentence, editable=not spans)


def _runs(text: str) -> list[Run]:
    runs, at = [], 0
    for start, end in fenced_code(text):
        runs += [Run(text[at:start]), Run(text[start:end], editable=False)]
        at = end
    return [run for run in (*runs, Run(text[at:])) if run.text]
