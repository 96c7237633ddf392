"""Tiny random models in the formats of the hub: a GPT-2 and a Sentence-T5."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

SENTENCES = ["the cat is here .", "a dog was there .", "it rained all day .", "we had tea ."]


def save_tokenizer(folder: Path, end: str) -> int:
    """A byte-level BPE tokenizer, as GPT-2 has one, learnt from a few sentences; returns its size."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES * 4, vocab_size=320, special_tokens=[end, "<pad>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=end, pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    size = save_tokenizer(folder, "<|endoftext|>")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=size, n_positions=256, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Sentence-T5: T5 encoder, mean pooling, a bias-free projection, normalisation (Ni et al. 2022)."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("t5")
    size = save_tokenizer(folder / "transformer", "</s>")
    torch.manual_seed(0)
    config = T5Config(vocab_size=size, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=1)
    T5EncoderModel(config).save_pretrained(folder / "transformer")
    body = Transformer(str(folder / "transformer"))
    pooling = Pooling(body.get_embedding_dimension(), pooling_mode="mean")
    dense = Dense(32, 16, bias=False, activation_function=torch.nn.Identity())
    SentenceTransformer(modules=[body, pooling, dense, Normalize()], device="cpu").save_pretrained(
        str(folder / "whole")
    )
    return str(folder / "whole")
