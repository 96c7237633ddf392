"""examples/gradio_chat.py: the page answers over HTTP, in an environment of its own: `make conformance`."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

import guardrail

pytest.importorskip("gradio", reason="gradio has an environment of its own: make conformance")

BAD = "I will zorgle you now."
REFUSAL = "This was withheld."


@pytest.fixture
def example() -> Any:
    path = Path(__file__).parents[2] / "examples" / "gradio_chat.py"
    spec = importlib.util.spec_from_file_location("gradio_chat", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def _loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the event loops that gradio makes for its locks (`gradio.utils.safe_get_lock`) and forgets, sockets and all."""
    make, made = asyncio.new_event_loop, []

    def noted() -> asyncio.AbstractEventLoop:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(asyncio, "new_event_loop", noted)
    yield
    asyncio.set_event_loop(None)
    for loop in made:
        if not loop.is_running():  # a server that is still ending closes its own
            loop.close()


@pytest.fixture
def page(example: Any, upstream: Any, guard: Any, monkeypatch: pytest.MonkeyPatch, _loops: None) -> Any:
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    with OpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
        yield example.make_page(guardrail.wrap(client, guard=guard))


def said(page: Any, message: str, history: list[Any]) -> list[str]:
    """What the page shows, step by step."""
    return list(page.fn(message, history))


def test_replies_stream_in(page: Any, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=("Hello there. All is well.",))
    steps = said(page, "Good morning", [])
    assert steps[-1] == "Hello there. All is well."
    assert "Hello there." in [step.strip() for step in steps]
    upstream.reply = reply(texts=(f"Hello. {BAD}",))
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    steps = said(page, "Go on", history)
    assert steps[-1] == f"Hello. \n\n{REFUSAL}"
    assert not any("zor" in step for step in steps)
    assert [turn["role"] for turn in upstream.requests[-1]["messages"]] == ["user", "assistant", "user"]


def test_the_page_is_served(page: Any, upstream: Any) -> None:
    import httpx

    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", share=False)
    try:
        shown = httpx.get(url)
        assert shown.status_code == 200
        assert "Moderated chat" in shown.text
    finally:
        page.close()
