"""Kind `transformer`: any text-classification model of Hugging Face `transformers`, by name or directory.

```yaml
toxicity-large:
  kind: transformer
  model: unitary/toxic-bert        # a name on the hub, or a directory (from the policy's folder)
  label: toxic                     # or several: [toxic, threat]; needed unless the model has a single output
  batch: 16                        # windows per forward pass (default)
```

The model is found when the policy is assembled, in the local cache first, so that the first text never waits for a
download; its weights load with the first text. Only safetensors are read, and no code that comes with a model is run.
A long text is read in windows of whole sentences, a disguised one also with its disguise undone; the worst counts.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from guardrail.classifiers.base import BuildContext, check_options
from guardrail.classifiers.options import number, text, texts, writable
from guardrail.encoder import file_sha256, resolve_device
from guardrail.errors import ClassifierError, did_you_mean
from guardrail.text.normalise import normalise
from guardrail.text.segment import windows
from guardrail.types import Passage, Score, Span

__all__ = ["TransformerClassifier", "build"]

KIND: Final = "transformer"
LONGEST: Final = 512
"""Most tokens per window, special tokens included, whatever the tokenizer claims that the model can take."""


class TransformerClassifier:
    """One or several labels of a sequence classifier. Thread-safe; loads the model with the first text.

    The score is the sum of the labels' softmax shares, or, for a multi-label model, the largest of their sigmoids.

    Args:
        name: its name in the policy.
        directory: where configuration, tokenizer and weights lie.
        outputs: which of the model's outputs count.
        multi_label: whether its outputs are independent.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        batch: windows per forward pass.
        fingerprint: `"sha256:..."` of weights, tokenizer and outputs.
    """

    kind = KIND

    def __init__(
        self,
        name: str,
        directory: Path,
        outputs: tuple[int, ...],
        multi_label: bool,
        device: str,
        batch: int,
        fingerprint: str,
    ) -> None:
        self.name, self.fingerprint = name, fingerprint
        self._directory, self._outputs, self._multi_label = directory, outputs, multi_label
        self._device, self._batch = device, batch
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any, int] | None = None

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """One score for each passage; one that was read in windows carries the span of the worst.

        Raises:
            ClassifierError: the model cannot be loaded.
        """
        pieces = [self._readings(passage.text) for passage in passages]
        values = self._probabilities([text for own in pieces for _, text in own])
        found: list[Score] = []
        start = 0
        for own in pieces:
            worst = max(range(len(own)), key=lambda at: values[start + at])
            whole = all(span == own[0][0] for span, _ in own)
            found.append(Score(values[start + worst], () if whole else (own[worst][0],)))
            start += len(own)
        return found

    def _readings(self, source: str) -> list[tuple[Span, str]]:
        _, tokenizer, limit = self._model()

        def counts(parts: Sequence[str]) -> list[int]:
            return [len(ids) for ids in tokenizer(list(parts), verbose=False)["input_ids"]]

        spans = [(0, len(source))]
        if len(source) > limit - 2:  # a token is a character or more
            spans = windows(source, counts, limit) or spans
        found: list[tuple[Span, str]] = []
        for span in spans:
            raw = source[slice(*span)]
            normal = normalise(raw)
            found += [(span, raw), (span, normal.text)] if normal.changed else [(span, raw)]
        return found

    def _probabilities(self, inputs: Sequence[str]) -> list[float]:
        import torch

        model, tokenizer, limit = self._model()
        order = sorted(range(len(inputs)), key=lambda row: len(inputs[row]))
        values = [0.0] * len(inputs)
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            encoded = tokenizer(
                [writable(inputs[row]) for row in rows],
                padding=True,
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            ).to(model.device)
            with torch.inference_mode():
                logits = model(**encoded).logits.float()  # (B, K)
            shares = logits.sigmoid() if self._multi_label else logits.softmax(dim=1)
            chosen = shares[:, list(self._outputs)]
            pooled = chosen.amax(dim=1) if self._multi_label else chosen.sum(dim=1)
            for row, value in zip(rows, pooled.clamp(0.0, 1.0).tolist(), strict=True):
                values[row] = value
        return values

    def _model(self) -> tuple[Any, Any, int]:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> tuple[Any, Any, int]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self._directory, local_files_only=True)
            model = AutoModelForSequenceClassification.from_pretrained(
                self._directory, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise ClassifierError(f"classifier {self.name!r}: {self._directory} cannot be loaded: {error}") from error
        positions = getattr(model.config, "max_position_embeddings", LONGEST) or LONGEST
        limit = min(LONGEST, int(tokenizer.model_max_length), int(positions))
        return model.to(resolve_device(self._device)).eval().requires_grad_(False), tokenizer, limit


def build(name: str, options: Mapping[str, Any], context: BuildContext) -> TransformerClassifier:
    """Build the classifier that the options describe (see the module). Finds the model, and loads no weights.

    Raises:
        ClassifierError: an option is unknown or of the wrong form, or there is no such model or label.
    """
    check_options(KIND, name, options, ("model", "label", "batch"))
    wanted = text(name, options, "model")
    batch = int(number(name, options, "batch", 16, 1, 1024))
    directory = _directory(name, wanted, context.directory)
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClassifierError(f"classifier {name!r}: {directory} holds no model: {error}") from error
    labels = _labels(config)
    outputs = _outputs(name, texts(name, options, "label"), labels)
    multi_label = config.get("problem_type") == "multi_label_classification" or len(labels) == 1
    digest = _fingerprint(name, directory, outputs)
    return TransformerClassifier(name, directory, outputs, multi_label, context.device, batch, digest)


def _directory(name: str, wanted: str, folder: Path) -> Path:
    for place in (folder / wanted, Path(wanted)):
        if place.is_dir():
            return place.resolve()
    if wanted.startswith((".", "/", "~")):
        raise ClassifierError(f"classifier {name!r}: there is no directory {folder / wanted}.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    files = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        return Path(snapshot_download(wanted, local_files_only=True, allow_patterns=files))
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ClassifierError(f"classifier {name!r}: {wanted!r} is no directory and no name of a model.") from error
    try:
        return Path(snapshot_download(wanted, allow_patterns=files))
    except Exception as error:
        raise ClassifierError(
            f"classifier {name!r}: the model {wanted!r} is neither a directory nor in the local cache, and cannot be "
            f"fetched: {type(error).__name__}. Fetch it where there is a network, or name a directory."
        ) from error


def _labels(config: Mapping[str, Any]) -> list[str]:
    named = config.get("id2label") or {}
    if named:
        return [str(named[key]) for key in sorted(named, key=int)]
    return [f"LABEL_{number}" for number in range(int(config.get("num_labels", 2)))]


def _outputs(name: str, wanted: Sequence[str], labels: Sequence[str]) -> tuple[int, ...]:
    if not wanted and len(labels) == 1:
        return (0,)
    if not wanted:
        raise ClassifierError(f"classifier {name!r}: say which `label` counts; the model has {', '.join(labels)}.")
    for label in wanted:
        if label not in labels:
            raise ClassifierError(
                f"classifier {name!r}: the model has no label {label!r}, only {', '.join(labels)}."
                f"{did_you_mean(label, labels)}"
            )
    return tuple(labels.index(label) for label in wanted)


def _fingerprint(name: str, directory: Path, outputs: Sequence[int]) -> str:
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ClassifierError(
            f"classifier {name!r}: {directory} holds no weights as safetensors; other formats may run code when they load."
        )
    tokenizer = [path for path in (directory / "tokenizer.json", directory / "vocab.txt") if path.is_file()]
    content = [KIND, list(outputs), *(file_sha256(path) for path in (*files, *tokenizer))]
    return f"sha256:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"
