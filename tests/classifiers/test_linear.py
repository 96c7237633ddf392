"""Linear heads: files, spaces, windows, and the classifier kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from guardrail.classifiers.base import BuildContext, Classifier
from guardrail.classifiers.linear import (
    LinearClassifier,
    build,
    check_space,
    head_metadata,
    list_heads,
    load_head,
    make_head,
    probability,
    read_head,
    readings,
    write_head,
)
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import CheckpointError, ClassifierError
from guardrail.policy.bundle import LinearHead
from guardrail.types import Passage


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(device="cpu")


@pytest.fixture(scope="module")
def head(encoder: Encoder) -> LinearHead:
    """Near the first sentence, far from the second."""
    near, far = encoder.encode(["I will bake you an apple pie.", "The compiler reports an unused variable."])
    return make_head("pie", 12 * (near - far), 0.0, encoder.sha256)


def context(tmp_path: Path, encoder: str = "all-MiniLM-L6-v2") -> BuildContext:
    return BuildContext(encoder, "cpu", tmp_path, tmp_path)


def test_a_head_survives_its_file(head: LinearHead, tmp_path: Path) -> None:
    path = tmp_path / "pie.safetensors"
    write_head(path, head, {"seed": "7"})
    back = read_head(path)
    np.testing.assert_array_equal(back.weight, head.weight)
    assert (back.name, back.bias, back.sha256, back.encoder_sha256) == (
        "pie",
        head.bias,
        head.sha256,
        head.encoder_sha256,
    )
    assert head_metadata(path)["seed"] == "7"
    assert path.stat().st_size < 3_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["pie.safetensors"]


def test_the_hash_covers_name_numbers_and_encoder(head: LinearHead) -> None:
    same = make_head(head.name, head.weight, head.bias, head.encoder_sha256)
    assert same.sha256 == head.sha256
    others = [
        make_head("cake", head.weight, head.bias, head.encoder_sha256),
        make_head("pie", -head.weight, head.bias, head.encoder_sha256),
        make_head("pie", head.weight, 0.5, head.encoder_sha256),
        make_head("pie", head.weight, head.bias, "0" * 64),
    ]
    assert len({head.sha256, *(other.sha256 for other in others)}) == 5


def test_damaged_files_are_refused(head: LinearHead, tmp_path: Path) -> None:
    path = tmp_path / "pie.safetensors"
    write_head(path, head)
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: its numbers do not fit its sha256"):
        read_head(path)
    path.write_bytes(content[:50])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        read_head(path)
    with pytest.raises(CheckpointError, match="is missing or not a file"):
        read_head(tmp_path)
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(CheckpointError, match="is no linear head"):
        read_head(path)
    write_head(path, make_head("nan", np.array([np.nan, 1.0]), 0.0, "0" * 64))
    with pytest.raises(CheckpointError, match="expected a finite weight"):
        read_head(path)


def test_every_shipped_head_is_whole_and_fits_the_default_encoder(encoder: Encoder) -> None:
    names = list_heads()
    assert {"toxicity", "insult", "profanity", "identity_hate", "threat", "sexual", "violence", "self_harm"} <= set(
        names
    )
    assert {"jailbreak", "prompt_injection", "courtesy"} <= set(names)
    for name in names:
        shipped = load_head(name)
        assert shipped.name == name
        check_space(shipped, encoder)


def test_an_unknown_head_gets_a_suggestion() -> None:
    with pytest.raises(ClassifierError, match=r"there is no shipped head 'toxicty'.*Did you mean 'toxicity'"):
        load_head("toxicty")


def test_scores_follow_the_head(head: LinearHead, encoder: Encoder) -> None:
    classifier = LinearClassifier("pie", head, encoder.name, "cpu")
    assert isinstance(classifier, Classifier)
    assert classifier.fingerprint == f"sha256:{head.sha256}"
    texts = ["She baked an apple pie for you.", "error: variable declared and not used", ""]
    scores = classifier.score([Passage(text) for text in texts])
    expected = [probability(float(x @ head.weight) + head.bias) for x in encoder.encode(texts)]
    assert [score.value for score in scores] == pytest.approx(expected, abs=1e-5)
    assert scores[0].value > 0.9 > 0.2 > scores[1].value
    assert all(score.spans == () for score in scores)
    assert classifier.score([]) == []


def test_a_long_text_is_read_whole_and_says_where(head: LinearHead, encoder: Encoder) -> None:
    filler = "The compiler reports an unused variable in line ten. "
    text = filler * 300 + "I will bake you an apple pie. " + filler * 300
    score = LinearClassifier("pie", head, encoder.name, "cpu").score([Passage(text)])[0]
    [(start, end)] = score.spans
    assert "apple pie" in text[start:end]
    assert end - start < 400
    clean = LinearClassifier("pie", head, encoder.name, "cpu").score([Passage(filler * 600)])[0]
    assert score.value > 2 * clean.value


def test_disguise_is_undone(head: LinearHead, encoder: Encoder) -> None:
    plain, hidden = "I will bake you an apple pie.", "I will b\u200bake you an ap\u200bple p\u200bie."
    assert [text for _, text in readings(encoder, plain)] == [plain]
    assert readings(encoder, hidden) == [((0, len(hidden)), hidden), ((0, len(hidden)), plain)]
    classifier = LinearClassifier("pie", head, encoder.name, "cpu")
    a, b = classifier.score([Passage(plain), Passage(hidden)])
    assert b.value >= a.value - 1e-6
    assert b.spans == ()


def test_builds_by_name_file_and_default(head: LinearHead, tmp_path: Path) -> None:
    write_head(tmp_path / "pie.safetensors", head)
    assert build("toxicity", {}, context(tmp_path)).head is load_head("toxicity")
    assert build("rude", {"head": "insult"}, context(tmp_path)).head is load_head("insult")
    own = build("pie", {"file": "pie.safetensors"}, context(tmp_path))
    assert (own.name, own.head.sha256) == ("pie", head.sha256)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hed": "insult"}, "'hed' is not an option of kind 'linear'.*Did you mean 'head'"),
        ({"head": 3}, "'head' must be text, got 3"),
        ({"file": ""}, "'file' must be text"),
        ({"head": "insult", "file": "x"}, "give either `head` or `file`, not both"),
        ({"head": "insults"}, "Did you mean 'insult'"),
        ({}, "there is no shipped head 'mine'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match=message):
        build("mine", options, context(tmp_path))


def test_a_head_of_another_encoder_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    write_head(tmp_path / "other.safetensors", make_head("other", np.ones(384), 0.0, "0" * 64))
    with pytest.raises(ClassifierError, match="its head was trained for another encoder"):
        build("other", {"file": "other.safetensors"}, context(tmp_path))
    elsewhere = LinearClassifier("other", read_head(tmp_path / "other.safetensors"), encoder.name, "cpu")
    with pytest.raises(CheckpointError, match="belongs to the encoder with sha256 000000000000"):
        elsewhere.score([Passage("hi")])
