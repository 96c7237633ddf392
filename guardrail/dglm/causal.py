"""Any causal language model of `transformers` as the writer: soft prompts before the continuation, frozen or fine-tuned.

The paper's own arrangement (Lovelace et al. 2024, section 4.3): prefix, soft tokens of the wanted embedding, then the
continuation; the language-model loss counts the prefix and the continuation, neither pads nor soft tokens. A frozen model
learns through the prompt generator and low-rank adapters (Hu et al. 2022, LoRA) on its linear layers; a fine-tuned one
through everything. The model is loaded by name or directory, never changed on disk; what was learnt is a safetensors file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from guardrail.dglm.adapters import adapt
from guardrail.dglm.batch import PrefixTokens
from guardrail.dglm.choose import Decoding, Draws, Row, choose, reshape
from guardrail.dglm.codec import Tokens
from guardrail.dglm.generate import Written
from guardrail.dglm.prompt import PromptGenerator
from guardrail.errors import CheckpointError

IGNORED = -100
FILE = "causal.safetensors"

Train = Literal["adapters", "all"]


@dataclass(frozen=True, slots=True)
class CausalConfig:
    """What a soft-prompted causal model is made of.

    Attributes:
        model: name or directory of the language model. latent_dim: width of the sentence embedding.
        encoder_sha256: of the encoder whose embeddings it was trained on.
        soft_tokens, prompt_layers: of the prompt generator; the paper has 8 and 6.
        train: "adapters" leaves the model frozen, "all" fine-tunes it. rank: of the adapters.
        model_sha256: of the language model's weights before training, see `weights_sha256`; empty: not checked.
    """

    model: str
    latent_dim: int
    encoder_sha256: str
    soft_tokens: int = 8
    prompt_layers: int = 6
    train: Train = "adapters"
    rank: int = 8
    model_sha256: str = ""


class CausalWriter(nn.Module):
    """A causal language model that is told a wanted sentence embedding.

    Args:
        lm: a `transformers` model for causal language modelling. tokenizer: its tokenizer. config: sizes.
    """

    def __init__(self, lm: Any, tokenizer: Any, config: CausalConfig) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        if config.train == "adapters":
            lm.requires_grad_(False)
            adapt(lm, config.rank)
        self.lm = lm
        width = int(lm.config.hidden_size)
        heads = next(heads for heads in (12, 8, 6, 4, 2, 1) if width % heads == 0)
        self.prompt = PromptGenerator(config.latent_dim, width, config.soft_tokens, config.prompt_layers, heads)
        self._end = int(tokenizer.eos_token_id)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.prompt.expand.weight.device

    @property
    def positions(self) -> int:
        """Tokens that the language model can look at."""
        return int(getattr(self.lm.config, "max_position_embeddings", None) or 1024)

    def learnt(self) -> dict[str, nn.Parameter]:
        """Return what training changes, by name: prompt generator, and adapters or the whole model."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def loss(self, latent: Tensor, signal: Tensor, prefixes: Sequence[str], targets: Sequence[str]) -> Tensor:
        """Return the mean loss per token, see `forward`."""
        total, count = self(latent, signal, prefixes, targets)
        mean: Tensor = total / count
        return mean

    def forward(
        self, latent: Tensor, signal: Tensor, prefixes: Sequence[str], targets: Sequence[str]
    ) -> tuple[Tensor, Tensor]:
        """Return the summed next-token loss over prefixes and targets, the end of a target included, and their count.

        Args:
            latent: normalised embeddings of the targets, possibly noised, (B, latent_dim). signal: alpha squared, (B,).
            prefixes: B texts that stand before; may be empty. targets: B texts.
        """
        afters = [[*self.ids(text), self._end] for text in targets]
        logits, labels, _ = self._read(self.prompt(latent, signal), [self.ids(text) for text in prefixes], afters)
        wanted = labels[:, 1:].flatten()
        total = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), wanted, ignore_index=IGNORED, reduction="sum")
        return total, (wanted != IGNORED).sum()

    @torch.inference_mode()
    def log_probabilities(
        self, latent: Tensor, signal: Tensor, prefixes: Sequence[str], texts: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Return the log-probability of every token of each text (ids), and of its end, after prefix and soft prompt."""
        soft = self.prompt(latent.to(self.device), signal.to(self.device))
        logits, labels, starts = self._read(
            soft, [self.ids(own) for own in prefixes], [[*own, self._end] for own in texts]
        )
        said = logits[:, :-1].float().log_softmax(dim=-1)
        values = said.gather(2, labels[:, 1:, None].clamp_min(0)).squeeze(2).tolist()
        return [own[start - 1 : start + len(text)] for own, start, text in zip(values, starts, texts, strict=True)]

    def _read(
        self, soft: Tensor, befores: Sequence[Sequence[int]], afters: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor, list[int]]:
        """Run prefixes, soft tokens (B, tokens, width) and what follows, padded on the right.

        Returns:
            Logits (B, T, V); the tokens (B, T), `IGNORED` where a soft token or a pad stands; and where in each row what
            follows begins.
        """
        count, table = soft.shape[1], self.lm.get_input_embeddings()
        length = max(len(a) + count + len(b) for a, b in zip(befores, afters, strict=True))
        inputs = soft.new_zeros(len(befores), length, soft.shape[2])
        labels = torch.full((len(befores), length), IGNORED, device=soft.device)
        mask = torch.zeros(len(befores), length, dtype=torch.long, device=soft.device)
        starts = [len(before) + count for before in befores]
        for row, (before, after, start) in enumerate(zip(befores, afters, starts, strict=True)):
            end = start + len(after)
            ids = torch.tensor([*before, *after], dtype=torch.long, device=soft.device)
            inputs[row, : len(before)], inputs[row, start:end] = table(ids[: len(before)]), table(ids[len(before) :])
            inputs[row, len(before) : start] = soft[row]
            labels[row, : len(before)], labels[row, start:end] = ids[: len(before)], ids[len(before) :]
            mask[row, :end] = 1
        logits: Tensor = self.lm(inputs_embeds=inputs, attention_mask=mask).logits
        return logits, labels, starts

    @torch.inference_mode()
    def write(
        self,
        latent: Tensor,
        signal: Tensor,
        prefixes: Sequence[str],
        decoding: Decoding,
        generator: torch.Generator | None = None,
        cancelled: Callable[[int], bool] = lambda _: False,
        drafts: Sequence[str] = (),
    ) -> list[Written]:
        """Write one continuation per row, with a key-value cache; arguments as those of `guardrail.dglm.generate`.

        Prefixes are padded on the left. An end token ends a row; `decoding.max_tokens` cuts it. What `drafts` repeat,
        where they are given, may be repeated.
        """
        befores = [self.ids(text) for text in prefixes]
        inputs, mask = self._prompted(befores, self.prompt(latent.to(self.device), signal.to(self.device)))
        rows = [
            Row(index, PrefixTokens(Tokens(tuple(self.ids(draft)), (), ())))
            for index, draft in enumerate(drafts or [""] * len(prefixes))
        ]
        draws, cache = Draws(decoding, generator), None
        positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        for _ in range(decoding.max_tokens):
            step = self.lm(
                inputs_embeds=inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            cache = step.past_key_values
            chosen = self._choose(step.logits[:, -1].float().softmax(dim=-1), rows, decoding, draws)
            for row in rows:
                row.stopped = row.stopped or row.ended or cancelled(row.index)
            if all(row.stopped for row in rows):
                break
            inputs = self.lm.get_input_embeddings()(chosen[:, None])
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = mask.sum(dim=1, keepdim=True) - 1
        return [
            Written(row.text.strip(), row.log_probability / max(1, len(row.ids) + row.ended), row.ended, tuple(row.ids))
            for row in rows
        ]

    def _prompted(self, befores: Sequence[Sequence[int]], soft: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, T, width) of pads, prefix and soft tokens, and the mask (B, T)."""
        longest, table = max(map(len, befores)), self.lm.get_input_embeddings()
        ids = torch.tensor([[self._end] * (longest - len(own)) + list(own) for own in befores], dtype=torch.long)
        mask = torch.tensor([[0] * (longest - len(own)) + [1] * (len(own) + soft.shape[1]) for own in befores])
        inputs = torch.cat([table(ids.to(soft.device)), soft], dim=1) if longest else soft
        return inputs, mask.to(soft.device)

    def _choose(self, probabilities: Tensor, rows: list[Row], decoding: Decoding, draws: Draws) -> Tensor:
        """Choose a token for every row and write it; (B, V) -> (B,)."""
        reshape(probabilities, rows, decoding)
        chosen = choose(probabilities, rows, decoding, draws)
        for row in rows:
            check = decoding.forbidden[row.index] if decoding.forbidden else None
            while not row.stopped and check is not None and int(chosen[row.index]) != self._end:
                if not check(self.tokenizer.decode([*row.ids, int(chosen[row.index])])):
                    break
                probabilities[row.index, chosen[row.index]] = 0.0
                empty = float(probabilities[row.index].sum()) == 0.0
                again = choose(probabilities[row.index : row.index + 1], [row], decoding, draws)
                chosen[row.index] = self._end if empty else again[0]
        likelihood = probabilities.gather(1, chosen[:, None]).squeeze(1).clamp_min(1e-12).log().tolist()
        for row, piece, value in zip(rows, chosen.tolist(), likelihood, strict=True):
            if row.stopped:
                continue
            row.log_probability += value
            row.ended = piece == self._end
            if not row.ended:
                row.ids.append(piece)
                row.text = self.tokenizer.decode(row.ids)
        return chosen

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text, none of them special."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def save(self, folder: Path, recipe: str = "{}") -> None:
        """Write what was learnt and the configuration; `recipe` is JSON."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        learnt = {name: value.detach().cpu().contiguous() for name, value in self.learnt().items()}
        metadata = {
            "config": json.dumps(asdict(self.config)),
            "encoder_sha256": self.config.encoder_sha256,
            "recipe": recipe,
        }
        save_file(learnt, folder / FILE, metadata)


def weights_sha256(lm: nn.Module) -> str:
    """Return the hash of a language model's weights, names included."""
    digest = sha256()
    for name, value in sorted(lm.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def new_writer(config: CausalConfig, device: str = "cpu") -> CausalWriter:
    """Load a causal model and its tokenizer, and give it a fresh prompt generator and fresh adapters.

    Only safetensors are read: other formats may run code when they load.

    Raises:
        CheckpointError: there is no such model, here or on the hub, it is another than the configuration's, or it has no
            end token.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model)
        lm = AutoModelForCausalLM.from_pretrained(config.model, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"the language model {config.model!r} cannot be loaded: {error}. Name a directory in the format of "
            "transformers, or a model of the hub where one can be reached"
        ) from error
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"the tokenizer of {config.model!r} has no end token, which says where a sentence ends")
    found = weights_sha256(lm)
    if config.model_sha256 not in ("", found):
        raise CheckpointError(
            f"the language model {config.model!r} is not the one that was trained with: its weights have the sha256 "
            f"{found}, not {config.model_sha256}"
        )
    return CausalWriter(lm, tokenizer, replace(config, model_sha256=found)).to(device)


def load_writer(folder: Path, encoder_sha256: str, device: str = "cpu") -> CausalWriter:
    """Load what `CausalWriter.save` wrote, together with the model that it names.

    Raises:
        CheckpointError: missing, damaged, of sizes that do not fit, or of another encoder (both hashes are named).
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / FILE, "pt") as opened:
            config = CausalConfig(**json.loads((opened.metadata() or {})["config"]))
            learnt = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / FILE} cannot be read: {error}") from error
    if config.encoder_sha256 != encoder_sha256:
        raise CheckpointError(
            f"the writer {folder} belongs to the encoder {config.encoder_sha256}, not to {encoder_sha256}; "
            "train one for this encoder with `guardrail dglm train`"
        )
    writer = new_writer(config, device)
    wanted = set(writer.learnt())
    try:
        writer.load_state_dict(learnt, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {folder} do not fit {config.model!r}: {error}") from error
    if wanted != set(learnt):
        different = ", ".join(sorted(wanted ^ set(learnt))[:3])
        raise CheckpointError(f"the weights in {folder} do not fit {config.model!r}: {different}")
    return writer.eval().requires_grad_(False)
