"""The shipped checkpoint at work: real weights, real text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from guardrail.classifiers.linear import load_head
from guardrail.dglm import checkpoint
from guardrail.dglm import writer as writer_module
from guardrail.dglm.choose import Decoding
from guardrail.dglm.codec import HIDDEN
from guardrail.dglm.guidance import Guide
from guardrail.dglm.pipeline import Pipeline, SpanRequest, load_pipeline
from guardrail.dglm.plans import plan_candidates, tidy
from guardrail.dglm.propose import Diffusion, Proposals, gaussian_diffusion
from guardrail.dglm.weighing import narrowed
from guardrail.dglm.writer import DraftWriter
from guardrail.encoder import DEFAULT_ENCODER
from guardrail.errors import CheckpointError, ConfigurationError, RewriteFailure

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
    assert len(pipeline.rewrite(SpanRequest(RUDE, guides=guides, candidates=20))) > 3


def test_edit_mode_proposes_too(pipeline: Pipeline, guides) -> None:
    assert pipeline.rewrite(SpanRequest(RUDE, guides=guides, mode="edit", strength=0.3, candidates=3))


def variant(pipeline: Pipeline, diffusion: Diffusion | None) -> Pipeline:
    """The shipped decoder with another diffusion, or none."""
    return Pipeline(pipeline.encoder, pipeline.statistics, pipeline.writer, pipeline.sha256, diffusion)


def test_continue_mode_needs_a_diffusion_network(pipeline: Pipeline, guides) -> None:
    with pytest.raises(ConfigurationError, match="guardrail dglm train diffusion"):
        variant(pipeline, None).rewrite(SpanRequest(RUDE, guides=guides, mode="continue"))


def test_continue_mode_writes_what_could_stand_there_without_seeing_the_draft(pipeline: Pipeline, guides) -> None:
    request = SpanRequest(RUDE, "Did the router fail again?", guides=guides, mode="continue", candidates=5, seed=3)
    continuing = variant(pipeline, gaussian_diffusion(pipeline.statistics))
    proposals = continuing.rewrite(request)
    assert len(proposals) > 1
    assert not any("Brompton" in row.text or "Siobhan" in row.text for row in proposals)
    assert [row.text for row in continuing.rewrite(replace(request, text="Another draft, you fool."))] == [
        row.text for row in proposals
    ]
    assert continuing.rewrite(replace(request, text="word " * 3000))  # nothing of the draft has to be read


def test_a_cancelled_request_stops_between_the_steps_of_the_diffusion(pipeline: Pipeline, guides) -> None:
    asked = iter([False] * 4 + [True] * 1000)
    request = SpanRequest(RUDE, guides=guides, mode="edit", cancelled=lambda: next(asked))
    assert pipeline.rewrite(request) == []
    assert next(asked)  # it stopped long before all steps were asked for


def test_requests_share_a_batch_and_get_what_they_would_get_alone(pipeline: Pipeline, guides) -> None:
    requests = [
        SpanRequest(RUDE, guides=guides, candidates=7, seed=1),
        SpanRequest("You clowns broke it.", "It worked.", guides=guides, candidates=7, seed=2),
        SpanRequest("Stopped.", guides=guides, cancelled=lambda: True),
    ]
    together = pipeline.rewrite_many(requests)
    assert together[2] == []
    for request, found in zip(requests[:2], together, strict=False):
        alone = pipeline.rewrite(request)
        assert [row.text for row in found] == [row.text for row in alone]
        assert [row.fluency for row in found] == pytest.approx([row.fluency for row in alone], abs=1e-3)


def test_numbers_that_are_not_finite_are_refused(pipeline: Pipeline, guides, monkeypatch) -> None:
    broken = variant(pipeline, gaussian_diffusion(pipeline.statistics))
    x = np.full((2, pipeline.encoder.dim), np.nan, dtype=np.float32)
    proposals = Proposals(x, np.ones(2), 15.0, 0.0)
    monkeypatch.setattr(broken.diffusion, "propose", lambda *arguments, **options: proposals)
    with pytest.raises(RewriteFailure, match="continue"):
        broken.rewrite(SpanRequest(RUDE, guides=guides, mode="continue", candidates=2))
    with pytest.raises(RewriteFailure, match="finite"):
        broken.write(x, [broken.prefix("", "")] * 2, Decoding([0.0, 0.0]))


def test_what_the_policy_forbids_is_not_written(pipeline: Pipeline, guides) -> None:
    text = "Please put the kettle on the kitchen table, you idiot."
    request = SpanRequest(text, guides=guides, candidates=4, forbidden=lambda written: "kettle" in written.lower())
    assert pipeline.rewrite(replace(request, forbidden=None))
    assert not any("kettle" in row.text.lower() for row in pipeline.rewrite(request))


def test_without_gpu_memory_the_rewrite_is_written_on_the_cpu(pipeline: Pipeline, guides, monkeypatch) -> None:
    ours = variant(pipeline, None)
    wanted = ours.rewrite(SpanRequest(RUDE, guides=guides, candidates=2))

    def scarce(real):
        def call(decoder, *arguments):
            if decoder is ours.decoder:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(decoder, *arguments)

        return call

    monkeypatch.setattr(writer_module, "generate", scarce(writer_module.generate))
    monkeypatch.setattr(writer_module, "fluencies", scarce(writer_module.fluencies))
    assert [row.text for row in ours.rewrite(SpanRequest(RUDE, guides=guides, candidates=2))] == [
        row.text for row in wanted
    ]


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


def test_a_match_of_many_words_is_weighed_word_by_word() -> None:
    guides = (Guide(np.ones(4, dtype=np.float32), 0.0, away=True),)
    text, whole, word = "You are an idiot, you idiot.", (0, 16), (22, 27)

    def matches(**changes: object) -> tuple:
        options = {"matches": (whole, word), "guides": guides, "forbidden": lambda _: False} | changes
        return narrowed(SpanRequest(text, **options)).matches

    assert matches() == (word,)
    assert matches(guides=()) == (whole, word)  # nothing to weigh by
    assert matches(forbidden=None) == (whole, word)  # nothing keeps the decoder from copying it
    assert matches(matches=()) == ()


def test_an_insult_that_a_pattern_matches_whole_is_rewritten(guides: tuple[Guide, ...], pipeline: Pipeline) -> None:
    text = "You are an idiot."

    def forbidden(written: str) -> bool:
        return "an idiot" in written.lower()

    found = pipeline.rewrite(SpanRequest(text, guides=guides, matches=((0, 16),), forbidden=forbidden))
    assert any(row.text.startswith("You are") for row in found)
    assert not any(forbidden(row.text) for row in found)


def test_the_second_round_has_other_plans() -> None:
    def plans(round_: int, candidates: int = 8) -> list:
        request = SpanRequest("You are a fool, the door is open.", candidates=candidates, round=round_)
        return plan_candidates(request, [(10, 14)], [], ["You are wrong, the door is open."])

    first, second = plans(0), plans(1)
    assert len(first) == len(second) == 8
    assert first + second == plans(0, 16)
    assert not [plan for plan in second if plan in first]
    assert sum(plan.temperature > 0 for plan in second) > sum(plan.temperature > 0 for plan in first)


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
        (
            "what a excuse for an bus, a hour",
            "what a shitty excuse for an bus, a hour late",
            "what an excuse for an bus, a hour",
        ),
        ("The deal is what They want", "the stupid deal is what they want", "the deal is what they want"),
        (
            "You know The deal. The rest is late",
            "You idiot know the deal, the rest is late",
            "You know the deal. The rest is late",
        ),
        ("Élan is good", "you have élan, fool", "élan is good"),
    ],
)
def test_the_ends_are_mended(written: str, draft: str, tidied: str) -> None:
    assert tidy(written, draft) == tidied


def test_the_hash_covers_the_diffusion_too() -> None:
    pipeline = load_pipeline("mini", DEFAULT_ENCODER, "cpu")
    loaded = checkpoint.load(checkpoint.locate("mini"), pipeline.encoder.sha256, "cpu")
    without = Pipeline(pipeline.encoder, loaded.statistics, DraftWriter(loaded.decoder, pipeline.codec), loaded.sha256)
    assert without.sha256 == checkpoint.sha256(checkpoint.locate("mini"))
    assert pipeline.trained
    assert pipeline.sha256 != without.sha256
