"""What is judged of a request: every new turn, together where it is read together; old ones only once."""

from __future__ import annotations

from typing import Any

import pytest

from guardrail import Guardrail
from guardrail.clients.driving import drive
from guardrail.clients.exchange import Admission, Exchange
from guardrail.clients.memory import Memory
from guardrail.errors import ModerationError, UnsupportedPath
from guardrail.types import Stage, State
from guardrail.wire.routes import FORMATS

BAD = "I will zorgle you now."
SECRET = "sk-abcd1234"
HELD = "[withheld by moderation]"


class Client:
    """One wrapped client as far as its requests go."""

    def __init__(self, guard: Guardrail, form: str = "chat_completions") -> None:
        self.guard, self.form, self.memory = guard, form, Memory()
        self.exchange: Exchange
        self.body: dict[str, Any] = {}

    def send(self, *messages: Any, **body: Any) -> Admission:
        key = "input" if self.form == "responses" else "messages"
        self.body = {key: list(messages), **body}
        self.exchange = Exchange(self.guard, FORMATS[self.form], self.body, self.memory)
        admission: Admission = drive(self.exchange, self.exchange.admit())
        return admission

    def answer(self, text: str) -> str:
        document = {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
        }
        drive(self.exchange, self.exchange.answer(document))
        return str(document["choices"][0]["message"]["content"])

    @property
    def judged(self) -> list[str]:
        return [decision.source for decision in self.exchange.ledger.decisions]

    @property
    def contents(self) -> list[Any]:
        return [message.get("content") for message in self.body.get("messages", self.body.get("input"))]


@pytest.fixture
def client(guard: Guardrail) -> Client:
    return Client(guard)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


class TestNewTurns:
    def test_old_turns_are_judged_once(self, client: Client) -> None:
        client.send(user("One"))
        answer = client.answer("First answer")
        assert client.judged == ["One", "First answer"]
        client.send(user("One"), assistant(answer), user("Two"))
        assert client.judged == ["Two"]
        second = client.answer("Second answer")
        client.send(user("One"), assistant(answer), user("Two"), assistant(second), user("Three"))
        assert client.judged == ["Three"]

    def test_an_old_bad_turn_does_not_block_every_later_one(self, client: Client) -> None:
        assert client.send(user(BAD)).refused is not None
        admission = client.send(user(BAD), assistant("This was withheld."), user("Sorry. What is 2 + 2?"))
        assert admission.refused is None
        assert client.contents == [HELD, "This was withheld.", "Sorry. What is 2 + 2?"]
        assert BAD not in client.judged
        client.send(user(BAD), assistant("This was withheld."), user("Sorry."), assistant("4"), user("Thanks"))
        assert client.contents[0] == HELD

    def test_an_old_bad_turn_that_nobody_has_seen_yet_is_withheld_too(self, client: Client) -> None:
        admission = client.send(user(BAD), assistant("What?"), user("Never mind."))
        assert admission.refused is None
        assert client.contents == [HELD, "What?", "Never mind."]
        states = [decision.state for decision in client.exchange.ledger.decisions]
        assert State.BLOCKED in states

    def test_the_same_bad_words_again_are_blocked_again(self, client: Client) -> None:
        for _ in range(2):
            assert client.send(user(BAD)).refused is not None
            assert client.judged == [BAD]
        assert client.send(user("Hi"), assistant("Hello"), user(BAD)).refused is not None

    def test_repaired_turns_stay_repaired(self, client: Client) -> None:
        client.send(user(f"My key is {SECRET}."))
        first = client.contents[0]
        assert SECRET not in first
        client.send(user(f"My key is {SECRET}."), assistant("Noted"), user("Go on"))
        assert client.contents[0] == first

    def test_a_window_that_slides_needs_no_new_judging(self, client: Client) -> None:
        turns = [message for n in range(5) for message in (user(f"Question {n}"), assistant(f"Answer {n}"))]
        client.send(*turns, user("Last"))
        client.send(*turns[4:], user("Last but one"))
        assert client.judged == ["Last but one"]

    def test_a_conversation_that_is_named_has_a_memory_of_its_own(self, client: Client) -> None:
        turns = (user("One"), assistant("Answer"), user("Two"))
        client.send(*turns, metadata={"conversation_id": "a"})
        client.send(*turns, metadata={"conversation_id": "b"})
        assert client.judged == ["One", "Answer", "Two"]
        assert client.exchange.conversation == "b"

    def test_ten_thousand_turns(self, client: Client) -> None:
        turns = [(user, assistant)[n % 2](f"Message {n % 50}") for n in range(9_998)]
        assert client.send(*turns, user("Hello")).refused is None
        assert len(client.judged) <= 52
        assert client.send(*turns, user(BAD)).refused is not None
        assert client.judged == [BAD]


