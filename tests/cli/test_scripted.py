from __future__ import annotations

import httpx
import openai
import pytest

from guardrail.cli.scripted import ScriptedModel

HELLO = [{"role": "user", "content": "Hello"}]


def client(model: ScriptedModel) -> openai.OpenAI:
    return openai.OpenAI(base_url=model.url, api_key="none", max_retries=0)


def test_replies_come_in_order_and_calls_are_kept() -> None:
    with ScriptedModel(["One.", "Two."]) as model, client(model) as speaker:
        said = [speaker.chat.completions.create(model="m", messages=HELLO).choices[0].message.content for _ in range(2)]
    assert said == ["One.", "Two."]
    assert [call["messages"] for call in model.calls] == [HELLO, HELLO]


def test_a_stream_carries_every_word_as_it_is() -> None:
    text = "  One  two.\nThree — four.  "
    with ScriptedModel([text]) as model, client(model) as speaker:
        chunks = list(speaker.chat.completions.create(model="m", messages=HELLO, stream=True))
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert "".join(said) == text
    assert [word for _, word in model.sent] == said
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_end_of_the_script_is_an_error() -> None:
    with (
        ScriptedModel([]) as model,
        client(model) as speaker,
        pytest.raises(openai.BadRequestError, match="script is over"),
    ):
        speaker.chat.completions.create(model="m", messages=HELLO)


def test_other_paths_are_not_found() -> None:
    with ScriptedModel(["One."]) as model:
        assert httpx.post(f"{model.url}/embeddings", json={}).status_code == 404
    assert model.calls == []


def test_it_has_no_address_before_it_runs() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        _ = ScriptedModel(["One."]).url
