"""How the next token is chosen: nucleus, momentum, repetition, what is forbidden."""

from __future__ import annotations

import math

import pytest
import torch

from guardrail.dglm.batch import EMPTY, END, PrefixTokens, tokenise_prefix
from guardrail.dglm.choose import Decoding, Draws, Row, choose, reshape
from guardrail.dglm.codec import Codec, Tokens, word_tokenizer
from guardrail.dglm.decoder import Decoder, DecoderConfig
from guardrail.dglm.generate import generate
from guardrail.encoder import embedded_directory

CODEC = Codec(word_tokenizer(embedded_directory()))
WORDS = {word: CODEC.encode(word).ids[0] for word in ("the", "cat", "dog", "is", "here", "bad", "day")}


def row(*ids: int, draft: tuple[int, ...] = (), index: int = 0) -> Row:
    tokens = Tokens(draft, (3,) * len(draft), ("x",) * len(draft))
    return Row(index, PrefixTokens(tokens, EMPTY), list(ids))


def pick(probabilities: list[float], own: Row, **settings: object) -> int:
    decoding = Decoding([0.0], **settings)  # type: ignore[arg-type]
    table = torch.tensor([probabilities])
    reshape(table, [own], decoding)
    return int(choose(table, [own], decoding, Draws(decoding, None))[0])


def test_nucleus_samples_have_the_frequencies_of_the_truncated_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05]).expand(4000, 4).clone()
    rows = [row(index=number) for number in range(4000)]
    decoding = Decoding([1.0] * 4000, top_p=0.8)
    chosen = choose(probabilities, rows, decoding, Draws(decoding, torch.Generator().manual_seed(0)))
    share = torch.bincount(chosen, minlength=4) / 4000
    assert share[2:].sum() == 0  # outside the nucleus
    assert share[0] == pytest.approx(0.625, abs=0.03)


def test_a_temperature_sharpens() -> None:
    probabilities = torch.tensor([0.6, 0.4]).expand(4000, 2).clone()
    decoding = Decoding([0.5] * 4000, top_p=1.0)
    rows = [row(index=number) for number in range(4000)]
    chosen = choose(probabilities, rows, decoding, Draws(decoding, torch.Generator().manual_seed(0)))
    assert (chosen == 0).float().mean() == pytest.approx(0.36 / 0.52, abs=0.03)


def test_a_row_draws_the_same_in_any_company() -> None:
    probabilities = torch.full((3, 50), 0.02)
    together = Decoding([1.0] * 3, seeds=[1, 2, 3])
    rows = [row(index=number) for number in range(3)]
    chosen = choose(probabilities, rows, together, Draws(together, None))
    alone = Decoding([1.0], seeds=[2])
    assert choose(probabilities[:1], [row()], alone, Draws(alone, None))[0] == chosen[1]


def test_the_repetition_penalty_raises_to_a_power_and_spares_what_the_draft_repeats() -> None:
    table = torch.tensor([[0.5, 0.3, 0.2]])
    reshape(table, [row(0)], Decoding([0.0], repetition_penalty=1.2))
    assert table[0, 0] == pytest.approx(math.exp(1.2 * math.log(0.5)))
    assert table[0, 1] == pytest.approx(0.3)
    table = torch.tensor([[0.5, 0.3, 0.2]])
    reshape(table, [row(0, draft=(0,))], Decoding([0.0], repetition_penalty=1.2))
    assert table[0, 0] == pytest.approx(0.5)


def test_no_n_gram_recurs_unless_the_draft_has_it() -> None:
    likes_three = [0.05, 0.05, 0.1, 0.8]
    assert pick(likes_three, row(1, 2, 3, 0, 1, 2)) == 2
    assert pick(likes_three, row(1, 2, 3, 0, 1, 2), no_repeat=0) == 3
    assert pick(likes_three, row(1, 2, 3, 0, 1, 2, draft=(1, 2, 3))) == 3


def test_momentum_leaves_a_circle_and_only_then_departs_from_greedy() -> None:
    table = [0.05, 0.25, 0.5, 0.1, 0.05, 0.05]
    settings = {"no_repeat": 0, "momentum": 0.2}
    assert pick(table, row(0, 1), **settings) == 2  # 2 is new: greedy
    # ... 1 2 | 1 -> 2 would repeat the bigram (1, 2): 0.5 - 0.2 * 3 < 0.1 - 0; 1 itself costs 0.25 - 0.2
    assert pick(table, row(0, 1, 2, 1), **settings) == 3
    assert pick(table, row(0, 1, 2, 1), no_repeat=0) == 2
    assert pick(table, row(0, 1, 2, 1, draft=(1, 2)), **settings) == 2


def test_momentum_never_repeats_six() -> None:
    words = (1, 2, 3, 4, 5)
    assert pick([0.02, 0.02, 0.9, 0.02, 0.02, 0.02, 0.02], row(2, *words, 2, *words), no_repeat=0, momentum=1e-6) != 2


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(0)
    ids = (101, END, *WORDS.values())
    return Decoder(DecoderConfig(latent_dim=8, width=24, layers=1, heads=4, feed_forward=48, output_ids=ids)).eval()


def write(decoder: Decoder, decoding: Decoding, draft: str = "the cat is here") -> list[str]:
    count = len(decoding.temperature)
    prefixes = [tokenise_prefix(CODEC, draft, "") for _ in range(count)]
    rows = generate(decoder, CODEC, torch.zeros(count, 8), torch.ones(count), prefixes, decoding)
    return [row.text for row in rows]


def test_what_is_forbidden_is_never_written(decoder: Decoder) -> None:
    free = write(decoder, Decoding([1.0] * 24, max_tokens=12, seeds=range(24)))
    assert any("bad" in text.split() for text in free)
    checks = [lambda text: "bad" in text or "dog cat" in text] * 12 + [None] * 12
    texts = write(decoder, Decoding([1.0] * 24, max_tokens=12, seeds=range(24), forbidden=checks))
    assert not any("bad" in text or "dog cat" in text for text in texts[:12])
    assert texts[12:] == free[12:]  # rows without a ban are not touched


def test_where_everything_is_forbidden_the_row_ends_empty(decoder: Decoder) -> None:
    assert write(decoder, Decoding([0.0, 1.0], seeds=[0, 1], forbidden=[lambda _: True] * 2)) == ["", ""]


def test_an_outside_steer_sees_states_and_texts_and_decides(decoder: Decoder) -> None:
    seen: list[tuple[tuple[int, ...], str]] = []

    def only_cats(probabilities: torch.Tensor, states: torch.Tensor, rows: list[Row]) -> torch.Tensor:
        seen.append((tuple(states.shape), rows[0].text))
        weights = torch.zeros_like(probabilities)
        weights[:, WORDS["cat"] if len(rows[0].ids) < 2 else END] = 1.0
        return weights

    assert [text.lower() for text in write(decoder, Decoding([0.0], adjust=only_cats))] in (["cat cat"], ["catcat"])
    assert seen[0] == ((1, 24), "")
    assert seen[1][1].lower() == "cat"


def test_rows_that_end_leave_the_batch_and_change_nothing(decoder: Decoder) -> None:
    together = write(decoder, Decoding([1.0] * 8, max_tokens=16, seeds=range(8)))
    assert len({len(text.split()) for text in together}) > 2  # they end at different times
    alone = [write(decoder, Decoding([1.0], max_tokens=16, seeds=[seed]))[0] for seed in range(8)]
    assert together == alone
