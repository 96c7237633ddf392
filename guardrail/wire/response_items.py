"""Items of the OpenAI Responses API, in `input` and `output` alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from guardrail.types import Stage
from guardrail.wire.documents import Path
from guardrail.wire.formats import argument_leaves, marked_stage, opaque_leaves, require_text, role_named, unknown
from guardrail.wire.leftovers import leftovers, spells
from guardrail.wire.pieces import Form, Piece, Role, Unscanned

__all__ = [
    "answer_form",
    "answer_schema",
    "forget_part",
    "item_pieces",
    "item_role",
    "output_pieces",
    "part_pieces",
    "refusal_item",
    "tidy_parts",
    "untold_parts",
    "whole_item",
    "whole_part",
]

_TEXT_PARTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "refusal": "refusal",
}
_NOT_SCANNED = frozenset(
    {"input_image", "input_file", "input_audio", "output_audio", "computer_screenshot", "image_generation_call"}
)
# Structured items: every text in them is judged at this stage and never rewritten.
_STRUCTURED = {
    "web_search_call": Stage.TOOL_CALL,
    "file_search_call": Stage.RETRIEVED,
    "computer_call": Stage.TOOL_CALL,
    "code_interpreter_call": Stage.TOOL_CALL,
    "local_shell_call": Stage.TOOL_CALL,
    "shell_call": Stage.TOOL_CALL,
    "apply_patch_call": Stage.TOOL_CALL,
    "mcp_approval_request": Stage.TOOL_CALL,
    "mcp_approval_response": Stage.INPUT,
    "tool_search_call": Stage.TOOL_CALL,
    "program": Stage.TOOL_CALL,
    "program_output": Stage.TOOL_RESULT,
    "local_shell_call_output": Stage.TOOL_RESULT,
    "shell_call_output": Stage.TOOL_RESULT,
    "apply_patch_call_output": Stage.TOOL_RESULT,
    "reasoning": Stage.OUTPUT,
}
_NO_TEXT = frozenset(  # references, encrypted state, and tools as their owner described them
    {
        "item_reference",
        "compaction",
        "compaction_summary",
        "compaction_trigger",
        "mcp_list_tools",
        "tool_search_output",
        "additional_tools",
        "computer_call_output",
    }
)
_UNREAD = {  # bytes, and tools as their owner described them
    "image_generation_call": ("result",),
    "output_audio": ("data",),
    "computer_call_output": ("output",),
    "mcp_list_tools": ("tools",),
    "tool_search_output": ("tools",),
    "additional_tools": ("tools",),
}
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_KEYS_OF_CALL = frozenset({"id", "call_id", "type", "status"})


def answer_form(request: Mapping[str, Any]) -> Form:
    """JSON where the caller asked for JSON, else prose."""
    return Form.JSON if _format(request).get("type") in ("json_object", "json_schema") else Form.TEXT


def answer_schema(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The caller's JSON Schema, if there is one."""
    schema = _format(request).get("schema")
    return schema if isinstance(schema, dict) else None


def _format(request: Mapping[str, Any]) -> Mapping[str, Any]:
    text = request.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    return wanted if isinstance(wanted, dict) else {}


def item_role(item: Any) -> Role:
    """Whose turn an input item is."""
    if isinstance(item, str):
        return Role.USER
    kind = item.get("type", "message")
    if kind == "message" and item.get("role") is not None:
        return role_named(str(item["role"]))
    if kind in _OUTPUTS or _STRUCTURED.get(kind) is Stage.TOOL_RESULT or str(kind).endswith("_output"):
        return Role.TOOL
    return Role.ASSISTANT if kind not in ("item_reference", "mcp_approval_response") else Role.TOOL


def item_pieces(item: Any, path: Path, stage: Stage) -> tuple[list[Piece], list[Unscanned]]:
    """The texts of one item; `stage` is that of a message in it.

    Raises:
        UnsupportedPath: its type is unknown and it carries text.
    """
    if not isinstance(item, dict):
        raise unknown("An item of type", type(item).__name__)
    kind = item.get("type") or "message"
    if kind == "message":
        return _content(item.get("content"), (*path, "content"), marked_stage(item, stage), path)
    if kind in ("function_call", "mcp_call"):
        return _call(item, path), []
    if kind == "custom_tool_call":
        text = require_text(item.get("input", ""), "A custom tool call's `input`")
        return [Piece((*path, "input"), text, Stage.TOOL_CALL, Form.OPAQUE)], []
    if kind in _OUTPUTS:
        return _content(item.get("output"), (*path, "output"), marked_stage(item, Stage.TOOL_RESULT), ())
    if kind == "reasoning":
        return _reasoning(item, path), []
    if kind in _NOT_SCANNED:
        return [], [Unscanned(path, str(kind), stage)]
    if kind in _NO_TEXT:
        found = [Unscanned(path, "computer_screenshot", Stage.TOOL_RESULT)] if kind == "computer_call_output" else []
        return [], found
    if kind in _STRUCTURED:
        inner = {key: value for key, value in item.items() if key not in _KEYS_OF_CALL}
        return opaque_leaves(inner, path, marked_stage(item, _STRUCTURED[kind])), []
    if opaque_leaves(item, path, stage):
        raise unknown("The item type", kind)
    return [], []


def whole_item(item: Any, path: Path) -> tuple[list[Piece], list[Unscanned]]:
    """`item_pieces` of an item of an answer, and the texts under keys that the format does not know.

    Raises:
        UnsupportedPath: see `item_pieces`.
    """
    pieces, notes = item_pieces(item, path, Stage.OUTPUT)
    return pieces + _left(item, path, pieces), notes


