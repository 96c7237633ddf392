"""Training the diffusion: latents in shards, exact resume, a NaN that stops, checkpoints of one encoder only."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from guardrail.cli.app import app
from guardrail.dglm import diffusion_training, distill
from guardrail.dglm.diffusion_checkpoint import find_diffusion, load_diffusion, read_diffusion_metadata
from guardrail.dglm.diffusion_data import Chunk, Latents, chunks, embed, load_latents, moments, passages
from guardrail.dglm.propose import STUDENT
from guardrail.dglm.time_sampling import AdaptiveTimes, cosine_weight
from guardrail.errors import CheckpointError, ConfigurationError

DIM = 8
SHA = "sha of the small encoder"


class SmallEncoder:
    """Embeds a sentence by its words; what follows resembles what stands before."""

    dim, sha256 = DIM, SHA

    def encode(self, texts):
        x = np.array([self._one(text) for text in texts], dtype=np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def _one(self, text: str) -> np.ndarray:
        rows = [np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIM) for word in text.split()]
        return np.sum(rows, axis=0)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("recipe")
    rng = np.random.default_rng(0)
    words = "nurse letter station printer market river window garden".split()
    rows = []
    for number in range(60):
        topic = str(rng.choice(words))
        turns = [{"text": f"The {topic} is {rng.choice(words)} again. I like the {topic}."} for _ in range(3)]
        rows.append({"turns": turns, "split": "test" if number % 6 == 0 else "train"})
    with gzip.open(root / "talk.jsonl.gz", "wt", encoding="utf8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    document = {
        "name": "tiny", "seed": 3, "encoder": "small", "shard": 40, "validation_cap": 50,
        "sources": [{"file": "talk.jsonl.gz", "kind": "dialogue"}],
        "network": {"preset": "tiny"}, "shift": 0.0, "condition_dropout": 0.1,
        "optimiser": {"lr": 5e-3, "warmup": 2, "weight_decay": 0.0, "clip": 1.0, "betas": [0.9, 0.99], "ema": 0.9},
        "steps": 6, "batch": 32, "micro_batch": 16, "checkpoint_every": 2,
        "distill": {"grid": 4, "steps": 4, "optimiser":
            {"lr": 1e-3, "warmup": 1, "weight_decay": 0.0, "betas": [0.9, 0.99], "ema": 0.9}},
    }  # fmt: skip
    (root / "tiny.yaml").write_text(yaml.safe_dump(document))
    return root / "tiny.yaml", root


@pytest.fixture
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusion_training, "load_encoder", lambda name, device="cpu": SmallEncoder())


@pytest.fixture(scope="module")
def run(recipe: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and distilled run."""
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusion_training, "load_encoder", lambda name, device="cpu": SmallEncoder())
        diffusion_training.train_latents(*recipe, out, report=lambda row: None)
    rows: list[dict] = []
    diffusion_training.train_diffusion(recipe[0], out, report=rows.append, device="cpu")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1].keys() >= {"validation_loss", "validation_loss_without_prefix", "examples_per_second"}
    distill.train_student(recipe[0], out, report=rows.append, device="cpu")
    assert rows[-1]["step"] == 4
    return out


def copy_latents(run: Path, out: Path) -> None:
    (out / "latents").mkdir(parents=True)
    for path in [run / "diffusion-latents.safetensors", *(run / "latents").iterdir()]:
        (out / path.relative_to(run)).write_bytes(path.read_bytes())


def test_each_sentence_knows_the_one_before(recipe: tuple[Path, Path]) -> None:
    path, data = recipe
    document = yaml.safe_load(path.read_text())
    for chunk in chunks(document, data):
        for number, before in enumerate(chunk.before):
            assert before in (-1, number - 1)
        assert chunk.before.count(-1) * 6 == len(chunk.sentences)  # six sentences a dialogue
    train = {s for run in passages({"kind": "dialogue"}, data / "talk.jsonl.gz", "train", 0) for s in run}
    assert len(train) > 10


def test_chunks_hold_whole_passages() -> None:
    chunk = Chunk()
    chunk.add(["one two", "three four"])
    chunk.add(["five six"])
    assert chunk.before == [-1, 0, -1]


