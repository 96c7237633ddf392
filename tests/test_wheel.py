"""The wheel carries all that the command needs: installed in an empty environment, run from an empty directory."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REFUSE_NETWORK = """
import sys

def refuse(event, args):
    if event == "socket.getaddrinfo" and args[0] not in (None, "", "localhost", "127.0.0.1", "::1"):
        raise SystemExit(f"looked up {args[0]!r}")
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in ("127.0.0.1", "::1"):
        raise SystemExit(f"connected to {args[1]!r}")

sys.addaudithook(refuse)
"""


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("guardrail_dglm-*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, the dependencies of this one, no checkout, and no network."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (packages / "sitecustomize.py").write_text(REFUSE_NETWORK, encoding="utf-8")
    pip("--python", folder, "install", "--no-deps", "--no-index", wheel)
    return folder


@pytest.fixture
def guardrail(environment: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GUARDRAIL_"))}
        command = [str(environment / "bin" / "guardrail"), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env={**kept, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False
        )

    return call


def test_the_wheel_holds_the_package_its_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "guardrail/_shipped/policies/base.yaml",
        "guardrail/_shipped/policies/general.yaml",
        "guardrail/_shipped/migrations/env.py",
        "guardrail/_shipped/guardrail.yaml",
        "guardrail/py.typed",
    ):
        assert needed in names
    assert any(name.startswith("guardrail/pretrained/heads/") for name in names)
    assert any(name.startswith("guardrail/pretrained/dglm/mini/") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"guardrail", "guardrail_dglm"}
    assert not [name for name in names if name.endswith((".pyc", ".sqlite", ".pt", ".bin", ".pkl"))]


def test_every_file_of_policies_and_migrations_travels(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "policies", "migrations", "guardrail"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    expected = {name if name.startswith("guardrail/") else f"guardrail/_shipped/{name}" for name in tracked}
    assert expected - names == set()


def test_the_command_runs_from_the_wheel(guardrail, environment: Path) -> None:  # type: ignore[no-untyped-def]
    where = subprocess.run(
        [environment / "bin" / "python", "-c", "import guardrail; print(guardrail.__file__)"],
        cwd=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert Path(where.strip()).is_relative_to(environment)
    assert guardrail("--version").stdout.startswith("guardrail ")


def test_a_shipped_policy_validates_from_an_empty_directory(guardrail) -> None:  # type: ignore[no-untyped-def]
    done = guardrail("policy", "validate", "general")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "general" in done.stdout


def test_the_demo_runs_from_an_empty_directory(guardrail, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = guardrail("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "before" in done.stdout
    assert "after" in done.stdout
    assert (tmp_path / "guardrail-demo").is_dir()