def whole_part(part: Any, path: Path) -> tuple[list[Piece], list[Unscanned]]:
    """`part_pieces` of a part of an answer, and the texts under keys that the format does not know.

    Raises:
        UnsupportedPath: see `part_pieces`.
    """
    pieces, notes = part_pieces(part, path, Stage.OUTPUT)
    return pieces + _left(part, path, pieces), notes


def _left(node: dict[str, Any], path: Path, pieces: list[Piece]) -> list[Piece]:
    content = node.get("content")
    inner = [
        ((*path, "content", index), part) for index, part in enumerate(content if isinstance(content, list) else ())
    ]
    read = {piece.path for piece in pieces}
    for at, one in ((path, node), *inner):
        kind = one.get("type") if isinstance(one, dict) else None
        read |= {(*at, key) for key in _UNREAD.get(str(kind), ())}
    return leftovers(node, read, path)


def _content(value: Any, path: Path, stage: Stage, remove: Path) -> tuple[list[Piece], list[Unscanned]]:
    if value is None:
        return [], []
    if isinstance(value, str):
        return [Piece(path, value, stage, remove=remove)], []
    if not isinstance(value, list):
        raise unknown("A `content` of type", type(value).__name__)
    pieces: list[Piece] = []
    unscanned: list[Unscanned] = []
    for index, part in enumerate(value):
        found, others = part_pieces(part, (*path, index), stage)
        pieces += found
        unscanned += others
    return pieces, unscanned


def part_pieces(part: Any, path: Path, stage: Stage) -> tuple[list[Piece], list[Unscanned]]:
    """The texts of one content part.

    Raises:
        UnsupportedPath: its type is unknown.
    """
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind in _TEXT_PARTS:
        key = _TEXT_PARTS[kind]
        text = require_text(part.get(key), f"A content part's `{key}`")
        return [Piece((*path, key), text, marked_stage(part, stage), remove=path), *_annotations(part, path)], []
    if kind == "reasoning_text":
        return [Piece((*path, "text"), str(part.get("text") or ""), Stage.OUTPUT, Form.OPAQUE)], []
    if kind in _NOT_SCANNED:
        said = part.get("transcript")
        spoken = [Piece((*path, "transcript"), said, stage, Form.OPAQUE)] if isinstance(said, str) else []
        return spoken, [Unscanned(path, str(kind), stage)]
    raise unknown("The content part type", kind)


def _annotations(part: dict[str, Any], path: Path) -> list[Piece]:
    return [
        Piece((*path, "annotations", index, "title"), note["title"], Stage.RETRIEVED, Form.OPAQUE)
        for index, note in enumerate(part.get("annotations") or ())
        if isinstance(note, dict) and isinstance(note.get("title"), str)
    ]


def _call(item: dict[str, Any], path: Path) -> list[Piece]:
    arguments = item.get("arguments")
    if isinstance(arguments, dict | list):
        pieces = argument_leaves(arguments, (*path, "arguments"))
    else:
        text = require_text(arguments or "", "A function call's `arguments`")
        pieces = [Piece((*path, "arguments"), text, Stage.TOOL_CALL, Form.ARGUMENTS)]
    for key in ("output", "error"):  # an MCP call carries its result
        if item.get(key) is not None:
            pieces += opaque_leaves({key: item[key]}, path, Stage.TOOL_RESULT)
    return pieces


def _reasoning(item: dict[str, Any], path: Path) -> list[Piece]:
    pieces = []
    for key in ("summary", "content"):
        for index, part in enumerate(item.get(key) or ()):
            pieces.append(Piece((*path, key, index, "text"), str(part.get("text") or ""), Stage.OUTPUT, Form.OPAQUE))
    return pieces


def output_pieces(output: list[Any], path: Path, request: Mapping[str, Any]) -> tuple[list[Piece], list[Unscanned]]:
    """The texts of output items, and what in them is not text; an answer in JSON is read as JSON."""
    form, schema = answer_form(request), answer_schema(request)
    pieces: list[Piece] = []
    unscanned: list[Unscanned] = []
    for index, item in enumerate(output):
        found, others = whole_item(item, (*path, index))
        unscanned += others
        for piece in found:
            is_answer = item.get("type") == "message" and piece.path[-1] == "text" and form is Form.JSON
            pieces.append(replace(piece, form=form, schema=schema) if is_answer else piece)
    return pieces, unscanned


def forget_part(part: dict[str, Any]) -> None:
    """Drop log-probabilities and annotations of a content part whose text was altered."""
    for key in ("logprobs", "annotations"):
        if part.get(key):
            part[key] = []


def untold_parts(output: Any) -> list[dict[str, Any]]:
    """The parts of items whose log-probabilities spell another text than their own."""
    return [
        part
        for item in output or ()
        if isinstance(item, dict) and isinstance(item.get("content"), list)
        for part in item["content"]
        if isinstance(part, dict) and not spells(part.get("logprobs"), str(part.get("text") or ""))
    ]


def tidy_parts(output: Any) -> bool:
    """Take such log-probabilities out of items; return whether there were any."""
    found = untold_parts(output)
    for part in found:
        part["logprobs"] = []
    return bool(found)


def refusal_item(item_id: str, text: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """A message item that refuses: as a `refusal` part where JSON was asked for, so that nobody parses it."""
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    if answer_form(request) is Form.JSON:
        part = {"type": "refusal", "refusal": text}
    return {"id": item_id, "type": "message", "status": "incomplete", "role": "assistant", "content": [part]}
