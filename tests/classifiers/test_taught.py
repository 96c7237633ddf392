"""Heads from a few examples, and directions from phrases: what they learn, what they refuse, what the cache keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from guardrail.assembly import assemble
from guardrail.classifiers import made
from guardrail.classifiers.background import background, background_texts
from guardrail.classifiers.base import BuildContext
from guardrail.classifiers.direction import DirectionClassifier
from guardrail.classifiers.direction import build as build_direction
from guardrail.classifiers.fewshot import Examples, examples_from, overlap, train_few
from guardrail.classifiers.linear import build as build_linear
from guardrail.classifiers.linear import read_head
from guardrail.classifiers.taught import read_examples
from guardrail.cli.app import app
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import ClassifierError, DataError
from guardrail.policy import load_policy
from guardrail.settings import Settings
from guardrail.types import Passage

SELLING = (
    "selling my level 60 account, 40 bucks", "anyone want to buy a skin bundle for cash?", "wts ranked account, paypal only",
    "I trade gold for gift cards, dm me", "cheap boost, pay me on cashapp", "buying your old account for real money",
)  # fmt: skip
PLAYING = (
    "anyone up for a ranked match tonight?", "this skin looks great on my character", "how do I reach level 60 fast?",
    "we need a healer for the raid", "the gold drop in this dungeon is nice", "good game everyone, that was close",
)  # fmt: skip
EXAMPLES: dict[str, Any] = {"positive": list(SELLING), "negative": list(PLAYING)}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(device="cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "guardrail"  # as it lies in $XDG_CACHE_HOME
    background(encoder, folder)
    return folder


def context(cache: Path, directory: Path = Path()) -> BuildContext:
    return BuildContext("all-MiniLM-L6-v2", "cpu", directory, cache)


def scores(classifier: Any, *texts: str) -> list[float]:
    return [score.value for score in classifier.score([Passage(text) for text in texts])]


def test_the_background_is_read_once(encoder: Encoder, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(background_texts()) == len(set(background_texts())) >= 400
    monkeypatch.setattr(Encoder, "encode", lambda *_: pytest.fail("embedded again"))
    vectors = background(encoder, cache)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_few_examples_make_a_head_that_knows_new_texts(cache: Path) -> None:
    classifier = build_linear("trading", {"examples": EXAMPLES}, context(cache))
    sold, played, other = scores(
        classifier, "I sell my account for 20 dollars", "let's play another round", "The committee met on Tuesday."
    )
    assert sold > 0.5 > max(played, other)


def test_the_head_is_made_once_and_again_when_an_example_changes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_linear("trading", {"examples": EXAMPLES}, context(cache))
    turned = {"negative": EXAMPLES["negative"][::-1], "positive": EXAMPLES["positive"][::-1]}
    monkeypatch.setattr(Encoder, "encode", lambda *_: pytest.fail("made again"))
    assert build_linear("trading", {"examples": turned}, context(cache)).fingerprint == first.fingerprint
    monkeypatch.undo()
    changed = {**EXAMPLES, "positive": [*SELLING, "five skins for ten euros"]}
    assert build_linear("trading", {"examples": changed}, context(cache)).fingerprint != first.fingerprint


def test_a_damaged_or_unwritable_cache_only_costs_time(cache: Path, tmp_path: Path, encoder: Encoder) -> None:
    content = {"x": 1}
    head = made.made_head(tmp_path, content, lambda: read_head(next((cache / "heads").glob("*"))))
    (kept,) = (tmp_path / "heads").iterdir()
    kept.write_bytes(b"damaged")
    assert made.made_head(tmp_path, content, lambda: head).sha256 == head.sha256
    (tmp_path / "file").write_text("not a folder")
    assert made.made_head(tmp_path / "file", content, lambda: head) is head


def test_a_policy_can_use_it_at_once_and_steer_by_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "trading.yaml").write_text(json.dumps(EXAMPLES))
    (tmp_path / "p.yaml").write_text(
        "policy: p\nclassifiers: {trading: {kind: linear, examples: examples/trading.yaml}}\n"
        "rules: {no-trading: {weights: {trading: 1}, thresholds: {flag: 0.5}}}\n"
    )
    policy = load_policy(tmp_path / "p.yaml")
    bundle = assemble(policy, Settings()).judge.bundle
    guide = bundle.linear_guide("no-trading")
    assert guide is not None
    assert np.isfinite(guide[0]).all()
    (tmp_path / "examples" / "trading.yaml").write_text(json.dumps({**EXAMPLES, "about": "selling game accounts"}))
    assert load_policy(tmp_path / "p.yaml").revision != policy.revision


def test_examples_on_both_sides_are_left_out_with_a_warning(encoder: Encoder, cache: Path) -> None:
    both = Examples((*SELLING, "Hello  there!"), (*PLAYING, "hello there", "anyone up for a ranked match tonight??"))
    made_head = train_few("x", both, encoder, (), background(encoder, cache))
    assert "1 examples stand on both sides" in made_head.warnings[0]
    assert made_head.auroc is not None
    assert made_head.auroc > 0.8
    near = Examples(
        (*SELLING[:5], "we need a healer for the raid today"),
        (*PLAYING[:3], *PLAYING[4:], "today we need a healer for the raid"),
    )
    assert "nearly the same on both sides" in " ".join(
        train_few("x", near, encoder, (), background(encoder, cache)).warnings
    )
    with pytest.raises(DataError, match="too few others are left"):
        train_few("x", Examples(SELLING[:5], (*SELLING[:2], *PLAYING[:4])), encoder, (), background(encoder, cache))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"positive": list(SELLING)}, "no negative example: a head cannot be learned from one side alone"),
        ({"positive": list(SELLING), "negative": ["a", "b"]}, "2 different negative examples; at least 5"),
        ({"positive": ["same"] * 9, "negative": list(PLAYING)}, "1 different positive examples"),
        ({"positive": [*SELLING, 3], "negative": list(PLAYING)}, "and 3 is in it"),
        ({"positive": "x", "negative": list(PLAYING)}, "must be a list of texts"),
        ({**EXAMPLES, "postive": []}, "unknown key 'postive'"),
        ({**EXAMPLES, "about": 3}, "must be a sentence"),
        (["x"], "expected `positive` and `negative`"),
    ],
)
def test_examples_that_cannot_be_used_are_refused(value: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        examples_from(value, "here")


def test_labels_out_of_range_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"text": text, "label": 1} for text in SELLING] + [{"text": text, "label": False} for text in PLAYING]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_examples(path) == Examples(SELLING, PLAYING)
    for label in (2, -1, 0.5, "1", None):
        path.write_text("\n".join(map(json.dumps, [*rows, {"text": "odd", "label": label}])))
        with pytest.raises(DataError, match=r"x.jsonl:13: label: `label` must be 0 or 1"):
            read_examples(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_examples(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(DataError, match="not YAML"):
        read_examples(tmp_path / "bad.yaml")


def test_examples_that_are_in_the_test_corpus_are_detected() -> None:
    found = overlap(examples_from(EXAMPLES, "here"), ["  WTS ranked account - PayPal only!", "something new"])
    assert found == ["  WTS ranked account - PayPal only!"]


def test_options_beside_examples_are_refused(cache: Path) -> None:
    with pytest.raises(ClassifierError, match="a head of their own"):
        build_linear("x", {"examples": EXAMPLES, "head": "toxicity"}, context(cache))


def test_the_command_writes_a_head_and_measures_it_on_other_rows(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    Path("trading.yaml").write_text(json.dumps({**EXAMPLES, "about": "selling game accounts for money"}))
    fresh = [
        ("who buys my account for cash", 1),
        ("selling 500 gems, paypal", 1),
        ("nice shot!", 0),
        ("where is the key?", 0),
    ]
    rows = [*fresh, (SELLING[0], 1)]
    Path("rows.jsonl").write_text("".join(json.dumps({"text": t, "labels": {"trading": y}}) + "\n" for t, y in rows))
    done = CliRunner().invoke(
        app, ["heads", "train", "--examples", "trading.yaml", "--data", "rows.jsonl", "--out", "heads", "--json"]
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["overlap"], report["measured"]["n"]) == (1, 4)
    assert report["measured"]["auroc"] == 1.0
    assert read_head(Path("heads/trading.safetensors")).sha256 == report["sha256"]
    nothing = CliRunner().invoke(app, ["heads", "train", "--out", "heads"])
    assert nothing.exit_code == 2
    one_sided = {"positive": list(SELLING), "negative": []}
    Path("trading.yaml").write_text(json.dumps(one_sided))
    assert CliRunner().invoke(app, ["heads", "train", "--examples", "trading.yaml", "--out", "heads"]).exit_code == 2


# --------------------------------------------------------------------------------------------------------- direction

DO = ["encourage a weaker player", "help somebody who made a mistake", "praise a newcomer"]
DONT = ["mock a weaker player", "laugh at somebody's mistake", "insult a newcomer"]


def test_phrases_alone_make_a_direction(cache: Path) -> None:
    classifier = build_direction("cruelty", {"toward": DONT, "away": DO}, context(cache))
    assert isinstance(classifier, DirectionClassifier)
    assert classifier.kind == "direction"
    cruel, kind, other = scores(
        classifier, "haha look how bad you play, go cry", "you did well, keep trying", "The bus leaves at nine."
    )
    assert cruel > kind
    assert max(kind, other) < 0.5
    opposite = build_direction("kindness", {"toward": DO, "away": DONT}, context(cache))
    assert float(opposite.head.weight @ classifier.head.weight) < 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"toward": DONT}, "`away` needs at least one phrase"),
        ({"toward": DONT, "away": DO, "templates": ["no place"]}, "needs one {} for the phrase"),
        ({"toward": DONT, "away": DONT}, "mean the same"),
        ({"toward": 3, "away": DO}, "list of texts"),
        ({"toward": ["x"] * 201, "away": DO}, "at most 200"),
        ({"towards": DONT, "away": DO}, "Did you mean 'toward'?"),
    ],
)
def test_directions_that_cannot_be_found_are_refused(cache: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClassifierError, match=message):
        build_direction("x", options, context(cache))
