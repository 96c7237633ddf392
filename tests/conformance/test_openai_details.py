"""What an openai client can ask for besides plain text: choices, tool calls, other texts, pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI
from openai_calls import BAD, HELLO, REFUSAL, RESPONSE, SECRET, create

import guardrail
from guardrail.types import Stage, State


@pytest.fixture
def client(upstream: Any, guard: Any) -> Iterator[OpenAI]:
    with OpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
        yield guardrail.wrap(client, guard=guard)


def tool_turn(arguments: str) -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "send", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


class TestChoices:
    def test_each_choice_is_judged_by_itself(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=("The first is fine.", f"The second: {BAD}"))
        first, second = create(client, n=2).choices
        assert (first.message.content, first.finish_reason) == ("The first is fine.", "stop")
        assert (second.message.content, second.finish_reason) == (REFUSAL, "content_filter")

    def test_every_choice_is_settled_even_after_one_was_withheld(
        self, client: OpenAI, upstream: Any, reply: Any
    ) -> None:
        upstream.reply = reply(texts=(BAD, f"It is {SECRET}.", BAD, "Fine."))
        first, second, third, fourth = create(client, n=4).choices
        assert first.message.content == third.message.content == REFUSAL
        assert SECRET not in second.message.content
        assert fourth.message.content == "Fine."

    def test_in_a_stream_the_others_go_on(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=(f"Oh. {BAD} More of it. And more.", "The second is fine. All of it. Really."))
        texts, finish = {0: "", 1: ""}, {}
        for chunk in create(client, n=2, stream=True, stream_options={"include_usage": True}):
            for choice in chunk.choices:
                assert choice.index not in finish
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    finish[choice.index] = choice.finish_reason
        assert texts == {0: f"Oh. \n\n{REFUSAL}", 1: "The second is fine. All of it. Really."}
        assert finish == {0: "content_filter", 1: "stop"}
        assert chunk.usage is not None
        assert chunk.usage.total_tokens == 18

    def test_log_probabilities_go_when_the_text_changed(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(texts=("All is well.",), logprobs=True)
        assert create(client, logprobs=True).choices[0].logprobs is not None
        upstream.reply = reply(texts=(f"It is {SECRET}.",), logprobs=True)
        answer = create(client, logprobs=True)
        assert answer.choices[0].logprobs is None
        assert SECRET not in answer.model_dump_json()

    def test_streamed_log_probabilities_spell_only_what_was_delivered(
        self, client: OpenAI, upstream: Any, reply: Any
    ) -> None:
        upstream.reply = reply(texts=("All is well. It is fine 🙂.",), logprobs=True)
        chunks = [chunk.choices[0] for chunk in create(client, logprobs=True, stream=True)]
        kept = [choice.logprobs for choice in chunks if choice.logprobs]
        assert len(kept) > 4
        upstream.reply = reply(texts=(f"Well. It is {SECRET}. {BAD}",), logprobs=True)
        dumped = "".join(chunk.model_dump_json() for chunk in create(client, logprobs=True, stream=True))
        assert "zor" not in dumped
        assert "sk-" not in dumped

    def test_usage_is_kept(self, client: OpenAI, upstream: Any) -> None:
        assert create(client).usage.total_tokens == 18
        *_, last = create(client, stream=True, stream_options={"include_usage": True})
        assert last.choices == []
        assert last.usage.total_tokens == 18


class TestToolCalls:
    @pytest.mark.parametrize("stream", [False, True])
    def test_clean_arguments_pass(self, client: OpenAI, upstream: Any, reply: Any, stream: bool) -> None:
        arguments = '{"to": "Ann", "text": "All is well.", "times": 2}'
        upstream.reply = reply(arguments=arguments)
        assert tool_arguments(client, stream) == (arguments, "tool_calls")

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        "arguments",
        [
            json.dumps({"to": "Ann", "text": BAD}),
            json.dumps({"deep": [{"er": ["x", "zorgle"]}]}),
            json.dumps({"zorgle": 1}),
            '{"text": "zorgle", "cut',
            '{"text": "\\u007aorgle"}',
        ],
    )
    def test_bad_arguments_are_withheld(
        self, client: OpenAI, upstream: Any, reply: Any, stream: bool, arguments: str
    ) -> None:
        upstream.reply = reply(arguments=arguments)
        assert tool_arguments(client, stream) == (None, "content_filter")

    @pytest.mark.parametrize("stream", [False, True])
    def test_arguments_are_redacted_and_stay_json(
        self, client: OpenAI, upstream: Any, reply: Any, stream: bool
    ) -> None:
        upstream.reply = reply(arguments=json.dumps({"key": f"It is {SECRET}.", "n": [1, None, True]}))
        arguments, finish = tool_arguments(client, stream)
        assert finish == "tool_calls"
        assert arguments is not None
        parsed = json.loads(arguments)
        assert SECRET not in arguments
        assert parsed["key"].startswith("It is ")
        assert parsed["n"] == [1, None, True]

    def test_they_are_judged_as_tool_calls(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(arguments='{"text": "fine"}')
        outcome = guardrail.outcome(create(client))
        assert outcome is not None
        assert {decision.stage for decision in outcome.decisions} == {Stage.INPUT, Stage.TOOL_CALL}

    def test_a_bad_tool_result_never_reaches_the_model(self, client: OpenAI, upstream: Any) -> None:
        messages = [*HELLO, tool_turn("{}"), {"role": "tool", "tool_call_id": "c", "content": BAD}]
        answer = create(client, messages)
        assert answer.choices[0].message.content == REFUSAL
        assert upstream.paths == []
        outcome = guardrail.outcome(answer)
        assert outcome is not None
        assert outcome.decisions[-1].stage is Stage.TOOL_RESULT


def tool_arguments(client: OpenAI, stream: bool) -> tuple[str | None, str | None]:
    """(arguments of the tool call, None if there is none; finish reason)."""
    if not stream:
        choice = create(client).choices[0]
        calls = choice.message.tool_calls
        assert (choice.message.content == REFUSAL) == (not calls)
        return (calls[0].function.arguments if calls else None), choice.finish_reason
    arguments, content, finish = None, "", None
    for chunk in create(client, stream=True):
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        for call in choice.delta.tool_calls or ():
            arguments = (arguments or "") + (call.function.arguments or "")
        finish = choice.finish_reason or finish
    assert (content == REFUSAL) == (arguments is None)
    return arguments, finish


class TestOtherTexts:
    @pytest.mark.parametrize("stream", [False, True])
    def test_reasoning_is_judged(self, client: OpenAI, upstream: Any, reply: Any, stream: bool) -> None:
        upstream.reply = reply(reasoning=f"Hm. {BAD} Yes.")
        answer = create(client, stream=stream)
        dumped = "".join(chunk.model_dump_json() for chunk in answer) if stream else answer.model_dump_json()
        assert "zorgle" not in dumped
        assert REFUSAL in dumped

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_models_own_refusal_is_judged(self, client: OpenAI, upstream: Any, reply: Any, stream: bool) -> None:
        upstream.reply = reply(refusal=f"No. {BAD}")
        answer = create(client, stream=stream)
        dumped = "".join(chunk.model_dump_json() for chunk in answer) if stream else answer.model_dump_json()
        assert "zorgle" not in dumped

    def test_a_reasoning_summary_of_responses_is_judged(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        upstream.reply = reply(reasoning=f"Hm. {BAD} Yes.")
        dumped = "".join(
            event.model_dump_json() for event in client.responses.create(model="m", input="hi", stream=True)
        )
        assert "zorgle" not in dumped
        upstream.reply = reply(reasoning="Hm. Yes.")
        *_, last = client.responses.create(model="m", input="hi", stream=True)
        assert last.response.output[0].summary[0].text == "Hm. Yes."

    @pytest.mark.parametrize("stream", [False, True])
    def test_function_calls_of_responses(self, client: OpenAI, upstream: Any, reply: Any, stream: bool) -> None:
        for arguments, delivered in (('{"a": "fine"}', True), (json.dumps({"a": BAD}), False)):
            upstream.reply = reply(arguments=arguments)
            answer = client.responses.create(model="m", input="hi", stream=stream)
            if stream:
                events = list(answer)
                assert ("response.function_call_arguments.done" in [event.type for event in events]) == delivered
                answer = events[-1].response
            assert [item.type for item in answer.output] == (["function_call"] if delivered else ["message"])
            assert "zorgle" not in answer.model_dump_json()

    def test_a_schema_s_fixed_values_are_never_altered(self, client: OpenAI, upstream: Any, reply: Any) -> None:
        schema = {"type": "object", "properties": {"kind": {"enum": [SECRET, "other"]}, "text": {"type": "string"}}}
        wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        upstream.reply = reply(texts=(json.dumps({"kind": "other", "text": f"It is {SECRET}."}),))
        answer = json.loads(create(client, response_format=wanted).choices[0].message.content)
        assert answer["kind"] == "other"
        assert SECRET not in answer["text"]

    @pytest.mark.parametrize("stream", [False, True])
    def test_json_stays_json(self, client: OpenAI, upstream: Any, reply: Any, stream: bool) -> None:
        upstream.reply = reply(texts=(json.dumps({"items": [f"A {SECRET}.", "b"], "n": 1}),))
        answer = create(client, response_format={"type": "json_object"}, stream=stream)
        text = (
            "".join(chunk.choices[0].delta.content or "" for chunk in answer)
            if stream
            else answer.choices[0].message.content
        )
        assert SECRET not in text
        assert json.loads(text)["items"][1] == "b"


def test_images_are_said_to_be_unscanned(client: OpenAI, upstream: Any, guard: Any) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    answer = create(client, [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}])
    outcome = guardrail.outcome(answer)
    assert outcome is not None
    unscanned = [decision for decision in outcome.decisions if decision.state is State.NOT_SCANNED]
    assert len(unscanned) == 1
    assert "image_url" in unscanned[0].note
    assert guard.audit.get(unscanned[0].id).state == State.NOT_SCANNED
    assert upstream.requests[-1]["messages"][0]["content"][1] == image


def test_the_policy_decides_about_what_is_unscanned(upstream: Any, make_guard: Any, reply: Any, policy: str) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    picture = {"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "AAAA"}
    guard = make_guard(policy=policy + "unscanned: block\n")
    with OpenAI(api_key="k", base_url=upstream.url, max_retries=0) as client:
        guardrail.wrap(client, guard=guard)
        question = {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}
        answer = create(client, [question])
        assert answer.choices[0].message.content == REFUSAL
        assert upstream.paths == []
        withheld = guardrail.outcome(answer).decisions[-1]  # type: ignore[union-attr]
        assert guard.audit.get(withheld.id).state == State.BLOCKED
        create(client, [question, {"role": "assistant", "content": REFUSAL}, *HELLO])  # later it does not go along
        assert upstream.requests[-1]["messages"][0]["content"] == question["content"][:1]

        document = {**json.loads(RESPONSE), "output": [picture]}
        upstream.reply = reply(raw=json.dumps(document).encode())
        assert client.responses.create(model="m", input="Draw").output_text == REFUSAL
        events = [
            {"type": "response.created", "sequence_number": 0, "response": json.loads(RESPONSE)},
            {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": picture},
            {"type": "response.completed", "sequence_number": 2, "response": document},
        ]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        upstream.reply = reply(raw=body.encode(), content_type="text/event-stream")
        streamed = list(client.responses.create(model="m", input="Draw", stream=True))
        assert streamed[-1].response.output_text == REFUSAL
        assert "AAAA" not in "".join(event.model_dump_json() for event in streamed)


def test_pictures_in_a_stream_are_said_to_be_unscanned(client: OpenAI, upstream: Any, reply: Any) -> None:
    delta = {"content": "Here it is.", "images": [{"type": "image_url", "image_url": {"url": "data:image/png,A"}}]}
    chunks = [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        for choice in ({"index": 0, "delta": delta}, {"index": 0, "delta": {}, "finish_reason": "stop"})
    ]
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    upstream.reply = reply(raw=body.encode(), content_type="text/event-stream")
    answer = create(client, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in answer) == "Here it is."
    states = [decision.state for decision in guardrail.outcome(answer).decisions]  # type: ignore[union-attr]
    assert states.count(State.NOT_SCANNED) == 1


def test_how_long_a_stream_was_held_is_reported(client: OpenAI, upstream: Any, reply: Any) -> None:
    upstream.reply = reply(texts=("The first sentence. The second. The third.",), delay=0.002)
    answer = create(client, stream=True)
    list(answer)
    held = guardrail.outcome(answer).stream_ms  # type: ignore[union-attr]
    assert held["batches"] == 3
    assert 0 < held["first_text_upstream"] < held["first_text"]
    assert 0 < held["delay_mean"] <= held["delay_max"]
    assert guardrail.outcome(create(client)).stream_ms == {}  # type: ignore[union-attr]
