from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import structlog

from guardrail.log import Logger

PROGRAM = """
from guardrail.log import Logger
log = Logger("guardrail.engine")
log.debug("recorded", decisions=1)
log.error("judging failed", error="ValueError: no")
"""


def test_stdout_belongs_to_the_application() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == "judging failed error='ValueError: no'\n"


def test_events_reach_standard_logging_under_the_modules_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="guardrail"):
        Logger("guardrail.engine").debug("recorded", decisions=2, name="50% of {x}")
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("guardrail.engine", "DEBUG", "recorded decisions=2 name='50% of {x}'")
    ]


def test_structlog_is_used_where_it_is_configured() -> None:
    log = Logger("guardrail.engine")  # made before, as at import
    with structlog.testing.capture_logs() as events:
        log.warning("policy not reloaded", policy="general")
    assert events == [{"policy": "general", "event": "policy not reloaded", "log_level": "warning"}]


LATE = """
import sys
from guardrail.log import Logger
log = Logger("guardrail.engine")
log.debug("recorded", decisions=1)
assert "structlog" not in sys.modules  # nothing was said, so nothing was loaded
import structlog
structlog.configure(processors=[structlog.processors.JSONRenderer()])
log.debug("recorded", decisions=2)
"""


def test_structlog_is_loaded_when_needed_and_may_be_configured_late() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"decisions": 2, "event": "recorded"}
