"""An agent of pydantic-ai whose every model call is moderated: questions, tool calls, tool results and answers.

pip install 'guardrail-dglm[openai]' 'pydantic-ai-slim[openai]'
python examples/pydantic_ai_agent.py "What is the weather in Oslo?"
"""

from __future__ import annotations

import sys

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import guardrail


def make_agent(client: AsyncOpenAI, model: str = "gpt-5-mini") -> Agent[None, str]:
    """An agent with one tool; `client` is guarded, in place, by the policy of the settings unless it is wrapped already."""
    provider = OpenAIProvider(openai_client=guardrail.wrap(client))
    agent = Agent(OpenAIChatModel(model, provider=provider), instructions="Be brief.")

    @agent.tool_plain
    def weather(city: str) -> str:
        """Say what the weather is like in a city."""
        return f"It is sunny in {city}."

    return agent


if __name__ == "__main__":
    print(make_agent(AsyncOpenAI()).run_sync(" ".join(sys.argv[1:]) or "Hello!").output)
