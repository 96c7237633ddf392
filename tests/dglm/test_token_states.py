"""A network that looks at the tokens before, not only at their embedding: data, training, sampling."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from guardrail.dglm import diffusion_training, distill
from guardrail.dglm.diffusion_checkpoint import load_diffusion
from guardrail.dglm.diffusion_data import load_latents
from guardrail.dglm.diffusion_training import STATE, make_batch, train_diffusion, train_latents
from guardrail.dglm.latents import load
from guardrail.dglm.pipeline import Pipeline
from guardrail.dglm.plans import SpanRequest
from guardrail.dglm.time_sampling import AdaptiveTimes
from guardrail.dglm.token_states import token_states
from guardrail.encoder import load_encoder
from guardrail.errors import ConfigurationError

DIM, WIDTH, SHA = 8, 6, "sha of the small encoder"
SIZES = {"body": "transformer", "width": 32, "hidden": 48, "layers": 2, "heads": 2, "tokens": 4, "states": WIDTH}


class SmallEncoder:
    """A token is the hash of a word, its state a random vector of it, and the embedding a sum of others."""

    dim, sha256, device = DIM, SHA, "cpu"

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [[1, *(zlib.crc32(word.encode()) % 1000 + 2 for word in text.split())] for text in texts]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        x = np.array([self._sum(ids) for ids in self.tokens(texts)], dtype=np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def states(self, sequences: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        longest = max(map(len, sequences))
        states = np.zeros((len(sequences), longest, WIDTH), dtype=np.float32)
        for row, ids in enumerate(sequences):
            states[row, : len(ids)] = [np.random.default_rng(token).standard_normal(WIDTH) for token in ids]
        return states, np.array([[place < len(ids) for place in range(longest)] for ids in sequences])

    def _sum(self, ids: Sequence[int]) -> np.ndarray:
        return np.sum([np.random.default_rng([token, 1]).standard_normal(DIM) for token in ids], axis=0)


@pytest.fixture(autouse=True)
def small_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (diffusion_training, distill):
        monkeypatch.setattr(module, "load_encoder", lambda name, device="cpu": SmallEncoder())


def write_recipe(root: Path, **network: Any) -> Path:
    rng = np.random.default_rng(0)
    words = "nurse letter station printer market river window garden".split()
    rows = []
    for number in range(60):
        topic = str(rng.choice(words))
        turns = [{"text": f"The {topic} is {rng.choice(words)} again. I like the {topic}."} for _ in range(3)]
        rows.append({"turns": turns, "split": "test" if number % 6 == 0 else "train"})
    (root / "talk.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    document = {
        "name": "tiny", "seed": 3, "encoder": "small", "shard": 40, "validation_cap": 50,
        "sources": [{"file": "talk.jsonl.gz", "kind": "dialogue"}],
        "network": {"preset": "tiny", **network}, "shift": 0.0, "condition_dropout": 0.1,
        "optimiser": {"lr": 5e-3, "warmup": 2, "weight_decay": 0.0, "clip": 1.0, "betas": [0.9, 0.99], "ema": 0.9},
        "steps": 6, "batch": 32, "micro_batch": 16, "checkpoint_every": 2,
        "distill": {"grid": 4, "steps": 2, "optimiser":
            {"lr": 1e-3, "warmup": 1, "weight_decay": 0.0, "betas": [0.9, 0.99], "ema": 0.9}},
    }  # fmt: skip
    (root / "tiny.yaml").write_text(yaml.safe_dump(document))
    return root / "tiny.yaml"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with embedded sentences and their tokens."""
    train_latents(write_recipe(tmp_path, **SIZES), tmp_path, tmp_path / "run", report=lambda row: None)
    return tmp_path / "run"


