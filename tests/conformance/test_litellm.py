"""litellm: the module, its functions, its router. Nothing in litellm itself is changed."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import litellm
import pytest
from litellm.types.utils import ModelResponse, ModelResponseStream, TextCompletionResponse
from pydantic import BaseModel

import guardrail
from guardrail.clients import unwrap
from guardrail.errors import Blocked, ConfigurationError, UnsupportedPath
from guardrail.types import Action

BAD = "I will zorgle you now."
SECRET = "sk-abcd1234"
REFUSAL = "This was withheld."
HELLO = [{"role": "user", "content": "Good morning"}]

# litellm leaves connections open and serialises its own objects with warnings; neither is ours
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning:litellm", "ignore:Pydantic serializer warnings", "ignore::ResourceWarning"
)


class Note(BaseModel):
    text: str


@pytest.fixture(autouse=True)
def _no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    # litellm.responses asks a tool gateway first, whose code needs a package that is no part of a plain installation
    monkeypatch.setattr(
        sys.modules["litellm.responses.main"], "_responses_try_dispatch_mcp_gateway", lambda *_, **__: None
    )


@pytest.fixture
def model(upstream: Any) -> dict[str, Any]:
    return {"model": "openai/m", "api_base": upstream.url, "api_key": "k", "num_retries": 0}


@pytest.fixture
def guarded(guard: Any) -> Any:
    return guardrail.wrap(litellm, guard=guard)


def both(asynchronous: bool, module: Any, name: str, **options: Any) -> Any:
    """Call a function of litellm or its async twin; a stream comes back as (list of chunks, stream)."""
    if not asynchronous:
        result = getattr(module, name)(**options)
        return (list(result), result) if options.get("stream") else result

    async def call() -> Any:
        result = await getattr(module, f"a{name}")(**options)
        return ([chunk async for chunk in result], result) if options.get("stream") else result

    return asyncio.run(call())


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
class TestFunctions:
    def test_completion(self, guarded: Any, model: Any, upstream: Any, reply: Any, asynchronous: bool) -> None:
        answer = both(asynchronous, guarded, "completion", **model, messages=HELLO)
        assert isinstance(answer, ModelResponse)
        assert answer.choices[0].message.content == "Hello there. All is well."
        upstream.reply = reply(texts=("Fine.", f"Oh. {BAD}"))
        answer = both(asynchronous, guarded, "completion", **model, messages=HELLO, n=2)
        assert isinstance(answer, ModelResponse)
        assert [choice.message.content for choice in answer.choices] == ["Fine.", REFUSAL]
        assert answer.choices[1].finish_reason == "content_filter"
        assert answer.usage.total_tokens == 18
        outcome = guardrail.outcome(answer)
        assert outcome is not None
        assert outcome.action is Action.BLOCK

    def test_completion_streamed(self, guarded: Any, model: Any, upstream: Any, reply: Any, asynchronous: bool) -> None:
        chunks, stream = both(asynchronous, guarded, "completion", **model, messages=HELLO, stream=True)
        assert isinstance(stream, litellm.CustomStreamWrapper)
        assert all(isinstance(chunk, ModelResponseStream) for chunk in chunks)
        assert text_of(chunks) == "Hello there. All is well."
        upstream.reply = reply(texts=(f"Hello. It is {SECRET}. {BAD} More.",))
        chunks, stream = both(asynchronous, guarded, "completion", **model, messages=HELLO, stream=True)
        assert text_of(chunks).startswith("Hello. It is ")
        assert text_of(chunks).endswith(REFUSAL)
        assert SECRET not in text_of(chunks)
        assert chunks[-1].choices[0].finish_reason == "content_filter"
        assert guardrail.outcome(stream).blocked  # type: ignore[union-attr]
        rebuilt = litellm.stream_chunk_builder(chunks)
        assert rebuilt.choices[0].message.content == text_of(chunks)

    def test_questions(self, guarded: Any, model: Any, upstream: Any, asynchronous: bool) -> None:
        messages = [{"role": "user", "content": BAD}]
        answer = both(asynchronous, guarded, "completion", **model, messages=messages)
        assert isinstance(answer, ModelResponse)
        assert (answer.choices[0].message.content, upstream.paths) == (REFUSAL, [])
        chunks, _ = both(asynchronous, guarded, "completion", **model, messages=messages, stream=True)
        assert text_of(chunks) == REFUSAL
        messages = [{"role": "user", "content": f"It is {SECRET}."}]
        both(asynchronous, guarded, "completion", **model, messages=messages)
        assert SECRET not in upstream.seen
        assert messages == [{"role": "user", "content": f"It is {SECRET}."}]

    def test_tool_calls(self, guarded: Any, model: Any, upstream: Any, reply: Any, asynchronous: bool) -> None:
        upstream.reply = reply(arguments='{"a": "fine"}')
        answer = both(asynchronous, guarded, "completion", **model, messages=HELLO)
        assert answer.choices[0].message.tool_calls[0].function.arguments == '{"a": "fine"}'
        history = [*HELLO, answer.choices[0].message, {"role": "tool", "tool_call_id": "call_1", "content": BAD}]
        answer = both(asynchronous, guarded, "completion", **model, messages=history)
        assert answer.choices[0].message.content == REFUSAL
        upstream.reply = reply(arguments='{"a": "zorgle"}')
        chunks, _ = both(asynchronous, guarded, "completion", **model, messages=HELLO, stream=True)
        assert text_of(chunks) == REFUSAL
        assert not any(choice.delta.tool_calls for chunk in chunks for choice in chunk.choices)

    def test_text_completion(self, guarded: Any, model: Any, upstream: Any, reply: Any, asynchronous: bool) -> None:
        model = {**model, "model": "text-completion-openai/m"}
        upstream.reply = reply(texts=(f"Hello. {BAD}",))
        answer = both(asynchronous, guarded, "text_completion", **model, prompt="hi")
        assert isinstance(answer, TextCompletionResponse)
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (REFUSAL, "content_filter")
        chunks, _ = both(asynchronous, guarded, "text_completion", **model, prompt="hi", stream=True)
        assert "".join(chunk.choices[0].text or "" for chunk in chunks) == f"Hello. \n\n{REFUSAL}"
        paths = len(upstream.paths)
        answer = both(asynchronous, guarded, "text_completion", **model, prompt=BAD)
        assert (answer.choices[0].text, len(upstream.paths)) == (REFUSAL, paths)

    def test_responses(self, guarded: Any, model: Any, upstream: Any, reply: Any, asynchronous: bool) -> None:
        answer = both(asynchronous, guarded, "responses", **model, input="hi")
        assert answer.output[0].content[0].text == "Hello there. All is well."
        upstream.reply = reply(texts=(f"Hello. {BAD}",))
        answer = both(asynchronous, guarded, "responses", **model, input="hi")
        assert answer.output[0].content[0].text == REFUSAL
        assert answer.status == "incomplete"
        chunks, _ = both(asynchronous, guarded, "responses", **model, input="hi", stream=True)
        assert "zorgle" not in "".join(chunk.model_dump_json(warnings=False) for chunk in chunks)
        assert str(chunks[-1].type).endswith(("completed", "COMPLETED"))
        paths = len(upstream.paths)
        answer = both(asynchronous, guarded, "responses", **model, input=BAD)
        assert (answer.output[0].content[0].text, len(upstream.paths)) == (REFUSAL, paths)

    def test_structured_output(self, guarded: Any, model: Any, upstream: Any, reply: Any, asynchronous: bool) -> None:
        upstream.reply = reply(texts=(f'{{"text": "It is {SECRET}."}}',))
        answer = both(asynchronous, guarded, "completion", **model, messages=HELLO, response_format=Note)
        text = Note.model_validate_json(answer.choices[0].message.content).text
        assert SECRET not in text
        assert text.startswith("It is ")

    def test_raising(self, make_guard: Any, model: Any, upstream: Any, reply: Any, asynchronous: bool) -> None:
        upstream.reply = reply(texts=(f"Hello. {BAD}",))
        guarded = guardrail.wrap(litellm, guard=make_guard(on_block="raise"))
        for options in ({}, {"stream": True}):
            with pytest.raises(Blocked):
                both(asynchronous, guarded, "completion", **model, messages=HELLO, **options)

    def test_a_router(self, guard: Any, model: Any, upstream: Any, reply: Any, asynchronous: bool) -> None:
        upstream.reply = reply(texts=(f"Hello. {BAD}",))
        params = {key: model[key] for key in ("model", "api_base", "api_key")}
        router = litellm.Router(model_list=[{"model_name": "mine", "litellm_params": params}], num_retries=0)
        guarded = guardrail.wrap(router, guard=guard)
        assert isinstance(guarded, litellm.Router)
        answer = both(asynchronous, guarded, "completion", model="mine", messages=HELLO)
        assert answer.choices[0].message.content == REFUSAL
        chunks, _ = both(asynchronous, guarded, "completion", model="mine", messages=HELLO, stream=True)
        assert text_of(chunks) == f"Hello. \n\n{REFUSAL}"
        assert unwrap(guarded) is router


def test_one_function(guard: Any, model: Any, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=(BAD,))
    completion = guardrail.wrap(litellm.completion, guard=guard)
    assert completion("openai/m", HELLO, api_base=model["api_base"], api_key="k").choices[0].message.content == REFUSAL
    assert completion.__name__ == "completion"
    assert guardrail.wrap(completion, guard=guard) is completion
    assert unwrap(completion) is litellm.completion
    with pytest.raises(TypeError, match="multiple values"):
        completion("openai/m", model="x")
    with pytest.raises(ConfigurationError, match="these can"):
        guardrail.wrap(litellm.embedding, guard=guard)


def test_the_module_is_not_changed(guarded: Any, guard: Any, model: Any, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=(BAD,))
    assert litellm.completion(**model, messages=HELLO).choices[0].message.content == BAD
    assert guardrail.wrap(guarded, guard=guard) is guarded
    assert unwrap(guarded) is litellm
    assert guarded.ModelResponse is litellm.ModelResponse
    assert guarded.token_counter(model="gpt-4o", text="hello") > 0
    before = litellm.drop_params
    guarded.drop_params = not before
    assert litellm.drop_params is not before
    guarded.drop_params = before


@pytest.mark.parametrize(
    "name", ["batch_completion", "image_generation", "atranscription", "speech", "acreate_batch", "run_thread"]
)
def test_other_generating_functions_are_refused(guarded: Any, name: str) -> None:
    with pytest.raises(UnsupportedPath, match=name):
        getattr(guarded, name)(model="m", messages=HELLO)


def test_closing_a_stream_closes_the_upstream(guarded: Any, model: Any, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=("More of it. " * 400,), delay=0.005)
    stream = guarded.completion(**model, messages=HELLO, stream=True)
    while not text_of([next(stream)]):
        pass
    stream.close()
    assert upstream.hung_up.wait(5)
