"""Heads measured on labelled texts: masks, the harm maximum, windows, and the command around it."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from guardrail.classifiers.linear import make_head, write_head
from guardrail.cli.heads import app
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import CheckpointError, DataError
from guardrail.evaluate.data import LabelledText
from guardrail.evaluate.heads import any_harm, evaluate_heads, head_probabilities
from guardrail.policy.bundle import LinearHead

HOSTILE = [
    "you are a worthless idiot",
    "shut up, you stupid loser",
    "what a pathetic clown you are",
    "I despise you, moron",
]
CALM = [
    "the train leaves at noon",
    "could you pass me the salt",
    "we moved the meeting to Friday",
    "the soup needs more pepper",
]
CLI = CliRunner()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(device="cpu")


@pytest.fixture(scope="module")
def heads(encoder: Encoder) -> dict[str, LinearHead]:
    """`insult` knows hostile from calm; `courtesy` is its opposite; `threat` is a constant."""
    weight = encoder.encode(HOSTILE[:2]).mean(axis=0) - encoder.encode(CALM[:2]).mean(axis=0)
    return {
        "insult": make_head("insult", 8 * weight, 0.0, encoder.sha256),
        "threat": make_head("threat", 0 * weight, -9.0, encoder.sha256),
        "courtesy": make_head("courtesy", -8 * weight, 0.0, encoder.sha256),
    }


def rows() -> list[LabelledText]:
    hostile = [LabelledText(text, {"insult": 1.0, "toxicity": 1.0}, "s") for text in HOSTILE]
    return hostile + [LabelledText(text, {"insult": 0.0, "threat": 0.0}, "s") for text in CALM]


def test_each_head_is_measured_on_the_rows_that_know_it(heads: dict[str, LinearHead], encoder: Encoder) -> None:
    undecided = LabelledText("hm", {"insult": 0.5}, "s")
    found = evaluate_heads([*rows(), undecided], heads, encoder, resamples=20)
    assert list(found) == ["insult", "threat", "courtesy", "any"]
    assert (found["insult"].n, found["insult"].positives) == (8, 4)
    assert found["insult"].metrics["auroc"].value == 1.0
    assert (found["threat"].n, found["threat"].positives) == (4, 0)
    assert found["threat"].metrics["auroc"].reason == "no positive row is labelled"
    assert found["courtesy"].metrics["auroc"].reason == "no row is labelled"


def test_any_is_the_worst_harm_head_against_any_harm_label(heads: dict[str, LinearHead], encoder: Encoder) -> None:
    found = evaluate_heads(rows(), heads, encoder, resamples=20)["any"]
    assert (found.n, found.positives, found.metrics["auroc"].value) == (8, 4, 1.0)  # courtesy is no harm
    labels = [{"sexism": 1.0, "insult": 0.0}, {"courtesy": 1.0}, {"jailbreak": 1.0, "threat": 0.0}, {"harassment": 0.3}]
    np.testing.assert_array_equal(any_harm([LabelledText("", each, "s") for each in labels]), [1.0, np.nan, 0.0, 0.3])


def test_a_long_text_scores_like_its_worst_sentence(heads: dict[str, LinearHead], encoder: Encoder) -> None:
    calm = ". ".join(CALM * 20)
    texts = [LabelledText(text, {}, "s") for text in (f"{calm}. {HOSTILE[0]}. {calm}", f"{calm}. {calm}", HOSTILE[0])]
    with_insult, without, alone = head_probabilities(texts, heads, encoder)["insult"]
    assert alone > with_insult > 1.2 * without  # a window is a few sentences, so the insult is diluted, but not lost


def test_nothing_to_measure_and_foreign_heads_are_refused(heads: dict[str, LinearHead], encoder: Encoder) -> None:
    with pytest.raises(DataError, match="no rows to measure"):
        evaluate_heads([], heads, encoder)
    with pytest.raises(CheckpointError, match="belongs to the encoder"):
        evaluate_heads(rows(), {"insult": replace(heads["insult"], encoder_sha256="0" * 64)}, encoder)


@pytest.fixture
def files(heads: dict[str, LinearHead], tmp_path: Path) -> tuple[Path, Path]:
    """A gzipped data file, and a folder of heads."""
    data, folder = tmp_path / "data.jsonl.gz", tmp_path / "heads"
    folder.mkdir()
    for name, head in heads.items():
        write_head(folder / f"{name}.safetensors", head, {"encoder": "all-MiniLM-L6-v2"})
    with gzip.open(data, "wt", encoding="utf-8") as stream:
        stream.writelines(
            json.dumps({"text": row.text, "labels": dict(row.labels), "split": "dev"}) + "\n" for row in rows()
        )
    return data, folder


def test_the_command_prints_one_object_per_head(files: tuple[Path, Path]) -> None:
    data, folder = files
    arguments = ["eval", "--data", str(data), "--heads", str(folder), "--device", "cpu", "--resamples", "50", "--json"]
    first = CLI.invoke(app, arguments)
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout)
    assert set(found) == {"insult", "threat", "courtesy", "any"}
    metrics = {"auroc", "auprc", "recall_at_1pct_fpr", "ece", "brier"}
    assert set(found["insult"]) == {"n", "positives", "intervals", *metrics}
    assert found["insult"]["auroc"] == 1.0
    assert found["insult"]["intervals"]["auroc"] == [1.0, 1.0]
    assert found["threat"]["auroc"] is None
    assert found["threat"]["reason"] == "no positive row is labelled"
    assert found["threat"]["intervals"]["auroc"] is None
    assert CLI.invoke(app, arguments).stdout == first.stdout
    table = CLI.invoke(app, arguments[:-1])
    assert "insult" in table.stdout


def test_the_command_says_what_is_wrong(files: tuple[Path, Path], tmp_path: Path) -> None:
    data, folder = files
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "x", "labels": {"insult": 2}}\n')
    for arguments, message in (
        (["--data", str(bad)], "bad.jsonl:1: labels.insult: expected a number in [0, 1], got 2"),
        (["--data", str(data), "--head", "insul"], "Did you mean 'insult'"),
        (["--data", str(data), "--split", "test"], "no row is of the split 'test'; there are dev"),
        (["--data", str(data), "--heads", str(tmp_path)], "holds no heads"),
    ):
        found = CLI.invoke(app, ["eval", "--heads", str(folder), *arguments])
        assert found.exit_code == 2
        assert message in " ".join(found.stderr.split())


def test_heads_are_listed(files: tuple[Path, Path]) -> None:
    found = CLI.invoke(app, ["list", "--heads", str(files[1]), "--json"])
    assert found.exit_code == 0
    listed = json.loads(found.stdout)
    assert [head["name"] for head in listed] == ["courtesy", "insult", "threat"]
    assert all(len(head["sha256"]) == 64 and head["encoder"] == "all-MiniLM-L6-v2" for head in listed)
    shipped = CLI.invoke(app, ["list"])
    assert shipped.exit_code == 0
    assert "toxicity" in shipped.stdout
