"""Kind `trihash`: features that misspellings hardly change, heads that survive their file, and their training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from guardrail.classifiers.base import BuildContext, Classifier
from guardrail.classifiers.trihash import BUCKETS, TrihashHead, buckets, build, read_trihash, write_trihash
from guardrail.cli.app import app
from guardrail.errors import CheckpointError, ClassifierError, DataError
from guardrail.evaluate.data import LabelledText
from guardrail.learn.trihash import train_trihash
from guardrail.types import Passage


def shared(one: str, other: str) -> float:
    a, b = set(buckets(one).tolist()), set(buckets(other).tolist())
    return len(a & b) / len(a | b)


def rows(count: int = 160) -> list[LabelledText]:
    nouns = "table garden window letter river market engine piano lantern bottle".split()
    return [
        LabelledText(
            f"the {noun} is {'frobnicating' if label else 'lovely'} {number}",
            {"odd": float(label)},
            "own",
            "train",
            str(number),
        )
        for number in range(count)
        for label in (0, 1)
        for noun in [nouns[number % len(nouns)]]
    ]


@pytest.fixture(scope="module")
def head() -> TrihashHead:
    return train_trihash("odd", rows())[0]


def test_a_misspelt_word_keeps_most_of_its_buckets_and_another_word_has_few_of_them() -> None:
    assert shared("frobnicating", "frobnicatting") > 0.6
    assert shared("frobnicating", "lovely") < 0.05
    assert shared("Frobnicating", "frobnicating") > 0.5  # most hashes are blind to case
    assert shared("two words", "words two") == 1.0  # no trigram reaches over two words
    assert buckets("").size == buckets(" ... ").size == 0
    found = buckets("ein Blödmann 笨蛋")
    assert found.min() >= 0
    assert found.max() < BUCKETS
    assert (np.diff(found) > 0).all()


def test_it_learns_words_and_knows_them_misspelt(head: TrihashHead, tmp_path: Path) -> None:
    write_trihash(tmp_path / "odd.safetensors", head)
    classifier = build("odd", {"file": "odd.safetensors"}, BuildContext("e", "cpu", tmp_path, tmp_path))
    assert isinstance(classifier, Classifier)
    texts = ["this is frobnicatting", "this is lovely", "", "A lovely day. It is frobnicating! A lovely day."]
    scores = classifier.score([Passage(text) for text in texts])
    assert scores[0].value > 0.5 > scores[1].value
    ((start, end),) = scores[3].spans
    assert texts[3][start:end].strip() == "It is frobnicating!"
    assert 0 < scores[2].value < 1


def test_a_head_survives_its_file_and_damage_is_refused(head: TrihashHead, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    write_trihash(path, head)
    back = read_trihash(path)
    np.testing.assert_array_equal(back.weight, head.weight)
    assert (back.sha256, back.name) == (head.sha256, "odd")
    assert path.stat().st_size < 70_000
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        read_trihash(path)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_trihash(path)
    with pytest.raises(CheckpointError, match="missing"):
        read_trihash(tmp_path / "nowhere")
    with pytest.raises(ClassifierError, match="not an option"):
        build("odd", {"head": "x"}, BuildContext("e", "cpu", tmp_path, tmp_path))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="at least 20 positive and 20 negative"):
        train_trihash("odd", rows(10))


def test_the_command_trains_one(tmp_path: Path) -> None:
    lines = (json.dumps({"text": row.text, "labels": dict(row.labels)}) for row in rows())
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    done = CliRunner().invoke(
        app, ["heads", "trihash", "--data", "rows.jsonl", "--head", "odd", "--out", "made", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert read_trihash(Path("made/odd.safetensors")).sha256 == json.loads(done.stdout)["sha256"]
    wrong = CliRunner().invoke(app, ["heads", "trihash", "--data", "rows.jsonl", "--head", "add", "--out", "made"])
    assert wrong.exit_code == 2
    assert "Did you mean 'odd'?" in wrong.output
