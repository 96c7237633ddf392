"""Training: batches are a function of (seed, step), a killed run resumes exactly, a NaN stops it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from guardrail.dglm import checkpoint, training
from guardrail.dglm.corpus import Corpus, Pair, detokenise, load_corpus
from guardrail.dglm.corruption import Spoiler, restyle
from guardrail.errors import ConfigurationError

SENTENCES = [
    f"{who} {what} {where}."
    for who in ("The nurse", "Maria", "My old neighbour", "Our new printer", "A tired driver", "The committee")
    for what in ("reads a long letter", "waits for the bus", "prints two pages", "asks about the price", "sings loudly")
    for where in ("at home", "in Lisbon", "after lunch", "near the station", "every Monday", "without a word")
]


@pytest.fixture
def recipe(tmp_path: Path) -> tuple[Path, Path]:
    data = tmp_path / "data"
    (data / "x").mkdir(parents=True)

    def write(name: str, rows: list[dict]) -> None:
        with gzip.open(data / "x" / name, "wt", encoding="utf8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    pairs = [
        {"source": f"{s[:-1]}, you idiot .", "targets": [s], "split": "train" if i % 5 else "test"}
        for i, s in enumerate(SENTENCES)
    ]
    write("pairs.jsonl.gz", pairs)
    write(
        "spans.jsonl.gz",
        [{"text": "what a stupid idea", "spans": [[7, 13]], "labels": {"toxicity": 1}, "split": "train"}] * 9,
    )
    write("plain.txt.gz", [])
    (data / "x" / "plain.txt.gz").write_bytes(gzip.compress("\n".join(SENTENCES).encode()))
    document = {
        "name": "tiny", "seed": 3, "checkpoint_every": 2,
        "encoder": "all-MiniLM-L6-v2", "model": {"layers": 1, "prompt_layers": 1},
        "output_vocabulary": 300, "steps": 4, "batch": 8, "micro_batch": 4, "noise_augmentation": 0.3,
        "optimiser": {"lr": 1e-3, "warmup": 2, "weight_decay": 0.01, "clip": 1.0, "betas": [0.9, 0.98], "ema": 0.9},
        "mixture": {"paradetox": 0.5, "denoise": 0.4, "identity": 0.1}, "validation_mixture": {"paradetox": 1.0},
        "pairs": {"paradetox": {"file": "x/pairs.jsonl.gz"}, "repairs": {"file": "x/pairs.jsonl.gz"}},
        "phrases": {"file": "x/spans.jsonl.gz", "dirty": 3},
        "outbursts": [{"file": "x/spans.jsonl.gz", "heads": ["toxicity"]}],
        "clean": [{"file": "x/plain.txt.gz", "kind": "plain", "cap": 500}],
    }  # fmt: skip
    path = tmp_path / "training" / "recipes" / "tiny.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(document))
    return path, data


@pytest.fixture
def small_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latent statistics need twice as many texts as dimensions; repeat the few there are."""
    texts = training.latent_texts
    monkeypatch.setattr(training, "latent_texts", lambda *args: (texts(*args) * 8)[:900])


