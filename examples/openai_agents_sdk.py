"""An agent of the OpenAI Agents SDK whose every model call is moderated: questions, tool calls, tool results and answers.

pip install 'guardrail-dglm[openai]' openai-agents
python examples/openai_agents_sdk.py "What is the weather in Oslo?"
"""

from __future__ import annotations

import sys

from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

import guardrail


@function_tool
def weather(city: str) -> str:
    """Say what the weather is like in a city."""
    return f"It is sunny in {city}."


def make_agent(client: AsyncOpenAI, model: str = "gpt-5-mini") -> Agent:
    """An agent with one tool; `client` is guarded, in place, by the policy of the settings unless it is wrapped already."""
    guarded = OpenAIResponsesModel(model=model, openai_client=guardrail.wrap(client))
    return Agent(name="Helper", instructions="Be brief.", model=guarded, tools=[weather])


if __name__ == "__main__":
    set_tracing_disabled(disabled=True)  # traces go to a server with every text, past the guard
    print(Runner.run_sync(make_agent(AsyncOpenAI()), " ".join(sys.argv[1:]) or "Hello!").final_output)
