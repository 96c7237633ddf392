"""Factored tokens keep case, spacing and rare symbols."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.dglm.codec import Codec, word_tokenizer
from guardrail.encoder import embedded_directory
from guardrail.errors import CheckpointError

CODEC = Codec(word_tokenizer(embedded_directory()))


@pytest.mark.parametrize(
    "text",
    [
        "Hello, World! I can't believe NASA's iPhone is $3.50 (really?) at www.x.com/Foo_bar",
        'don\'t—you’re "mad"… café Zürich 😀👨‍👩‍👧 naïve',
        "IDIOT!!! get out u dumb a$$ ¿Qué? A B c 我们 привет Привет",
        "CamelCaseWord snake_case HTTPServer U.S.A. 10:30pm",
        "İstanbul ß ﬁ",
    ],
)
def test_surfaces_restore_the_text_exactly(text: str) -> None:
    tokens = CODEC.encode(text)
    assert CODEC.decode(tokens.ids, tokens.forms, tokens.surfaces) == text


def test_forms_alone_restore_case_and_spacing() -> None:
    text = "Siobhan's VPN broke at 10:45, so Kubernetes (v1.29) is DOWN."
    tokens = CODEC.encode(text)
    assert CODEC.decode(tokens.ids, tokens.forms) == text


def test_white_space_is_one_space_and_none_at_the_ends() -> None:
    tokens = CODEC.encode("  a \n\t b  ")
    assert CODEC.decode(tokens.ids, tokens.forms) == "a b"


def test_limit_cuts_tokens() -> None:
    tokens = CODEC.encode("one two three four", limit=2)
    assert len(tokens) == 2
    assert len(tokens.forms) == len(tokens.surfaces) == 2


@given(st.text(max_size=80))
def test_any_text_survives_up_to_white_space(text: str) -> None:
    tokens = CODEC.encode(text)
    restored = CODEC.decode(tokens.ids, tokens.forms, tokens.surfaces)
    assert "".join(restored.split()) == "".join(text.split())


def test_an_encoder_without_word_pieces_is_refused(tmp_path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    Tokenizer(BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="word-piece"):
        word_tokenizer(tmp_path)
