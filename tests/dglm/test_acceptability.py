"""The detector of broken places, and the breaker that teaches it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from guardrail.dglm.acceptability import FILE, TokenDetector, load, load_tokenizer, save
from guardrail.dglm.acceptability_training import ExampleSource, collate, detection_loss, labels
from guardrail.dglm.breakage import Breaker, differences, intact
from guardrail.dglm.corpus import Corpus, Pair
from guardrail.encoder import load_encoder
from guardrail.errors import CheckpointError

SENTENCES = [
    "The second chapter needs an example.",
    "We met at the station and walked home.",
    "Please send the report before Friday, if you can.",
    "My brother has two cats that sleep all day.",
]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder()


@pytest.fixture(scope="module")
def fresh(encoder) -> TokenDetector:
    torch.manual_seed(0)
    return TokenDetector(encoder.directory, 2)


def test_what_is_broken_is_marked_and_the_rest_is_not() -> None:
    rng, breaker = np.random.default_rng(0), Breaker(SENTENCES)
    changed = 0
    for turn in range(300):
        sentence = SENTENCES[turn % 4]
        example = breaker(sentence, rng)
        if example.text != sentence:
            changed += 1
            assert example.end or any(broken for _, _, broken in example.spans), example
        for start, stop, broken in example.spans:
            if not broken:
                assert example.text[start:stop].rstrip(".,") in " ".join(SENTENCES)
    assert changed > 250


def test_an_intact_sentence_has_no_mark() -> None:
    example = intact("All is well.")
    assert example.text == "All is well."
    assert not example.end
    assert not any(broken for _, _, broken in example.spans)


@pytest.mark.parametrize(
    ("written", "broken", "end"),
    [
        ("that is a idea.", ["idea."], False),  # "good" is missing before it
        ("that is a good good idea.", ["good"], False),
        ("that is a good", [], True),
        ("That is a good idea", [], False),
        ("that is a bad idea.", ["bad"], False),
    ],
)
def test_differences_from_the_target_are_marked(written: str, broken: list[str], end: bool) -> None:
    found = differences(written, "That is a good idea.")
    assert [found.text[start:stop] for start, stop, bad in found.spans if bad] == broken
    assert found.end is end


def test_labels_follow_the_words_into_their_pieces(encoder) -> None:
    example = differences("that is a unfathomabilities idea.", "That is a good idea.")
    encoding = load_tokenizer(encoder.directory).encode(example.text)
    marked = [token for token, label in zip(encoding.tokens, labels(example, encoding), strict=True) if label]
    assert "".join(token.removeprefix("##") for token in marked) == "unfathomabilities"


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    corpus = Corpus(pairs={"repairs": [Pair("a", "That was not kind.")]}, clean=[(text, "") for text in SENTENCES])
    recipe = {"seed": 3, "batch": 8, "mixture": {"intact": 0.5, "broken": 0.5}}
    source = ExampleSource(recipe, corpus, [])
    assert source(7) == source(7)
    assert source(7) != source(8)


def test_a_new_detector_is_the_encoder_and_learns(fresh: TokenDetector, encoder) -> None:
    tokenizer = load_tokenizer(encoder.directory)
    broken = [differences("that is a idea.", "That is a good idea."), intact("That is a good idea.")]
    batch = collate(broken, tokenizer)
    optimiser = torch.optim.AdamW([p for p in fresh.parameters() if p.requires_grad], lr=3e-3)
    first = detection_loss(fresh, batch)
    for _ in range(12):
        loss = detection_loss(fresh, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5 * first.item()


def test_saved_and_loaded_it_says_the_same(fresh: TokenDetector, encoder, tmp_path: Path) -> None:
    save(fresh, tmp_path / FILE, {"encoder_sha256": encoder.sha256})
    loaded = load(tmp_path / FILE, encoder.directory, encoder.sha256, "cpu")
    ids, mask, _ = collate([intact("That is a good idea.")], load_tokenizer(encoder.directory))
    with torch.inference_mode():
        expected = torch.nn.functional.logsigmoid(-fresh.eval()(ids, mask))[0]
    assert loaded.judge(["That is a good idea."])[0].intact == pytest.approx(expected.numpy(), abs=0.05)  # bfloat16


def test_that_of_another_encoder_is_refused(fresh: TokenDetector, encoder, tmp_path: Path) -> None:
    save(fresh, tmp_path / FILE, {"encoder_sha256": "elsewhere"})
    with pytest.raises(CheckpointError, match=f"elsewhere.*{encoder.sha256}"):
        load(tmp_path / FILE, encoder.directory, encoder.sha256, "cpu")


def test_weights_that_do_not_fit_and_damaged_files_are_refused(fresh: TokenDetector, encoder, tmp_path: Path) -> None:
    save(fresh, tmp_path / FILE, {"encoder_sha256": encoder.sha256})
    weights = load_file(tmp_path / FILE)
    weights.pop("head.bias")
    save_file(weights, tmp_path / FILE, {"encoder_sha256": encoder.sha256, "rank": "2"})
    with pytest.raises(CheckpointError, match="do not fit"):
        load(tmp_path / FILE, encoder.directory, encoder.sha256, "cpu")
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path / FILE, encoder.directory, encoder.sha256, "cpu")


def test_nothing_new_is_as_fluent_as_the_draft(fresh: TokenDetector, encoder, tmp_path: Path) -> None:
    save(fresh, tmp_path / FILE, {"encoder_sha256": encoder.sha256})
    loaded = load(tmp_path / FILE, encoder.directory, encoder.sha256, "cpu")
    same, other = loaded.fluency(["That idea is bad is.", "That idea was bad."], "That idea is bad is.")
    assert same == 0.0
    assert other < 0.0
    assert loaded.fluency([]) == []
    assert json.dumps(loaded.fluency(["", "x" * 10_000]))  # empty and huge: a number each
