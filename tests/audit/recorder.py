"""A process of its own that records: `recorder.py URL COMMUNITY PREFIX COUNT [--fork]`.

Prints the id of each decision once `record()` has returned, so that whoever reads it knows what must be on record.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from typing import Any

from guardrail.audit.store import AuditStore, open_store
from guardrail.types import Action, Decision, Stage, State


class Policy:
    """As much of a policy as `record()` reads: this process is to start quickly."""

    name = "recorder"
    canonical = '{"policy":"recorder"}'
    revision = "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def decision(key: str, policy: Any) -> Decision:
    return Decision(
        id=key,
        action=Action.ALLOW,
        state=State.ALLOWED,
        risk=0.1,
        stage=Stage.OUTPUT,
        policy=policy.name,
        revision=policy.revision,
        text="A sentence.",
        source="A sentence.",
        scores={"toxicity": 0.1, "insult": 0.2},
        created_at=time.time(),
    )


def record(store: AuditStore, policy: Any, community: str, prefix: str, count: int) -> None:
    for index in range(count):
        key = f"{prefix}-{index}"
        store.record([decision(key, policy)], policy=policy, community=community)
        print(f"{key}\n", end="", flush=True)  # noqa: T201 - the parent reads it; one write, or two processes mix their lines


def main() -> None:
    url, community, prefix, count = sys.argv[1:5]
    policy = Policy()
    with open_store(url, timeout=30.0) as store:
        if "--fork" not in sys.argv:
            record(store, policy, community, prefix, int(count))
            return
        record(store, policy, community, f"{prefix}-before", 1)  # a connection is open when the process forks
        child = os.fork()
        record(store, policy, community, f"{prefix}-{'parent' if child else 'child'}", int(count))
        if not child:
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
