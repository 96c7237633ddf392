"""What a guarded call costs here, and with peers that guard a client too, over one loopback model, with one list of words.

    python benchmarks/wrap_peers.py --python openai-guardrails=PATH/TO/PYTHON

Each side runs in a process of its own (a peer under the interpreter that `--python` names for it), makes plain and guarded
calls in turns, and all sides take turns. What is added is guarded minus plain in the same process: `cpu` processor time of
the whole process, threads included, on average; `wall` the median. `ratio` is ours over the peer's. Ours records every
decision under the durability that stands beside it; peers keep no record. `works` says that a call with a listed word was
refused. A peer without an interpreter, or one that cannot be imported, stands under `left_out` with the reason.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from wrap_model import ANSWER, POLICY, WORDS, question, serving

PEERS = ("openai-guardrails",)
DURABILITIES = ("async", "spool", "commit")
WARM_UP = 10


def ours(url: str, durability: str) -> tuple[Any, Any, Callable[[], object]]:
    """(plain client, guarded client, what to wait for at the end of a round)."""
    import openai

    import guardrail
    from guardrail.engine import Guardrail
    from guardrail.settings import load_settings

    folder = tempfile.mkdtemp()
    path = Path(folder) / "patterns.yaml"
    path.write_text(POLICY.format(words=", ".join(WORDS)), encoding="utf8")
    overrides = {"audit.url": f"sqlite:///{folder}/audit.sqlite", "audit.durability": durability}
    if durability == "spool":
        overrides["audit.spool"] = f"{folder}/spool"
    guard = Guardrail(path, settings=load_settings(overrides=overrides))
    guarded = guardrail.wrap(openai.OpenAI(api_key="none", base_url=url), guard=guard)
    return openai.OpenAI(api_key="none", base_url=url), guarded, guard.audit.recorder.flush


def openai_guardrails(url: str) -> tuple[Any, Any, Callable[[], object]]:
    """The same with the peer's keyword filter at both ends."""
    import openai
    from guardrails import GuardrailsOpenAI  # type: ignore[import-not-found]

    check = {"name": "Keyword Filter", "config": {"keywords": list(WORDS)}}
    stage = {"version": 1, "guardrails": [check]}
    guarded = GuardrailsOpenAI(
        config={"version": 1, "input": stage, "output": stage}, api_key="none", base_url=url, max_retries=0
    )
    return openai.OpenAI(api_key="none", base_url=url), guarded, lambda: None


def side(name: str, url: str, calls: int) -> None:
    """A process of one side: a line on stdin asks for a round, a line on stdout answers."""
    make: Callable[..., Any] = openai_guardrails if name in PEERS else ours
    plain, guarded, settle = make(url) if name in PEERS else make(url, name)
    for turn in range(WARM_UP):
        ask(plain, turn), ask(guarded, turn)
    print(json.dumps({"works": refuses(guarded)}), flush=True)
    for _ in sys.stdin:
        found: dict[str, Any] = {}
        for label, client in (("plain", plain), ("guarded", guarded)):
            busy, walls, same = time.process_time(), [], 0
            for turn in range(calls):
                began = time.perf_counter()
                same += ask(client, turn) == ANSWER
                walls.append(time.perf_counter() - began)
            settle()
            cpu = (time.process_time() - busy) / calls * 1e6
            found[label] = {"cpu": cpu, "wall": statistics.median(walls) * 1e6, "same": same}
        print(json.dumps(found), flush=True)


def ask(client: Any, turn: int) -> str:
    """One call."""
    reply = client.chat.completions.create(model="m", messages=[question(turn)])
    return reply.choices[0].message.content or ""


def refuses(client: Any) -> bool:
    """Whether a listed word is refused, or taken out."""
    try:
        reply = client.chat.completions.create(model="m", messages=[{"role": "user", "content": f"You {WORDS[0]}!"}])
    except Exception as error:  # noqa: BLE001 - each library has its own
        return "uardrail" in type(error).__name__
    from guardrail.clients import outcome

    found = outcome(reply)
    return found is not None and found.altered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="interpreter of a peer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=40, help="in a round, plain and guarded each")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side(options.side, options.url, options.calls)
        return
    pythons = dict(item.split("=", 1) for item in options.python)
    left_out = {peer: "no --python was given for it" for peer in PEERS if peer not in pythons}
    rounds: dict[str, list[dict[str, Any]]] = {}
    works: dict[str, bool] = {}
    with serving() as url, ExitStack() as stack:
        sides = {}
        for name in (*DURABILITIES, *(peer for peer in PEERS if peer in pythons)):
            process = stack.enter_context(start(name, pythons.get(name, sys.executable), url, options.calls))
            try:
                works[name] = json.loads(answer(process))["works"]
            except RuntimeError as error:
                left_out[name] = str(error)
                continue
            sides[name], rounds[name] = process, []
        for _ in range(options.rounds):
            for name, process in sides.items():
                assert process.stdin is not None  # noqa: S101 - a pipe
                process.stdin.write("go\n")
                process.stdin.flush()
                rounds[name].append(json.loads(answer(process)))
    print(json.dumps(report(rounds, works, left_out, options)))


def start(name: str, python: str, url: str, calls: int) -> subprocess.Popen[str]:
    """A process of one side."""
    command = [python, __file__, "--side", name, "--url", url, "--calls", str(calls)]
    environment = {**os.environ, "OPENAI_API_KEY": "none", "OPENAI_AGENTS_DISABLE_TRACING": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)  # noqa: S603 - what the caller named


def answer(process: subprocess.Popen[str]) -> str:
    """The next line that a side prints.

    Raises:
        RuntimeError: it has ended; the last line of what it complained about.
    """
    assert process.stdout is not None  # noqa: S101 - a pipe
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None  # noqa: S101 - a pipe
        raise RuntimeError((process.stderr.read().strip().splitlines() or ["it ended without a word"])[-1])
    return line


def report(rounds: dict[str, Any], works: dict[str, bool], left_out: dict[str, str], options: Any) -> dict[str, Any]:
    """The medians of all rounds, and ours over each peer's."""
    added = {}
    for name, found in rounds.items():
        added[name] = {
            kind: round(statistics.median(one["guarded"][kind] - one["plain"][kind] for one in found), 1)
            for kind in ("cpu", "wall")
        }
        added[name]["plain_cpu"] = round(statistics.median(one["plain"]["cpu"] for one in found), 1)
        added[name]["works"] = works[name]
        added[name]["changed"] = sum(2 * options.calls - one["plain"]["same"] - one["guarded"]["same"] for one in found)
    peers = [name for name in rounds if name in PEERS]
    return {
        "benchmark": "wrap_peers",
        "rounds": options.rounds,
        "calls": options.calls,
        "added_us": added,
        "left_out": left_out,
        "ratio": {
            peer: {name: round(added[name]["cpu"] / added[peer]["cpu"], 3) for name in DURABILITIES if name in added}
            for peer in peers
        },
    }


if __name__ == "__main__":
    main()
