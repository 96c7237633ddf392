"""Kind `transformer`: a tiny random classifier that the tests save themselves, read whole, and never from the hub."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail.classifiers.base import BuildContext, Classifier
from guardrail.classifiers.transformer import TransformerClassifier, build
from guardrail.errors import ClassifierError
from guardrail.types import Passage

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] bad good day the a is it all . , !".split()


def save(directory: Path, labels: list[str], *, multi_label: bool = False) -> Path:
    """A BERT of one layer that says `labels[-1]` where the word "bad" stands: only that word's embedding is large."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        problem_type="multi_label_classification" if multi_label else None,
    )
    model = BertForSequenceClassification(config)
    model.save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab=str(directory / "vocab.txt"), model_max_length=32).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "tiny", ["fine", "toxic", "threat"])


def make(directory: Path, **options: Any) -> TransformerClassifier:
    return build("big", options, BuildContext("all-MiniLM-L6-v2", "cpu", directory, directory))


def test_it_gives_the_models_own_probability(model: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    classifier = make(model.parent, model="tiny", label="toxic")
    assert isinstance(classifier, Classifier)
    texts = ["it is bad", "a good day . it is all good", ""]
    network, tokenizer = AutoModelForSequenceClassification.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    with torch.inference_mode():
        expected = [network.eval()(**tokenizer(text, return_tensors="pt")).logits.softmax(1)[0] for text in texts]
    scores = classifier.score([Passage(text) for text in texts])
    assert [score.value for score in scores] == pytest.approx([float(row[1]) for row in expected], abs=1e-5)
    both = make(model.parent, model="tiny", label=["toxic", "threat"]).score([Passage(texts[0])])[0].value
    assert both == pytest.approx(float(expected[0][1:].sum()), abs=1e-5)
    assert classifier.score([]) == []


def test_a_long_text_is_read_whole_and_the_worst_window_named(model: Path) -> None:
    classifier = make(model.parent, model="tiny", label="toxic")
    text = "a good day . " * 60 + "it is bad ! " + "the day is good . " * 60
    (score,) = classifier.score([Passage(text)])
    windows = [classifier.score([Passage(text[start:end])])[0].value for start, end in [(0, 60), *score.spans]]
    assert score.value == pytest.approx(windows[1], abs=1e-5)
    assert score.value >= windows[0] - 1e-5
    assert len(score.spans) == 1


def test_a_disguise_is_undone(model: Path) -> None:
    classifier = make(model.parent, model="tiny", label="toxic", batch=1)
    plain, disguised = classifier.score([Passage("it is bad"), Passage("it is b\u200bad")])
    assert disguised.value >= plain.value - 1e-5
    (odd,) = classifier.score([Passage("\ud800 it is bad")])
    assert 0 <= odd.value <= 1


def test_many_threads_share_it(model: Path) -> None:
    classifier = make(model.parent, model="tiny", label="toxic")
    alone = classifier.score([Passage("it is bad")])[0].value
    found: list[float] = []
    threads = [
        threading.Thread(target=lambda: found.append(classifier.score([Passage("it is bad")])[0].value))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == pytest.approx([alone] * 6)


def test_independent_labels_are_not_summed(tmp_path: Path) -> None:
    save(tmp_path / "multi", ["toxic", "threat"], multi_label=True)
    one, other, both = (
        make(tmp_path, model="multi", label=label).score([Passage("it is bad")])[0].value
        for label in ("toxic", "threat", ["toxic", "threat"])
    )
    assert both == max(one, other)


def test_the_fingerprint_covers_weights_and_label(model: Path, tmp_path: Path) -> None:
    toxic, threat = (make(model.parent, model="tiny", label=label).fingerprint for label in ("toxic", "threat"))
    other = save(tmp_path / "tiny", ["fine", "toxic", "threat"])
    weights = next(other.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    changed = make(tmp_path, model="tiny", label="toxic").fingerprint
    assert len({toxic, threat, changed}) == 3


def test_what_cannot_be_used_is_refused(model: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"model": "tiny"}, "say which `label` counts; the model has fine, toxic, threat"),
        ({"model": "tiny", "label": "toxik"}, "Did you mean 'toxic'?"),
        ({"model": "./nowhere", "label": "x"}, "there is no directory"),
        ({"model": "nobody/nothing-here", "label": "x"}, "neither a directory nor in the local cache"),
        ({"label": "x"}, "'model' must be a text"),
    ):
        with pytest.raises(ClassifierError, match=message.replace("(", "\\(")):
            make(model.parent, **options)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text(json.dumps({"id2label": {"0": "x"}}))
    (bare / "pytorch_model.bin").write_bytes(b"code that runs when it loads")
    with pytest.raises(ClassifierError, match="no weights as safetensors"):
        make(tmp_path, model="bare")
