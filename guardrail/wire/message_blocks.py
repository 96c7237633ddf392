"""Anthropic content blocks, in requests and responses alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail.types import Stage
from guardrail.wire.documents import Path
from guardrail.wire.formats import argument_leaves, marked_stage, opaque_leaves, require_text, unknown
from guardrail.wire.leftovers import leftovers
from guardrail.wire.pieces import Form, Piece, Unscanned

__all__ = ["TOOL_USE", "answer_form", "answer_schema", "block_pieces", "content_pieces", "whole_block"]

TOOL_USE = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_RESULTS = frozenset(
    {
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "advisor_tool_result",
        "mcp_tool_result",
    }
)
_NOT_SCANNED = frozenset({"image", "container_upload", "audio", "video"})
_OWNED = {  # encrypted, or tools as their owner described them
    "redacted_thinking": ("data",),
    "mcp_tool_listing": ("tools",),
    "tool_addition": ("tool", "tools"),
}
_NO_TEXT = frozenset(
    {"redacted_thinking", "fallback", "tool_reference", "mcp_tool_listing", "tool_addition", "tool_removal"}
)


def answer_form(request: Mapping[str, Any]) -> Form:
    """JSON where a schema was asked for, else prose."""
    return Form.JSON if answer_schema(request) is not None else Form.TEXT


def answer_schema(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The caller's JSON Schema (`output_config.format`, formerly `output_format`), if there is one."""
    config = request.get("output_config")
    wanted = config.get("format") if isinstance(config, dict) else None
    wanted = wanted or request.get("output_format")
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    return schema if isinstance(schema, dict) else None


def block_pieces(block: Any, path: Path, stage: Stage) -> tuple[list[Piece], list[Unscanned]]:  # noqa: C901 (a table of block types)
    """The texts of one content block.

    Raises:
        UnsupportedPath: its type is unknown and it carries text.
    """
    if isinstance(block, str):
        return [Piece(path, block, stage, remove=path)], []
    if not isinstance(block, dict):
        raise unknown("A content block of type", type(block).__name__)
    kind = block.get("type")
    if kind == "text":
        return _text_block(block, path, stage)
    if kind == "thinking":
        return [Piece((*path, "thinking"), str(block.get("thinking") or ""), Stage.OUTPUT, Form.OPAQUE)], []
    if kind in TOOL_USE:
        return argument_leaves(block.get("input"), (*path, "input")), []
    if kind == "tool_result":
        return content_pieces(block.get("content"), (*path, "content"), marked_stage(block, Stage.TOOL_RESULT))
    if kind in _RESULTS:
        return opaque_leaves(block.get("content"), (*path, "content"), Stage.TOOL_RESULT), []
    if kind == "document":
        return _document(block, path)
    if kind == "search_result":
        pieces, unscanned = content_pieces(block.get("content"), (*path, "content"), Stage.RETRIEVED)
        return [*_titles(block, path), *pieces], unscanned
    if kind == "compaction":
        text = block.get("content")
        return ([Piece((*path, "content"), text, Stage.OUTPUT, Form.OPAQUE)] if isinstance(text, str) else []), []
    if kind in _NOT_SCANNED:
        return [], [Unscanned(path, str(kind), stage)]
    if kind in _NO_TEXT or not opaque_leaves({k: v for k, v in block.items() if k != "type"}, path, stage):
        return [], []
    raise unknown("The content block type", kind)


def whole_block(block: Any, path: Path) -> tuple[list[Piece], list[Unscanned]]:
    """`block_pieces` of a block that a model wrote, and the texts under keys that the format does not know.

    Raises:
        UnsupportedPath: see `block_pieces`.
    """
    pieces, notes = block_pieces(block, path, Stage.OUTPUT)
    if not isinstance(block, dict):
        return pieces, notes
    read = {*(piece.path for piece in pieces), *(note.path for note in notes)}
    read |= {(*path, key) for key in _OWNED.get(str(block.get("type")), ())}
    return pieces + leftovers(block, read, path), notes


def content_pieces(value: Any, path: Path, stage: Stage, remove: Path = ()) -> tuple[list[Piece], list[Unscanned]]:
    """The texts of a `content`: nothing, a string, or a list of blocks."""
    if value is None:
        return [], []
    if isinstance(value, str):
        return [Piece(path, value, stage, remove=remove)], []
    if not isinstance(value, list):
        raise unknown("A `content` of type", type(value).__name__)
    pieces: list[Piece] = []
    unscanned: list[Unscanned] = []
    for index, block in enumerate(value):
        found, others = block_pieces(block, (*path, index), stage)
        pieces += found
        unscanned += others
    return pieces, unscanned


def _text_block(block: dict[str, Any], path: Path, stage: Stage) -> tuple[list[Piece], list[Unscanned]]:
    text = require_text(block.get("text"), "A text block's `text`")
    pieces = [Piece((*path, "text"), text, marked_stage(block, stage), remove=path)]
    for index, citation in enumerate(block.get("citations") or ()):
        pieces += opaque_leaves(citation, (*path, "citations", index), Stage.RETRIEVED)
    return pieces, []


def _document(block: dict[str, Any], path: Path) -> tuple[list[Piece], list[Unscanned]]:
    pieces = _titles(block, path)
    source = block.get("source")
    source = source if isinstance(source, dict) else {}
    if source.get("type") == "text":
        text = require_text(source.get("data"), "A document's `source.data`")
        pieces.append(Piece((*path, "source", "data"), text, Stage.RETRIEVED))
        return pieces, []
    if source.get("type") == "content":
        found, unscanned = content_pieces(source.get("content"), (*path, "source", "content"), Stage.RETRIEVED)
        return pieces + found, unscanned
    return pieces, [Unscanned(path, "document", Stage.RETRIEVED)]


def _titles(block: dict[str, Any], path: Path) -> list[Piece]:
    return [
        Piece((*path, key), block[key], Stage.RETRIEVED, Form.OPAQUE)
        for key in ("title", "context")
        if isinstance(block.get(key), str)
    ]
