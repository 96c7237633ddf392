"""Train the acceptability detector. Read top to bottom: examples, batches, step, loop.

A batch is a function of (seed, step) alone, so that a killed run resumes exactly.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn

from guardrail.dglm.acceptability import FILE, TokenDetector, load_tokenizer, pad, save
from guardrail.dglm.batch import tokenise_prefix
from guardrail.dglm.breakage import Breaker, Marked, differences, intact
from guardrail.dglm.codec import HIDDEN
from guardrail.dglm.corpus import Corpus, load_corpus
from guardrail.dglm.corruption import Spoiler
from guardrail.dglm.generate import Decoding, generate
from guardrail.dglm.pipeline import MAX_DRAFT, SIGNAL, Pipeline, load_pipeline
from guardrail.dglm.training import Report, TrainingDiverged, learning_rate, read_recipe
from guardrail.encoder import load_encoder

_WRITING_BATCH = 32


class ExampleSource:
    """Marked texts of a step.

    Args:
        recipe: `mixture`, `batch`, `seed`. corpus: clean sentences and pairs. written: a decoder's own, marked.
    """

    def __init__(self, recipe: Mapping[str, Any], corpus: Corpus, written: Sequence[Marked]) -> None:
        clean = [sentence for sentence, _ in corpus.clean]
        targets = [pair.target for pool in ("paradetox", "repairs") for pair in corpus.pairs.get(pool, [])]
        self._sentences, self._targets, self._written = clean, targets or clean, written
        self._breaker = Breaker(clean)
        self._recipe = recipe
        self._pools = list(recipe["mixture"])
        shares = np.array([float(recipe["mixture"][pool]) for pool in self._pools])
        self._shares = shares / shares.sum()

    def __call__(self, step: int) -> list[Marked]:
        """Return the examples of a step."""
        rng = np.random.default_rng([int(self._recipe["seed"]), step])
        return [self._draw(rng) for _ in range(int(self._recipe["batch"]))]

    def _draw(self, rng: np.random.Generator) -> Marked:
        pool = self._pools[int(rng.choice(len(self._pools), p=self._shares))]
        if pool == "written" and self._written:
            return self._written[int(rng.integers(len(self._written)))]
        texts = self._targets if rng.random() < 0.3 else self._sentences
        sentence = texts[int(rng.integers(len(texts)))]
        if rng.random() < 0.2:
            sentence = sentence.rstrip(".!")
        return self._breaker(sentence, rng) if pool == "broken" else intact(sentence)


def labels(example: Marked, encoding: Encoding) -> list[float]:
    """Return 1 for each token that stands in a broken word, and for the closing token where the end is missing."""
    broken = np.zeros(len(example.text) + 1, dtype=bool)
    for start, stop, is_broken in example.spans:
        broken[start:stop] |= is_broken
    found = [float(broken[start:stop].any()) for start, stop in encoding.offsets]
    found[-1] = float(example.end)
    return found


def collate(examples: Sequence[Marked], tokenizer: Tokenizer) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids (B, T), mask (B, T) and labels (B, T)."""
    encodings = tokenizer.encode_batch([example.text for example in examples])  # with offsets, unlike the fast one
    ids, mask = pad(encodings)
    wanted = torch.zeros(ids.shape)
    for row, (example, encoding) in enumerate(zip(examples, encodings, strict=True)):
        wanted[row, : len(encoding.ids)] = torch.tensor(labels(example, encoding))
    return ids, mask, wanted


