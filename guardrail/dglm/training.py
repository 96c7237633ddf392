"""Train the decoder. Read top to bottom: recipe, batches, step, checkpoint, loop.

A batch is a function of (seed, step) alone, so that a killed run resumes exactly.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from guardrail.dglm import checkpoint, latents
from guardrail.dglm.aims import MARGINS, Aims, wanted
from guardrail.dglm.batch import Example, collate_prefix, collate_target, make_example
from guardrail.dglm.codec import Codec, word_tokenizer
from guardrail.dglm.contrast import Contests, contests_of, contrast_loss
from guardrail.dglm.corpus import Corpus, load_corpus
from guardrail.dglm.corruption import Spoiler
from guardrail.dglm.decoder import Decoder, DecoderConfig, warm_start
from guardrail.dglm.guidance import Guide
from guardrail.dglm.loss import decoder_loss, output_index
from guardrail.dglm.prompt import noise_latent
from guardrail.dglm.run_state import Course, RunState, average_weights, load_state, new_state, run_steps
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import ConfigurationError, GuardrailError

FORM_LOSS_WEIGHT = 0.3
STATE = "state.safetensors"
HELD_ASIDE = 10**6
"""Step from which on the batches that measure a run are drawn; no run gets there."""

HELD_CONTESTS = 64
"""Contests that are drawn from held-aside drafts when a run is measured."""

_LOSS_SCALE = 1000.0  # tokens that a summed loss is divided by before the true count of the step is known

Report = Callable[[dict[str, Any]], None]


class TrainingDiverged(GuardrailError):
    """The loss became NaN or infinite; the last checkpoint is kept."""


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe.

    Raises:
        ConfigurationError: the file is missing or is no mapping.
    """
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"recipe {path} cannot be read: {error}") from error
    if not isinstance(recipe, dict):
        raise ConfigurationError(f"recipe {path} should be a mapping of settings")
    return recipe


def output_vocabulary(codec: Codec, corpus: Corpus, size: int) -> tuple[int, ...]:
    """Return the ids that the softmax can write: the targets' most frequent pieces and every single character."""
    counts: Counter[int] = Counter()
    for pairs in corpus.pairs.values():
        for pair in pairs:
            counts.update(codec.encode(pair.target).ids)
    for sentence, _ in corpus.clean:
        counts.update(codec.encode(sentence).ids)
    counts.pop(codec.unknown_id, None)
    singles = {i for i, piece in enumerate(codec.pieces) if len(piece.removeprefix("##")) == 1 and piece.isascii()}
    special = {102}  # [SEP] ends a sentence
    frequent = [i for i, _ in counts.most_common(size)]
    return tuple(sorted(special | singles | set(frequent[: size - len(singles)])))