def test_a_resumed_run_equals_an_unbroken_one(
    recipe: tuple[Path, Path], small_statistics: None, tmp_path: Path
) -> None:
    path, data = recipe
    rows: list[dict] = []
    for name in ("straight", "broken"):
        (tmp_path / name).mkdir()
    training.train_decoder(path, data, tmp_path / "straight", report=rows.append)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert {"validation_loss", "validation_form_loss"} <= rows[-1].keys()
    training.train_decoder(path, data, tmp_path / "broken", report=lambda row: None, steps=2)
    training.train_decoder(path, data, tmp_path / "broken", report=lambda row: None)
    one, two = (load_file(tmp_path / name / "state.safetensors") for name in ("straight", "broken"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)

    size = training.export_run(tmp_path / "broken", tmp_path / "checkpoint")
    assert size > 1_000_000
    statistics = training.latents.load(tmp_path / "checkpoint" / "latents.safetensors")
    assert checkpoint.load(tmp_path / "checkpoint", statistics.encoder_sha256, "cpu").decoder.config.layers == 1


def test_a_run_with_rated_rewrites_resumes_exactly_and_says_how_many_contests_it_won(
    recipe: tuple[Path, Path], tmp_path: Path, small_statistics: None
) -> None:
    path, data = recipe
    candidates = [{"text": "The nurse reads.", "fluent": 0, "meaning": 0, "toxic": 0}]
    rated = [
        {"source": f"{s[:-1]}, you idiot.", "target": s, "split": split, "candidates": candidates}
        for s in SENTENCES[:6]
        for split in ("train", "test")
    ]
    (tmp_path / "ratings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rated), encoding="utf8")
    document = yaml.safe_load(path.read_text(encoding="utf8"))
    path.write_text(yaml.safe_dump(document | {"preferences": {"file": "./ratings.jsonl", "pairs": 3}}))
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole: list[dict] = []
    training.train_decoder(path, data, tmp_path / "whole", report=whole.append)
    broken: list[dict] = []
    training.train_decoder(path, data, tmp_path / "broken", report=broken.append, steps=2)
    training.train_decoder(path, data, tmp_path / "broken", report=broken.append)
    assert [row["loss"] for row in whole] == [row["loss"] for row in broken]
    assert all(0.0 <= row["preferred"] <= 1.0 for row in whole)
    assert 0.0 <= whole[-1]["validation_preferred"] <= 1.0


def test_a_run_goes_on_from_a_checkpoint_and_keeps_what_is_frozen(
    recipe: tuple[Path, Path], small_statistics: None, tmp_path: Path
) -> None:
    path, data = recipe
    first, second, start = tmp_path / "first", tmp_path / "second", tmp_path / "start"
    for folder in (first, second):
        folder.mkdir()
    training.train_decoder(path, data, first, report=lambda row: None, steps=2)
    training.export_run(first, start)
    document = training.read_recipe(path) | {"start": str(start), "frozen": ["word"], "output_vocabulary": 7}
    path.write_text(yaml.safe_dump(document))
    training.train_decoder(path, data, second, report=lambda row: None, steps=2)

    begun, gone_on = load_file(start / "decoder.safetensors"), load_file(second / "state.safetensors")
    assert torch.equal(gone_on["model.word.weight"], begun["word.weight"].float())
    assert not torch.equal(gone_on["model.transform.weight"], begun["transform.weight"].float())
    assert (second / "output_ids.json").read_text() == (first / "output_ids.json").read_text()
    mine, theirs = (training.latents.load(folder / "latents.safetensors") for folder in (second, start))
    assert np.array_equal(mine.covariance, theirs.covariance)

    path.write_text(yaml.safe_dump(document | {"model": {"layers": 2, "prompt_layers": 1}}))
    with pytest.raises(ConfigurationError, match="sizes"):
        training.train_decoder(path, data, second, report=lambda row: None)


def test_a_loss_that_is_not_finite_stops_the_run(
    recipe: tuple[Path, Path], small_statistics: None, tmp_path: Path, monkeypatch
) -> None:
    path, data = recipe
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(
        training, "decoder_loss", lambda *args: tuple(torch.tensor(np.nan, requires_grad=True) for _ in range(3))
    )
    with pytest.raises(training.TrainingDiverged, match="step 0, micro-batch 0"):
        training.train_decoder(path, data, tmp_path / "run", report=lambda row: None)
    assert not (tmp_path / "run" / "state.safetensors").exists()


def test_nothing_of_the_test_split_is_trained_on(recipe: tuple[Path, Path]) -> None:
    path, data = recipe
    document = training.read_recipe(path)
    train = {pair.source for pair in load_corpus(document, data, path.parents[2], 3).pairs["paradetox"]}
    test = {pair.source for pair in load_corpus(document, data, path.parents[2], 3, split="test").pairs["paradetox"]}
    assert train
    assert test
    assert not train & test


def test_clean_sentences_have_no_harmful_words(recipe: tuple[Path, Path]) -> None:
    path, data = recipe
    corpus = load_corpus(training.read_recipe(path), data, path.parents[2], 3)
    assert corpus.clean
    assert corpus.phrases
    assert set(corpus.phrases) == {"stupid"}
    assert not any("stupid" in sentence for sentence, _ in corpus.clean)


def test_spoiling_is_reproducible_and_keeps_the_target() -> None:
    corpus = Corpus({}, [(sentence, "") for sentence in SENTENCES], ["idiot"], ["Get lost!"])
    spoiler = Spoiler(corpus, {"denoise": 0.9, "identity": 0.1})
    drawn = [spoiler.draw(np.random.default_rng(seed)) for seed in range(200)]
    assert drawn == [spoiler.draw(np.random.default_rng(seed)) for seed in range(200)]
    assert all(pair.target in SENTENCES for pair in drawn)
    assert 5 <= sum(not pair.source for pair in drawn) <= 60  # about 15% are written from the embedding alone
    assert any("idiot" in pair.source for pair in drawn)


def test_restyling_changes_source_and_target_alike() -> None:
    pair = Pair("i think you're dumb .", "i think you're wrong.")
    styles = {restyle(pair, np.random.default_rng(seed)) for seed in range(60)}
    assert Pair("I think you're dumb .", "I think you're wrong.") in styles
    assert any(style.source.isupper() and style.target.isupper() for style in styles)


@pytest.mark.parametrize(
    ("tokenised", "plain"),
    [("don 't do it , ok ?", "don't do it, ok?"), ("( yes )", "(yes)"), ("i 'm  here .", "i'm here."), ("", "")],
)
def test_detokenising(tokenised: str, plain: str) -> None:
    assert detokenise(tokenised) == plain


def test_an_unreadable_recipe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(training.ConfigurationError, match="cannot be read"):
        training.read_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(training.ConfigurationError, match="mapping"):
        training.read_recipe(tmp_path / "list.yaml")
