"""Slices, groups of people, disguises, plots and cards, and the command that prints them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from guardrail.cli.eval import app
from guardrail.errors import DataError
from guardrail.evaluate.bias import MIN_ROWS, groups_named, measure_bias
from guardrail.evaluate.data import LabelledText
from guardrail.evaluate.disguise import KINDS, disguise
from guardrail.evaluate.metrics import Floats, evaluate_scores
from guardrail.evaluate.plots import plot_head
from guardrail.evaluate.suite import measure
from guardrail.evaluate.suite_card import render_suite
from guardrail.text.normalise import normalise

CLI = CliRunner()


def labelled(n: int = 60) -> list[LabelledText]:
    texts = [f"you horrid creature number {number}" for number in range(n)]
    rows = [LabelledText(text, {"insult": 1.0}, "a" if at % 2 else "b") for at, text in enumerate(texts)]
    return rows + [LabelledText(f"the kettle is on, part {at}. " * 20, {"insult": 0.0}, "a") for at in range(n)]


def looks_for_horrid(rows: Sequence[LabelledText]) -> Mapping[str, Floats]:
    """A scorer that knows one word, and reads no disguise."""
    return {"insult": np.array([0.9 if "horrid" in row.text else 0.2 for row in rows])}


def test_slices_add_up_and_say_where_a_scorer_fails() -> None:
    rows = [*labelled(), LabelledText("hm", {"insult": 0.5}, "a"), LabelledText("hm", {"threat": 1.0}, "a")]
    suite = measure(rows, ["insult"], looks_for_horrid, resamples=20)["insult"]
    assert (suite.overall.n, suite.overall.positives) == (120, 60)
    assert suite.overall.metrics["auroc"].value == 1.0
    assert {name: part.n for name, part in suite.by_source.items()} == {"a": 90, "b": 30}
    assert suite.by_source["b"].metrics == {}  # one class alone ranks nothing
    assert suite.by_source["b"].recall == 1.0
    assert suite.by_source["b"].false_positives is None
    assert {name: part.n for name, part in suite.by_length.items()} == {"up to 50 characters": 60, "more than 400": 60}
    assert suite.by_disguise["none"].recall == 1.0
    assert suite.by_disguise["leet"].recall == 0.0
    assert set(suite.by_disguise) == {"none", *KINDS}


def test_without_a_known_label_there_is_nothing_to_measure() -> None:
    with pytest.raises(DataError, match="no row has a label for insult"):
        measure([LabelledText("hm", {"threat": 1.0}, "a")], ["insult"], looks_for_horrid)


def test_every_disguise_changes_words_and_repeats_itself_and_most_are_undone() -> None:
    text = "You complete idiot, nobody wants your stupid garbage here."
    for kind in KINDS:
        hidden = disguise(text, kind)
        assert hidden != text
        assert hidden == disguise(text, kind)
        assert "idiot" not in hidden
        if kind not in ("leet", "mixed"):  # a word that is mostly digits is beyond the normaliser
            assert normalise(hidden).text == text, kind
    assert disguise("so it is", "leet") == "so it is"
    assert disguise("", "mixed") == ""


def test_a_score_that_fears_a_group_shows_in_bpsn() -> None:
    rng = np.random.default_rng(0)
    n = 400
    positive = np.arange(n) % 2 == 0
    named = [frozenset({"red"} if at % 4 < 2 else {"blue"}) for at in range(n)]
    fair = np.clip(0.3 + 0.4 * positive + rng.normal(0, 0.05, n), 0, 1)
    unfair = np.clip(fair + np.array([0.5 if "red" in groups else 0.0 for groups in named]), 0, 2) / 2
    for scores, gap in ((fair, 0.0), (unfair, 0.5)):
        report = measure_bias(scores, positive, named)
        assert set(report.groups) == {"red", "blue"}
        assert report.groups["red"].subgroup == pytest.approx(1.0)
        assert 1.0 - report.groups["red"].bpsn == pytest.approx(gap, abs=0.5)
    assert measure_bias(unfair, positive, named).groups["red"].bpsn < 0.4
    assert measure_bias(unfair, positive, named).groups["red"].bnsp == pytest.approx(1.0)
    assert measure_bias(fair, positive, named).gap("bpsn") == pytest.approx(0.0)
    few = measure_bias(fair[:MIN_ROWS], positive[:MIN_ROWS], named[:MIN_ROWS])
    assert few.groups == {}
    assert few.gap("subgroup") is None
    assert few.power_mean("subgroup") is None


def test_groups_are_what_a_row_states_or_else_names() -> None:
    assert groups_named(LabelledText("Muslim women marched", {}, "a")) == {"muslim", "female"}
    assert groups_named(LabelledText("a transport strike, manly", {}, "a")) == set()
    assert groups_named(LabelledText("Muslim women", {}, "a", meta={"identity": "deaf"})) == {"deaf"}


def test_brier_score_of_known_cases() -> None:
    positive = np.array([True, False] * 20)
    assert evaluate_scores(positive.astype(float), positive, resamples=5)["brier"].value == 0.0
    assert evaluate_scores(np.full(40, 0.5), positive, resamples=5)["brier"].value == pytest.approx(0.25)


def test_card_and_plot_show_the_figures(tmp_path: Path) -> None:
    suite = measure(labelled(), ["insult"], looks_for_horrid, resamples=20)["insult"]
    card = render_suite(suite, "linear", "insult.png")
    assert "| AUROC | 1.000 (1.000 to 1.000) |" in card
    assert "| leet | 120 | 60 | 0.500" in card
    assert "insult.png" in card
    plot_head(tmp_path / "insult.png", "insult", suite.scores, suite.positive)
    assert (tmp_path / "insult.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_writes_cards_and_one_object(tmp_path: Path) -> None:
    data = tmp_path / "own.jsonl"
    texts = [("you are a stupid idiot", 1.0), ("the soup needs more pepper", 0.0)]
    data.write_text(
        "".join(
            json.dumps({"text": f"{text} {at}", "labels": {"insult": y}}) + "\n"
            for at in range(10)
            for text, y in texts
        )
    )
    out = tmp_path / "cards"
    arguments = ["heads", "--data", str(data), "--no-disguises", "--resamples", "10", "--device", "cpu"]
    found = CLI.invoke(app, [*arguments, "--out", str(out), "--json"])
    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    assert set(figures) == {"insult"}
    assert figures["insult"]["overall"]["auroc"]["value"] == 1.0
    assert figures["insult"]["by_disguise"] == {}
    assert sorted(path.name for path in out.iterdir()) == ["insult.md", "insult.png"]
    table = CLI.invoke(app, arguments)
    assert table.exit_code == 0
    assert "insult" in table.stdout
    unknown = CLI.invoke(app, [*arguments, "--head", "insul"])
    assert unknown.exit_code == 2
    assert "Did you mean 'insult'" in " ".join(unknown.stderr.split())


def test_the_command_measures_the_tuned_network_disguised_and_draws_it(tmp_path: Path) -> None:
    texts = [("you are a stupid worthless idiot", 1), ("shut up, you pathetic moron", 1)]
    texts += [("the kettle is on the stove", 0), ("our train leaves at seven tomorrow", 0)]
    data = tmp_path / "rows.jsonl"
    rows = ({"text": f"{text} {at}", "labels": {"insult": y}} for at in range(6) for text, y in texts)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "cards"
    arguments = ["heads", "--tier", "tuned", "--data", str(data), "--resamples", "10", "--device", "cpu"]
    found = CLI.invoke(app, [*arguments, "--head", "insult", "--out", str(out), "--json"])
    assert found.exit_code == 0, found.output
    suite = json.loads(found.stdout)["insult"]
    assert suite["overall"]["auroc"]["value"] == 1.0
    assert set(suite["by_disguise"]) == {"none", *KINDS}
    recalls = {kind: part["recall"] for kind, part in suite["by_disguise"].items()}
    assert recalls["none"] == recalls["zero_width"] == 1.0
    assert min(recalls.values()) >= 0.5, recalls
    assert (out / "insult.png").read_bytes().startswith(b"\x89PNG")
    assert "| leet |" in (out / "insult.md").read_text(encoding="utf-8")
    unknown = CLI.invoke(app, [*arguments, "--head", "insul"])
    assert unknown.exit_code == 2
    assert "Did you mean 'insult'" in " ".join(unknown.stderr.split())
