"""examples/openai_agents_sdk.py, run by the OpenAI Agents SDK itself, in an environment of its own: `make conformance`."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

import guardrail

agents = pytest.importorskip("agents", reason="openai-agents has an environment of its own: make conformance")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

BAD = "I will zorgle you now."
SECRET = "sk-abcd1234"
REFUSAL = "This was withheld."


@pytest.fixture
def example() -> Any:
    path = Path(__file__).parents[2] / "examples" / "openai_agents_sdk.py"
    spec = importlib.util.spec_from_file_location("openai_agents_sdk", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def agent(example: Any, upstream: Any, guard: Any) -> Any:
    agents.set_tracing_disabled(disabled=True)
    async with AsyncOpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
        yield example.make_agent(guardrail.wrap(client, guard=guard))


async def run(agent: Any, question: str) -> str:
    """The answer, or what the SDK says where a content filter ended it: it takes such a response for an error."""
    try:
        return str((await agents.Runner.run(agent, question)).final_output)
    except agents.exceptions.ModelBehaviorError as error:
        return str(error)


async def test_answers(agent: Any, upstream: Any, reply: Any) -> None:
    assert await run(agent, "Good morning") == "Hello there. All is well."
    upstream.reply = reply(texts=(f"Oh. The key is {SECRET}, says she.",))
    answer = await run(agent, "Good morning")
    assert SECRET not in answer
    assert answer.startswith("Oh. The key is ")
    upstream.reply = reply(texts=(f"Oh. {BAD}",))
    assert "content_filter" in await run(agent, "Good morning")


async def test_questions(agent: Any, upstream: Any) -> None:
    assert "content_filter" in await run(agent, BAD)
    assert upstream.paths == []
    await run(agent, f"My key is {SECRET}.")
    assert SECRET not in upstream.seen


async def test_streams(agent: Any, upstream: Any, reply: Any) -> None:
    for said, delivered in (("Hello there. All is well. 🙂",) * 2, (f"Hello. {BAD} Bye.", f"Hello. \n\n{REFUSAL}")):
        upstream.reply = reply(texts=(said,))
        result = agents.Runner.run_streamed(agent, "Good morning")
        events = [event.data async for event in result.stream_events() if event.type == "raw_response_event"]
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert "".join(deltas) == result.final_output == delivered


async def test_tools(agent: Any, upstream: Any, reply: Any) -> None:
    call = reply(arguments=json.dumps({"city": "Oslo"}), tool="weather")
    upstream.queue = [call, reply(texts=("Sunny.",))]
    assert await run(agent, "What is the weather in Oslo?") == "Sunny."
    assert "It is sunny in Oslo." in json.dumps(upstream.requests[-1])
    upstream.queue = [reply(arguments=json.dumps({"city": "zorgle"}), tool="weather")]
    assert "content_filter" in await run(agent, "And there?")
