"""Input that hurts: expressions that explode elsewhere, huge lexicons, texts in no language, for every kind at once."""

from __future__ import annotations

import random
import string
import time
from pathlib import Path
from typing import Any

import pytest

from guardrail.classifiers.base import BuildContext
from guardrail.registry import resolve
from guardrail.types import Passage

ODD = [
    "", " \n\t", "\0\0", "\ud800\udfff", "\u202e\u2066" * 50, "🖕🏽👨‍👩‍👧" * 30, "ᚠᛇᚻ ꙮ ⠓⠑⠇⠇⠕", "́" * 500,
    "9" * 500, "@" * 500, ":" * 500, "\ud800 jo@example.org 4111",
    "-" * 500, "=" * 500, "A1" * 300, "xkq zvw qqq jjj", "\"'`" * 200, "eyJ" * 200, "a@" * 300, "1.1.1." * 100,
]  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "pattern": {"words": ["frobnicator"], "regex": [r"fro+bni\w+"]},
    "pii": {},
    "secrets": {"types": ["assigned", "high_entropy", "jwt", "private_key", "url_password"]},
}


def make(kind: str, directory: Path, **options: Any) -> Any:
    return resolve("guardrail.classifiers", kind)("x", options, BuildContext("e", "cpu", directory, directory))


@pytest.mark.parametrize("kind", KINDS)
def test_texts_in_no_language_are_no_trouble(kind: str, tmp_path: Path) -> None:
    classifier = make(kind, tmp_path, **KINDS[kind])
    for text, score in zip(ODD, classifier.score([Passage(text) for text in ODD]), strict=True):
        assert 0 <= score.value <= 1
        assert all(0 <= start < end <= len(text) for start, end in score.spans)


def test_expressions_that_explode_elsewhere_take_linear_time(tmp_path: Path) -> None:
    classifier = make("pattern", tmp_path, regex=["(a+)+b$", "(x+x+)+y", "(.*a){12}z"])
    started = time.process_time()
    classifier.score([Passage("a" * 30_000 + "x" * 30_000)])
    assert time.process_time() - started < 5


@pytest.mark.slow
def test_a_lexicon_of_two_hundred_thousand_entries_is_fast(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(6, 11))) + "qx" for _ in range(200_000)]
    (tmp_path / "words.txt").write_text("\n".join(words))
    started = time.process_time()
    classifier = make("pattern", tmp_path, lexicon="words.txt")
    assert time.process_time() - started < 15
    started = time.process_time()
    for _ in range(200):
        clean = classifier.score([Passage("The backup had started twice, which explains why the disk was full.")])
    assert (time.process_time() - started) / 200 < 0.002
    assert clean[0].value == 0
    assert classifier.score([Passage(f"a {words[777].upper()} here")])[0].value == 1
