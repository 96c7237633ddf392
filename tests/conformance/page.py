"""Makes `docs/conformance.md` of the results that `environments.py` kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from rows import ROWS  # noqa: E402 (this file is a script; its neighbour is beside it)

__all__ = ["PAGE", "render"]

PAGE = HERE.parent.parent / "docs" / "conformance.md"
HEAD = """# Conformance

What `guardrail.wrap` guards, call by call, measured with the real client packages against a server on the loopback
interface. `make conformance` installs every version listed, runs `tests/conformance` in each and writes this page; nothing
here is written by hand. A cell says how many tests of the row passed, of how many; a dash means that this version of the
client has no such call. Sync and async clients are tested alike.

`make test` runs the same suite on the versions of the main environment. litellm holds openai below 3 there, so openai 3
runs here only; so do the examples for frameworks, which would triple the size of the main environment.
"""
PEERS = {
    "openai": "openai-guardrails 0.3, on openai 3",
    "anthropic": "",
    "litellm": "litellm's own guardrail hooks",
}
EXAMPLES = {
    "pydantic-ai": "pydantic_ai_agent.py",
    "openai-agents": "openai_agents_sdk.py",
    "gradio": "gradio_chat.py",
}


def render(results: Mapping[str, Any]) -> str:
    """The page. `results`: environment to `version`, `tests`, `failed` and `rows`."""
    parts = [HEAD]
    for client in ("openai", "anthropic", "litellm"):
        names = [name for name in results if name.partition("-")[0] == client and name not in EXAMPLES]
        if names:
            parts.append("\n".join([f"\n## {client}\n", *_table(client, [results[name] for name in names])]))
    frameworks = {name: results[name] for name in EXAMPLES if name in results}
    if frameworks:
        lines = ["\n## Frameworks\n", "| framework | example | tests |", "|---|---|---|"]
        for name, result in frameworks.items():
            passed = f"{result['tests'] - len(result['failed'])}/{result['tests']}"
            lines.append(f"| {name} {result['version']} | `examples/{EXAMPLES[name]}` | {_cell(passed)} |")
        parts.append("\n".join(lines))
    total = sum(result["tests"] for result in results.values())
    failed = sum(len(result["failed"]) for result in results.values())
    parts.append(f"\n{total} tests in {len(results)} environments, {failed} failed.\n")
    return "\n".join(parts).replace("\n\n\n", "\n\n")


def _table(client: str, results: list[Any]) -> list[str]:
    peer = PEERS[client]
    heads = ["call", *(f"{client} {result['version']}" for result in results), *([peer] if peer else [])]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in ROWS:
        if row.client == client:
            cells = [_cell(result["rows"].get(row.name, "-")) for result in results]
            lines.append("| " + " | ".join([row.name, *cells, *([row.peer or "not measured"] if peer else [])]) + " |")
    return lines


def _cell(count: str) -> str:
    passed, _, ran = count.partition("/")
    return "–" if not ran else f"{passed} of {ran}" if passed == ran else f"**{passed} of {ran}**"


if __name__ == "__main__":
    PAGE.write_text(render(json.loads((HERE / "results.json").read_text(encoding="utf8"))), encoding="utf8")