def test_a_batch_has_the_states_of_the_sentences_before(run: Path) -> None:
    encoder = SmallEncoder()
    latents, statistics = load_latents(run / "latents"), load(run / "diffusion-latents.safetensors")
    batch = make_batch(latents, statistics, AdaptiveTimes(), 64, 0.0, [1], encoder)  # type: ignore[arg-type]
    context = batch.context
    assert context.states is not None
    assert context.mask is not None
    assert context.mask.any(dim=1).equal(context.known)
    rng = np.random.default_rng([1])
    rng.integers(2**62)  # of the noise
    drawn = latents.batch(rng, 64)
    assert drawn.tokens is not None
    for row in torch.nonzero(context.known).flatten().tolist():
        ids = drawn.tokens[row]
        own = context.states[row][context.mask[row]]
        assert own.numpy() == pytest.approx(encoder.states([ids])[0][0])
        x = encoder._sum(ids)
        assert drawn.before[row] == pytest.approx(x / np.linalg.norm(x), abs=1e-2)  # the same sentence
    hidden = make_batch(latents, statistics, AdaptiveTimes(), 256, 0.5, [1], encoder).context  # type: ignore[arg-type]
    assert hidden.mask is not None
    alone = hidden.known & ~hidden.mask.any(dim=1)
    assert alone.any()  # a network also has to do with the embedding alone


def test_training_resumes_exactly_and_what_it_learns_depends_on_the_tokens(run: Path, tmp_path: Path) -> None:
    recipe = run.parent / "tiny.yaml"
    rows: list[dict[str, Any]] = []
    for steps in (2, 6):
        train_diffusion(recipe, run, report=rows.append, steps=steps, device="cpu")
    broken = load_file(run / STATE)
    (run / STATE).unlink()
    train_diffusion(recipe, run, report=rows.append, device="cpu")
    straight = load_file(run / STATE)
    assert all(torch.equal(broken[name], straight[name]) for name in straight)
    assert straight["model.body.enter_states.weight"].shape == (32, WIDTH)
    distill.train_student(recipe, run, report=rows.append, device="cpu")
    distill.export_diffusion(run, tmp_path / "checkpoint")
    diffusion = load_diffusion(tmp_path / "checkpoint", SHA, "cpu")

    encoder = SmallEncoder()
    before = encoder.encode(["I like the river."])[0]
    one, other = (token_states(encoder, encoder.tokens([text])) for text in ("the river", "a b c d"))  # type: ignore[arg-type]
    found = [diffusion.propose(2, before=before, states=states).embeddings for states in (one, one, other, None)]
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2], atol=1e-4)
    assert not np.allclose(found[0], found[3], atol=1e-4)
    pipeline = Pipeline(encoder, diffusion.statistics, SimpleNamespace(), "", diffusion)  # type: ignore[arg-type]
    asked = SimpleNamespace(request=SpanRequest("x", "I like the river."), encoder=encoder)
    shown = pipeline._before(asked)  # type: ignore[arg-type]
    assert shown["states"][0].shape == (1, 5, WIDTH)
    assert pipeline._before(SimpleNamespace(request=SpanRequest("x"), encoder=encoder)) == {}  # type: ignore[arg-type]


def test_latents_without_tokens_are_refused(tmp_path: Path) -> None:
    train_latents(write_recipe(tmp_path), tmp_path, tmp_path / "run", report=lambda row: None)
    recipe = write_recipe(tmp_path, **SIZES)
    with pytest.raises(ConfigurationError, match="embedded without tokens"):
        train_diffusion(recipe, tmp_path / "run", report=lambda row: None, device="cpu")


def test_long_prefixes_keep_their_end_and_missing_ones_have_no_states() -> None:
    states, mask = token_states(SmallEncoder(), [[1, *range(2, 50)], [], [1, 7]], longest=5)  # type: ignore[arg-type]
    assert mask.sum(axis=1).tolist() == [5, 0, 2]
    wanted, _ = SmallEncoder().states([[1, 46, 47, 48, 49]])
    assert np.array_equal(states[0], wanted[0])


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "t5"])
def test_encoders_show_their_token_states(name: str, t5: str) -> None:
    encoder = load_encoder(t5 if name == "t5" else name, "cpu")
    ids = encoder.tokens(["the cat is here .", "it rained all day , and then a dog was there ."])
    states, mask = encoder.states(ids)
    assert mask.sum(axis=1).tolist() == [len(own) for own in ids]
    alone, _ = encoder.states(ids[:1])
    assert states[0][mask[0]] == pytest.approx(alone[0], abs=1e-4)  # padding changes nothing
    if name != "t5":  # which projects after pooling
        mean = alone[0].mean(axis=0)
        assert mean / np.linalg.norm(mean) == pytest.approx(encoder.encode(["the cat is here ."])[0], abs=1e-5)
