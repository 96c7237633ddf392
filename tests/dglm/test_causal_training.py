"""A causal language model from recipe to rewrites: training, resuming, export, what `info` shows, the rewriter."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from guardrail.cli.app import app
from guardrail.dglm import causal_training, checkpoint
from guardrail.dglm.causal_rewriting import BLANK, CausalRewriting, in_view
from guardrail.dglm.causal_training import STATE, configured, is_causal, train_causal
from guardrail.dglm.codec import HIDDEN
from guardrail.dglm.guidance import Guide
from guardrail.dglm.pipeline import Pipeline, load_pipeline
from guardrail.dglm.plans import SpanRequest
from guardrail.dglm.training import TrainingDiverged, read_recipe
from guardrail.encoder import load_encoder
from guardrail.errors import CheckpointError, ConfigurationError
from guardrail.rewrite.base import RewriteRequest
from guardrail.rewrite.dglm import DGLMRewriter

CLEAN = [f"{who} {what} ." for who in ("the cat", "a dog", "it", "we") for what in ("is here", "was there", "had tea")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, gpt2: str, t5: str) -> tuple[Path, Path]:
    """A recipe and its data."""
    root = tmp_path_factory.mktemp("causal")
    data, recipe = root / "data", root / "training" / "recipes" / "tiny.yaml"
    (data / "x").mkdir(parents=True)
    recipe.parent.mkdir(parents=True)

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        (data / "x" / name).write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))

    rows = [(text, split) for text in CLEAN for split in ("train", "test")]
    write("pairs.jsonl.gz", [{"source": f"idiot , {t}", "targets": [t], "split": split} for t, split in rows])
    write("spans.jsonl.gz", [{"text": "idiot", "spans": [[0, 5]], "labels": {"toxicity": 1}, "split": "train"}] * 9)
    (data / "x" / "plain.txt.gz").write_bytes(gzip.compress("\n".join(CLEAN).encode()))
    pairs = {"file": "x/pairs.jsonl.gz"}
    document = {
        "name": "tiny", "seed": 3, "checkpoint_every": 2, "encoder": t5, "steps": 4, "batch": 8, "micro_batch": 4,
        "decoder": {"kind": "causal", "name": gpt2, "adapters": False, "soft_tokens": 2, "prompt_layers": 1},
        "optimiser": {"lr": 5e-3, "warmup": 2, "weight_decay": 0.0, "clip": 1.0, "betas": [0.9, 0.98], "ema": 0.8},
        "noise_augmentation": 0.1, "mixture": {"paradetox": 1.0}, "validation_mixture": {"paradetox": 1.0},
        "pairs": {"paradetox": pairs, "repairs": pairs}, "phrases": {"file": "x/spans.jsonl.gz", "dirty": 3},
        "outbursts": [{"file": "x/spans.jsonl.gz", "heads": ["toxicity"]}],
        "clean": [{"file": "x/plain.txt.gz", "kind": "plain", "cap": 500}],
    }  # fmt: skip
    recipe.write_text(yaml.safe_dump(document))
    return recipe, data


@pytest.fixture(autouse=True)
def small_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latent statistics need twice as many texts as dimensions; repeat the few there are."""
    texts = causal_training.latent_texts
    monkeypatch.setattr(causal_training, "latent_texts", lambda *args: texts(*args) * 8)


