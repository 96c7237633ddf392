"""Attention suppression: the lower layers once, the last one as the encoder itself computes it, words in their place."""

from __future__ import annotations

import numpy as np
import pytest

from guardrail.classifiers.linear import load_head
from guardrail.encoder import Encoder, load_encoder
from guardrail.explain.suppression import FACTOR, relevance, suppressed, words


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(device="cpu")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("... !!", []),
        ("You're a clown, aren't you?", ["You're", "a", "clown", "aren't", "you"]),
        ("snake_case 3.5", ["snake", "case", "3", "5"]),
        ("笨蛋 ok", ["笨", "蛋", "ok"]),
        ("so 🖕 there", ["so", "🖕", "there"]),
    ],
)
def test_words_are_what_a_reader_would_point_at(text: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in words(text)] == found


def test_the_first_row_is_the_encoders_own_vector(encoder: Encoder) -> None:
    text = "You are a worthless idiot, and the meeting is on Tuesday."
    vectors = suppressed(encoder, text, words(text))
    assert vectors.shape == (len(words(text)) + 1, encoder.dim)
    np.testing.assert_allclose(vectors[0], encoder.encode([text])[0], atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert 0 < FACTOR < 1


def test_the_word_that_makes_the_score_is_found(encoder: Encoder) -> None:
    head = load_head("insult")
    text = "The report is late again because our manager is an idiot who forgot the printer paper."
    spans = words(text)
    scores = suppressed(encoder, text, spans) @ head.weight + head.bias
    ranked = [text[slice(*spans[place])] for place in np.argsort(-relevance(scores))]
    assert ranked[0] == "idiot"


def test_a_repeated_word_is_suppressed_wherever_it_stands(encoder: Encoder) -> None:
    head = load_head("insult")
    text = "idiot here and idiot there, the train left at noon"
    spans = words(text)
    values = relevance(suppressed(encoder, text, spans) @ head.weight + head.bias)
    places = [row for row, span in enumerate(spans) if text[slice(*span)] == "idiot"]
    assert set(np.argsort(-values)[:2]) == set(places)
    assert values[places[0]] == pytest.approx(values[places[1]], rel=1e-3)  # each takes the other with it


def test_no_span_and_no_text_are_no_trouble(encoder: Encoder) -> None:
    assert suppressed(encoder, "", []).shape == (1, encoder.dim)
    assert suppressed(encoder, "hello", []).shape == (1, encoder.dim)


def test_a_text_beyond_the_window_is_read_as_far_as_the_encoder_reads(encoder: Encoder) -> None:
    text = "word " * 400
    spans = [(0, 4), (5 * 390, 5 * 390 + 4)]
    vectors = suppressed(encoder, text, spans)
    np.testing.assert_allclose(vectors[0], encoder.encode([text])[0], atol=2e-5)


def test_an_encoder_without_a_bert_inside_embeds_the_text_without_the_word() -> None:
    asked: list[str] = []

    class Other:
        transformer = None

        def encode(self, texts: list[str]) -> np.ndarray:
            asked.extend(texts)
            return np.eye(len(texts), dtype=np.float32)

    assert suppressed(Other(), "one two", [(0, 3), (4, 7)]).shape == (3, 3)  # type: ignore[arg-type]
    assert asked == ["one two", " two", "one "]