class TestTogether:
    def test_consecutive_turns_of_the_user_are_one_text(self, client: Client) -> None:
        assert client.send(user("Hello."), user(BAD), user("Bye.")).refused is not None
        assert client.judged == [f"Hello.\n{BAD}\nBye."]
        assert client.send(user("We give up"), user("the plan")).refused is not None

    def test_parts_of_one_turn_are_one_text(self, client: Client) -> None:
        parts = [{"type": "text", "text": "We give up"}, {"type": "text", "text": "the plan"}]
        assert client.send(user(parts)).refused is not None

    def test_each_keeps_its_own_words(self, client: Client) -> None:
        image = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
        client.send(user("Hello."), user([{"type": "text", "text": f"It is {SECRET}."}, image]), user("Bye."))
        first, second, third = client.contents
        assert (first, third) == ("Hello.", "Bye.")
        assert SECRET not in str(second)
        assert second[0]["text"].startswith("It is ")
        assert second[1] == image

    def test_an_assistants_turn_between_parts_them(self, client: Client) -> None:
        assert client.send(user("We give up"), assistant("Oh"), user("the plan")).refused is None


class TestEveryRole:
    def test_a_system_prompt_is_judged_once_and_never_altered(self, client: Client) -> None:
        prompt = system(f"Be kind. The key is {SECRET}.")
        admission = client.send(prompt, user("Hi"))
        assert (admission.refused, admission.changed) == (None, False)
        assert client.contents[0] == prompt["content"]
        assert {decision.state for decision in client.exchange.ledger.decisions} == {State.ALLOWED, State.FLAGGED}
        client.send(prompt, user("Hi again"))
        assert client.judged == ["Hi again"]

    @pytest.mark.parametrize("role", ["system", "developer"])
    def test_a_bad_system_prompt_refuses_every_time(self, client: Client, role: str) -> None:
        for _ in range(2):
            assert client.send({"role": role, "content": BAD}, user("Hi")).refused is not None

    def test_a_system_prompt_and_a_question_of_the_same_words(self, client: Client) -> None:
        client.send(system("Be kind."), user("Be kind."))
        assert client.judged == ["Be kind.", "Be kind."]

    def test_what_the_assistant_is_said_to_have_said(self, client: Client) -> None:
        client.send(user("Hi"), assistant(BAD), user("Go on"))
        assert client.contents[1] == HELD
        assert client.send(user("Hi"), assistant(BAD)).refused is not None  # a beginning for the model to continue

    def test_tool_calls_and_results(self, client: Client) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "zorgle"}'}}
        turn = {"role": "assistant", "content": None, "tool_calls": [call]}
        client.send(user("Hi"), turn, {"role": "tool", "tool_call_id": "c", "content": "Fine"})
        assert client.body["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"
        stages = {decision.source: decision.stage for decision in client.exchange.ledger.decisions}
        assert stages["Fine"] is Stage.TOOL_RESULT
        assert stages["zorgle"] is Stage.TOOL_CALL

    def test_a_marked_message_is_retrieved(self, client: Client) -> None:
        admission = client.send(user("Read this"), {**user("A page"), "guardrail_stage": "retrieved"})
        assert admission.changed
        assert "guardrail_stage" not in str(client.body)
        assert [decision.stage for decision in client.exchange.ledger.decisions] == [Stage.INPUT, Stage.RETRIEVED]


class TestResponses:
    @pytest.mark.parametrize(
        ("item", "stage"),
        [
            (user(BAD), Stage.INPUT),
            (user([{"type": "input_text", "text": BAD}]), Stage.INPUT),
            ({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": BAD}]}, Stage.OUTPUT),
            ({"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x": "zorgle"}'}, Stage.TOOL_CALL),
            ({"type": "function_call_output", "call_id": "c", "output": BAD}, Stage.TOOL_RESULT),
            (
                {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": BAD}]},
                Stage.TOOL_RESULT,
            ),
            ({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": BAD}, Stage.TOOL_CALL),
            ({"type": "file_search_call", "id": "f", "queries": [], "results": [{"text": BAD}]}, Stage.RETRIEVED),
            ({"type": "web_search_call", "id": "w", "action": {"type": "search", "query": BAD}}, Stage.TOOL_CALL),
            ({"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": BAD}]}, Stage.OUTPUT),
            ({"type": "mcp_call", "id": "m", "name": "f", "arguments": "{}", "output": BAD}, Stage.TOOL_RESULT),
            ({"type": "local_shell_call", "id": "l", "action": {"command": ["echo", "zorgle"]}}, Stage.TOOL_CALL),
        ],
    )
    def test_items_are_judged_for_what_they_are(self, guard: Guardrail, item: Any, stage: Stage) -> None:
        client = Client(guard, "responses")
        assert client.send(item).refused is not None
        blocked = [decision for decision in client.exchange.ledger.decisions if decision.text is None]
        assert {decision.stage for decision in blocked} == {stage}

    def test_a_string_instructions_and_variables(self, guard: Guardrail) -> None:
        client = Client(guard, "responses")
        for body in (
            {"input": BAD},
            {"input": "hi", "instructions": BAD},
            {"input": "hi", "prompt": {"variables": {"a": BAD}}},
        ):
            exchange = Exchange(guard, FORMATS["responses"], body, client.memory)
            assert drive(exchange, exchange.admit()).refused is not None
        body = {"input": f"It is {SECRET}."}
        exchange = Exchange(guard, FORMATS["responses"], body, client.memory)
        assert drive(exchange, exchange.admit()).changed
        assert SECRET not in body["input"]


@pytest.mark.parametrize("form", ["chat_completions", "messages", "responses"])
@pytest.mark.parametrize(
    "message",
    [
        17,
        None,
        "text",
        {"role": "user", "content": 3},
        {"role": "user", "content": [{"type": "x", "y": "z"}]},
        {"role": 3},
    ],
)
def test_messages_of_no_known_shape_are_refused(guard: Guardrail, form: str, message: Any) -> None:
    if (form, message) == ("responses", "text"):
        message = ["text"]
    with pytest.raises(ModerationError):
        Client(guard, form).send(message)


@pytest.mark.parametrize("body", [{}, {"messages": None}, {"messages": {"role": "user"}}, {"messages": "hello"}])
def test_no_list_of_messages_is_refused(guard: Guardrail, body: Any) -> None:
    exchange = Exchange(guard, FORMATS["chat_completions"], body, Memory())
    with pytest.raises(UnsupportedPath):
        drive(exchange, exchange.admit())


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    memory = Memory(most=2)
    keys = [Memory.key(None, "r", "input", [text]) for text in ("a", "b", "c")]
    memory.put(keys[0], ("a",))
    memory.put(keys[1], None)
    assert memory.get(keys[0]) == (True, ("a",))
    memory.put(keys[2], ("c",))
    assert memory.get(keys[1]) == (False, None)
    assert memory.get(keys[0]) == (True, ("a",))
    assert Memory.key(None, "r", "input", ["ab", "c"]) != Memory.key(None, "r", "input", ["a", "bc"])
    assert Memory.key("x", "r", "input", ["\ud800"]) != Memory.key("y", "r", "input", ["\ud800"])
