"""No test reaches another machine, reads a key from the environment, or waits for a model hub."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise importing litellm asks a server for prices
        "TOKENIZERS_PARALLELISM": "false",
    }
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in [name for name in os.environ if name.startswith("GUARDRAIL_") or name.endswith("_API_KEY")]:
    del os.environ[_name]


class NetworkRefused(BaseException):
    """A test tried to leave this machine. Not an `Exception`, so that no code under test can swallow it."""


def _is_local(host: object) -> bool:
    if host in {None, "", "localhost", b"localhost"}:
        return True
    try:
        address = ipaddress.ip_address(str(host).split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refuse_network(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo" and not _is_local(args[0]):
        raise NetworkRefused(f"a test looked up {args[0]!r}")
    if event == "socket.connect" and isinstance(args[1], tuple) and not _is_local(args[1][0]):
        raise NetworkRefused(f"a test connected to {args[1]!r}")


sys.addaudithook(_refuse_network)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A test of a command does not decide how the next test logs."""
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in an empty directory: it finds no settings, and leaves no database behind."""
    monkeypatch.chdir(tmp_path)
