"""The rows of the conformance table: which tests prove which promise, and what a peer does there.

`OG` is openai-guardrails 0.3 on openai 3, run against a loopback server in November 2026; `none` of a litellm row is what
litellm's own guardrail hooks do there. Where nothing stands the peer was not measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ROWS", "Row", "rows_of"]


@dataclass(frozen=True, slots=True)
class Row:
    """One promise: `pattern` finds its tests by their ids."""

    client: str
    name: str
    pattern: str
    peer: str = ""


ROWS = (
    Row("openai", "`chat.completions.create`", r"\[a?create\]", "guarded"),
    Row("openai", "`create(stream=True)`", r"\[a?stream\]", "every chunk delivered, then raises"),
    Row("openai", "`with create(stream=True) as s`", r"\[a?stream_in_with\]", "TypeError"),
    Row("openai", "`chat.completions.stream()`", r"\[a?stream_helper\]", "AttributeError"),
    Row("openai", "`chat.completions.parse()`", r"TestStructured.*(chat)", "AttributeError"),
    Row("openai", "`beta.chat.completions`", r"beta_(create|stream)|TestStructured.*\[beta", "bypass"),
    Row("openai", "`with_raw_response`", r"\[a?(respond_)?raw\]", "AttributeError"),
    Row("openai", "`with_streaming_response`", r"streaming_raw|client_streaming_lines", "AttributeError"),
    Row("openai", "`with_options`, `copy`", r"with_options|copied", "TypeError"),
    Row("openai", "`client.post`", r"\[a?post\]", "bypass"),
    Row("openai", "legacy `completions.create`", r"\[a?legacy", "bypass"),
    Row("openai", "`responses.create`", r"\[a?respond\]", "guarded"),
    Row("openai", "`responses.create(stream=True)`, event order", r"\[a?respond_stream\]"),
    Row(
        "openai", "`responses.stream()`, `.parse()`", r"respond_helper|\[responses-|withheld_response", "AttributeError"
    ),
    Row("openai", "`responses.delete`, `.input_items`, embeddings, moderations", r"generate_nothing", "AttributeError"),
    Row("openai", "stored responses, `background`, `previous_response_id`", r"stored_response|background"),
    Row("openai", "`n > 1`", r"each_choice|every_choice|the_others_go_on", "second choice passes unmoderated"),
    Row("openai", "tool calls and their arguments", r"TestToolCalls|function_calls_of", "passes unmoderated"),
    Row("openai", "structured output stays JSON and keeps to its schema", r"json_stays|schema_s|TestStructured"),
    Row("openai", "`logprobs` never spell a held or altered text", r"log_prob"),
    Row("openai", "refusals, reasoning", r"own_refusal|reasoning"),
    Row("openai", "`usage`, the last chunk included", r"usage_is_kept|is_reported"),
    Row("openai", "Azure", r"azure"),
    Row("openai", "retries are one call, time-outs and errors stay the client's", r"retries|own_timeout|clients_own"),
    Row("openai", "custom HTTP clients", r"http_client"),
    Row("openai", "native results: types, `deepcopy`, pickle, `dict(r)`", r"survive_copying", "none of these"),
    Row("openai", "same object and type, `repr`, two wraps, unwrap", r"identity|twice|another_policy|unwrap_restores"),
    Row("openai", "threads", r"many_threads"),
    Row("openai", "refusal or exception, as configured", r"exception_instead|escalated"),
    Row("openai", "upstream closed on block and on early break", r"upstream_is_closed|cancellation"),
    Row("openai", "marker, header, none; shadow mode", r"states_in|no_disclosure|shadow"),
    Row("openai", "images and audio: said to be unscanned, the policy decides", r"unscanned"),
    Row("openai", "unknown generative paths and web sockets fail loudly", r"cannot_be_judged|web_sockets", "bypass"),
    Row("openai", "cut, compressed, malformed, endless, failing upstreams", r"test_bad_upstreams|test_adversary"),
    Row("anthropic", "`messages.create`", r"\[a?create\]"),
    Row("anthropic", "`create(stream=True)`, event order", r"\[a?stream\]|test_adversary"),
    Row("anthropic", "`messages.stream()`", r"\[a?helper\]"),
    Row("anthropic", "`messages.parse()`, structured output", r"structured"),
    Row("anthropic", "`with_raw_response`, `with_streaming_response`", r"raw\]"),
    Row("anthropic", "`client.post`", r"\[a?post\]"),
    Row("anthropic", "`beta.messages`", r"\[a?beta\]"),
    Row("anthropic", "`with_options`, `copy`", r"with_options"),
    Row("anthropic", "tool use, thinking", r"tool_use|thinking"),
    Row("anthropic", "documents, search results, marks: judged as retrieved", r"brought_in|marks"),
    Row("anthropic", "images and files: said to be unscanned", r"unscanned"),
    Row("anthropic", "system prompts are never altered", r"system_prompt"),
    Row("anthropic", "Vertex, Bedrock", r"TestPlatforms"),
    Row("anthropic", "middleware sees moderated answers", r"middleware"),
    Row("anthropic", "retries are one call", r"retries"),
    Row("anthropic", "refusal or exception, unwrap, the client's own errors", r"unwrapping"),
    Row("anthropic", "batches and unknown blocks are refused, counting passes", r"other_paths"),
    Row("anthropic", "copies, pickles, types, threads, closing", r"TestTheClientItself"),
    Row("litellm", "`completion`, `acompletion`", r"test_completion\[", "no hook runs in `completion`"),
    Row("litellm", "`stream=True`", r"completion_streamed|closing_a_stream", "only hooks before the call, if async"),
    Row("litellm", "questions", r"test_questions", "no hook runs in `completion`"),
    Row("litellm", "tool calls", r"tool_calls"),
    Row("litellm", "`text_completion`", r"text_completion"),
    Row("litellm", "`responses`", r"test_responses"),
    Row("litellm", "structured output", r"structured_output"),
    Row("litellm", "exceptions instead of refusals", r"test_raising"),
    Row("litellm", "`Router`", r"a_router"),
    Row("litellm", "one function; the module stays as it is", r"one_function|not_changed"),
    Row("litellm", "other generating functions are refused", r"other_generating"),
)


def rows_of(client: str, test: str) -> Iterable[Row]:
    """The rows that a test belongs to."""
    return [row for row in ROWS if row.client == client and re.search(row.pattern, test)]
