from __future__ import annotations

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import guardrail
from guardrail.cli.app import COMMANDS, _load, app

runner = CliRunner()


def test_help_lists_every_command_with_its_purpose() -> None:
    shown = runner.invoke(app, ["--help"])
    assert shown.exit_code == 0
    for name, (_, purpose) in COMMANDS.items():
        assert re.search(rf"^\s+{name}\s+{re.escape(purpose[:20])}", shown.stdout, re.MULTILINE)


def test_help_imports_no_command() -> None:
    program = (
        "import sys; from guardrail.cli.app import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted(m for m in sys.modules if m.startswith('guardrail')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "['guardrail', 'guardrail.cli', 'guardrail.cli.app']"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_explains_itself(name: str) -> None:
    shown = runner.invoke(app, [name, "--help"])
    assert shown.exit_code == 0, shown.output
    assert f"guardrail {name}" in shown.output
    assert _load(name).name == name


def test_version() -> None:
    shown = runner.invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout) == (0, f"guardrail {guardrail.__version__}\n")


def test_unknown_command_is_a_usage_error() -> None:
    shown = runner.invoke(app, ["chekc"])
    assert shown.exit_code == 2
    assert "chekc" in shown.output


def test_no_arguments_show_the_help() -> None:
    shown = runner.invoke(app, [])
    assert "Usage: guardrail" in shown.output


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "guardrail", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"guardrail {guardrail.__version__}\n"