def latent_texts(corpus: Corpus, count: int, seed: int) -> list[str]:
    """A balanced sample for the latent statistics: a third each clean sentences, drafts and rewrites of pairs."""
    rng = np.random.default_rng(seed)
    pairs = corpus.pairs["paradetox"] + corpus.pairs["repairs"]
    drawn = rng.permutation(len(pairs))[: count // 3]
    clean = rng.permutation(len(corpus.clean))[: count // 3]
    drafts = [pairs[i].source for i in drawn] + corpus.outbursts[: count // 10]
    return [corpus.clean[i][0] for i in clean] + drafts + [pairs[i].target for i in drawn]


def new_decoder(
    recipe: Mapping[str, Any], encoder: Encoder, output_ids: tuple[int, ...], start: checkpoint.Checkpoint | None
) -> Decoder:
    """Build the decoder of a recipe, with the weights of `start` or warm-started from the encoder's own transformer.

    Raises:
        ConfigurationError: the recipe's sizes are not those of `start`.
    """
    torch.manual_seed(int(recipe["seed"]))
    config = DecoderConfig(latent_dim=encoder.dim, output_ids=output_ids, **recipe["model"])
    decoder = Decoder(config)
    if start is None:
        warm_start(decoder, load_file(encoder.directory / "model.safetensors"))
    elif start.decoder.config != config:
        raise ConfigurationError(f"the recipe's `model` does not have the sizes of its `start`, {start.folder}")
    else:
        decoder.load_state_dict(start.decoder.state_dict())
    for name in recipe.get("frozen", ()):
        decoder.get_submodule(name).requires_grad_(False)
    return decoder


def starting_point(recipe: Mapping[str, Any], encoder: Encoder) -> checkpoint.Checkpoint | None:
    """Load the checkpoint that a recipe goes on from (`start`: a shipped name or a folder), if it names one."""
    name = recipe.get("start")
    return checkpoint.load(checkpoint.locate(name), encoder.sha256, "cpu") if name else None


def equip(
    recipe: Mapping[str, Any], out: Path, encoder: Encoder, codec: Codec, corpus: Corpus
) -> tuple[Decoder, latents.LatentStatistics]:
    """Return the untrained decoder and the latent statistics of a run, and keep in `out` what they were made of."""
    (out / "recipe.json").write_text(json.dumps(recipe), encoding="utf8")
    start = starting_point(recipe, encoder)
    ids_path, latents_path = out / "output_ids.json", out / "latents.safetensors"
    if start is not None:
        latents.save(start.statistics, latents_path)
        ids_path.write_text(json.dumps(start.decoder.config.output_ids), encoding="utf8")
    if not latents_path.exists():
        texts = latent_texts(corpus, 24_000, int(recipe["seed"]))
        latents.save(latents.measure(encoder, texts), latents_path)
    if not ids_path.exists():
        ids = output_vocabulary(codec, corpus, int(recipe["output_vocabulary"]))
        ids_path.write_text(json.dumps(ids), encoding="utf8")
    output_ids = tuple(json.loads(ids_path.read_text(encoding="utf8")))
    return new_decoder(recipe, encoder, output_ids, start), latents.load(latents_path)


class BatchSource:
    """Micro-batches of a step."""

    def __init__(
        self, recipe: Mapping[str, Any], corpus: Corpus, codec: Codec, aims: Aims, mixture: str = "mixture"
    ) -> None:
        self.recipe, self.codec, self.aims = recipe, codec, aims
        self.spoiler = Spoiler(corpus, dict(recipe[mixture]))

    def __call__(self, step: int) -> list[list[Example]]:
        """Return the examples of `step`, sorted by length and cut into micro-batches."""
        rng = np.random.default_rng([int(self.recipe["seed"]), step])
        pairs = [self.spoiler.draw(rng) for _ in range(int(self.recipe["batch"]))]
        examples = [make_example(self.codec, pair, self.aims.draw(pair, rng)) for pair in pairs]
        examples = sorted((example for example in examples if example.target), key=len)
        size = int(self.recipe["micro_batch"])
        return [examples[start : start + size] for start in range(0, len(examples), size)]


def prepare(
    examples: list[Example], decoder: Decoder, encoder: Encoder, stats: latents.LatentStatistics, noise: float
) -> Any:
    """Collate a micro-batch: find the wanted embeddings, noise the latents, make the soft tokens."""
    aims = [example.aim for example in examples]
    x = stats.normalise(wanted(aims, encoder.encode([aim.base for aim in aims]), stats))
    signal = 1.0 - noise * torch.rand(len(examples)) ** 2
    latent = noise_latent(torch.from_numpy(x), signal)
    prefix = collate_prefix([example.prefix for example in examples], decoder.prompt(latent, signal))
    return prefix, collate_target([example.target for example in examples])


def learning_rate(step: int, steps: int, settings: Mapping[str, Any]) -> float:
    """Linear warm-up, then a cosine down to 5% of the peak."""
    warmup = int(settings["warmup"])
    if step < warmup:
        return float(settings["lr"]) * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return float(settings["lr"]) * (0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * progress)))


Contrast = Callable[[], tuple[Tensor, float]]
"""Gives the weighted loss of contests between rewrites, and the share of them that is won."""


def train_step(
    state: RunState,
    decoder: Decoder,
    batches: list[Any],
    lr: float,
    settings: Mapping[str, Any],
    index: Tensor,
    contrast: Contrast | None = None,
) -> dict[str, float]:
    """One optimiser step over prepared micro-batches (callables, so that only one graph is alive at a time).

    Args:
        contrast: its loss is added, see `guardrail.dglm.contrast`.

    Raises:
        TrainingDiverged: the loss is not finite; the weights are those before the step.
    """
    state.begin(lr)
    token_total = form_total = count_total = 0.0
    for number, prepare_batch in enumerate(batches):
        prefix, target = prepare_batch()
        token_loss, form_loss, count = decoder_loss(decoder, prefix, target, index)
        if not math.isfinite(token_loss.item() + form_loss.item()):
            raise TrainingDiverged(
                f"the loss is not finite at step {state.step}, micro-batch {number}; the last checkpoint is kept"
            )
        loss = (token_loss + FORM_LOSS_WEIGHT * form_loss) / _LOSS_SCALE
        loss.backward()  # type: ignore[no-untyped-call]
        token_total += token_loss.item()
        form_total += form_loss.item()
        count_total += count.item()
    row = {"loss": token_total / count_total, "form_loss": form_total / count_total, "tokens": count_total}
    if contrast is not None:
        contrast_total, row["preferred"] = contrast()
        if not math.isfinite(contrast_total.item()):
            raise TrainingDiverged(f"the contrast is not finite at step {state.step}; the last checkpoint is kept")
        (contrast_total / _LOSS_SCALE).backward()  # type: ignore[no-untyped-call]
    state.advance(float(settings["clip"]), float(settings["ema"]), _LOSS_SCALE / count_total)
    return row


def validation_loss(decoder: Decoder, batches: list[Any], index: Tensor) -> dict[str, float]:
    """Mean token loss over prepared micro-batches, in nats."""
    totals = np.zeros(3)
    with torch.no_grad():
        for prepare_batch in batches:
            prefix, target = prepare_batch()
            parts = decoder_loss(decoder, prefix, target, index)
            totals += [part.item() for part in parts]
    return {"validation_loss": totals[0] / totals[2], "validation_form_loss": totals[1] / totals[2]}


def training_aims(recipe: Mapping[str, Any], guides: Mapping[str, Guide]) -> Aims:
    """Read what a recipe's `aims` says: `heads`, `share` and `margins`.

    Args:
        guides: name -> the head, for the names that the recipe may use.

    Raises:
        ConfigurationError: a head is not among `guides`.
    """
    settings = recipe.get("aims") or {}
    unknown = sorted(set(settings.get("heads", ())) - set(guides))
    if unknown:
        raise ConfigurationError(f"the recipe aims by heads that are not there: {', '.join(unknown)}")
    chosen = tuple(guides[name] for name in settings.get("heads", ()))
    least, largest = settings.get("margins", MARGINS)
    return Aims(chosen, float(settings.get("share", 0.0)), (float(least), float(largest)))


@dataclass(frozen=True, slots=True)
class _Desk:
    """How the examples of a run become tensors and losses."""

    decoder: Decoder
    encoder: Encoder
    stats: latents.LatentStatistics
    index: Tensor

    def prepared(self, batches: list[list[Example]], noise: float) -> list[Any]:
        """Callables that collate a micro-batch each."""
        return [partial(prepare, examples, self.decoder, self.encoder, self.stats, noise) for examples in batches]

    def contrast(self, contests: Contests, examples: list[Example]) -> tuple[Tensor, float]:
        """The weighted loss of contests, and the share of them that is won."""
        prefix, target = prepare(examples, self.decoder, self.encoder, self.stats, 0.0)
        loss, won = contrast_loss(self.decoder, prefix, target, self.index, contests.settings.beta)
        return contests.settings.weight * loss, won

    def measure(self, batches: list[list[Example]], contests: Contests | None) -> dict[str, float]:
        """Losses on held-aside batches and, where there are any, the share of held-aside contests that is won."""
        row = validation_loss(self.decoder, self.prepared(batches, 0.0), self.index)
        if contests is not None:
            with torch.no_grad():
                row["validation_preferred"] = self.contrast(contests, contests(HELD_ASIDE, HELD_CONTESTS))[1]
        return row


def train_decoder(
    recipe_path: Path,
    data: Path,
    out: Path,
    *,
    report: Report,
    steps: int | None = None,
    guides: Mapping[str, Guide] | None = None,
) -> Path:
    """Train (or resume) the decoder of a recipe; returns the folder of the run.

    Args:
        recipe_path: YAML recipe. data: folder of the shared data. out: folder for checkpoints, log and latent
            statistics.
        report: called with a dictionary after every step.
        steps: stop after this many optimiser steps in all (default: the recipe's).
        guides: name -> head, for the heads that the recipe's `aims` name.

    Raises:
        TrainingDiverged: the loss is not finite. ConfigurationError: the recipe asks for what is not there.
    """
    recipe = read_recipe(recipe_path)
    aims = training_aims(recipe, guides or {})
    steps = steps or int(recipe["steps"])
    project = recipe_path.resolve().parents[2]
    encoder = load_encoder(recipe["encoder"])
    codec = Codec(word_tokenizer(encoder.directory))
    corpus = load_corpus(recipe, data, project, int(recipe["seed"]))
    decoder, stats = equip(recipe, out, encoder, codec, corpus)
    index = output_index(decoder)
    settings = recipe["optimiser"]
    state = new_state(decoder, settings)
    load_state(state, out, STATE)
    source = BatchSource(recipe, corpus, codec, aims)
    held_aside = load_corpus(recipe, data, project, int(recipe["seed"]), split="test")
    validate = BatchSource(recipe, held_aside, codec, aims, "validation_mixture")
    noise = float(recipe["noise_augmentation"])
    contests, held_contests = (contests_of(recipe, project, codec, aims, split) for split in ("train", "test"))
    desk = _Desk(decoder, encoder, stats, index)

    def step() -> dict[str, Any]:
        torch.manual_seed(int(recipe["seed"]) * 1_000_003 + state.step)
        lr = learning_rate(state.step, int(recipe["steps"]), settings)
        beside = None if contests is None else lambda: desk.contrast(contests, contests(state.step))
        return train_step(state, decoder, desk.prepared(source(state.step), noise), lr, settings, index, beside) | {
            "lr": lr
        }

    def measure() -> dict[str, float]:
        return desk.measure([batch for i in range(3) for batch in validate(HELD_ASIDE + i)], held_contests)

    every = int(recipe["checkpoint_every"])
    run_steps(state, Course(out, STATE, "log.jsonl", steps, int(recipe["batch"]), every, report), step, measure)
    return out


def export_run(run: Path, folder: Path) -> int:
    """Write the averaged weights of a run as a checkpoint; returns its size in bytes.

    Raises:
        CheckpointError: `run` holds no checkpoint.
    """
    weights = average_weights(run, STATE)
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf8"))
    statistics = latents.load(run / "latents.safetensors")
    output_ids = tuple(json.loads((run / "output_ids.json").read_text(encoding="utf8")))
    config = DecoderConfig(latent_dim=statistics.dim, output_ids=output_ids, **recipe["model"])
    checkpoint.save(weights, config, statistics, folder, json.dumps(recipe))
    return sum((folder / name).stat().st_size for name in ("decoder.safetensors", "latents.safetensors"))
