"""Train the tuned tier: the upper layers of the encoder, for all labels at once.

One network, one pass, K labels, each row silent about the labels that it does not know (multi-task learning with masked
losses). The loss is binary cross-entropy with soft labels under the weights of `guardrail.learn.tuned_data`; AdamW with
linear warm-up and decay; what is kept is an exponential moving average of the weights, which ranks unseen sources
better than the last step does (Izmailov et al., UAI 2018; Wortsman et al., CVPR 2022, for the same effect).

A run stops at its deadline and goes on from its last checkpoint as if it had not stopped: batches and dropout depend on
the seed and the step alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from guardrail.bert import Bert
from guardrail.classifiers.network import Trunk, Upper
from guardrail.classifiers.tuned import load_tuned
from guardrail.encoder import Encoder
from guardrail.errors import CheckpointError
from guardrail.evaluate.data import LabelledText
from guardrail.learn.tuned_data import BATCH_TOKENS, Floats, TrunkStates, by_length, cut, loss_weights, targets

FROZEN = 3
"""Layers of the trunk: the lower half of the embedded encoder."""
STATE = "state.safetensors"
CHECKPOINT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class TunePlan:
    """How the tuned tier is trained.

    Attributes:
        seed: of everything.
        epochs: passes over the rows.
        rate: peak learning rate of the layers; output_rate: of the outputs.
        warm_up: share of the steps.
        decay: weight decay of AdamW.
        average: decay of the moving average.
        batch_tokens: padded tokens of a batch.
    """

    seed: int = 0
    epochs: int = 1
    rate: float = 2e-4
    output_rate: float = 2e-3
    warm_up: float = 0.06
    decay: float = 0.01
    average: float = 0.998
    batch_tokens: int = BATCH_TOKENS


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands: steps done and in all, and the mean loss of the latest steps."""

    step: int
    steps: int
    loss: float = float("nan")

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.steps


Report = Callable[[Progress], None]


