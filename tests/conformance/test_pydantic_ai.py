"""examples/pydantic_ai_agent.py, run by pydantic-ai itself, in an environment of its own: `make conformance`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

import guardrail

pytest.importorskip("pydantic_ai", reason="pydantic-ai has an environment of its own: make conformance")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

BAD = "I will zorgle you now."
SECRET = "sk-abcd1234"
REFUSAL = "This was withheld."


@pytest.fixture
def example() -> Any:
    path = Path(__file__).parents[2] / "examples" / "pydantic_ai_agent.py"
    spec = importlib.util.spec_from_file_location("pydantic_ai_agent", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def agent(example: Any, upstream: Any, guard: Any) -> Any:
    async with AsyncOpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
        yield example.make_agent(guardrail.wrap(client, guard=guard))


async def run(agent: Any, question: str) -> str:
    """The answer, or what pydantic-ai says where a content filter ended it (its own rule, in some versions)."""
    try:
        return str((await agent.run(question)).output)
    except Exception as error:
        if "filter" not in str(error).lower():
            raise
        return str(error)


async def test_answers(agent: Any, upstream: Any, reply: Any) -> None:
    assert await run(agent, "Good morning") == "Hello there. All is well."
    upstream.reply = reply(texts=(f"Oh. The key is {SECRET}, says she.",))
    answer = await run(agent, "Good morning")
    assert SECRET not in answer
    assert answer.startswith("Oh. The key is ")
    upstream.reply = reply(texts=(f"Oh. {BAD}",))
    assert "zorgle" not in await run(agent, "Good morning")


async def test_questions(agent: Any, upstream: Any) -> None:
    await run(agent, BAD)
    assert upstream.paths == []
    await run(agent, f"My key is {SECRET}.")
    assert SECRET not in upstream.seen


async def test_streams(agent: Any, upstream: Any, reply: Any) -> None:
    for said in ("Hello there. All is well. 🙂", f"Hello. It is {SECRET}. Bye."):
        upstream.reply = reply(texts=(said,))
        async with agent.run_stream("Good morning") as result:
            texts = [text async for text in result.stream_text(debounce_by=None)]
        assert all(SECRET not in text for text in texts)
        assert texts[-1].startswith("Hello")
        assert (texts[-1] == said) == (SECRET not in said)


async def test_tools(agent: Any, upstream: Any, reply: Any) -> None:
    call = reply(arguments=json.dumps({"city": "Oslo"}), tool="weather")
    upstream.queue = [call, reply(texts=("Sunny.",))]
    assert await run(agent, "What is the weather in Oslo?") == "Sunny."
    assert "It is sunny in Oslo." in json.dumps(upstream.requests[-1])
    upstream.queue = [reply(arguments=json.dumps({"city": "zorgle"}), tool="weather"), reply(texts=("Sunny.",))]
    before = len(upstream.requests)
    await run(agent, "And there?")
    assert len(upstream.requests) == before + 1  # the call was withheld, so the tool was never run
