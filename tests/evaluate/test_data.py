"""Labelled files: what is read, and what is refused with file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardrail.errors import DataError
from guardrail.evaluate.data import labels_of, read_labelled, read_many

GOOD: dict[str, Any] = {"text": "hi", "labels": {"toxicity": 0}}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_reads_what_rows_say(tmp_path: Path) -> None:
    full = {
        "text": "you 🙂 fool",
        "labels": {"insult": 1, "toxicity": 0.75},
        "split": "test",
        "id": "x-1",
        "context": ["before"],
        "spans": [[6, 10]],
        "meta": {"lang": "en"},
        "source": "elsewhere",
    }
    path = write(tmp_path / "some.jsonl", GOOD, full)
    first, second = read_labelled(path)
    assert (first.source, first.split, first.id, first.spans) == ("some", "train", "some.jsonl:1", ())
    assert (second.source, second.split, second.id, second.context) == ("elsewhere", "test", "x-1", ("before",))
    assert second.text[slice(*second.spans[0])] == "fool"
    assert second.meta == {"lang": "en"}
    np.testing.assert_array_equal(labels_of([first, second], "insult"), [np.nan, 1.0])


def test_reads_gzip_blank_lines_and_folders(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write(json.dumps(GOOD) + "\n\n   \n" + json.dumps(GOOD))
    write(tmp_path / "a.jsonl", GOOD)
    assert [row.source for row in read_many([tmp_path])] == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"labels": {}}, "text: expected a string, got None"),
        ({"text": 3, "labels": {}}, "text: expected a string, got 3"),
        ({"text": "x"}, "labels: expected a mapping"),
        ({"text": "x", "labels": ["toxicity"]}, "labels: expected a mapping"),
        ({"text": "x", "labels": {"toxicity": 1.5}}, r"labels.toxicity: expected a number in \[0, 1\], got 1.5"),
        ({"text": "x", "labels": {"toxicity": -0.1}}, "labels.toxicity: expected a number"),
        ({"text": "x", "labels": {"toxicity": "1"}}, "labels.toxicity: expected a number"),
        ({"text": "x", "labels": {"toxicity": True}}, "labels.toxicity: expected a number"),
        ({"text": "x", "labels": {"toxicity": None}}, "labels.toxicity: expected a number"),
        ({"text": "x", "labels": {"toxicity": float("nan")}}, "labels.toxicity: expected a number"),
        ({"text": "x", "labels": {}, "split": "validation"}, "split: expected one of train, dev, test"),
        ({"text": "x", "labels": {}, "spans": [[0, 5]]}, "spans: expected"),
        ({"text": "x", "labels": {}, "spans": [["0", 1]]}, "spans: expected"),
        ({"text": "x", "labels": {}, "context": "before"}, "context: expected a list of strings"),
        (["x"], "expected an object"),
    ],
)
def test_a_bad_row_is_an_error_with_its_line(tmp_path: Path, row: object, message: str) -> None:
    path = write(tmp_path / "bad.jsonl", GOOD, row)
    with pytest.raises(DataError, match=rf"bad\.jsonl:2: .*{message}"):
        read_labelled(path)


@pytest.mark.parametrize(
    "content", [b"{not json}\n", b'{"text": "\xff"}\n', b"[" * 100_000], ids=["json", "utf8", "deep"]
)
def test_what_is_no_json_is_an_error_with_its_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n" + content)
    with pytest.raises(DataError, match=r"bad\.jsonl:2: is not a line of JSON"):
        read_labelled(path)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read: No such file"):
        read_labelled(tmp_path / "none.jsonl")
    (tmp_path / "plain.jsonl.gz").write_text("plain")
    with pytest.raises(DataError, match=r"plain\.jsonl\.gz: cannot be read: Not a gzipped file"):
        read_labelled(tmp_path / "plain.jsonl.gz")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode() * 99)[:-12])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz: cannot be read"):
        read_labelled(tmp_path / "cut.jsonl.gz")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no rows"):
        read_labelled(tmp_path / "empty.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="this folder holds no"):
        read_many([tmp_path / "folder"])
