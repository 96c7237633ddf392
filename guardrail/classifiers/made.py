"""Heads that are made when a policy needs them, kept in the cache by the hash of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from guardrail.classifiers.linear import read_head, write_head
from guardrail.encoder import load_encoder, pinned_sha256
from guardrail.errors import CheckpointError
from guardrail.log import Logger
from guardrail.policy.bundle import LinearHead

__all__ = ["encoder_sha256", "made_head"]

log = Logger(__name__)


def encoder_sha256(encoder: str, device: str) -> str:
    """Hash of an encoder; the embedded one is not loaded for it."""
    return pinned_sha256(encoder) or load_encoder(encoder, device).sha256


def made_head(folder: Path, content: Mapping[str, Any], make: Callable[[], LinearHead]) -> LinearHead:
    """The head that `content` describes: from the cache, or made now and kept there if it can be written.

    Args:
        folder: the cache.
        content: plain values: everything that the head depends on.
        make: makes it.
    """
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = folder / "heads" / f"{key}.safetensors"
    try:
        return read_head(path)
    except CheckpointError:
        pass  # not there, or damaged: made again
    head = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_head(path, head, {"content": key})
    except OSError as error:
        log.warning("cache not written", file=str(path), error=str(error))
    return head
