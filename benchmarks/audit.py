"""How much of the database's own speed is left when decisions are recorded: hashed, chained and durable.

`raw` inserts the very same rows with the same SQLAlchemy engine and settings (Core `insert()` with lists of rows, one
durable commit per `--batch` decisions): no conversion, no hashing, no chain. Against it stand

- `batches`: one thread, `record()` with `--batch` decisions at a time;
- `threads`: `--threads` threads, each of which calls `record()` with one decision and waits until it is durable;
- `single`:  one thread, one decision at a time, against `raw` with one commit per decision.

`sealed` and `sealed_single` are `batches` and `single` with encryption at rest, by a second store on the same database;
they stand against `batches` and `single`, in decisions per second and per second of this process's CPU.

`verified` says how long it took to recompute the chain of all that was recorded, in seconds and in seconds of CPU.

Rounds alternate, so that a change of the machine's speed meets both sides. Prints one JSON document.

    python benchmarks/audit.py --url sqlite:////var/tmp/bench.sqlite
    guardrail db upgrade --url postgresql://... && python benchmarks/audit.py --url postgresql://...
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Engine

from guardrail.audit.database import WRITE, begin_write
from guardrail.audit.rows import DecisionRows, prepare
from guardrail.audit.store import AuditStore, open_store
from guardrail.audit.tables import decisions, reasons, rewrites, scores
from guardrail.types import Action, Candidate, Decision, Reason, Rewrite, Stage, State

CLASSIFIERS = (
    "toxicity", "insult", "profanity", "identity_hate", "threat", "sexual", "violence", "self_harm", "jailbreak",
    "prompt_injection", "courtesy",
)  # fmt: skip
RULES = ("harassment", "sexual_content", "violence", "self_harm", "injection")
WORDS = "the quick answer to your question is that nobody knows how a small team could have built it in a day".split()


class BenchmarkPolicy:
    """As much of a policy as `record()` reads."""

    name = "benchmark"
    canonical = '{"policy":"benchmark"}'
    revision = "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def make_decision(generator: random.Random, key: str) -> Decision:
    """A decision as the engine makes them: 40 words, 11 scores; one in five flagged, half of these rewritten."""
    source = " ".join(generator.choices(WORDS, k=40))
    score = {name: generator.random() for name in CLASSIFIERS}
    flagged = generator.random() < 0.2
    rewrite = make_rewrite(generator, source, score) if flagged and generator.random() < 0.5 else None
    shares = {"toxicity": 1.2, "insult": 0.3}
    reason = Reason("harassment", Stage.OUTPUT, Action.REWRITE, 0.8, 0.6, shares, ((4, 20),), "No insults.")
    return Decision(
        id=key,
        action=Action.REWRITE if rewrite else Action.FLAG if flagged else Action.ALLOW,
        state=State.REWRITTEN if rewrite else State.FLAGGED if flagged else State.ALLOWED,
        risk=0.8 if flagged else 0.1,
        stage=Stage.OUTPUT,
        policy=BenchmarkPolicy.name,
        revision=BenchmarkPolicy.revision,
        text=rewrite.text if rewrite else source,
        source=source,
        rules={name: generator.random() for name in RULES},
        scores=score,
        reasons=(reason,) if flagged else (),
        rewrite=rewrite,
        request_id=key,
        models={"encoder": "sha256:" + "a" * 64, "heads": "sha256:" + "b" * 64},
        timings_ms={"judge": 7.5, "rewrite": 120.0, "total": 128.25},
        created_at=time.time(),
    )


def make_rewrite(generator: random.Random, source: str, score: dict[str, float]) -> Rewrite:
    texts = [" ".join(generator.choices(WORDS, k=40)) for _ in range(8)]
    candidates = tuple(
        Candidate(text, "dglm", generator.random(), True, generator.random(), -2.0, 0.5, score, seed)
        for seed, text in enumerate(texts)
    )
    return Rewrite(source, texts[0], "dglm", 0.8, 0.8, 0.1, candidates, (((4, 20), texts[0][4:20]),), 0)


class Bench:
    """One database, filled by either side in turn."""

    def __init__(self, store: AuditStore, sealing: AuditStore, batch: int, threads: int) -> None:
        self.store, self.sealing, self.batch, self.threads = store, sealing, batch, threads
        self.generator = random.Random(0)  # noqa: S311 - texts for a benchmark
        self.run = f"{time.time_ns():x}"
        self.made = 0

    def decisions(self, count: int) -> list[Decision]:
        self.made += count
        first = self.made - count
        return [make_decision(self.generator, f"{self.run}-{first + index:08d}") for index in range(count)]

    def batches(self, made: Sequence[Decision]) -> None:
        record(self.store, split(made, self.batch))

    def single(self, made: Sequence[Decision]) -> None:
        record(self.store, split(made, 1))

    def sealed(self, made: Sequence[Decision]) -> None:
        record(self.sealing, split(made, self.batch))

    def sealed_single(self, made: Sequence[Decision]) -> None:
        record(self.sealing, split(made, 1))

    def parallel(self, made: Sequence[Decision]) -> None:
        parts = [made[start :: self.threads] for start in range(self.threads)]
        workers = [threading.Thread(target=self.single, args=(part,)) for part in parts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def raw(self, made: Sequence[Decision], batch: int) -> float:
        """Seconds to insert the rows of `made`; making the rows is not counted."""
        rows = [linked(prepare(one, community=f"raw-{self.run}"), index) for index, one in enumerate(made, self.made)]
        started = time.perf_counter()
        for group in split(rows, batch):
            insert_raw(self.store.engine, group)
        return time.perf_counter() - started


def record(store: AuditStore, groups: Sequence[Sequence[Decision]]) -> None:
    for group in groups:
        store.record(group, policy=BenchmarkPolicy, community="benchmark")  # type: ignore[arg-type]


def linked(rows: DecisionRows, index: int) -> DecisionRows:
    """Rows as a plain user of SQLAlchemy has them: linked already, JSON columns as Python values."""
    rows.decision |= {"sequence": index, "previous_hash": "sha256:" + "0" * 64, "hash": "sha256:" + "1" * 64}
    for table, part in ((decisions, [rows.decision]), (reasons, rows.reasons), (rewrites, rows.rewrites)):
        names = [column.name for column in table.columns if isinstance(column.type, JSON)]
        for row in part:
            row |= {name: json.loads(row[name]) for name in names if row[name] is not None}
    return rows


def insert_raw(engine: Engine, group: Sequence[DecisionRows]) -> None:
    with engine.connect().execution_options(**WRITE) as connection:
        begin_write(connection, 5.0)
        for table, rows in (
            (decisions, [row.decision for row in group]),
            (scores, [score for row in group for score in row.scores]),
            (reasons, [reason for row in group for reason in row.reasons]),
            (rewrites, [rewrite for row in group for rewrite in row.rewrites]),
        ):
            if rows:
                connection.execute(table.insert(), rows)
        connection.commit()


def split(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def seconds(work: Callable[[Sequence[Decision]], None], made: Sequence[Decision]) -> float:
    started = time.perf_counter()
    work(made)
    return time.perf_counter() - started


def measure(bench: Bench, count: int, rounds: int) -> dict[str, Any]:
    few = max(50, count // 10)  # one commit each: slow on a real disk
    rates: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, size, spent in (
            ("raw", count, lambda made: bench.raw(made, bench.batch)),
            ("batches", count, lambda made: seconds(bench.batches, made)),
            ("threads", count, lambda made: seconds(bench.parallel, made)),
            ("raw_single", few, lambda made: bench.raw(made, 1)),
            ("single", few, lambda made: seconds(bench.single, made)),
            ("sealed", count, lambda made: seconds(bench.sealed, made)),
            ("sealed_single", few, lambda made: seconds(bench.sealed_single, made)),
        ):
            made = bench.decisions(size)
            started = time.process_time()
            rates.setdefault(name, []).append(size / spent(made))
            cpu.setdefault(name, []).append(size / (time.process_time() - started))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    worked = {name: statistics.median(values) for name, values in cpu.items()}
    pairs = (("batches", "sealed"), ("single", "sealed_single"))
    return {
        "decisions_per_second": {name: round(value) for name, value in middle.items()},
        "sealed_of_plain": {plain: round(middle[sealed] / middle[plain], 3) for plain, sealed in pairs},
        "sealed_of_plain_by_cpu": {plain: round(worked[sealed] / worked[plain], 3) for plain, sealed in pairs},
        "ratio": {
            "batches": round(middle["batches"] / middle["raw"], 3),
            "threads": round(middle["threads"] / middle["raw"], 3),
            "single": round(middle["single"] / middle["raw_single"], 3),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="default: a temporary SQLite file")
    parser.add_argument("--count", type=int, default=2000, help="decisions per round and side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--verify", type=int, default=0, help="record up to so many more before the chain is verified")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        url = options.url or f"sqlite:///{Path(directory) / 'audit.sqlite'}"
        key = base64.b64encode(os.urandom(32)).decode()
        with open_store(url, timeout=60.0) as store, open_store(url, timeout=60.0, encryption_key=key) as sealing:
            bench = Bench(store, sealing, options.batch, options.threads)
            for warm in (bench.batches, bench.sealed):  # the policy revision, the compiled statements
                warm(bench.decisions(options.batch))
            result = measure(bench, options.count, options.rounds)
            while options.verify > bench.made:
                bench.batches(bench.decisions(min(5000, options.verify - bench.made)))
            started, used = time.perf_counter(), time.process_time()
            verified = sealing.verify("benchmark")
            spent = {"s": time.perf_counter() - started, "cpu_s": time.process_time() - used}
    result |= {"database": store.engine.dialect.name, "batch": options.batch, "threads": options.threads}
    result["verified"] = {"ok": verified.ok, "decisions": verified.decisions}
    result["verified"] |= {name: round(value, 2) for name, value in spent.items()}
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
