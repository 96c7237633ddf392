"""The project's own labelled texts are whole, and the recipes' readers say of them what they say themselves."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "training" / "heads"
REPAIRS = ROOT / "training" / "pairs" / "repairs.jsonl"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "training" / "recipes"))
    return importlib.import_module("mixture_judged")


@pytest.fixture
def mixture(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "training" / "recipes"))
    return importlib.import_module("heads_mixture")


def test_no_text_occurs_twice_and_the_counts_of_the_readme_are_right() -> None:
    counted = dict(re.findall(r"^\| `(\w+)\.jsonl` \| (\d+) \|", (OWN / "README.md").read_text(), re.MULTILINE))
    seen: Counter[str] = Counter()
    for path in sorted(OWN.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert int(counted.pop(path.stem)) == len(rows), path
        seen.update(re.sub(r"\W+", " ", row["text"].casefold()).strip() for row in rows)
        assert {row["split"] for row in rows} == {"train", "test"}
        assert all(0.0 <= value <= 1.0 for row in rows for value in row["labels"].values())
    assert not counted
    assert [text for text, count in seen.items() if count > 1] == []


def test_a_borderline_request_is_harmless_in_all_ways_or_asks_for_harm() -> None:
    rows = [json.loads(line) for line in (OWN / "borderline_requests.jsonl").read_text(encoding="utf-8").splitlines()]
    harmless = [row for row in rows if not row["labels"]["illicit_request"]]
    assert all(not any(row["labels"].values()) for row in harmless)
    assert len(harmless) > len(rows) - len(harmless) > 100


def test_drafts_are_toxic_and_what_is_left_of_them_is_not(judged: ModuleType, tmp_path: Path) -> None:
    pairs = [
        {"source": "Shut up, you fool.", "target": "Please be quiet.", "register": "social", "split": "train"},
        {"source": "The rope broke.", "target": "The rope broke.", "register": "hobby", "split": "dev"},
        {"source": "Starve, pig.", "target": "Don't kill yourself.", "register": "self_harm", "split": "test"},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    rows = list(judged.repaired(path))
    assert [(row.text, row.labels["toxicity"], row.split) for row in rows] == [
        ("Shut up, you fool.", 1, "train"),
        ("Please be quiet.", 0, "train"),
        ("The rope broke.", 0, "dev"),
        ("Starve, pig.", 1, "test"),
        ("Don't kill yourself.", 0, "test"),
    ]
    assert rows[0].labels["courtesy"] == 0
    assert rows[1].labels["self_harm"] == rows[1].labels["profanity"] == 0
    assert "self_harm" not in rows[4].labels  # a word of its guard list: unknown, not harmless
    assert sum(row.labels["toxicity"] for row in judged.repaired(REPAIRS)) > 2_000


def test_every_row_of_ours_is_weighed_and_has_its_origin(mixture: ModuleType, tmp_path: Path) -> None:
    manifest = tmp_path / "MANIFEST.md"
    manifest.write_text("| davidson | 1 | x | 2 | owner/name @1 | MIT | yes |\n", encoding="utf-8")
    origins = mixture.read_origins(manifest, OWN)
    assert origins["davidson"] == "owner/name @1; MIT"
    sources = {source for source, _ in mixture.own_rows(OWN)} | {mixture.REPAIRS}
    assert sources <= set(origins)
    assert all(mixture.weight_of(source, None) > 1 for source in sources)
