"""Everyday texts that come with guardrail (the project's own), as vectors: what a new head must not mistake for its topic.

Embedding them takes seconds, so the vectors are kept in the cache, for each encoder by its hash.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from guardrail.encoder import Encoder, Vectors
from guardrail.log import Logger

__all__ = ["background", "background_sha256", "background_texts"]

TEXTS: Final = Path(__file__).resolve().parent.parent / "pretrained" / "background.txt"

log = Logger(__name__)


@cache
def background_texts() -> tuple[str, ...]:
    """Some hundred harmless sentences in many registers."""
    return tuple(TEXTS.read_text(encoding="utf-8").splitlines())


@cache
def background_sha256() -> str:
    """Hash of the texts."""
    return hashlib.sha256(TEXTS.read_bytes()).hexdigest()


def background(encoder: Encoder, folder: Path) -> Vectors:
    """(N, d) unit vectors of the texts, from the cache in `folder` or embedded now and kept there if it can be written."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    path = folder / f"background-{encoder.sha256[:16]}-{background_sha256()[:16]}.safetensors"
    try:
        kept: Vectors = load_file(path)["vectors"]
        if kept.shape == (len(background_texts()), encoder.dim):
            return kept
    except (OSError, SafetensorError, KeyError):
        pass  # not there, or damaged: made again
    vectors = encoder.encode(background_texts())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{hashlib.sha256(vectors.tobytes()).hexdigest()[:8]}.partial")
        save_file({"vectors": vectors}, partial)
        partial.replace(path)
    except OSError as error:
        log.warning("cache not written", file=str(path), error=str(error))
    return vectors
