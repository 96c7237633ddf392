"""What `guardrail.wrap` adds to a call: wrapped over unwrapped, against a loopback server, under a policy of patterns.

All clients call in turns, in one process; the model is a process of its own. Every wrapped call judges input and output
and records two decisions: in SQLite before it returns (`commit`), on the local disk (`spool`), or in memory (`async`), as
`audit.durability` says. Prints one JSON object with medians; `changed` above 0 would void it.

- `added_cpu_us`: processor time of the calling thread, which other load on the machine hardly touches.
- `added_process_cpu_us`: the mean of the whole process, so with the thread that writes later under `spool` and `async`.
- `added_us`: wall time, with two flushes of the disk under `commit` and `spool`; one flush takes `flush_us` here.
- `stages_cpu_us`: where the time of the calling thread goes, from a second run with a clock in each stage. `wire` is what
  is left: reading the request and the answer, what was decided before, the new response.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
from wrap_model import ANSWER, POLICY, WORDS, question, serving

import guardrail
from guardrail.audit.durability import Recorder
from guardrail.audit.store import AuditStore
from guardrail.clients.transport import _SyncTransport
from guardrail.engine import Guardrail
from guardrail.judge import Judge
from guardrail.settings import load_settings

DURABILITIES = ("commit", "spool", "async")
WARM_UP = 20
Times = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300, help="of each client")
    parser.add_argument("--folder", help="where the databases are made (default: the system's temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, serving() as url:
        guards = {name: guard_at(Path(folder), name) for name in DURABILITIES}
        clients = {"plain": openai.OpenAI(api_key="none", base_url=url)}
        for name, guard in guards.items():
            clients[name] = guardrail.wrap(openai.OpenAI(api_key="none", base_url=url), guard=guard)
        walls, threads, processes, changed = measure(clients, options.calls)
        stages = {name: by_stage(clients[name], options.calls // 2) for name in guards}
        flush = flush_us(Path(folder))
        checks = [timed(lambda: guards["async"].check(ANSWER))[1] for _ in range(200)]
        for one in (*clients.values(), *guards.values()):
            one.close()
    cpu = {name: statistics.median(values) for name, values in threads.items()}
    wall = {name: statistics.median(values) for name, values in walls.items()}
    process = {name: statistics.fmean(values) for name, values in processes.items()}
    report = {
        "benchmark": "wrap",
        "calls": options.calls,
        "changed": changed,
        "plain_us": round(wall["plain"], 1),
        "plain_cpu_us": round(cpu["plain"], 1),
        "flush_us": round(flush, 1),
        "added_us": {name: round(wall[name] - wall["plain"], 1) for name in guards},
        "added_cpu_us": {name: round(cpu[name] - cpu["plain"], 1) for name in guards},
        "added_process_cpu_us": {name: round(process[name] - process["plain"], 1) for name in guards},
        "stages_cpu_us": stages,
        "one_check_cpu_us": round(statistics.median(checks), 1),
        "ratio_cpu": {name: round(cpu[name] / cpu["plain"], 3) for name in guards},
        "ratio": round(wall["commit"] / wall["plain"], 3),
    }
    print(json.dumps(report))


def guard_at(folder: Path, durability: str) -> Guardrail:
    """A guard under the policy of patterns that records in `folder`."""
    policy = folder / "patterns.yaml"
    policy.write_text(POLICY.format(words=", ".join(WORDS)), encoding="utf8")
    overrides = {
        "audit.url": f"sqlite:///{folder}/{durability}.sqlite",
        "audit.durability": durability,
        "audit.spool": f"{folder}/{durability}-spool" if durability == "spool" else None,
    }
    return Guardrail(policy, settings=load_settings(overrides=overrides))


def measure(clients: dict[str, Any], calls: int) -> tuple[Times, Times, Times, int]:
    """Let all clients call in turns; return wall, thread and process time in microseconds, and how many answers changed."""
    names = list(clients)
    walls: Times = {name: [] for name in names}
    threads: Times = {name: [] for name in names}
    processes: Times = {name: [] for name in names}
    changed = 0
    for turn in range(calls + WARM_UP):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            wall, cpu, said = timed(lambda name=name, turn=turn: ask(clients[name], turn))
            changed += said != ANSWER
            if turn >= WARM_UP:
                walls[name].append(wall)
                threads[name].append(cpu)
    for name in names:  # in a row, so that what a thread does later falls on the client that caused it
        began = time.process_time()
        for turn in range(calls):
            ask(clients[name], turn)
        guard = guardrail.clients.sdk.installed(clients[name])
        if guard is not None:
            guard.guard.audit.recorder.flush()
        processes[name].append((time.process_time() - began) / calls * 1e6)
    return walls, threads, processes, changed


def ask(client: Any, turn: int) -> str:
    """One call."""
    reply = client.chat.completions.create(model="m", messages=[question(turn)])
    return reply.choices[0].message.content or ""


def by_stage(client: Any, calls: int) -> dict[str, float]:
    """Microseconds of processor time that the calling thread spends in each stage of a call, on average."""
    spent: dict[str, float] = {}
    stages = {
        "all": (_SyncTransport, "handle_request"),
        "upstream": (type(client._client._transport.inner), "handle_request"),
        "decide": (Guardrail, "_decide"),
        "judge": (Judge, "judge"),
        "record": (AuditStore, "record"),
        "write": (Recorder, "submit"),
    }
    originals = {name: getattr(owner, method) for name, (owner, method) in stages.items()}
    for name, (owner, method) in stages.items():
        setattr(owner, method, _clocked(originals[name], name, spent))
    try:
        for turn in range(calls):
            ask(client, turn)
    finally:
        for name, (owner, method) in stages.items():
            setattr(owner, method, originals[name])
    mean = {name: seconds / calls * 1e6 for name, seconds in spent.items()}
    parts = {
        "wire": mean["all"] - mean["upstream"] - mean["decide"] - mean["record"],
        "judge": mean["judge"],
        "decision": mean["decide"] - mean["judge"],
        "rows": mean["record"] - mean["write"],
        "write": mean["write"],
    }
    return {name: round(value, 1) for name, value in parts.items()}


def _clocked(function: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    def clocked(*args: Any, **kwargs: Any) -> Any:
        began = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0.0) + time.thread_time() - began

    return clocked


def flush_us(folder: Path) -> float:
    """Median microseconds of wall time for one page written and flushed, as a commit does."""
    with (folder / "page").open("wb", buffering=0) as file:

        def flush() -> None:
            file.write(bytes(4096))
            os.fsync(file.fileno())

        return statistics.median(timed(flush)[0] for _ in range(50))


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return microseconds of wall time, of this thread's processor time, and the result."""
    started, busy = time.perf_counter(), time.thread_time()
    result = work()
    return (time.perf_counter() - started) * 1e6, (time.thread_time() - busy) * 1e6, result


if __name__ == "__main__":
    main()
