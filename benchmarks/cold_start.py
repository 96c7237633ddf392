"""From a new process to the first rewrite, and the memory it takes, over importing torch and transformers alone.

Each side runs in a fresh interpreter, in turns. Prints one JSON object: median seconds, their ratio, resident memory in
GB (now and at its peak), and the seconds of each stage. Processor time stands beside wall-clock time: a busy machine makes
only the latter much longer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

TEXT = "Only a stupid idiot would restart the router at 10:45 and expect the logs to survive."

IMPORTS = """
import time; started = time.perf_counter()
import torch; from transformers import BertModel
import json; print(json.dumps({"total": time.perf_counter() - started, "cpu": time.process_time()}))
"""

REWRITE = """
import time; started = time.perf_counter(); stages = {}
def stage(name):
    global last
    now = time.perf_counter(); stages[name] = now - last; last = now
last = started
import json, re, resource, sys
from pathlib import Path
from guardrail.engine import Guardrail
from guardrail.settings import Settings
guard = Guardrail(sys.argv[1], settings=Settings(device="cpu")); stage("import guardrail")
import torch; from transformers import BertModel; stage("import torch and transformers")
from guardrail.encoder import load_encoder; load_encoder(); stage("load the encoder")
guard.check(sys.argv[2]); stage("first check")
from guardrail.dglm.pipeline import load_pipeline; load_pipeline("mini", "all-MiniLM-L6-v2", "cpu"); stage("load the DGLM")
decision = guard.rewrite(sys.argv[2]); stage("first rewrite")
status = Path("/proc/self/status").read_text()
resident = int(re.search(r"VmRSS:\\s+(\\d+)", status).group(1)) / 1e6
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"total": time.perf_counter() - started, "cpu": time.process_time(), "stages": stages,
                  "resident_gb": resident, "peak_gb": peak,
                  "method": decision.rewrite.method if decision.rewrite else None}))
"""


def run(script: str, *arguments: str) -> dict[str, object]:
    done = subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", default="general")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    imports, rewrites = [], []
    for _ in range(options.repetitions):
        imports.append(run(IMPORTS))
        rewrites.append(run(REWRITE, options.policy, TEXT))
    floor = statistics.median(float(row["total"]) for row in imports)
    total = statistics.median(float(row["total"]) for row in rewrites)
    middle = sorted(rewrites, key=lambda row: float(row["total"]))[len(rewrites) // 2]
    print(
        json.dumps(
            {
                "benchmark": "cold_start",
                "policy": options.policy,
                "repetitions": options.repetitions,
                "seconds_to_first_rewrite": round(total, 2),
                "seconds_to_import_torch_and_transformers": round(floor, 2),
                "cpu_seconds_to_first_rewrite": round(statistics.median(float(row["cpu"]) for row in rewrites), 2),
                "cpu_seconds_to_import": round(statistics.median(float(row["cpu"]) for row in imports), 2),
                "ratio": round(total / floor, 3),
                "stages": {name: round(value, 2) for name, value in middle["stages"].items()},
                "resident_gb": round(float(middle["resident_gb"]), 3),
                "peak_gb": round(max(float(row["peak_gb"]) for row in rewrites), 3),
                "method": middle["method"],
            }
        )
    )


if __name__ == "__main__":
    main()
