"""The tuned tier learns, goes on exactly where it stopped, is written, read and used by a policy."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from guardrail.classifiers import tuned
from guardrail.classifiers.network import Trunk, padded
from guardrail.classifiers.tuned import TunedClassifier, load_tuned, tuned_facts
from guardrail.encoder import Encoder, load_encoder
from guardrail.errors import CheckpointError, ClassifierError, DataError
from guardrail.evaluate.data import LabelledText
from guardrail.evaluate.disguise import disguise
from guardrail.evaluate.scorers import tuned_scorer
from guardrail.learn import tuned as tuned_learning
from guardrail.learn.invariance import swap_groups
from guardrail.learn.tuned import FROZEN, TunedTraining, TunePlan, score_states
from guardrail.learn.tuned_card import render_tuned
from guardrail.learn.tuned_data import CHARACTERS, Sampling, by_length, cut, draw, loss_weights, targets
from guardrail.learn.tuned_measures import sentence_vectors, write_figures
from guardrail.learn.tuned_session import TunedSession
from guardrail.types import Passage

RUDE = ("you stupid fool", "get lost, idiot", "what a pathetic loser", "shut up, moron", "you disgust me, clown")
KIND = ("have a nice day", "the train is late", "could you pass the salt", "thanks a lot", "see you on Friday")
PLAN = TunePlan(epochs=6, batch_tokens=256, rate=4e-4, average=0.9)


def labelled(sides: int, split: str, source: str = "a") -> list[LabelledText]:
    rng = random.Random(split)
    return [
        LabelledText(f"{rng.choice(words)} {rng.randint(0, 999)}", {"insult": y, "calm": 1 - y}, source, split)
        for _ in range(sides)
        for words, y in ((RUDE, 1.0), (KIND, 0.0))
    ]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(device="cpu")


@pytest.fixture(scope="module")
def rows() -> list[LabelledText]:
    return [*labelled(45, "train"), *labelled(15, "dev"), *labelled(20, "test")]


@pytest.fixture(scope="module")
def session(rows: list[LabelledText], encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> TunedSession:
    made = TunedSession(rows, encoder, tmp_path_factory.mktemp("run"), plan=PLAN)
    assert made.heads == ["calm", "insult"]
    progress = made.run()
    assert progress.finished
    return made


@pytest.fixture(scope="module")
def network(session: TunedSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tuned") / "heads.safetensors"
    figures = session.finish(path, "guardrail heads train", resamples=20)
    assert figures["insult"].metrics["auroc"].value == pytest.approx(1.0, abs=0.02)
    assert figures["insult"].calibrated
    assert figures["insult"].linear is not None  # a shipped head of that name, on the same rows
    assert figures["calm"].linear is None
    card = render_tuned(figures, session.drawn, {"a": "nowhere; CC0"}, path)
    assert "| `insult` | 40 | 20 |" in card
    assert "nowhere; CC0" in card
    write_figures(path.with_name("metrics.json"), figures, session.encoder, "x", 0)
    assert json.loads(path.with_name("metrics.json").read_text())["heads"]["insult"]["n"] == 40
    return path


def test_a_run_that_stopped_goes_on_as_if_it_had_not(
    rows: list[LabelledText], encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, plan = rows[:16], TunePlan(epochs=2, batch_tokens=64, average=0.9)
    straight = TunedTraining(few, ["insult", "calm"], encoder, tmp_path / "straight", plan)
    assert straight.run().finished
    stopped = TunedTraining(few, ["insult", "calm"], encoder, tmp_path / "stopped", plan)
    assert not stopped.run(deadline=0.0).finished  # the hidden states are there, no step is done yet
    real = stopped._update

    def interrupted(*batch: torch.Tensor) -> float:
        if stopped.step == straight.steps // 2:
            raise KeyboardInterrupt
        return real(*batch)

    monkeypatch.setattr(stopped, "_update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    stopped._save()
    again = TunedTraining(few, ["insult", "calm"], encoder, tmp_path / "stopped", plan)
    assert again.step == straight.steps // 2
    assert again.run().finished
    for name, value in straight.average.items():
        torch.testing.assert_close(again.average[name], value, rtol=0, atol=0)
    with pytest.raises(CheckpointError, match="other rows, labels or settings"):
        TunedTraining(few, ["insult", "calm"], encoder, tmp_path / "stopped", TunePlan(epochs=4, batch_tokens=64))


def test_a_run_goes_on_from_a_network(
    network: Path, rows: list[LabelledText], encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_tuned(encoder, network)
    plan = TunePlan(batch_tokens=64)
    run = TunedTraining(rows[:16], ["new", "insult"], encoder, tmp_path / "a", plan, start=network)
    place = loaded.facts.heads.index("insult")
    torch.testing.assert_close(run.upper.out.weight[1], loaded.upper.out.weight[place])
    torch.testing.assert_close(run.upper.out.bias[1], loaded.upper.out.bias[place])
    for name, value in loaded.upper.layers.state_dict().items():
        torch.testing.assert_close(run.upper.layers.state_dict()[name], value)
        torch.testing.assert_close(run.average[f"layers.{name}"], value)
    assert run.run().finished
    with pytest.raises(CheckpointError, match="other rows, labels or settings"):  # where it started from is part of it
        TunedTraining(rows[:16], ["new", "insult"], encoder, tmp_path / "a", plan)
    monkeypatch.setattr(tuned_learning, "FROZEN", 2)
    with pytest.raises(CheckpointError, match="stands on 3 frozen layers"):
        TunedTraining(rows[:16], ["insult"], encoder, tmp_path / "b", plan, start=network)


def test_it_tells_apart_texts_that_it_never_saw(network: Path, encoder: Encoder) -> None:
    loaded = load_tuned(encoder, network)
    fresh = labelled(20, "other")
    scores = tuned_scorer(loaded, ["insult", "calm"])(fresh)
    rude = np.array([row.labels["insult"] > 0.5 for row in fresh])
    assert scores["insult"][rude].min() > scores["insult"][~rude].max()
    assert scores["calm"][rude].max() < scores["calm"][~rude].min()
    np.testing.assert_allclose(loaded.logits([fresh[0].text]), loaded.logits([fresh[0].text, "a"])[:1], atol=1e-4)
    assert loaded.logits([]).shape == (0, 2)


def test_a_text_is_scored_as_its_worst_sentence_and_says_which(network: Path) -> None:
    classifier = TunedClassifier("rudeness", "insult", None, "all-MiniLM-L6-v2", "cpu", network)
    calm = "The train is late. See you on Friday."
    text = f"{calm} You stupid fool! {calm}"
    worst, harmless, alone, empty = classifier.score([Passage(each) for each in (text, calm, RUDE[0], "")])
    assert worst.value > 0.5 > harmless.value
    assert [text[slice(*span)] for span in worst.spans] == ["You stupid fool!"]
    assert alone.spans == ()
    assert 0.0 <= empty.value <= 1.0
    long = classifier.score([Passage(f"{calm * 25} You stupid fool! {calm * 25}")])[0]
    assert long.value > 0.5
    disguised, plain = classifier.score([Passage("you st\u200bup\u200bid fo\u200bol"), Passage("you stupid fool")])
    assert disguised.value == pytest.approx(plain.value, abs=0.2)
    assert classifier.score([]) == []


def test_labels_and_files_that_are_not_there_are_refused(network: Path, tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(ClassifierError, match="Did you mean 'insult'"):
        TunedClassifier("x", "insul", None, "all-MiniLM-L6-v2", "cpu", network)
    with pytest.raises(CheckpointError, match="is missing"):
        tuned_facts(tmp_path / "none.safetensors")
    torn = tmp_path / "torn.safetensors"
    content = bytearray(network.read_bytes())
    content[-100] ^= 0xFF
    torn.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_tuned(encoder, torn)
    torn.write_bytes(content[:200])
    tuned_facts.cache_clear()
    with pytest.raises(CheckpointError, match="cannot be read"):
        tuned_facts(torn)


def test_hidden_states_give_the_same_vectors_and_scores_as_the_encoder(session: TunedSession, encoder: Encoder) -> None:
    texts = [row.text for row in session.held.parts["test"]]
    states = session.held.states("test")
    np.testing.assert_allclose(sentence_vectors(encoder, states), encoder.encode(texts), atol=5e-3)  # float16 states
    upper = session.training.averaged()
    tokens, mask = padded(encoder.tokens(texts[:3]))
    with torch.inference_mode():
        direct = upper(Trunk(encoder.transformer, FROZEN)(tokens, mask), mask).numpy()
    np.testing.assert_allclose(score_states(upper, states)[:3], direct, atol=5e-2)


def test_a_draw_cuts_sources_keeps_what_is_rare_and_reads_around_the_marked_part() -> None:
    many = [LabelledText(f"text {at}", {"x": float(at % 2)}, "big", "train") for at in range(400)]
    rare = [LabelledText(f"rare {at}", {"y": 1.0}, "big", "train") for at in range(30)]
    long = LabelledText("a" * 900 + "BAD" + "b" * 900, {"y": 1.0}, "small", "train", spans=((900, 903),))
    sampling = Sampling(cap=50, caps={"other": 1}, keep=100)
    drawn = draw([*many, *rare, long], ["x", "y"], sampling)
    assert len(drawn) == 50 + 50 + 30 + 1
    assert "BAD" in next(row.text for row in drawn if row.source == "small")
    assert drawn == draw([*many, *rare, long], ["x", "y"], sampling)


def test_some_words_of_some_short_texts_are_disguised_whatever_their_labels() -> None:
    rows = [LabelledText(f"what a stupid story number {at}", {"x": float(at % 2)}, "s", "train") for at in range(200)]
    long = LabelledText("a stupid story " * 20, {"x": 1.0}, "l", "train")
    drawn = draw([*rows, long], ["x"], Sampling(disguise=0.5))
    changed = [row for row in drawn if not row.text.startswith("what a stupid story number")]
    assert 60 < len(changed) - 1 < 140
    assert {row.labels["x"] for row in changed if row.source == "s"} == {0.0, 1.0}
    assert any(row.text == long.text[:CHARACTERS] for row in drawn)
    assert drawn == draw([*rows, long], ["x"], Sampling(disguise=0.5))
    whole, part = disguise("stupid people everywhere", "spaced"), disguise("stupid people everywhere", "spaced", 0.5)
    assert whole == "s t u p i d p e o p l e e v e r y w h e r e"
    assert whole != part
    assert disguise("stupid people", "spaced", 0.0) == "stupid people"


def test_weights_are_silent_where_a_label_is_unknown_and_level_the_sources() -> None:
    rows = [LabelledText("t", {"x": 1.0}, "a")] * 30 + [LabelledText("t", {"x": 1.0}, "b")] * 3
    rows += [LabelledText("t", {"x": 0.0}, "a")] * 30 + [LabelledText("t", {"y": 0.5}, "a")] * 3
    up, down = loss_weights(rows, targets(rows, ["x", "y"]))
    assert up[:, 0][63:].max() == down[:, 0][63:].max() == 0.0
    assert up[0, 1] == 0.0
    assert up[30, 0] > up[0, 0] > 0.0
    assert float((up + down).sum()) == pytest.approx(len(rows), rel=1e-4)


def test_batches_hold_every_row_once_and_stay_within_the_budget() -> None:
    lengths = [1, 3, 8, 8, 20, 2, 2, 64]
    sequences: Sequence[Sequence[int]] = [list(range(length)) for length in lengths]
    for rng in (None, np.random.default_rng(0)):
        batches = by_length(sequences, 32, rng)
        assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
        assert all(len(batch) * max(lengths[row] for row in batch) <= 32 or len(batch) == 1 for batch in batches)
    assert cut(list(range(100)), 5) == [0, 1, 2, 3, 99]


def test_groups_are_swapped_alike_and_only_groups() -> None:
    rng = random.Random(1)
    swapped = swap_groups("Muslims are people. I like muslims and black tea.", rng)
    first, second = swapped.split(" are people. I like ")[0], swapped.split("I like ")[1].split(" and")[0]
    assert first.lower() == second != "muslims"
    assert swapped.endswith("black tea.")


def test_nothing_to_learn_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no label has"):
        TunedSession(labelled(3, "train"), encoder, tmp_path)


def test_the_memory_of_a_network_is_bounded(network: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_tuned(encoder, network)
    monkeypatch.setattr(tuned, "MEMORY", 4)
    loaded.logits([f"text {at}" for at in range(9)])
    assert len(loaded._kept) == 4
