"""Input that hurts: expressions that explode elsewhere, huge lexicons, texts in no language, for every kind at once."""

from __future__ import annotations

import itertools
import random
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardrail.classifiers.base import BuildContext, Classifier
from guardrail.classifiers.linear import readings as linear_readings
from guardrail.classifiers.trihash import BUCKETS, TrihashHead, write_trihash
from guardrail.classifiers.tuned import readings as tuned_readings
from guardrail.encoder import Encoder, load_encoder
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


def test_expressions_that_explode_elsewhere_end(tmp_path: Path) -> None:
    """An engine that backtracks would still be at it when the sun is gone."""
    classifier = make("pattern", tmp_path, regex=["(a+)+b$", "(x+x+)+y", "(.*a){12}z"])
    (score,) = classifier.score([Passage("a" * 30_000 + "x" * 30_000)])
    assert score.value == 0


@pytest.mark.slow
def test_a_lexicon_of_two_hundred_thousand_entries_is_searched_whole(tmp_path: Path) -> None:
    """How fast it is, `benchmarks/pattern.py --words 200000` says."""
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(6, 11))) + "qx" for _ in range(200_000)]
    (tmp_path / "words.txt").write_text("\n".join(words))
    classifier = make("pattern", tmp_path, lexicon="words.txt")
    texts = ["The backup had started twice.", *(f"a {words[place].upper()} here" for place in (0, 777, 199_999))]
    assert [score.value for score in classifier.score([Passage(text) for text in texts])] == [0, 1, 1, 1]


def test_a_megabyte_of_text_is_searched_to_its_end(tmp_path: Path) -> None:
    classifier = make("pattern", tmp_path, words=["frobnicator"], regex=[r"zork+le"])
    text = "The committee met on Tuesday. " * 35_000 + "zorkkle and the fr0bnicator"
    (score,) = classifier.score([Passage(text)])
    assert [text[start:end] for start, end in score.spans] == ["zorkkle", "fr0bnicator"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(device="cpu")


@pytest.fixture(scope="module")
def readers(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Classifier]:
    """One classifier of every kind that reads more than letters."""
    directory = tmp_path_factory.mktemp("odd")
    write_trihash(directory / "odd.safetensors", TrihashHead("odd", np.full(BUCKETS, 0.01, np.float32), -1.0))
    context = BuildContext(encoder.name, "cpu", directory, directory)
    options: dict[str, tuple[str, dict[str, Any]]] = {
        "linear": ("linear", {"head": "toxicity"}),
        "tuned": ("linear", {"head": "toxicity", "tier": "tuned"}),
        "direction": ("direction", {"toward": ["mock a weaker player"], "away": ["encourage a weaker player"]}),
        "trihash": ("trihash", {"file": "odd.safetensors"}),
    }
    return {name: resolve("guardrail.classifiers", kind)(name, own, context) for name, (kind, own) in options.items()}


@pytest.mark.parametrize("kind", ["linear", "tuned", "direction", "trihash"])
def test_a_probability_comes_of_every_text(kind: str, readers: dict[str, Classifier]) -> None:
    for text, score in zip(ODD, readers[kind].score([Passage(text) for text in ODD]), strict=True):
        assert 0 <= score.value <= 1
        assert all(0 <= start < end <= len(text) for start, end in score.spans)


LONG = ["The committee met on Tuesday. " * 35_000, "x" * 1_000_000, "é\n" * 10_000, "笨" * 20_000]


@pytest.mark.parametrize("text", LONG, ids=["prose", "letters", "lines", "characters"])
@pytest.mark.parametrize("readings", [linear_readings, tuned_readings])
def test_a_long_text_is_read_whole_in_pieces_that_fit(readings: Any, text: str, encoder: Encoder) -> None:
    pieces = readings(encoder, text)
    covered = sorted({span for span, _ in pieces})
    assert covered[0][0] == 0
    assert all(text[end:start].strip() == "" for (_, end), (start, _) in itertools.pairwise(covered))
    assert text[covered[-1][1] :].strip() == ""
    assert max(encoder.token_counts([piece for _, piece in pieces])) <= encoder.max_tokens
