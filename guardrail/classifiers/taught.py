"""`linear` with `examples`: a head that a policy teaches by a few texts, made once and kept in the cache.

```yaml
trading:
  kind: linear
  examples: examples/trading.yaml     # or the same in place
```

The file is YAML (`positive`, `negative`: lists of texts; `about`: a sentence, if wanted) or JSON lines
(`{"text": ..., "label": 0 or 1}`). The head is made when the policy is assembled, in a few seconds, by
`guardrail.classifiers.fewshot`; afterwards it is read from the cache until an example, the encoder or a shipped head
changes. It is a linear head like any other: it joins the policy's matrix and steers the rewriter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from guardrail.classifiers.background import background, background_sha256
from guardrail.classifiers.base import BuildContext, check_options
from guardrail.classifiers.fewshot import VERSION, Examples, FewShot, examples_from, train_few
from guardrail.classifiers.linear import LinearClassifier, list_heads, load_head
from guardrail.classifiers.made import encoder_sha256, made_head
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import ClassifierError, DataError
from guardrail.log import Logger
from guardrail.policy.bundle import LinearHead

__all__ = ["build_taught", "examples_of", "read_examples", "teach"]

KIND: Final = "linear"
LARGEST: Final = 4 * 1_048_576  # bytes

log = Logger(__name__)


def read_examples(path: Path) -> Examples:
    """Read an examples file.

    Raises:
        DataError: it cannot be read, is of another shape, has a label that is neither 0 nor 1, or too few examples.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"larger than {LARGEST:,} bytes; for so many texts use: --data", file=str(path))
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text at byte {error.start}", file=str(path)) from error
    if path.suffix == ".jsonl":
        return examples_from(_sides(path, content), str(path))
    import yaml

    try:
        return examples_from(yaml.safe_load(content), str(path))
    except yaml.YAMLError as error:
        raise DataError(f"not YAML: {error}", file=str(path)) from error


def _sides(path: Path, content: str) -> dict[str, list[str]]:
    sides: dict[str, list[str]] = {"positive": [], "negative": []}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not JSON: {error}", file=str(path), line=number) from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise DataError("expected an object with `text` and `label`", file=str(path), line=number)
        label = row.get("label")
        if isinstance(label, str) or label not in (0, 1):  # True and False are 1 and 0
            raise DataError(f"`label` must be 0 or 1, not {label!r}", file=str(path), line=number, key="label")
        sides["positive" if label else "negative"].append(row["text"])
    return sides


def examples_of(name: str, value: object, directory: Path) -> Examples:
    """The examples that a policy gives: the name of a file, or the mapping itself.

    Raises:
        DataError: they cannot be used; see `read_examples`.
    """
    return read_examples(directory / value) if isinstance(value, str) else examples_from(value, f"classifier {name!r}")


def prior_heads(encoder: Encoder) -> list[LinearHead]:
    """The shipped heads that live in the encoder's space."""
    heads = [load_head(name) for name in list_heads()]
    return [head for head in heads if head.encoder_sha256 == encoder.sha256]


def teach(name: str, examples: Examples, encoder: Encoder, folder: Path) -> FewShot:
    """Make a head from examples.

    Args:
        name: what it measures.
        examples: both sides.
        encoder: whose space it lives in.
        folder: the cache, for the vectors of everyday text.

    Raises:
        DataError: the examples contradict each other, and too few are left.
    """
    return train_few(name, examples, encoder, prior_heads(encoder), background(encoder, folder))


def build_taught(name: str, options: Mapping[str, Any], context: BuildContext) -> LinearClassifier:
    """Build a classifier of kind `linear` from its option `examples`.

    Raises:
        ClassifierError: another option beside `examples`.
        DataError: the examples cannot be used.
    """
    check_options(KIND, name, options, ("head", "file", "tier", "examples"))
    if len(options) > 1:
        raise ClassifierError(f"classifier {name!r}: `examples` make a head of their own; give no other option beside.")
    examples = examples_of(name, options["examples"], context.directory)
    sha256 = encoder_sha256(context.encoder, context.device)
    content = {
        "kind": [KIND, "examples", VERSION],
        "name": name,
        "encoder": sha256,
        "background": background_sha256(),
        "prior": sorted(head.sha256 for head in map(load_head, list_heads()) if head.encoder_sha256 == sha256),
        **examples.plain(),
    }

    def make() -> LinearHead:
        made = teach(name, examples, load_encoder(context.encoder, context.device), context.data_dir)
        for warning in made.warnings:
            log.warning("examples", classifier=name, problem=warning)
        return made.head

    return LinearClassifier(name, made_head(context.data_dir, content, make), context.encoder, context.device)