def test_latents_go_on_where_they_stopped(recipe: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    path, data = recipe
    document = yaml.safe_load(path.read_text())
    copy_latents(run, tmp_path)
    (tmp_path / "latents" / "train-00001.safetensors").unlink()
    encoder = SmallEncoder()
    calls: list[int] = []
    encode = encoder.encode
    encoder.encode = lambda texts: (calls.append(len(texts)), encode(texts))[1]  # type: ignore[method-assign]
    count = embed(document, data, tmp_path / "latents", encoder, lambda row: None, "train")
    assert len(calls) == 1
    one, two = load_latents(run / "latents"), load_latents(tmp_path / "latents")
    assert np.array_equal(one.x, two.x)
    assert np.array_equal(one.before, two.before)
    assert count == len(one.x)
    drawn = one.batch(np.random.default_rng(0), 64)
    assert not drawn.before[~drawn.known].any()
    assert 0 < drawn.known.sum() < 64
    assert np.allclose(np.linalg.norm(drawn.x, axis=1), 1.0, atol=1e-2)


def test_latents_of_another_encoder_are_refused(recipe: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    path, data = recipe
    copy_latents(run, tmp_path)
    other = SmallEncoder()
    other.sha256 = "another"  # type: ignore[misc]
    with pytest.raises(CheckpointError, match="another encoder"):
        embed(yaml.safe_load(path.read_text()), data, tmp_path / "latents", other, lambda row: None, "train")
    with pytest.raises(ConfigurationError, match="train latents"):
        load_latents(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="kind 'talk'"):
        next(passages({"kind": "talk"}, data / "talk.jsonl.gz", "train", 0))


def test_a_resumed_run_equals_an_unbroken_one(recipe: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    path, _ = recipe
    copy_latents(run, tmp_path)
    for steps in (2, 4, None):
        diffusion_training.train_diffusion(path, tmp_path, report=lambda row: None, steps=steps, device="cpu")
    distill.train_student(path, tmp_path, report=lambda row: None, steps=2, device="cpu")
    distill.train_student(path, tmp_path, report=lambda row: None, device="cpu")
    for name in (diffusion_training.STATE, distill.STUDENT_STATE):
        one, two = load_file(run / name), load_file(tmp_path / name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_training_learns(recipe: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    """Words of a dialogue come back: the prefix says something about the sentence, and the loss falls below the Gaussian's."""
    document = yaml.safe_load(recipe[0].read_text()) | {"steps": 60, "checkpoint_every": 60}
    path = tmp_path / "longer.yaml"
    path.write_text(yaml.safe_dump(document))
    copy_latents(run, tmp_path / "out")
    rows: list[dict] = []
    diffusion_training.train_diffusion(path, tmp_path / "out", report=rows.append, steps=1, device="cpu")
    diffusion_training.train_diffusion(path, tmp_path / "out", report=rows.append, device="cpu")
    first, last = (row for row in rows if "validation_loss" in row)
    assert last["validation_loss"] < 0.9 * first["validation_loss"]
    assert last["validation_loss"] < last["validation_loss_without_prefix"]


def test_a_loss_that_is_not_finite_stops_the_run(
    recipe: tuple[Path, Path], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = recipe
    copy_latents(run, tmp_path)
    diffusion_training.train_diffusion(path, tmp_path, report=lambda row: None, steps=2, device="cpu")
    kept = (tmp_path / diffusion_training.STATE).read_bytes()
    make = diffusion_training.make_batch

    def broken(*arguments):
        batch, seed = make(*arguments), arguments[5]
        if seed[1:3] == [3, 1]:
            batch.z[0, 0] = float("nan")
        return batch

    monkeypatch.setattr(diffusion_training, "make_batch", broken)
    with pytest.raises(diffusion_training.TrainingDiverged, match=r"step 3, micro-batch 1 \(seed \[3, 3, 1, 0\]\)"):
        diffusion_training.train_diffusion(path, tmp_path, report=lambda row: None, device="cpu")
    assert (tmp_path / diffusion_training.STATE).read_bytes() == kept


def test_a_checkpoint_carries_everything_and_its_encoder(run: Path, tmp_path: Path) -> None:
    size = distill.export_diffusion(run, tmp_path)
    assert find_diffusion(tmp_path)
    assert size == (tmp_path / "diffusion.safetensors").stat().st_size
    metadata = read_diffusion_metadata(tmp_path)
    assert metadata["encoder_sha256"] == SHA
    assert metadata["recipe"]["sources"][0]["file"] == "talk.jsonl.gz"
    assert {name: config["base"] for name, config in metadata["configs"].items()} == {
        "network": "posterior",
        "student": "flow",
    }
    diffusion = load_diffusion(tmp_path, SHA, "cpu")
    one = diffusion.propose(3, seed=1)
    assert one.embeddings.shape == (3, DIM)
    assert one.evaluations == 15
    assert np.array_equal(one.embeddings, load_diffusion(tmp_path, SHA, "cpu").propose(3, seed=1).embeddings)
    assert diffusion.propose(2, settings=STUDENT).evaluations == 4
    with pytest.raises(CheckpointError, match=f"{SHA}.*another"):
        load_diffusion(tmp_path, "another", "cpu")
    (tmp_path / "diffusion.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_diffusion(tmp_path, SHA, "cpu")


def test_another_size_is_refused_by_a_run(recipe: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    copy_latents(run, tmp_path)
    (tmp_path / diffusion_training.STATE).write_bytes((run / diffusion_training.STATE).read_bytes())
    document = yaml.safe_load(recipe[0].read_text()) | {"network": {"preset": "tiny", "width": 16}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(CheckpointError, match="other sizes"):
        diffusion_training.train_diffusion(tmp_path / "other.yaml", tmp_path, report=lambda row: None, device="cpu")


def test_bfloat16_trains(recipe: tuple[Path, Path], run: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(recipe[0].read_text()) | {"bf16": True, "steps": 2}
    (tmp_path / "half.yaml").write_text(yaml.safe_dump(document))
    copy_latents(run, tmp_path / "out")
    rows: list[dict] = []
    diffusion_training.train_diffusion(tmp_path / "half.yaml", tmp_path / "out", report=rows.append, device="cpu")
    assert np.isfinite(rows[-1]["validation_loss"])


def test_adaptive_times_keep_the_expected_loss_and_go_where_it_is() -> None:
    """Importance weights: sum of loss x weight is the cosine-weighted mean, however the levels are drawn."""
    times, generator = AdaptiveTimes(decay=0.5), torch.Generator().manual_seed(0)

    def loss(log_snr: torch.Tensor) -> torch.Tensor:
        return torch.where(log_snr > 2.0, 5.0, 0.1)

    for _ in range(40):
        log_snr, _ = times.draw(512, generator)
        times.learn(log_snr, loss(log_snr))
    log_snr, weight = times.draw(40_000, generator)
    grid = torch.linspace(-15.0, 15.0, 30_001)
    wanted = (loss(grid) * cosine_weight(grid)).sum() * 30.0 / 30_000
    assert float((loss(log_snr) * weight).mean()) == pytest.approx(float(wanted), rel=0.03)
    assert float((log_snr > 2.0).float().mean()) > 0.8


@pytest.mark.usefixtures("small_encoder")
def test_the_commands_train_and_export(recipe: tuple[Path, Path], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    path, data = recipe
    out, runner = tmp_path / "run", CliRunner()
    common = ["--recipe", str(path), "--out", str(out), "--json"]
    result = runner.invoke(app, ["dglm", "train", "diffusion", *common])
    assert result.exit_code == 2  # no latents yet
    result = runner.invoke(app, ["dglm", "train", "latents", *common, "--data", str(data)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["sentences"] == 300
    result = runner.invoke(app, ["dglm", "train", "diffusion", *common, "--steps", "2"])
    assert json.loads(result.stdout)["step"] == 2
    result = runner.invoke(app, ["dglm", "train", "distill", *common, "--steps", "1"])
    assert json.loads(result.stdout)["step"] == 1
    result = runner.invoke(app, ["dglm", "export", str(out), str(tmp_path / "checkpoint"), "--json"])
    assert result.exit_code == 0, result.output
    assert find_diffusion(tmp_path / "checkpoint")


def test_dead_dimensions_of_an_encoder_do_no_harm() -> None:
    x = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float16)
    x[:, 2] = 0.0
    statistics = moments(Latents(x, np.full(200, -1)), SHA)
    latent = statistics.normalise(x.astype(np.float32))
    assert np.isfinite(latent).all()
    assert not latent[:, 2].any()
    assert np.isfinite(statistics.spectrum()[0]).all()
    with pytest.raises(CheckpointError, match="at least 8 sentences"):
        moments(Latents(x[:7], np.full(7, -1)), SHA)
