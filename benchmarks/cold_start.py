"""From a new process to the first rewrite, and the memory it takes, over importing torch alone.

Each side runs in a fresh interpreter, in turns, with bytecode compiled beforehand as an installer does. Prints one JSON
object: median seconds, their ratio, resident memory in GB (now and at its peak), and the seconds of each stage; beside them
what importing the BERT of `transformers` takes on top of torch, which the encoder does without. Processor time stands
beside wall-clock time: a busy machine makes only the latter much longer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

TEXT = "Only a stupid idiot would restart the router at 10:45 and expect the logs to survive."

TORCH = """
import time; started = time.perf_counter()
import torch
import json; print(json.dumps({"total": time.perf_counter() - started, "cpu": time.process_time()}))
"""

TRANSFORMERS = """
import torch
import time; started, cpu = time.perf_counter(), time.process_time()
from transformers import BertModel
import json; print(json.dumps({"total": time.perf_counter() - started, "cpu": time.process_time() - cpu}))
"""

REWRITE = """
import time; started = time.perf_counter(); stages = {}; cpu_stages = {}
def stage(name):
    global last, cpu
    now, used = time.perf_counter(), time.process_time()
    stages[name], cpu_stages[name] = now - last, used - cpu
    last, cpu = now, used
last, cpu = started, 0.0
import json, re, resource, sys
from pathlib import Path
from guardrail.engine import Guardrail
from guardrail.settings import Settings
# Nothing is cut short, however busy the machine is.
guard = Guardrail(sys.argv[1], settings=Settings(device="cpu", rewriter={"timeout": 600})); stage("import guardrail")
import torch; stage("import torch")
from guardrail.encoder import load_encoder; load_encoder(device="cpu"); stage("load the encoder")
guard.check(sys.argv[2]); stage("first check")
from guardrail.dglm.pipeline import load_pipeline; load_pipeline("mini", "all-MiniLM-L6-v2", "cpu"); stage("load the DGLM")
decision = guard.rewrite(sys.argv[2]); stage("first rewrite")
status = Path("/proc/self/status").read_text()
resident = int(re.search(r"VmRSS:\\s+(\\d+)", status).group(1)) / 1e6
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"total": time.perf_counter() - started, "cpu": time.process_time(), "stages": stages,
                  "cpu_stages": cpu_stages, "resident_gb": resident, "peak_gb": peak,
                  "method": decision.rewrite.method if decision.rewrite else None}))
"""


def run(script: str, *arguments: str) -> dict[str, object]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def median(rows: list[dict[str, object]], name: str) -> float:
    return statistics.median(float(row[name]) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", default="general")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    run(REWRITE, options.policy, TEXT)  # leaves bytecode and files in the system's cache
    floors, avoided, rewrites = [], [], []
    for _ in range(options.repetitions):
        floors.append(run(TORCH))
        avoided.append(run(TRANSFORMERS))
        rewrites.append(run(REWRITE, options.policy, TEXT))
    middle = sorted(rewrites, key=lambda row: float(row["total"]))[len(rewrites) // 2]
    print(
        json.dumps(
            {
                "benchmark": "cold_start",
                "policy": options.policy,
                "repetitions": options.repetitions,
                "ratio": round(median(rewrites, "total") / median(floors, "total"), 3),
                "cpu_ratio": round(median(rewrites, "cpu") / median(floors, "cpu"), 3),
                "seconds_to_first_rewrite": round(median(rewrites, "total"), 2),
                "seconds_to_import_torch": round(median(floors, "total"), 2),
                "seconds_avoided_transformers": round(median(avoided, "total"), 2),
                "cpu_seconds_to_first_rewrite": round(median(rewrites, "cpu"), 2),
                "cpu_seconds_to_import_torch": round(median(floors, "cpu"), 2),
                "cpu_seconds_avoided_transformers": round(median(avoided, "cpu"), 2),
                "stages": {name: round(value, 2) for name, value in middle["stages"].items()},
                "cpu_stages": {name: round(value, 2) for name, value in middle["cpu_stages"].items()},
                "resident_gb": round(float(middle["resident_gb"]), 3),
                "peak_gb": round(max(float(row["peak_gb"]) for row in rewrites), 3),
                "method": middle["method"],
            }
        )
    )


if __name__ == "__main__":
    main()
