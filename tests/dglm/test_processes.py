"""Several processes that share the training, as `accelerate launch` starts them; on the CPU, over gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file
from safetensors.torch import load_file

from guardrail.dglm import devices
from guardrail.dglm.diffusion_data import load_latents, moments
from guardrail.dglm.diffusion_training import STATE, train_diffusion
from guardrail.dglm.latents import save
from guardrail.errors import MissingDependencyError

DIM, SENTENCES = 8, 400


def make_run(out: Path) -> None:
    """The latents of a run: sentences that resemble the one before."""
    (out / "latents").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        x = rng.standard_normal((SENTENCES, DIM))
        x[1::2] = x[::2] + 0.5 * x[1::2]
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
        before = np.where(np.arange(SENTENCES) % 2, np.arange(SENTENCES) - 1, -1)
        save_file({"x": x, "before": before}, out / "latents" / f"{split}-00000.safetensors")
        (out / "latents" / f"{split}.json").write_text(json.dumps({"sentences": SENTENCES, "shards": 1}))
    save(moments(load_latents(out / "latents"), "sha"), out / "diffusion-latents.safetensors")


def launch(recipe: Path, out: Path, processes: int, steps: int = 4) -> list[subprocess.CompletedProcess[str]]:
    """Run `guardrail dglm train diffusion` in each process, with the environment that launchers set."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "guardrail", "dglm", "train", "diffusion", "--json", "--threads", "1"]
    command += ["--recipe", str(recipe), "--out", str(out), "--steps", str(steps)]
    shared = os.environ | {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    started = [
        subprocess.Popen(
            command,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    done = []
    for process in started:
        stdout, stderr = process.communicate(timeout=600)
        done.append(subprocess.CompletedProcess(command, process.returncode, stdout, stderr))
    return done


@pytest.mark.slow
def test_two_processes_train_one_network_and_a_run_resumes(tmp_path: Path) -> None:
    pytest.importorskip(
        "accelerate", reason="install guardrail-dglm[train]: training in several processes was not tested"
    )
    document = {
        "name": "tiny", "seed": 3, "encoder": "small", "network": {"preset": "tiny"}, "shift": 0.0,
        "condition_dropout": 0.1, "steps": 4, "batch": 32, "micro_batch": 16, "checkpoint_every": 2,
        "optimiser": {"lr": 5e-3, "warmup": 2, "weight_decay": 0.0, "clip": 1.0, "betas": [0.9, 0.99], "ema": 0.9},
    }  # fmt: skip
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(document))
    for name in ("alone", "two"):
        make_run(tmp_path / name)
    for steps in (2, 4):
        done = launch(recipe, tmp_path / "two", 2, steps)
        assert [process.returncode for process in done] == [0, 0], [process.stderr for process in done]
    rows = [json.loads(line) for line in (tmp_path / "two" / "diffusion-log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]  # one of them writes the log, and the second start went on
    train_diffusion(recipe, tmp_path / "alone", report=lambda row: None, device="cpu")
    alone, two = (load_file(tmp_path / name / STATE) for name in ("alone", "two"))
    assert alone.keys() == two.keys()
    assert all(value.isfinite().all() for value in two.values())
    # each step is of the batches of both processes: near what one process learns from its own, and not the same
    moved = [name for name in alone if name.startswith("model.") and not torch.allclose(alone[name], two[name])]
    assert moved


def test_several_processes_need_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingDependencyError, match="train"):
        devices.place("cpu", bf16=False)
