"""From reviewers' choices to a checkpoint that is tuned by them, or a refusal that says why.

The diffusion network of the configured checkpoint is moved by `guardrail.learn.preference`; what is proved before anything counts:

- On choices that were kept aside (a fifth of the decisions) the network must find the chosen texts easier to denoise, relative to
  the rejected ones, than the reference does, and be right about no fewer of them.
- On the safety set, the policy's examples that it must act on, guided edits and guided continuations must reach the allowed side
  no less often than before.

The new checkpoint is a folder of its own. In its `base/` lies the diffusion before any choice: the next round starts there again,
with all choices, so that the bounds hold over any number of rounds.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from guardrail.assembly import Assembly, assemble
from guardrail.audit.store import AuditStore
from guardrail.dglm import checkpoint
from guardrail.dglm.diffusion_checkpoint import (
    FILE,
    find_diffusion,
    load_diffusion,
    read_diffusion_metadata,
    save_diffusion,
)
from guardrail.dglm.guidance import Guide
from guardrail.dglm.latents import LatentStatistics
from guardrail.dglm.network import Context, ProposalNetwork
from guardrail.dglm.propose import EDIT, Diffusion, ProposalSettings
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import DataError
from guardrail.evaluate.guides import Task, compare_guides
from guardrail.learn.choices import Choice, Pair, choices_of, is_aside, pairs_of
from guardrail.learn.preference import Latents, accuracy, margins, tune
from guardrail.learn.preferred_card import Limits, PreferenceLearned, card
from guardrail.policy import Policy
from guardrail.policy.corpus import GROUPS, Case
from guardrail.settings import Settings

__all__ = ["Limits", "PreferenceLearned", "learn_diffusion"]

BASE = "base"
COPIED = ("decoder.safetensors", "latents.safetensors", "phrases.json", "README.md")
MIN_REVIEWERS = 3
MIN_PAIRS = 20
MIN_ASIDE = 5


def learn_diffusion(
    store: AuditStore,
    policy: Policy,
    settings: Settings,
    out: Path,
    cases: Sequence[Case],
    *,
    community: str | None = None,
    limits: Limits | None = None,
    report: Callable[[int, float, float], object] = lambda *_: None,
) -> PreferenceLearned:
    """Tune the diffusion of the configured checkpoint by all choices on record and write a checkpoint, if it is better.

    Args:
        store: with the reviews. policy: whose heads guide on the safety set. settings: with checkpoint and encoder.
        out: folder of the new checkpoint; must not be that of the old one. cases: the safety set.
        community: whose choices; None: all. limits: how far. report: told of step, loss, divergence.

    Raises:
        DataError: too few choices or reviewers, no safety set, or a checkpoint without a diffusion network.
        ConfigurationError: a text is encrypted with a key that is not configured.
    """
    limits = Limits() if limits is None else limits
    folder = checkpoint.locate(settings.rewriter.checkpoint)
    if out.resolve() in (folder.resolve(), (folder / BASE).resolve()):
        raise DataError(f"{out} is the checkpoint that is learned from; name another folder")
    with store.engine.connect() as connection:
        choices = choices_of(connection, community)
    learned, aside = _parts(choices, limits)
    encoder = load_encoder(settings.encoder, settings.device)
    source = folder / BASE if find_diffusion(folder / BASE) else folder
    before = _loaded(source, encoder)
    tasks = _tasks(assemble(policy, settings), encoder, cases)
    statistics, reference = before.statistics, _network(before)
    training, proof = (_latents(part, encoder, statistics) for part in (learned, aside))
    tuned = tune(reference, training, limits.tuning, report)
    after = Diffusion(statistics, tuned.network, None, before.schedule)
    held, moved = margins(reference, proof), margins(tuned.network, proof)
    found = PreferenceLearned(
        choices=len(choices),
        reviewers=len({choice.reviewer for choice in choices}),
        pairs=len(learned),
        aside=len(aside),
        accuracy=(accuracy(held, proof.weight), accuracy(moved, proof.weight)),
        loss=_loss(moved - held, proof, limits.tuning.beta),
        control={name: (_control(before, *task), _control(after, *task)) for name, task in tasks.items()},
        divergence=tuned.divergence,
        steps=tuned.steps,
        stopped=tuned.stopped,
    )
    return _written(found, limits, source, folder, out, after)


def _parts(choices: Sequence[Choice], limits: Limits) -> tuple[list[Pair], list[Pair]]:
    """The pairs to learn from and those kept aside; weighed by themselves, so that nobody decides the proof alone either."""
    reviewers = {choice.reviewer for choice in choices}
    if len(reviewers) < MIN_REVIEWERS:
        raise DataError(
            f"{len(reviewers)} reviewers have chosen between rewrites; at least {MIN_REVIEWERS} are needed, so that "
            "nobody decides alone"
        )
    rest = pairs_of([one for one in choices if not is_aside(one.decision)], limits.cap, limits.share)
    aside = pairs_of([one for one in choices if is_aside(one.decision)], limits.cap, limits.share)
    if len(rest) < MIN_PAIRS or len(aside) < MIN_ASIDE:
        raise DataError(
            f"there are {len(rest)} pairs of rewrites to learn from and {len(aside)} kept aside on which people agree; "
            f"at least {MIN_PAIRS} and {MIN_ASIDE} are needed"
        )
    return rest, aside


def _loaded(folder: Path, encoder: Encoder) -> Diffusion:
    if not find_diffusion(folder):
        raise DataError(f"the checkpoint {folder} has no diffusion; choices have nothing to tune")
    return load_diffusion(folder, encoder.sha256, "cpu")


def _network(diffusion: Diffusion) -> ProposalNetwork:
    if diffusion.network is None:
        raise DataError("the checkpoint's diffusion has no network; choices have nothing to tune")
    return diffusion.network


def _latents(pairs: Sequence[Pair], encoder: Encoder, statistics: LatentStatistics) -> Latents:
    def embedded(texts: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(statistics.normalise(encoder.encode(texts)).astype(np.float32))

    known = torch.tensor([bool(pair.before.strip()) for pair in pairs])
    before = torch.zeros((len(pairs), statistics.dim))
    if known.any():
        before[known] = embedded([pair.before for pair in pairs if pair.before.strip()])
    return Latents(
        embedded([pair.chosen for pair in pairs]),
        embedded([pair.rejected for pair in pairs]),
        Context(before, known),
        torch.tensor([pair.weight for pair in pairs], dtype=torch.float32),
    )


def _loss(gains: torch.Tensor, pairs: Latents, beta: float) -> float:
    """The loss of `guardrail.learn.preference` on pairs, with the noise averaged out; log 2 for the reference itself."""
    each = F.softplus(-beta * gains)
    return float((pairs.weight * each).sum() / pairs.weight.sum())


# ------------------------------------------------------------------------------------------------------- the safety set


def _tasks(
    assembly: Assembly, encoder: Encoder, cases: Sequence[Case]
) -> dict[str, tuple[list[Task], ProposalSettings]]:
    """Guided edits of the texts that the policy must act on, and guided continuations after them, by rule."""
    by_rule: dict[str, list[str]] = {}
    for case in cases:
        if case.rule is not None and case.accepted <= GROUPS["act"]:
            by_rule.setdefault(case.rule, []).append(case.text)
    strength = assembly.policy.document.rewrite.strength
    edits, continuations = [], []
    for rule, texts in sorted(by_rule.items()):
        guides = _guides(assembly, rule)
        if guides:
            x = encoder.encode(texts)
            edits.append(Task(rule, guides, start=x, strength=strength))
            continuations.append(Task(rule, guides, before=x))
    if not edits:
        raise DataError(
            f"the examples of {assembly.policy.name!r} name no text that a rule with a linear head must act on, so "
            "nothing shows that a change is safe; add cases with `rule:`, or pass --cases FILE"
        )
    return {"edit": (edits, EDIT), "continue": (continuations, ProposalSettings())}


def _guides(assembly: Assembly, rule: str) -> tuple[Guide, ...]:
    bundle = assembly.judge.bundle
    if rule not in assembly.policy.document.rules:
        return ()
    pooled = bundle.linear_guide(rule)
    names = assembly.policy.document.rules[rule].weights
    heads = [pooled] if pooled is not None else [head for name in names if (head := bundle.head(name)) is not None]
    return tuple(Guide(weight, bias, away=True) for weight, bias in heads)


def _control(diffusion: Diffusion, tasks: Sequence[Task], settings: ProposalSettings) -> float:
    """Share of proposals on the allowed side, over the texts of all tasks; the same noise for every diffusion."""
    passed = [task.count * compare_guides(diffusion, task, [("", settings)])[0]["control"] for task in tasks]
    return float(sum(passed) / sum(task.count for task in tasks))


# ----------------------------------------------------------------------------------------------------------- the outcome


def _why_not(found: PreferenceLearned) -> str:
    if not found.steps:
        return "the first look at the divergence was beyond the bound already; lower the learning rate or raise --kl"
    if found.accuracy[1] < found.accuracy[0] or not found.loss < math.log(2.0):
        return "the network is no better on the choices kept aside"
    worse = [name for name, (before, after) in found.control.items() if after < before]
    return f"control on the safety set got worse: {', '.join(worse)}" if worse else ""


def _written(
    found: PreferenceLearned, limits: Limits, source: Path, folder: Path, out: Path, after: Diffusion
) -> PreferenceLearned:
    refused = _why_not(found)
    values = {name: getattr(found, name) for name in PreferenceLearned.__dataclass_fields__}
    if refused:
        return PreferenceLearned(**(values | {"refused": refused}))
    network, metadata = _network(after), read_diffusion_metadata(source)
    parent = load_diffusion(source, after.statistics.encoder_sha256, "cpu").sha256
    facts = {name: value for name, value in values.items() if name not in ("checkpoint", "refused")}
    recipe = metadata["recipe"] | {"preference": {"parent_sha256": parent, "limits": asdict(limits), "found": facts}}
    (out / BASE).mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    shutil.copyfile(source / FILE, out / BASE / FILE)
    save_diffusion(out, after.statistics, {"network": (network.config, network.state_dict())}, recipe, torch.float32)
    (out / "DIFFUSION.md").write_text(card(found, limits, parent, BASE), encoding="utf-8")
    return PreferenceLearned(**(values | {"checkpoint": out}))
