"""Kind `moderation_api`: what is sent, what is read from the answer, and what counts as no answer."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from guardrail.classifiers.base import BuildContext, Classifier
from guardrail.classifiers.moderation_api import PIECE, ModerationAPI, build
from guardrail.engine import Guardrail
from guardrail.errors import ClassifierError, ModerationError
from guardrail.policy import load_policy
from guardrail.settings import Settings
from guardrail.types import Action, Passage

CONTEXT = BuildContext("all-MiniLM-L6-v2", "cpu", Path(), Path())


def by_words(body: dict[str, Any]) -> dict[str, Any]:
    """Hate where "hate" stands, violence where "hit" stands."""
    scores = [
        {"hate": 0.9 if "hate" in text else 0.1, "violence": 0.8 if "hit" in text else 0.05} for text in body["input"]
    ]
    return {
        "id": "m",
        "model": body["model"],
        "results": [{"flagged": False, "category_scores": one} for one in scores],
    }


def make(url: str, **options: Any) -> ModerationAPI:
    return build("vendor", {"url": url, "timeout": "500ms", **options}, CONTEXT)


def test_texts_are_sent_together_and_the_largest_category_counts(loopback, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up")
    loopback.answer = by_words
    classifier = make(loopback.url)
    assert isinstance(classifier, Classifier)
    scores = classifier.score([Passage("I hate it"), Passage("hello"), Passage("hit \ud800"), Passage("  ")])
    assert [score.value for score in scores] == [0.9, 0.1, 0.8, 0.0]
    assert loopback.asked == [{"model": "omni-moderation-latest", "input": ["I hate it", "hello", "hit ?"]}]
    assert loopback.headers[0]["authorization"] == "Bearer sk-made-up"
    assert "sk-made-up" not in repr(classifier) + classifier.fingerprint


def test_only_the_named_categories_count(loopback) -> None:
    loopback.answer = by_words
    assert make(loopback.url, categories=["violence"]).score([Passage("I hate it")])[0].value == 0.05
    with pytest.raises(ModerationError, match="does not score 'violins', only hate, violence"):
        make(loopback.url, categories=["violins"]).score([Passage("x")])


def test_a_long_text_is_sent_whole_in_pieces(loopback) -> None:
    loopback.answer = by_words
    text = "All is well here today. " * 400 + "I hate it. " + "And so it goes on. " * 300
    (score,) = make(loopback.url).score([Passage(text)])
    sent = [piece for body in loopback.asked for piece in body["input"]]
    assert "".join(sent) == text
    assert max(map(len, sent)) <= PIECE
    ((start, end),) = score.spans
    assert score.value == 0.9
    assert "I hate it." in text[start:end]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"not json", "did not answer with JSON"),
        ({}, "one result for each"),
        ({"results": []}, "one result for each"),
        ({"results": [{}]}, "without category_scores"),
        ({"results": [{"category_scores": {"hate": 1.5}}]}, "not in \\[0, 1\\]"),
        ({"results": [{"category_scores": {"hate": "high"}}]}, "not in \\[0, 1\\]"),
        ((401, {"error": "no"}), "status 401"),
        ((503, {}), "status 503"),
    ],
)
def test_an_answer_of_another_shape_is_an_error(loopback, answer: Any, message: str) -> None:
    loopback.answer = lambda body: answer
    with pytest.raises(ModerationError, match=message):
        make(loopback.url).score([Passage("x")])
    assert len(loopback.asked) == (2 if answer == (503, {}) else 1)  # a busy server is asked once more


def test_a_server_that_hangs_or_is_away_is_an_error(loopback) -> None:
    held = threading.Event()
    loopback.answer = lambda body: held.wait(60)
    with pytest.raises(ModerationError, match="cannot be asked"):
        make(loopback.url).score([Passage("x")])
    with pytest.raises(ModerationError, match="cannot be asked"):
        make("http://127.0.0.1:9").score([Passage("x")])
    held.set()


def test_the_rule_decides_what_a_failure_means(loopback, tmp_path: Path) -> None:
    loopback.answer = lambda body: (500, {})
    (tmp_path / "p.yaml").write_text(
        f"policy: p\nclassifiers:\n  vendor: {{kind: moderation_api, url: '{loopback.url}', timeout: 1s}}\n"
        "rules:\n  closed: {weights: {vendor: 1}, thresholds: {flag: 0.5}}\n"
        "  open: {weights: {vendor: 1}, thresholds: {flag: 0.5}, on_error: allow}\n"
    )
    decision = Guardrail(load_policy(tmp_path / "p.yaml"), settings=Settings()).check("hello")
    assert decision.action is Action.BLOCK
    assert {reason.rule: reason.action for reason in decision.reasons}["open"] is Action.ALLOW
    assert "status 500" in decision.failures["vendor"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://x"}, "must start with http"),
        ({"timeout": "soon"}, "duration"),
        ({"timeout": 0}, "duration"),
        ({"categories": [1]}, "list of texts"),
        ({"modle": "x"}, "Did you mean 'model'?"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClassifierError, match=message):
        build("vendor", options, CONTEXT)
