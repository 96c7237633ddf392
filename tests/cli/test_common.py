from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import typer

from guardrail.cli.common import ExitCode, InputError, batches, emit_json, handled, read_rows, read_text
from guardrail.errors import AuditUnavailable, Blocked, PolicyError
from guardrail.types import Action, Outcome, Score, State


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_rows_keep_their_order_line_and_context(tmp_path: Path) -> None:
    file = write(
        tmp_path / "rows.jsonl",
        {"text": "one"},
        "",
        {"text": "two", "context": ["a", "b"]},
        {"text": "", "context": "c"},
    )
    assert [(row.line, row.text, row.context) for row in read_rows(file)] == [
        (1, "one", ()),
        (3, "two", ("a", "b")),
        (4, "", ("c",)),
    ]


def test_line_separators_inside_json_do_not_split_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a\u2028b\x0cc"}\r\n{"text": "d"}\n'.replace("\x0c", "\\f"), encoding="utf-8", newline="")
    assert [row.text for row in read_rows(file)] == ["a\u2028b\x0cc", "d"]


def test_gzip_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"text": "one"}\n'))
    assert [row.text for row in read_rows(file)] == ["one"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "rows.jsonl:2: not JSON"),
        ("[]", "rows.jsonl:2: expected an object with `text`, found list"),
        ("{}", "rows.jsonl:2: `text` must be a string, found nothing"),
        ({"text": None}, "rows.jsonl:2: `text` must be a string, found NoneType"),
        ({"text": "x", "context": [1]}, "rows.jsonl:2: `context` must be"),
        ({"text": "x", "context": {"a": 1}}, "rows.jsonl:2: `context` must be"),
        ("[" * 100_000, "rows.jsonl:2: not JSON"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint.replace("[", r"\[")):
        read_rows(write(tmp_path / "rows.jsonl", {"text": "fine"}, row))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x1f\x8b\x08\x00broken"])
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    with pytest.raises(InputError, match="not UTF-8 text: byte"):
        read_rows(file)


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"text": "one"}\n' * 1000)[:40])
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(file)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_rows(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="directory"):
        read_rows(tmp_path)


def test_text_or_input_but_not_both() -> None:
    assert read_text("words", None) == "words"
    assert read_text("", None) == ""
    assert read_text(None, Path("rows.jsonl")) is None
    for text, file in ((None, None), ("words", Path("rows.jsonl"))):
        with pytest.raises(InputError, match="either a TEXT"):
            read_text(text, file)


def test_a_dash_reads_stdin_and_drops_one_line_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("a\n\nh\u00e9 \U0001f600\r\n".encode() + b"")))
    assert read_text("-", None) == "a\n\nh\u00e9 \U0001f600"


def test_bytes_that_are_not_utf8_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"a\xffb")))
    assert read_text("-", None) == "a\ufffdb"


def test_json_of_the_values_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json(
        {
            "score": Score(0.5, ((0, 2),)),
            "action": Action.BLOCK,
            "map": MappingProxyType({"a": np.float32(0.25)}),
            "when": datetime(2026, 1, 2, tzinfo=UTC),
            "path": Path("x"),
            "set": frozenset({"b", "a"}),
            "text": "h\u00e9 \ud800",
        }
    )
    printed = capsys.readouterr().out
    assert printed.endswith("\n")
    assert "h\u00e9" in printed
    assert json.loads(printed) == {
        "score": {"value": 0.5, "spans": [[0, 2]], "labels": []},
        "action": "block",
        "map": {"a": 0.25},
        "when": "2026-01-02T00:00:00+00:00",
        "path": "x",
        "set": ["a", "b"],
        "text": "h\u00e9 \ud800",
    }


def test_json_is_escaped_where_the_terminal_cannot_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", narrow)
    emit_json({"text": "h\u00e9"})
    narrow.seek(0)
    assert json.loads(narrow.read()) == {"text": "h\u00e9"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        emit_json({"risk": value})


def test_json_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        emit_json({"x": object()})


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PolicyError("unknown key", file="p.yaml", line=3), ExitCode.USAGE, "p.yaml:3: unknown key"),
        (AuditUnavailable("the database is away"), ExitCode.FAILURE, "the database is away"),
        (Blocked("refused", Outcome("r", "p", "sha256:0")), ExitCode.VIOLATION, "refused"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
        (ZeroDivisionError("by zero"), ExitCode.FAILURE, "ZeroDivisionError: by zero"),
    ],
)
def test_errors_become_messages_and_exit_codes(
    error: BaseException, code: ExitCode, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @handled
    def fails() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        fails()
    assert caught.value.exit_code == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err


def test_handled_leaves_results_and_exits_alone() -> None:
    @handled
    def exits(code: int) -> int:
        """Say so."""
        if code:
            raise typer.Exit(code)
        return 7

    assert exits(0) == 7
    assert exits.__doc__ == "Say so."
    with pytest.raises(typer.Exit) as caught:
        exits(1)
    assert caught.value.exit_code == 1


def test_batches_cover_all_rows_in_order(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "rows.jsonl", *({"text": str(number)} for number in range(10))))
    cut = batches(rows, 4)
    assert [len(batch) for batch in cut] == [4, 4, 2]
    assert [row.text for batch in cut for row in batch] == [str(number) for number in range(10)]


def test_every_state_and_action_has_a_word() -> None:
    from guardrail.cli import render

    assert set(render._STATE_COLOUR) == set(State)
    assert set(render._COLOUR) == set(Action)
