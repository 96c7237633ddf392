"""The shipped checkpoint at work: real weights, real text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from guardrail.classifiers.linear import load_head
from guardrail.dglm.codec import HIDDEN
from guardrail.dglm.guidance import Guide
from guardrail.dglm.pipeline import Pipeline, SpanRequest, load_pipeline
from guardrail.dglm.plans import tidy
from guardrail.errors import CheckpointError, ConfigurationError

RUDE = "Only a stupid idiot would restart the Brompton router at 10:45, Siobhan."


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return load_pipeline("mini", "all-MiniLM-L6-v2", "cpu")


@pytest.fixture(scope="module")
def guides() -> tuple[Guide, ...]:
    head = load_head("toxicity")
    return (Guide(head.weight, head.bias),)


def test_most_proposals_are_less_toxic_than_the_draft_and_keep_its_rare_words(pipeline: Pipeline, guides) -> None:
    proposals = pipeline.rewrite(SpanRequest(RUDE, guides=guides))
    assert 2 <= len(proposals) <= 8
    assert len({row.text for row in proposals}) == len(proposals)
    x = pipeline.encoder.encode([RUDE, *(row.text for row in proposals)])
    logits = x @ guides[0].weight + guides[0].bias
    assert np.mean(logits[1:] < logits[0]) > 0.5
    assert any("Brompton" in row.text and "10:45" in row.text for row in proposals)
    assert not any(HIDDEN in row.text for row in proposals)


def test_the_same_seed_gives_the_same_proposals(pipeline: Pipeline, guides) -> None:
    request = SpanRequest(RUDE, guides=guides, seed=5)
    assert pipeline.rewrite(request) == pipeline.rewrite(request)


def test_matches_are_hidden_from_the_decoder(pipeline: Pipeline) -> None:
    text = "Please put the frobnicator on the kitchen table."
    start = text.index("frobnicator")
    proposals = pipeline.rewrite(SpanRequest(text, matches=((start, start + 11),)))
    assert proposals
    assert not any("frobnicator" in row.text for row in proposals)


def test_more_and_fewer_candidates(pipeline: Pipeline, guides) -> None:
    assert len(pipeline.rewrite(SpanRequest(RUDE, guides=guides, candidates=1))) == 1
    assert len(pipeline.rewrite(SpanRequest(RUDE, guides=guides, candidates=20))) > 4


def test_edit_mode_proposes_too_and_continue_is_refused(pipeline: Pipeline, guides) -> None:
    request = SpanRequest(RUDE, guides=guides, mode="edit", strength=0.3)
    assert pipeline.rewrite(request)
    with pytest.raises(ConfigurationError, match="continue"):
        pipeline.rewrite(replace(request, mode="continue"))


def test_a_cancelled_request_stops(pipeline: Pipeline, guides) -> None:
    assert pipeline.rewrite(SpanRequest(RUDE, guides=guides, cancelled=lambda: True)) == []


@pytest.mark.parametrize(
    "text", ["Idiot", "!!!", "🙂🙂", "Ты идиот.", "| a | b |\n|---|---|", "x = [i for i in range(3)]", "\x00", "\ud800"]
)
def test_odd_stretches_break_nothing(pipeline: Pipeline, guides, text: str) -> None:
    for row in pipeline.rewrite(SpanRequest(text, guides=guides, candidates=4)):
        assert row.text.strip()
        assert HIDDEN not in row.text


def test_a_stretch_that_the_decoder_cannot_see_whole_is_left_to_others(pipeline: Pipeline, guides) -> None:
    assert pipeline.rewrite(SpanRequest("You idiot, " * 1000, guides=guides)) == []


def test_fluency_prefers_english(pipeline: Pipeline) -> None:
    good, bad = pipeline.fluency(["Please read the manual before you ask.", "Manual ask the you please before read."])
    assert good > bad + 0.5
    assert pipeline.fluency([]) == []


def test_an_unknown_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointError, match="mini"):
        load_pipeline("minii", "all-MiniLM-L6-v2", "cpu")


@pytest.mark.parametrize(
    ("written", "draft", "tidied"),
    [
        ("That is a mistake,.", "That is a mistake, you idiot.", "That is a mistake."),
        ("and the pitch is wet", "You clowns, and the pitch is wet.", "The pitch is wet."),
        (", so it rained", "well, you fool, so it rained", "it rained"),
        ("And so it goes.", "And so it goes, idiot.", "And so it goes."),
        ("", "You idiot!", ""),
    ],
)
def test_the_ends_are_mended(written: str, draft: str, tidied: str) -> None:
    assert tidy(written, draft) == tidied