class TunedTraining:
    """One training run in its own folder.

    Args:
        rows: what is learned from, as `guardrail.learn.tuned_data.draw` gives it.
        heads: the K labels.
        encoder: the embedded encoder.
        folder: for hidden states and checkpoints; a run with the same rows, labels and plan goes on there.
        plan: how.
        states: hidden states of the rows, where they are there already.
        start: a tuned network whose layers, and outputs for the labels that it knows, are gone on from; the encoder's
            own layers if None.

    Raises:
        CheckpointError: the encoder is not of the kind whose layers can be taken, or `start` belongs to another one.
    """

    def __init__(
        self,
        rows: Sequence[LabelledText],
        heads: Sequence[str],
        encoder: Encoder,
        folder: Path,
        plan: TunePlan = TunePlan(),
        states: TrunkStates | None = None,
        start: Path | None = None,
    ) -> None:
        bert = bert_of(encoder)
        self.heads = tuple(heads)
        self.plan = plan
        self.folder = folder
        self.trunk = Trunk(bert, FROZEN)
        self.states = states or TrunkStates(
            [cut(ids) for ids in encoder.tokens([row.text for row in rows])], folder / "trunk", self.trunk.dim
        )
        labels = targets(rows, heads)
        self._up, self._down = (torch.from_numpy(part) for part in loss_weights(rows, labels))
        self._labels = torch.from_numpy(np.nan_to_num(labels))
        torch.manual_seed(plan.seed)
        self.upper = Upper(bert, FROZEN, len(self.heads)).float()
        self._started = "" if start is None else _go_on_from(start, encoder, self.upper, self.heads)
        self.average = {name: value.detach().clone() for name, value in self.upper.state_dict().items()}
        self._optimiser = self._make_optimiser()
        self._epochs = [
            by_length(self.states.sequences, plan.batch_tokens, np.random.default_rng((plan.seed, epoch)))
            for epoch in range(plan.epochs)
        ]
        self.steps = sum(map(len, self._epochs))
        self.step = 0
        if (folder / STATE).is_file():
            self._restore()

    def run(self, deadline: float = np.inf, report: Report | None = None) -> Progress:
        """Train until the end or `deadline` (of `time.monotonic`), checkpoint, and say where it stands."""
        if not self.states.fill(self.trunk, deadline):
            return Progress(0, self.steps)
        memory, offsets = self.states.states(), self.states.offsets
        order = [batch for epoch in self._epochs for batch in epoch]
        saved, recent = time.monotonic(), []
        self.upper.train()
        while self.step < self.steps and time.monotonic() < deadline:
            rows = order[self.step]
            hidden, mask = self.states.batch(rows, memory, offsets)
            recent.append(self._update(hidden, mask, torch.tensor(rows)))
            self.step += 1
            if self.step % 25 == 0 and report is not None:
                report(Progress(self.step, self.steps, float(np.mean(recent[-200:]))))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self._save()
                saved = time.monotonic()
        self._save()
        return Progress(self.step, self.steps, float(np.mean(recent[-200:])) if recent else float("nan"))

    def averaged(self) -> Upper:
        """The upper part with averaged weights, ready to score."""
        self.upper.load_state_dict(self.average)
        return self.upper.eval()

    def _update(self, hidden: Tensor, mask: Tensor, rows: Tensor) -> float:
        torch.manual_seed(self.plan.seed * 1_000_003 + self.step)
        for group in self._optimiser.param_groups:
            group["lr"] = group["peak"] * self._schedule()
        logits = self.upper(hidden, mask)
        y = self._labels[rows]
        weight = self._up[rows] + self._down[rows]
        # The weights of the two sides already hold the soft label, so the target is their share.
        share = torch.where(weight > 0, self._up[rows] / weight.clamp_min(1e-12), y)
        loss = (functional.binary_cross_entropy_with_logits(logits, share, reduction="none") * weight).sum() / len(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.upper.parameters(), 5.0)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._blend()
        return float(loss.detach())

    def _schedule(self) -> float:
        warm = max(1, int(self.plan.warm_up * self.steps))
        return min((self.step + 1) / warm, max(0.0, (self.steps - self.step) / (self.steps - warm)))

    def _blend(self) -> None:
        """Move the average towards the weights, faster at the start."""
        keep = min(self.plan.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.upper.state_dict().items():
                self.average[name].lerp_(value, 1.0 - keep)

    def _make_optimiser(self) -> torch.optim.AdamW:
        groups: list[dict[str, Any]] = [
            {"params": list(self.upper.layers.parameters()), "peak": self.plan.rate, "lr": 0.0},
            {"params": list(self.upper.out.parameters()), "peak": self.plan.output_rate, "lr": 0.0},
        ]
        return torch.optim.AdamW(groups, weight_decay=self.plan.decay)

    def _save(self) -> None:
        from safetensors.torch import save_file

        tensors = {f"weight.{name}": value for name, value in self.upper.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for number, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"moment.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{STATE}.partial"
        save_file(tensors, partial, metadata={"step": str(self.step), "run": self._identity()})
        partial.replace(self.folder / STATE)

    def _restore(self) -> None:
        from safetensors import safe_open

        with safe_open(self.folder / STATE, framework="pt") as stream:
            facts = stream.metadata()
            if facts["run"] != self._identity():
                raise CheckpointError(
                    f"{self.folder} holds a run on other rows, labels or settings; choose another folder or delete it"
                )
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        self.step = int(facts["step"])
        self.upper.load_state_dict(
            {n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")}
        )
        self.average = {n.removeprefix("average."): t for n, t in tensors.items() if n.startswith("average.")}
        document = self._optimiser.state_dict()
        for name, value in tensors.items():
            if name.startswith("moment."):
                _, number, moment = name.split(".")
                document["state"].setdefault(int(number), {})[moment] = value
        self._optimiser.load_state_dict(document)

    def _identity(self) -> str:
        """A hash of everything that decides what a step does."""
        import hashlib

        digest = hashlib.sha256(repr((self.heads, replace(self.plan), FROZEN, self._started)).encode())
        for ids in self.states.sequences:
            digest.update(np.asarray(ids, dtype=np.int32).tobytes())
        for part in (self._up, self._down):
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()


def bert_of(encoder: Encoder) -> Bert:
    """The network whose layers are tuned.

    Raises:
        CheckpointError: the encoder is not of the kind whose layers can be taken.
    """
    if encoder.transformer is None:
        raise CheckpointError(f"the tuned tier needs the embedded encoder, not {encoder.name!r}")
    return encoder.transformer


def _go_on_from(path: Path, encoder: Encoder, upper: Upper, heads: Sequence[str]) -> str:
    """Copy layers and known outputs of the tuned network at `path` into `upper`; return the network's hash."""
    network = load_tuned(encoder, path)
    if network.facts.frozen != FROZEN:
        raise CheckpointError(f"{path} stands on {network.facts.frozen} frozen layers, a run on {FROZEN}")
    upper.layers.load_state_dict(network.upper.layers.state_dict())
    known = {name: place for place, name in enumerate(network.facts.heads)}
    with torch.no_grad():
        for column, name in enumerate(heads):
            if name in known:
                upper.out.weight[column] = network.upper.out.weight[known[name]]
                upper.out.bias[column] = network.upper.out.bias[known[name]]
    return network.facts.sha256


def score_states(upper: Upper, states: TrunkStates) -> Floats:
    """(N, K) logits of the rows whose hidden states are there."""
    memory, offsets = states.states(), states.offsets
    logits = np.empty((len(states.sequences), upper.out.out_features), dtype=np.float32)
    with torch.inference_mode():
        for rows in by_length(states.sequences, 4 * BATCH_TOKENS):
            logits[rows] = upper(*states.batch(rows, memory, offsets)).numpy()
    return logits
