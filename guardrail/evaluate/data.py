"""Reading labelled texts: one JSON object a line, `{"text", "labels": {head: number in [0, 1]}, ...}`.

A head that is absent from `labels` is unknown, not negative. A bad row is an error that names its file and line: a
measurement on the rest would be a measurement of something else.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from guardrail.errors import DataError
from guardrail.types import Span

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One row.

    Attributes:
        text: what is judged; may be empty.
        labels: head to share of "yes" in [0, 1]; unknown heads are absent.
        source: the data set that it comes from (`source` of the row, or the file's name).
        split: "train", "dev" or "test" (rows without one are "train").
        id: the row's own name, or `file:line`.
        context: earlier turns, oldest first.
        spans: where the positive labels come from, in code points; empty where the row does not say.
        weight: how much it counts in training, relative to others of its source's size.
        meta: what else the row says of itself.
    """

    text: str
    labels: Mapping[str, float]
    source: str
    split: str = "train"
    id: str = ""
    context: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=dict)


def read_labelled(path: Path) -> list[LabelledText]:
    """Read a `.jsonl` or `.jsonl.gz` file.

    Raises:
        DataError: the file cannot be read, a row is malformed, a label is out of range, or there is no row at all.
    """
    source = path.name.removesuffix(".gz").removesuffix(".jsonl")
    rows = [_row(record, source, path, number) for number, record in _records(path)]
    if not rows:
        raise DataError("holds no rows; expected one JSON object a line", file=str(path))
    return rows


def read_many(paths: Iterable[Path]) -> list[LabelledText]:
    """Read several files, or every `.jsonl` and `.jsonl.gz` file of a folder, in order of name.

    Raises:
        DataError: as `read_labelled`; or a folder holds no such file.
    """
    rows: list[LabelledText] = []
    for path in paths:
        files = sorted([*path.glob("*.jsonl"), *path.glob("*.jsonl.gz")]) if path.is_dir() else [path]
        if not files:
            raise DataError("this folder holds no .jsonl or .jsonl.gz file", file=str(path))
        for file in files:
            rows.extend(read_labelled(file))
    return rows


def labels_of(rows: Sequence[LabelledText], head: str) -> npt.NDArray[np.float64]:
    """(N,) labels of one head, NaN where unknown."""
    return np.array([row.labels.get(head, math.nan) for row in rows], dtype=np.float64)


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, _parse(line, path, number)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot be read: {getattr(error, 'strerror', None) or error}", file=str(path)) from error


def _open(path: Path) -> IO[bytes]:
    stream: Any = gzip.GzipFile(path) if path.name.endswith(".gz") else path.open("rb")
    return cast("IO[bytes]", stream)


def _parse(line: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not a line of JSON in UTF-8: {error}", file=str(path), line=number) from error


def _row(record: Any, source: str, path: Path, number: int) -> LabelledText:
    where: dict[str, Any] = {"file": str(path), "line": number}
    if not isinstance(record, dict):
        raise DataError(f'expected an object like {{"text": "...", "labels": {{...}}}}, got {record!r:.60}', **where)
    text = record.get("text")
    if not isinstance(text, str):
        raise DataError(f"expected a string, got {text!r:.60}", key="text", **where)
    split = record.get("split", "train")
    if split not in SPLITS:
        raise DataError(f"expected one of {', '.join(SPLITS)}, got {split!r:.60}", key="split", **where)
    context = record.get("context") or ()
    if not isinstance(context, list | tuple) or not all(isinstance(turn, str) for turn in context):
        raise DataError("expected a list of strings", key="context", **where)
    weight = record.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0.0 < weight < math.inf:
        raise DataError(f"expected a positive number, got {weight!r:.60}", key="weight", **where)
    meta = record.get("meta") or {}
    return LabelledText(
        text=text,
        labels=_labels(record.get("labels"), where),
        source=str(record.get("source", source)),
        split=split,
        id=str(record.get("id", f"{path.name}:{number}")),
        context=tuple(context),
        spans=_spans(record.get("spans") or (), len(text), where),
        weight=float(weight),
        meta=meta if isinstance(meta, dict) else {"meta": meta},
    )


def _labels(labels: Any, where: Mapping[str, Any]) -> Mapping[str, float]:
    if not isinstance(labels, dict):
        raise DataError(f"expected a mapping of heads to numbers in [0, 1], got {labels!r:.60}", key="labels", **where)
    for head, value in labels.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0.0 <= value <= 1.0:
            raise DataError(f"expected a number in [0, 1], got {value!r:.60}", key=f"labels.{head}", **where)
    return {head: float(value) for head, value in labels.items()}


def _spans(spans: Any, length: int, where: Mapping[str, Any]) -> tuple[Span, ...]:
    good = isinstance(spans, list | tuple) and all(
        isinstance(span, list | tuple) and len(span) >= 2 and all(type(end) is int for end in span[:2])
        for span in spans
    )
    if not good or not all(0 <= start <= end <= length for start, end, *_ in spans):
        raise DataError(f"expected [[start, end], ...] inside the text, got {spans!r:.60}", key="spans", **where)
    return tuple((start, end) for start, end, *_ in spans)
