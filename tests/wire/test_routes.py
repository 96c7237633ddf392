"""Which calls are moderated, which pass, and that all others are refused."""

from __future__ import annotations

import pytest

from guardrail.errors import UnsupportedPath
from guardrail.wire.routes import route


@pytest.mark.parametrize(
    ("method", "path", "name", "has_input"),
    [
        ("POST", "/v1/chat/completions", "chat_completions", True),
        ("POST", "/v1/chat/completions/", "chat_completions", True),
        ("POST", "/openai/deployments/gpt/chat/completions", "chat_completions", True),
        ("POST", "/any/prefix/chat/completions", "chat_completions", True),
        ("GET", "/v1/chat/completions/c1", "chat_completions", False),
        ("POST", "/v1/completions", "completions", True),
        ("POST", "/v1/responses", "responses", True),
        ("POST", "/v1/responses/compact", "responses", True),
        ("GET", "/v1/responses/r1", "responses", False),
        ("POST", "/v1/responses/r1/cancel", "responses", False),
        ("POST", "/v1/messages", "messages", True),
        ("POST", "/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict", "messages", True),
        ("POST", "/v1/projects/p/locations/l/publishers/anthropic/models/m:streamRawPredict", "messages", True),
        ("POST", "/model/anthropic.claude/invoke", "messages", True),
    ],
)
def test_moderated(method: str, path: str, name: str, has_input: bool) -> None:
    found = route(method, path)
    assert found.format is not None
    assert (found.format.name, found.has_input) == (name, has_input)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/v1/embeddings"),
        ("POST", "/openai/deployments/e/embeddings"),
        ("POST", "/v1/moderations"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/gpt"),
        ("DELETE", "/v1/models/ft"),
        ("POST", "/v1/files"),
        ("GET", "/v1/files/f/content"),
        ("POST", "/v1/messages/count_tokens"),
        ("POST", "/v1/responses/input_tokens"),
        ("GET", "/v1/responses/r1/input_items"),
        ("DELETE", "/v1/responses/r1"),
        ("GET", "/v1/batches/b1"),
        ("POST", "/v1/vector_stores/v/search"),
        ("POST", "/v1/fine_tuning/jobs"),
    ],
)
def test_passed(method: str, path: str) -> None:
    assert route(method, path).format is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/audio/speech"),
        ("POST", "/v1/audio/transcriptions"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/messages/batches"),
        ("GET", "/v1/messages/batches/b/results"),
        ("POST", "/v1/threads/t/runs"),
        ("GET", "/v1/threads/t/messages"),
        ("POST", "/v1/realtime/client_secrets"),
        ("POST", "/v1/models/gemini:generateContent"),
        ("POST", "/v1/models/m/generate"),
        ("POST", "/v1/projects/p/locations/l/publishers/google/models/gemini:generateContent"),
        ("POST", "/model/m/invoke-with-response-stream"),
        ("POST", "/model/m/converse"),
        ("POST", "/v1/something/new"),
        ("POST", "/v1/chat/completions:generate"),
        ("PUT", "/v1/chat/completions"),
        ("POST", "/"),
        ("GET", "/v1/chat/completions"),
    ],
)
def test_refused(method: str, path: str) -> None:
    with pytest.raises(UnsupportedPath, match="was not sent"):
        route(method, path)
