"""What the tests of openai clients share: the words they say, and how they ask."""

from __future__ import annotations

from typing import Any

import pytest
from openai import OpenAI

__all__ = ["BAD", "HELLO", "REFUSAL", "RESPONSE", "SECRET", "create", "offered"]

BAD = "I will zorgle you now."
SECRET = "sk-abcd1234"
REFUSAL = "This was withheld."
HELLO = [{"role": "user", "content": "Good morning"}]
RESPONSE = """{"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": [],
"parallel_tool_calls": true, "tool_choice": "auto", "tools": []}"""


def offered(what: Any, *names: str) -> None:
    """Skip where this version of the client has no such call: there is nothing to guard then."""
    for name in names:
        if not hasattr(what, name):
            pytest.skip(f"not offered: {type(what).__name__}.{name}")
        what = getattr(what, name)


def create(client: OpenAI, messages: Any = HELLO, **options: Any) -> Any:
    return client.chat.completions.create(model="m", messages=messages, **options)
