"""Under `async` the thread that writes makes the rows: what the caller saves, and what must not get lost by it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardrail.audit import store as store_module
from guardrail.audit.rows import prepare
from guardrail.audit.store import open_store
from guardrail.errors import AuditUnavailable
from guardrail.policy import Policy
from guardrail.types import Decision

Make = Callable[..., Decision]


def test_rows_are_made_where_they_are_written(
    tmp_path: Path, policy: Policy, decide: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers: list[str] = []

    def noted(*args: Any, **kwargs: Any) -> Any:
        makers.append(threading.current_thread().name)
        return prepare(*args, **kwargs)

    monkeypatch.setattr(store_module, "prepare", noted)
    for durability, maker in (("async", "guardrail-audit"), ("commit", threading.current_thread().name)):
        makers.clear()
        with open_store(f"sqlite:///{tmp_path / durability}", timeout=20.0, durability=durability) as store:
            store.record([decide(id="a"), decide(id="b")], policy=policy, community="here")
            assert store.recorder.flush(60)
            assert {found.id for found in store.list().items} == {"a", "b"}
        assert makers == [maker, maker]


def test_a_record_that_cannot_be_made_does_not_keep_back_the_others(
    tmp_path: Path, policy: Policy, decide: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(decision: Any, **kwargs: Any) -> Any:
        if decision.id == "odd":
            raise TypeError("no text at all")
        return prepare(decision, **kwargs)

    monkeypatch.setattr(store_module, "prepare", fails)
    with (
        caplog.at_level(logging.ERROR),
        open_store(f"sqlite:///{tmp_path / 'a'}", timeout=20.0, durability="async") as store,
    ):
        for name in ("first", "odd", "last"):
            store.record([decide(id=name)], policy=policy, community="here")
        assert store.recorder.flush(60)
        assert {found.id for found in store.list().items} == {"first", "last"}
    assert "no text at all" in caplog.text


def test_a_senseless_decision_is_refused_at_once(tmp_path: Path, policy: Policy, decide: Make) -> None:
    with open_store(f"sqlite:///{tmp_path / 'a'}", timeout=20.0, durability="async") as store:
        with pytest.raises(AuditUnavailable, match="its risk is nan"):
            store.record([decide(risk=float("nan"))], policy=policy, community="here")
        assert store.recorder.flush(60)
        assert list(store.list().items) == []
