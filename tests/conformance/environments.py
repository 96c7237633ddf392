"""Runs the conformance suite against every supported version of every client package, each in an environment of its own.

An environment is a virtual environment that finds in the main one whatever it does not have itself, so that it costs one
client package and the seconds to install it. What the tests said is counted row by row (`rows.py`) in `results.json`, from
which `page.py` makes `docs/conformance.md`.

    python tests/conformance/environments.py             every environment (`make conformance`)
    python tests/conformance/environments.py openai-3    one of them, the results of the others are kept
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from page import PAGE, render  # noqa: E402 (this file is a script; its neighbours are beside it)
from rows import ROWS, rows_of  # noqa: E402

ROOT = HERE.parent.parent
RESULTS = HERE / "results.json"
FOLDER = ROOT / ".venvs"
OPENAI = (
    "test_openai_ways.py",
    "test_openai_details.py",
    "test_openai_client.py",
    "test_bad_upstreams.py",
    "test_adversary_openai.py",
)
ANTHROPIC = ("test_anthropic.py", "test_adversary_anthropic.py")


@dataclass(frozen=True, slots=True)
class Environment:
    """One client package in one version, and the tests that concern it."""

    package: str
    requirements: tuple[str, ...]
    tests: tuple[str, ...]


ENVIRONMENTS = {
    "openai-1.75": Environment("openai", ("openai==1.75.0",), OPENAI),  # the oldest that is supported
    "openai-1": Environment("openai", ("openai>=1.75,<2",), OPENAI),
    "openai-2": Environment("openai", ("openai>=2,<3",), OPENAI),
    "openai-3": Environment("openai", ("openai>=3,<4",), OPENAI),
    "anthropic-0.40": Environment("anthropic", ("anthropic==0.40.0",), ANTHROPIC),
    "anthropic-0": Environment("anthropic", ("anthropic>=0.40,<1",), ANTHROPIC),
    "anthropic-1": Environment("anthropic", ("anthropic>=1,<2",), ANTHROPIC),
    "anthropic-2": Environment("anthropic", ("anthropic>=2,<3",), ANTHROPIC),
    "litellm": Environment("litellm", ("litellm",), ("test_litellm.py",)),
    "pydantic-ai": Environment("pydantic-ai-slim", ("pydantic-ai-slim[openai]",), ("test_pydantic_ai.py",)),
    "openai-agents": Environment("openai-agents", ("openai-agents",), ("test_openai_agents.py",)),
    "gradio": Environment("gradio", ("gradio",), ("test_gradio.py",)),
}


def make(name: str) -> Path:
    """Make an environment, or bring it up to date; return its interpreter."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=False, symlinks=True)
        own = next(folder.glob("lib/python*/site-packages"))
        main = sysconfig.get_path("purelib")
        (own / "_main.pth").write_text(f"import site; site.addsitedir({main!r})\n", encoding="utf8")
    wanted = ENVIRONMENTS[name].requirements
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--upgrade"]
    subprocess.run([*command, "--disable-pip-version-check", *wanted], check=True)
    return python


def run(name: str, python: Path, options: Sequence[str]) -> dict[str, Any]:
    """Run the tests of an environment; return its version and what each test said."""
    environment = ENVIRONMENTS[name]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        files = [str((HERE / test).relative_to(ROOT)) for test in environment.tests]
        command = [
            str(python),
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            *options,
            *files,
        ]
        subprocess.run(command, cwd=ROOT, check=False)
        cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 (pytest wrote it a moment ago)
    asked = f"from importlib.metadata import version; print(version({environment.package!r}))"
    version = subprocess.run([str(python), "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
    tests = {_id(case): _said(case) for case in cases}
    return {
        "version": version,
        "tests": sum(said != "skipped" for said in tests.values()),
        "failed": sorted(test for test, said in tests.items() if said == "failed"),
        "rows": _counted(environment.package, tests),
    }


def _counted(client: str, tests: dict[str, str]) -> dict[str, str]:
    """Row to `passed/run`, or `-` where this version of the client offers nothing of the row."""
    rows: dict[str, str] = {}
    for row in ROWS:
        said = [said for test, said in tests.items() if row in rows_of(client, test)]
        ran = sum(result != "skipped" for result in said)
        if row.client == client:
            rows[row.name] = f"{said.count('passed')}/{ran}" if ran else "-"
    return rows


def _id(case: ET.Element) -> str:
    """`test_openai_ways::TestStructured::test_x[chat-sync]`."""
    module = str(case.get("classname")).removeprefix("tests.conformance.").replace(".", "::")
    return f"{module}::{case.get('name')}"


def _said(case: ET.Element) -> str:
    """`passed`, `failed`, or `skipped` where this version of the client has no such call."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


def main() -> int:
    """Run what was asked for, keep the results, and say what failed. Exit code 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="environment", help=f"default: all of {', '.join(ENVIRONMENTS)}")
    parser.add_argument("-k", help="only tests whose names match; the results are not kept")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(ENVIRONMENTS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(ENVIRONMENTS)}")
    failed: list[str] = []
    for name in options.names or ENVIRONMENTS:
        sys.stderr.write(f"{name}\n")
        result = run(name, make(name), ["-k", options.k] if options.k else [])
        failed += [f"{name}: {test}" for test in result["failed"]]
        if not options.k:
            results = json.loads(RESULTS.read_text(encoding="utf8")) if RESULTS.exists() else {}
            results[name] = result
            kept = {name: results[name] for name in ENVIRONMENTS if name in results}
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf8")
            PAGE.write_text(render(kept), encoding="utf8")
    sys.stderr.writelines(f"failed: {line}\n" for line in failed)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
