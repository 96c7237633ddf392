"""`guardrail heads train --examples` and `heads trihash`: a head from a few texts, and one on character trigrams."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.cli.common import JsonOption, console, emit_json, handled, note
from guardrail.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from guardrail.classifiers.fewshot import Examples
    from guardrail.encoder import Encoder
    from guardrail.policy.bundle import LinearHead

__all__ = ["train_from_examples", "trihash"]


def train_from_examples(
    file: Path, names: Sequence[str], data: Sequence[Path], out: Path, encoder: str, device: str, as_json: bool
) -> None:
    """Write `NAME.safetensors` to `out`.

    Args:
        file: the examples.
        names: at most one; default: the file's name without its ending.
        data: labelled texts to measure the head on; those that are among the examples are left out, and it is said.
        out: a folder; made if it is not there.
        encoder: whose space the head lives in.
        device: auto, cpu or cuda.
        as_json: print the figures as JSON.
    """
    from guardrail.assembly import cache_folder
    from guardrail.classifiers.linear import write_head
    from guardrail.classifiers.taught import read_examples, teach
    from guardrail.encoder import load_encoder

    if len(names) > 1:
        raise DataError(f"examples make one head; --head was given {len(names)} times")
    name = names[0] if names else file.stem
    examples = read_examples(file)
    loaded = load_encoder(encoder, device)
    started = time.perf_counter()
    made = teach(name, examples, loaded, cache_folder())
    seconds = time.perf_counter() - started
    measured = _measured(made.head, name, examples, data, loaded) if data else {}
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.safetensors"
    header = {"encoder": loaded.name, "examples": f"{len(examples.positive)}+{len(examples.negative)}"}
    write_head(path, made.head, header)
    for warning in made.warnings:
        note(f"warning: {warning}")
    report = {
        "name": name,
        "file": path,
        "sha256": made.head.sha256,
        "positive": len(examples.positive),
        "negative": len(examples.negative),
        "auroc_left_out": made.auroc,
        "warnings": list(made.warnings),
        "seconds": round(seconds, 2),
        **measured,
    }
    if as_json:
        emit_json(report)
        return
    console.print(
        f"{name}: {len(examples.positive)} + {len(examples.negative)} examples, AUROC {made.auroc:.3f} on examples left "
        f"out in turn, {seconds:.1f} s"
    )
    for key, value in measured.items():
        console.print(f"  {key}: {value}")
    note(f"written to {path}; in a policy: {{kind: linear, file: {path}}}, or examples: {file} at once")


def _measured(
    head: LinearHead, name: str, examples: Examples, data: Sequence[Path], encoder: Encoder
) -> dict[str, Any]:
    """The head on labelled texts that are not among its examples."""
    from guardrail.classifiers.fewshot import overlap
    from guardrail.evaluate.data import read_many
    from guardrail.evaluate.heads import evaluate_heads

    rows = read_many(list(data))
    known = sorted({label for row in rows for label in row.labels})
    if name not in known:
        raise DataError(f"no row has the label {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)}")
    seen = set(overlap(examples, [row.text for row in rows]))
    fresh = [row for row in rows if row.text not in seen]
    if seen:
        note(f"warning: {len(rows) - len(fresh)} of these rows are among the examples; they are not measured on")
    if not fresh:
        raise DataError("every row is among the examples, so nothing can be measured on them")
    report = evaluate_heads(fresh, {name: head}, encoder)[name].as_json()
    return {"overlap": len(rows) - len(fresh), "measured": report}


@handled
def trihash(
    data: Annotated[
        list[Path], typer.Option("--data", "-d", help="Labelled JSON lines (.jsonl, .jsonl.gz) or a folder of them.")
    ],
    head: Annotated[str, typer.Option("--head", help="The label to learn.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for NAME.safetensors.")],
    seed: Annotated[int, typer.Option("--seed", help="Of every draw.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a head on hashed character trigrams (kind trihash), which misspelt words survive."""
    from guardrail.classifiers.trihash import write_trihash
    from guardrail.evaluate.data import read_many
    from guardrail.learn.trihash import train_trihash

    rows = read_many(data)
    known = sorted({label for row in rows for label in row.labels})
    if head not in known:
        raise DataError(f"no row has the label {head!r}; there are {', '.join(known)}.{did_you_mean(head, known)}")
    trained, auroc = train_trihash(head, rows, seed)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{head}.safetensors"
    write_trihash(path, trained)
    if as_json:
        emit_json({"name": head, "file": path, "sha256": trained.sha256, "auroc": auroc})
    else:
        console.print(f"{head}: AUROC {auroc or 0.0:.3f} on the calibration rows")
        note(f"written to {path}; in a policy: {{kind: trihash, file: {path}}}")
