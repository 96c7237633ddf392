"""`guardrail heads train`: files, cards and figures that it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guardrail.classifiers.linear import read_head
from guardrail.cli.heads import app
from guardrail.encoder import load_encoder
from guardrail.errors import DataError
from guardrail.evaluate.data import LabelledText
from guardrail.learn import invariance, session
from guardrail.learn.session import read_origins

CLI = CliRunner()


@pytest.fixture(autouse=True)
def few_counterfactuals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two templates are enough to see that the penalty is there."""
    scatter = invariance.identity_scatter
    monkeypatch.setattr(session, "identity_scatter", lambda cache: scatter(cache, invariance.TEMPLATES[:2]))


@pytest.fixture
def data(own_rows: list[LabelledText], tmp_path: Path) -> Path:
    path = tmp_path / "own.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for row in own_rows:
            if "insult" in row.labels:
                labels = {"insult": row.labels["insult"], "calm": 1}
                record = {"text": row.text, "labels": labels, "split": row.split, "source": row.source}
                stream.write(json.dumps(record) + "\n")
    return path


def test_train_writes_head_card_and_figures_and_repeats_itself(data: Path, tmp_path: Path) -> None:
    origins = tmp_path / "sources.yaml"
    origins.write_text("insult: our own; Apache-2.0\n")
    cache = tmp_path / "cache"
    common = ["train", "--data", str(data), "--sources", str(origins), "--cache", str(cache), "--resamples", "20"]
    summaries = []
    for name in ("first", "second"):
        found = CLI.invoke(app, [*common, "--out", str(tmp_path / name), "--device", "cpu", "--json"])
        assert found.exit_code == 0, found.output
        summaries.append(json.loads(found.stdout))
    assert summaries[0] == summaries[1]
    assert set(summaries[0]) == {"insult"}
    assert "calm: left out." in " ".join(found.stderr.split())  # one class alone
    out = tmp_path / "second"
    head = read_head(out / "insult.safetensors")
    assert head.sha256 == summaries[1]["insult"]["sha256"]
    assert head.encoder_sha256 == load_encoder(device="cpu").sha256
    card = (out / "insult.md").read_text(encoding="utf-8")
    for part in (
        "# Head `insult`",
        head.sha256,
        "our own; Apache-2.0",
        "## Limits",
        "Seed | 0",
        "95% bootstrap interval",
    ):
        assert part in card
    written = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert written["heads"] == summaries[1]
    assert summaries[0]["insult"]["auroc"] > 0.75
    assert sorted(path.name for path in out.iterdir()) == ["insult.md", "insult.safetensors", "metrics.json"]


def test_train_refuses_what_it_cannot_learn(data: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["--head", "calm"], "the head 'calm' needs at least 5 positive and 5 negative train rows"),
        (["--head", "insul"], "no row has the label 'insul'; there are calm, insult. Did you mean 'insult'?"),
        (["--sources", str(tmp_path / "none.yaml")], "none.yaml: cannot be read as YAML"),
        (["--encoder", str(tmp_path)], "holds no weights as safetensors"),
    ):
        found = CLI.invoke(app, ["train", "--data", str(data), "--out", str(tmp_path / "out"), *arguments])
        assert found.exit_code == 2
        assert message in " ".join(found.stderr.split())


def test_origins_must_be_a_mapping_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text("- a\n")
    with pytest.raises(DataError, match="expected a mapping"):
        read_origins(path)
    path.write_text("a: [1\n")
    with pytest.raises(DataError, match="cannot be read as YAML"):
        read_origins(path)
