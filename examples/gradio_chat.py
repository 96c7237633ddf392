"""A chat page in gradio. Replies stream in sentence by sentence, each cleared before anybody sees it.

pip install 'guardrail-dglm[openai]' gradio
python examples/gradio_chat.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio
from openai import OpenAI

import guardrail


def make_page(client: OpenAI, model: str = "gpt-5-mini") -> gradio.ChatInterface:
    """The page; `client` is guarded, in place, by the policy of the settings unless it is wrapped already."""
    guarded = guardrail.wrap(client)

    def reply(message: str, history: list[dict[str, Any]]) -> Iterator[str]:
        turns: Any = [{"role": turn["role"], "content": turn["content"]} for turn in history]
        question = {"role": "user", "content": message}
        said = ""
        with guarded.chat.completions.create(model=model, messages=[*turns, question], stream=True) as chunks:
            for chunk in chunks:
                said += "".join(choice.delta.content or "" for choice in chunk.choices)
                yield said

    return gradio.ChatInterface(reply, title="Moderated chat")


if __name__ == "__main__":
    make_page(OpenAI()).launch()
