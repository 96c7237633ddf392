"""What model servers say, in every wire format that guardrail knows: whole answers and the events of streams."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FORMATS", "Reply", "message", "response", "response_events"]


@dataclass
class Reply:
    """What the server says next."""

    texts: tuple[str, ...] = ("Hello there. All is well.",)  # one for each choice
    arguments: str | None = None  # of a tool call, instead of a text
    tool: str = "send"  # its name
    reasoning: str | None = None
    refusal: str | None = None
    chunk: int = 4  # characters per streamed event
    logprobs: bool = False
    fault: str = ""
    delay: float = 0.0  # seconds between streamed events
    raw: bytes | None = None  # the whole body, as it is
    content_type: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


USAGE = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
RESPONSE_USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 11,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 18,
}


def pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)] or [""]


def spelt(text: str) -> dict[str, Any]:
    token = {"token": text, "logprob": -0.1, "bytes": list(text.encode()), "top_logprobs": []}
    return {"content": [token], "refusal": None}


# -- chat completions ------------------------------------------------------------------------------------------------


def tool_call(reply: Reply, arguments: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": reply.tool, "arguments": arguments}}


def chat(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    choices = []
    for index, text in enumerate(reply.texts):
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": reply.refusal, "annotations": []}
        finish = "stop"
        if reply.reasoning is not None:
            message["reasoning_content"] = reply.reasoning
        if reply.arguments is not None:
            message.update(content=None, tool_calls=[tool_call(reply, reply.arguments)])
            finish = "tool_calls"
        if reply.refusal is not None:
            message["content"] = None
        logprobs = spelt(text) if reply.logprobs else None
        choices.append({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish})
    return {
        "id": f"chatcmpl-{len(text)}-{time.monotonic_ns()}",
        "object": "chat.completion",
        "created": 1,
        "model": body.get("model", "m"),
        "choices": choices,
        "usage": USAGE,
        "system_fingerprint": "fp_1",
    }


def chat_events(reply: Reply, body: dict[str, Any]) -> Iterator[Any]:
    head = {
        "id": f"chatcmpl-{time.monotonic_ns()}",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body.get("model", "m"),
        "system_fingerprint": "fp_1",
    }
    with_usage = (body.get("stream_options") or {}).get("include_usage")

    def event(index: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {**head, "choices": [choice], **({"usage": None} if with_usage else {})}

    finish = "stop"
    for index in range(len(reply.texts)):
        yield event(index, {"role": "assistant", "content": "" if reply.arguments is None else None, "refusal": None})
    if reply.reasoning is not None:
        for piece in pieces(reply.reasoning, reply.chunk):
            yield event(0, {"reasoning_content": piece})
    if reply.arguments is not None:
        finish = "tool_calls"
        yield event(0, {"tool_calls": [{"index": 0, **tool_call(reply, "")}]})
        for piece in pieces(reply.arguments, reply.chunk):
            yield event(0, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    elif reply.refusal is not None:
        for piece in pieces(reply.refusal, reply.chunk):
            yield event(0, {"refusal": piece})
    else:
        cut = [pieces(text, reply.chunk) for text in reply.texts]
        for turn in range(max(len(parts) for parts in cut)):  # the choices take turns
            for index, parts in enumerate(cut):
                if turn < len(parts):
                    logprobs = spelt(parts[turn]) if reply.logprobs else None
                    yield event(index, {"content": parts[turn]}, logprobs=logprobs)
    for index in range(len(reply.texts)):
        yield event(index, {}, finish)
    if with_usage:
        yield {**head, "choices": [], "usage": USAGE}
    yield "[DONE]"


# -- legacy completions ----------------------------------------------------------------------------------------------


def legacy(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    choices = [
        {"index": index, "text": text, "logprobs": None, "finish_reason": "stop"}
        for index, text in enumerate(reply.texts)
    ]
    return {
        "id": f"cmpl-{time.monotonic_ns()}",
        "object": "text_completion",
        "created": 1,
        "model": body.get("model", "m"),
        "choices": choices,
        "usage": USAGE,
    }


def legacy_events(reply: Reply, body: dict[str, Any]) -> Iterator[Any]:
    head = {
        "id": f"cmpl-{time.monotonic_ns()}",
        "object": "text_completion",
        "created": 1,
        "model": body.get("model", "m"),
    }
    for index, text in enumerate(reply.texts):
        for piece in pieces(text, reply.chunk):
            yield {**head, "choices": [{"index": index, "text": piece, "logprobs": None, "finish_reason": None}]}
        yield {**head, "choices": [{"index": index, "text": "", "logprobs": None, "finish_reason": "stop"}]}
    yield "[DONE]"


# -- responses -------------------------------------------------------------------------------------------------------


def output_items(reply: Reply) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if reply.reasoning is not None:
        summary = [{"type": "summary_text", "text": reply.reasoning}]
        items.append({"id": "rs_1", "type": "reasoning", "summary": summary})
    if reply.arguments is not None:
        items.append(
            {
                "id": "fc_1",
                "type": "function_call",
                "call_id": "call_1",
                "name": reply.tool,
                "arguments": reply.arguments,
                "status": "completed",
            }
        )
    else:
        part = {"type": "output_text", "text": reply.texts[0], "annotations": [], "logprobs": []}
        items.append({"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]})
    return items


def response(reply: Reply, body: dict[str, Any], *, status: str = "completed", output: Any = None) -> dict[str, Any]:
    return {
        "id": f"resp_{time.monotonic_ns()}",
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "model": body.get("model", "m"),
        "output": output_items(reply) if output is None else output,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": RESPONSE_USAGE if status == "completed" else None,
    }


def response_events(reply: Reply, body: dict[str, Any]) -> Iterator[Any]:
    done = response(reply, body)
    number = iter(range(10_000))

    def event(kind: str, **data: Any) -> dict[str, Any]:
        return {"type": kind, "sequence_number": next(number), **data}

    begun = {**done, "status": "in_progress", "output": [], "usage": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for index, item in enumerate(done["output"]):
        if item["type"] == "message":
            yield from message_item_events(event, reply, index, item)
        elif item["type"] == "function_call":
            yield event(
                "response.output_item.added",
                output_index=index,
                item={**item, "arguments": "", "status": "in_progress"},
            )
            where = {"item_id": item["id"], "output_index": index}
            for piece in pieces(item["arguments"], reply.chunk):
                yield event("response.function_call_arguments.delta", **where, delta=piece)
            yield event("response.function_call_arguments.done", **where, arguments=item["arguments"], name=reply.tool)
            yield event("response.output_item.done", output_index=index, item=item)
        else:
            yield event("response.output_item.added", output_index=index, item={**item, "summary": []})
            where = {"item_id": item["id"], "output_index": index, "summary_index": 0}
            part = item["summary"][0]
            yield event("response.reasoning_summary_part.added", **where, part={**part, "text": ""})
            for piece in pieces(part["text"], reply.chunk):
                yield event("response.reasoning_summary_text.delta", **where, delta=piece)
            yield event("response.reasoning_summary_text.done", **where, text=part["text"])
            yield event("response.reasoning_summary_part.done", **where, part=part)
            yield event("response.output_item.done", output_index=index, item=item)
    yield event("response.completed", response=done)


def message_item_events(event: Any, reply: Reply, index: int, item: dict[str, Any]) -> Iterator[Any]:
    part = item["content"][0]
    where = {"item_id": item["id"], "output_index": index, "content_index": 0}
    yield event("response.output_item.added", output_index=index, item={**item, "content": [], "status": "in_progress"})
    yield event("response.content_part.added", **where, part={**part, "text": ""})
    for piece in pieces(part["text"], reply.chunk):
        yield event("response.output_text.delta", **where, delta=piece, logprobs=[])
    yield event("response.output_text.done", **where, text=part["text"], logprobs=[])
    yield event("response.content_part.done", **where, part=part)
    yield event("response.output_item.done", output_index=index, item=item)


# -- messages --------------------------------------------------------------------------------------------------------


def blocks(reply: Reply) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if reply.reasoning is not None:
        found.append({"type": "thinking", "thinking": reply.reasoning, "signature": "c2ln"})
    if reply.arguments is not None:
        found.append({"type": "tool_use", "id": "toolu_1", "name": reply.tool, "input": json.loads(reply.arguments)})
    else:
        found.append({"type": "text", "text": reply.texts[0], "citations": None})
    return found


def message(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{time.monotonic_ns()}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "m"),
        "content": blocks(reply),
        "stop_reason": "tool_use" if reply.arguments is not None else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 11},
    }


def message_events(reply: Reply, body: dict[str, Any]) -> Iterator[Any]:
    whole = message(reply, body)
    empty = {**whole, "content": [], "stop_reason": None, "usage": {"input_tokens": 7, "output_tokens": 1}}
    yield {"type": "message_start", "message": empty}
    yield {"type": "ping"}
    keys = {"text": ("text", "text_delta", "text"), "thinking": ("thinking", "thinking_delta", "thinking")}
    for index, block in enumerate(whole["content"]):
        kind = block["type"]
        key, delta, field_name = keys.get(kind, ("input", "input_json_delta", "partial_json"))
        text = reply.arguments or "" if kind == "tool_use" else block[key]
        start = {**block, key: {} if kind == "tool_use" else "", **({"signature": ""} if kind == "thinking" else {})}
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for piece in pieces(text, reply.chunk):
            yield {"type": "content_block_delta", "index": index, "delta": {"type": delta, field_name: piece}}
        if kind == "thinking":
            signature = {"type": "signature_delta", "signature": block["signature"]}
            yield {"type": "content_block_delta", "index": index, "delta": signature}
        yield {"type": "content_block_stop", "index": index}
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": 11}}
    yield {"type": "message_stop"}


FORMATS = {
    "/chat/completions": (chat, chat_events),
    "/completions": (legacy, legacy_events),
    "/responses": (response, response_events),
    "/messages": (message, message_events),
    "/rawPredict": (message, message_events),
    "/streamRawPredict": (message, message_events),
    "/invoke": (message, message_events),
}