def command(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["dglm", *map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def trained(place: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint made by the commands alone."""
    recipe, data = place
    out, folder = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("checkpoint")
    texts = causal_training.latent_texts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(causal_training, "latent_texts", lambda *args: texts(*args) * 8)
        longer = recipe.with_name("longer.yaml")
        longer.write_text(yaml.safe_dump(read_recipe(recipe) | {"steps": 90, "checkpoint_every": 90}))
        row = command("train", "decoder", "--recipe", longer, "--data", data, "--out", out)
    first = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    assert row["step"] == 90
    assert row["loss"] < 0.5 * first["loss"]
    assert row["validation_loss"] < 0.5 * first["loss"]
    assert command("export", out, folder)["bytes"] > 1000
    return folder


def test_info_shows_what_the_writer_is(trained: Path, gpt2: str, t5: str) -> None:
    shown = command("info", trained)
    assert shown["config"]["model"] == gpt2
    assert shown["config"]["train"] == "all"
    assert shown["encoder_sha256"] == load_encoder(t5, "cpu").sha256
    assert shown["sha256"] == checkpoint.sha256(trained)


def guide(pipeline: Pipeline) -> Guide:
    """Away from the drafts that say idiot, along the difference of the means."""
    bad, good = (pipeline.encoder.encode(texts).mean(axis=0) for texts in ([f"idiot , {t}" for t in CLEAN], CLEAN))
    weight = 8.0 * (bad - good)
    return Guide(weight, float(-weight @ (bad + good) / 2))


def test_the_rewriter_takes_the_checkpoint_by_its_folder(trained: Path, t5: str) -> None:
    pipeline = load_pipeline(str(trained), t5, "cpu")
    assert isinstance(pipeline.writer, CausalRewriting)
    rewriter = DGLMRewriter(str(trained), t5, "cpu")
    request = RewriteRequest("idiot , the cat is here .", guides=(guide(pipeline),), candidates=6, seed=1)
    proposals = rewriter.propose([request, RewriteRequest("we had tea .", "a dog was there .", candidates=2)])
    assert proposals[0]
    assert any("cat" in row.text and "idiot" not in row.text for row in proposals[0])
    assert all(row.fluency is not None and -2_000.0 <= row.fluency <= 0.0 for own in proposals for row in own)
    assert rewriter.fingerprint.startswith("sha256:")
    again = rewriter.propose([request])
    assert [row.text for row in again[0]] == [row.text for row in proposals[0]]
    assert pipeline.rewrite(SpanRequest("idiot " * 400)) == []  # more than the model can look at
    assert pipeline.rewrite(SpanRequest("idiot", cancelled=lambda: True)) == []
    with pytest.raises(ConfigurationError, match="causal language model"):
        _ = pipeline.decoder


def test_fluency_counts_what_is_new_and_prefers_what_was_learnt(trained: Path, t5: str) -> None:
    pipeline = load_pipeline(str(trained), t5, "cpu")
    good, bad = pipeline.fluency(["the cat is here .", "here cat . the is"])
    assert good > bad + 1.0
    assert pipeline.fluency(["the cat is here ."], "the cat is here .") == [0.0]
    alone = pipeline.fluency(["it was there ."])[0]
    assert pipeline.fluency(["it was there .", "a dog , a dog , a dog had tea ."])[0] == pytest.approx(alone, abs=1e-4)


def test_what_is_in_view() -> None:
    assert in_view("", "") == ""
    assert in_view("", " Before. ") == "Before."
    assert in_view(f"a {HIDDEN} b", "Before.") == f"Before.\nDraft: a {BLANK} b\nRewrite:"
    assert len(in_view("a", "x" * 5000)) < 250


@pytest.mark.parametrize("adapters", [True, False])
def test_a_resumed_run_equals_an_unbroken_one(place: tuple[Path, Path], tmp_path: Path, adapters: bool) -> None:
    recipe, data = place
    document = read_recipe(recipe)
    document["decoder"] = document["decoder"] | {"adapters": adapters}
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    for folder, parts in ((straight, (4,)), (broken, (2, 4))):
        folder.mkdir()
        for steps in parts:
            train_causal(document, tmp_path, data, folder, report=lambda row: None, steps=steps, device="cpu")
    one, two = load_file(straight / STATE), load_file(broken / STATE)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    frozen = [name for name in one if name.startswith("model.") and "/inner/" in name]
    assert not frozen  # a frozen model is not written with every checkpoint
    assert any("/up/" in name for name in one) == adapters


def test_a_loss_that_is_not_finite_names_its_batch(
    place: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, data = place
    run = {"report": lambda row: None, "device": "cpu"}
    train_causal(read_recipe(recipe), tmp_path, data, tmp_path, steps=2, **run)
    kept = (tmp_path / STATE).read_bytes()
    nan = torch.tensor(np.nan, requires_grad=True)
    monkeypatch.setattr(causal_training.CausalWriter, "forward", lambda *_: (nan, torch.tensor(1)))
    with pytest.raises(TrainingDiverged, match=r"step 2, micro-batch 0 of process 0 \('.+ last checkpoint is kept"):
        train_causal(read_recipe(recipe), tmp_path, data, tmp_path, **run)
    assert (tmp_path / STATE).read_bytes() == kept


@pytest.mark.parametrize(
    ("decoder", "complaint"),
    [
        ({"kind": "causal"}, "needs the `name`"),
        ({"kind": "causal", "name": "x", "adapter": 1}, "does not know adapter"),
    ],
)
def test_recipes_that_say_too_little_or_too_much(decoder: dict[str, Any], complaint: str, t5: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        configured({"decoder": decoder}, load_encoder(t5, "cpu"))


def test_the_kind_of_decoder_is_checked() -> None:
    assert not is_causal({})
    assert not is_causal({"decoder": {"kind": "draft"}})
    assert is_causal({"decoder": {"kind": "causal"}})
    with pytest.raises(ConfigurationError, match="'casual'"):
        is_causal({"decoder": {"kind": "casual"}})


def test_another_encoder_and_another_language_model_are_refused(trained: Path, gpt2: str, tmp_path: Path) -> None:
    mine, theirs = checkpoint.read_metadata(trained)["encoder_sha256"], load_encoder("all-MiniLM-L6-v2", "cpu").sha256
    with pytest.raises(CheckpointError, match=f"{mine}.*{theirs}"):
        load_pipeline(str(trained), "all-MiniLM-L6-v2", "cpu")
    from transformers import AutoModelForCausalLM

    from guardrail.dglm.causal import CausalConfig, new_writer

    shutil.copytree(gpt2, other := tmp_path / "other")
    model = AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        model.transformer.wpe.weight.add_(0.1)
    model.save_pretrained(other)
    wanted = json.loads(checkpoint.read_metadata(trained)["config"])["model_sha256"]
    with pytest.raises(CheckpointError, match=f"not the one that was trained with.*{wanted}"):
        new_writer(CausalConfig(str(other), 16, mine, model_sha256=wanted))