def detection_loss(model: TokenDetector, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Mean binary cross-entropy over tokens, in nats; the opening token does not count."""
    ids, mask, wanted = batch
    losses = nn.functional.binary_cross_entropy_with_logits(model(ids, mask), wanted, reduction="none")
    weight = mask.float()
    weight[:, 0] = 0.0
    return (losses * weight).sum() / weight.sum()


def write_examples(pipeline: Pipeline, corpus: Corpus, recipe: Mapping[str, Any], report: Report) -> list[Marked]:
    """Let a decoder rewrite spoiled sentences and rude drafts as the rewriter does, and mark where it went astray."""
    settings, rng = recipe["written"], np.random.default_rng(int(recipe["seed"]))
    spoiler = Spoiler(corpus, {"paradetox": 0.45, "repairs": 0.25, "denoise": 0.3})
    found: list[Marked] = []
    while len(found) < int(settings["count"]):
        pairs = [spoiler.draw(rng) for _ in range(_WRITING_BATCH)]
        pairs = [pair for pair in pairs if pair.source]
        bases = [" ".join(pair.source.replace(HIDDEN, "").split()) for pair in pairs]
        latent = pipeline.statistics.normalise(pipeline.encoder.encode(bases))
        temperatures = [float(rng.choice(settings["temperature"])) for _ in pairs]
        rows = generate(
            pipeline.decoder,
            pipeline.codec,
            torch.from_numpy(latent),
            torch.full((len(pairs),), SIGNAL),
            [tokenise_prefix(pipeline.codec, pair.source, pair.before, MAX_DRAFT) for pair in pairs],
            Decoding(temperatures, max_tokens=60),
            torch.Generator().manual_seed(int(rng.integers(2**31))),
        )
        found += [
            differences(row.text, pair.target)
            for row, pair in zip(rows, pairs, strict=True)
            if row.text and _close(row.text, pair.target)
        ]
        report({"written": len(found), "of": int(settings["count"])})
    return found


def _close(written: str, target: str) -> bool:
    """Enough in common that a difference is likely a fault; another way to say it all is none."""
    mine, wanted = set(written.lower().split()), set(target.lower().split())
    return len(mine & wanted) >= 0.5 * max(len(mine), len(wanted))


def train_acceptability(recipe_path: Path, data: Path, out: Path, *, report: Report, steps: int | None = None) -> Path:
    """Train (or resume) the detector of a recipe; returns the folder of the run, with the detector in it.

    Args:
        recipe_path: YAML recipe. data: folder of the shared data. out: folder of the run. report: called with a
            dictionary after every step. steps: stop after this many in all (default: the recipe's).

    Raises:
        TrainingDiverged: the loss is not finite.
    """
    recipe = read_recipe(recipe_path)
    project = recipe_path.resolve().parents[2]
    encoder = load_encoder(recipe["encoder"], "cpu")
    corpus_recipe = read_recipe(project / str(recipe["corpus"]).removeprefix("./"))
    corpora = [load_corpus(corpus_recipe, data, project, int(recipe["seed"]), split) for split in ("train", "test")]
    written = _written(out / "written.json", recipe, corpora[0], report)
    tokenizer = load_tokenizer(encoder.directory)
    torch.manual_seed(int(recipe["seed"]))
    model = TokenDetector(encoder.directory, int(recipe["rank"]))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    settings = recipe["optimiser"]
    optimiser = torch.optim.AdamW(
        trained, lr=float(settings["lr"]), betas=tuple(settings["betas"]), weight_decay=float(settings["weight_decay"])
    )
    step = _resume(model, optimiser, out / "state.safetensors")
    held = len(written) // 20
    source = ExampleSource(recipe, corpora[0], written[held:])
    validate = ExampleSource(recipe, corpora[1], written[:held])
    total = steps or int(recipe["steps"])
    with (out / "log.jsonl").open("a", encoding="utf8") as log:
        while step < total:
            started = time.perf_counter()
            rate = learning_rate(step, int(recipe["steps"]), settings)
            for group in optimiser.param_groups:
                group["lr"] = rate
            model.train()
            loss = detection_loss(model, collate(source(step), tokenizer))
            if not torch.isfinite(loss):
                raise TrainingDiverged(f"the loss is not finite at step {step}; the last checkpoint is kept")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, float(settings["clip"]))
            optimiser.step()
            step += 1
            seconds = time.perf_counter() - started
            row: dict[str, Any] = {"step": step, "steps": total, "loss": loss.item(), "lr": rate}
            row["examples_per_second"] = int(recipe["batch"]) / seconds
            if step % int(recipe["checkpoint_every"]) == 0 or step == total:
                _save_state(model, optimiser, step, out / "state.safetensors")
                row |= evaluate(model, [collate(validate(10**6 + i), tokenizer) for i in range(10)])
                save(model, out / FILE, {"encoder_sha256": encoder.sha256, "recipe": json.dumps(recipe)})
            log.write(json.dumps(row) + "\n")
            log.flush()
            report(row)
    return out


@torch.inference_mode()
def evaluate(model: TokenDetector, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
    """Return the area under the ROC curve of broken against intact tokens, and of broken against intact texts."""
    from sklearn.metrics import roc_auc_score

    model.eval()
    tokens: list[tuple[float, float]] = []
    texts: list[tuple[float, float]] = []
    for ids, mask, wanted in batches:
        logits = model(ids, mask)
        for row in range(len(ids)):
            inside = mask[row].clone()
            inside[0] = False
            scores, truth = logits[row][inside], wanted[row][inside]
            tokens += zip(truth.tolist(), scores.tolist(), strict=True)
            texts.append((truth.max().item(), -nn.functional.logsigmoid(-scores).sum().item()))
    return {
        name: float(roc_auc_score(*zip(*rows, strict=True)))
        for name, rows in (("token_auroc", tokens), ("text_auroc", texts))
    }


def _written(path: Path, recipe: Mapping[str, Any], corpus: Corpus, report: Report) -> list[Marked]:
    if not path.exists():
        pipeline = load_pipeline(str(recipe["written"]["checkpoint"]), str(recipe["encoder"]), "cpu")
        found = write_examples(pipeline, corpus, recipe, report)
        path.write_text(json.dumps([[row.text, row.spans, row.end] for row in found]), encoding="utf8")
    rows = json.loads(path.read_text(encoding="utf8"))
    return [Marked(text, tuple((a, b, c) for a, b, c in spans), end) for text, spans, end in rows]


def _save_state(model: TokenDetector, optimiser: torch.optim.AdamW, step: int, path: Path) -> None:
    tensors = {f"model.{name}": value for name, value in model.trained().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser.{key}.{name}"] = value
    temporary = path.with_suffix(".tmp")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, {"step": str(step)})
    temporary.replace(path)


def _resume(model: TokenDetector, optimiser: torch.optim.AdamW, path: Path) -> int:
    if not path.exists():
        return 0
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[f"model.{name}"])
                optimiser.state[parameter] = {
                    key: tensors[f"optimiser.{key}.{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")
                }
    with safe_open(path, "pt") as opened:
        return int(opened.metadata()["step"])
