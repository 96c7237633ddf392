"""How many stored decisions `audit replay` decides again per second, from embeddings, against judging their texts again.

Makes `--count` decisions with one to three sentences each (random unit vectors, recorded like real ones), replays them
under a policy from their embeddings, and judges `--texts` texts of as many sentences with the encoder. Prints one JSON
document with both rates and their ratio.

    python benchmarks/replay.py
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from guardrail.assembly import Assembly, assemble
from guardrail.audit.query import Filters
from guardrail.audit.store import AuditStore, open_store
from guardrail.evaluate.replay import replay
from guardrail.policy import load_policy
from guardrail.settings import load_settings
from guardrail.types import Action, Decision, Evidence, Passage, Stage, State

SENTENCE = "A sentence about nothing much, number {}. "


def make(assembly: Assembly, generator: np.random.Generator, key: int) -> Decision:
    count = int(generator.integers(1, 4))
    vectors = generator.normal(size=(count, 384))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    layout = np.array([[40 * place, 40 * place + 39] for place in range(count)], dtype="<u4")
    evidence = Evidence(assembly.encoder_sha256 or "", 384, vectors.astype("<f2").tobytes(), layout.tobytes())
    text = "".join(SENTENCE.format(key + place) for place in range(count))
    return Decision(
        id=f"d{key:08d}", action=Action.ALLOW, state=State.ALLOWED, risk=0.1, stage=Stage.OUTPUT,
        policy=assembly.policy.name, revision=assembly.policy.revision, text=text, source=text,
        models=assembly.models, evidence=evidence, created_at=1.8e9 + key,
    )  # fmt: skip


def fill(store: AuditStore, assembly: Assembly, count: int) -> float:
    generator = np.random.default_rng(0)
    started = time.perf_counter()
    for start in range(0, count, 500):
        made = [make(assembly, generator, key) for key in range(start, min(start + 500, count))]
        store.record(made, policy=assembly.policy, community="benchmark")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="general")
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument("--texts", type=int, default=200)
    options = parser.parse_args()
    settings = load_settings(environ={})
    assembly = assemble(load_policy(options.policy), settings)
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'audit.sqlite'}"
        with open_store(url, store_embeddings=True, timeout=60.0) as store:
            fill(store, assembly, options.count)
            with store.engine.connect() as connection:
                started, used = time.perf_counter(), time.process_time()
                found = replay(connection, assembly, Filters(), from_texts=False)
                rate = found.replayed / (time.perf_counter() - started)
                per_cpu_second = found.replayed / (time.process_time() - used)
    texts = [Passage(SENTENCE.format(place) * 2) for place in range(options.texts)]
    assembly.judge.judge(texts[:8])  # loads the encoder
    started = time.perf_counter()
    for start in range(0, len(texts), 64):
        assembly.judge.judge(texts[start : start + 64])
    judged = len(texts) / (time.perf_counter() - started)
    result = {
        "replayed": found.replayed,
        "skipped": dict(found.skipped),
        "changed": found.changed,
        "decisions_per_second": {"embeddings": round(rate), "texts": round(judged)},
        "decisions_per_cpu_second": round(per_cpu_second),
        "ratio": round(rate / judged, 1),
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
