"""`guardrail dglm`: train, export, evaluate and describe the rewriter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from guardrail.cli.common import JsonOption, console, emit_json, error_console, handled
from guardrail.cli.dglm_eval import evaluate

app = typer.Typer(help="Train, evaluate and describe the diffusion-guided rewriter.", no_args_is_help=True)
train_app = typer.Typer(help="Train a part of the DGLM from a recipe; a killed run resumes.", no_args_is_help=True)
app.add_typer(train_app, name="train")

DataOption = Annotated[Path, typer.Option("--data", help="Folder of the training data (see the recipe).")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the run: checkpoints, log, latent statistics.")]
RecipeOption = Annotated[Path, typer.Option("--recipe", help="YAML recipe.")]

StepsOption = Annotated[
    int | None, typer.Option(help="Stop after this many steps in all; the schedule stays the recipe's.")
]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads; default: all.")]

RECIPE = Path("training/recipes/decoder-mini.yaml")
DIFFUSION_RECIPE = Path("training/recipes/diffusion-mini.yaml")
DIFFUSION_RUN = Path("runs/diffusion-mini")
DATA = Path("../shared/data")


@train_app.command("decoder")
@handled
def train_decoder(
    recipe: RecipeOption = RECIPE,
    data: DataOption = DATA,
    out: OutOption = Path("runs/decoder-mini"),
    steps: StepsOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train (or resume) the soft-prompted decoder, and the latent statistics it needs.

    The shipped kind, or with `decoder: {kind: causal, name: ...}` in the recipe any causal language model.
    """
    from guardrail.classifiers.linear import list_heads, load_head
    from guardrail.dglm.causal_training import is_causal, train_causal
    from guardrail.dglm.guidance import Guide
    from guardrail.dglm.training import read_recipe
    from guardrail.dglm.training import train_decoder as train

    _use_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    guides = {name: Guide(head.weight, head.bias) for name in list_heads() for head in [load_head(name)]}
    document = read_recipe(recipe)
    with _Bar("decoder") as bar:
        if is_causal(document):
            project = recipe.resolve().parents[2]
            train_causal(document, project, data, out, report=bar, steps=steps, guides=guides)
        else:
            train(recipe, data, out, report=bar, steps=steps, guides=guides)
    last = bar.last
    _say(
        {"run": str(out), **last},
        f"{out}: step {last.get('step')}, validation loss {last.get('validation_loss')}",
        as_json,
    )


@train_app.command("latents")
@handled
def train_latents(
    recipe: RecipeOption = DIFFUSION_RECIPE,
    data: DataOption = DATA,
    out: OutOption = DIFFUSION_RUN,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed the sentences that the diffusion is trained on, and measure their moments; a killed run goes on."""
    from guardrail.dglm.diffusion_training import train_latents as train

    _use_threads(threads)
    with _Bar("latents") as bar:
        count = train(recipe, data, out, report=bar)
    _say({"run": str(out), "sentences": count}, f"{out}: {count} sentences", as_json)


@train_app.command("diffusion")
@handled
def train_diffusion(
    recipe: RecipeOption = DIFFUSION_RECIPE,
    out: OutOption = DIFFUSION_RUN,
    steps: StepsOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train (or resume) the diffusion on the latents of its run."""
    from guardrail.dglm.diffusion_training import train_diffusion as train

    _use_threads(threads)
    with _Bar("diffusion") as bar:
        train(recipe, out, report=bar, steps=steps)
    last = bar.last
    _say({"run": str(out), **last}, f"{out}: step {last.get('step')}, loss {last.get('validation_loss')}", as_json)


@train_app.command("distill")
@handled
def train_distill(
    recipe: RecipeOption = DIFFUSION_RECIPE,
    out: OutOption = DIFFUSION_RUN,
    steps: StepsOption = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Distil (or go on distilling) a trained diffusion into a student of few steps."""
    from guardrail.dglm.distill import train_student

    _use_threads(threads)
    with _Bar("student") as bar:
        train_student(recipe, out, report=bar, steps=steps)
    last = bar.last
    _say({"run": str(out), **last}, f"{out}: step {last.get('step')}, loss {last.get('loss')}", as_json)


@train_app.command("phrases")
@handled
def train_phrases(
    out: Annotated[Path, typer.Option("--out", help="Folder of the checkpoint that is to use them.")],
    recipe: RecipeOption = RECIPE,
    data: DataOption = DATA,
    as_json: JsonOption = False,
) -> None:
    """Learn from rewrite pairs which words people put for which."""
    from guardrail.dglm.phrase_training import train_phrases as train

    count = train(recipe, data, out)
    _say({"checkpoint": str(out), "phrases": count}, f"{out}: {count} phrases", as_json)


def _use_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


class _Bar:
    """A bar on standard error that takes the rows of a training run; `last` is their union."""

    def __init__(self, name: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=error_console)
        self._task = self._progress.add_task(name, total=None)
        self.last: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, row: dict[str, Any]) -> None:
        self.last.update(row)
        if "loss" in row:
            description = f"loss {row['loss']:.4f}, {row['examples_per_second']:.0f} examples/s"
            self._progress.update(self._task, total=row["steps"], completed=row["step"], description=description)
        else:
            description = f"{row['sentences']} {row['split']} sentences"
            self._progress.update(self._task, completed=row["shard"], description=description)


def _say(row: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        emit_json(row)
    else:
        console.print(text)


@app.command("export")
@handled
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint goes.")],
    as_json: JsonOption = False,
) -> None:
    """Turn a training run, of the decoder, of the diffusion or of both, into a checkpoint (bfloat16, averaged weights)."""
    from guardrail.dglm import causal_training
    from guardrail.dglm.diffusion_training import STATE
    from guardrail.dglm.distill import export_diffusion
    from guardrail.dglm.training import export_run

    has_diffusion, has_causal = (run / STATE).is_file(), (run / causal_training.STATE).is_file()
    size = export_diffusion(run, folder) if has_diffusion else 0
    size += causal_training.export_causal(run, folder) if has_causal else 0
    if not (has_diffusion or has_causal) or (run / "state.safetensors").is_file():
        size += export_run(run, folder)
    if as_json:
        emit_json({"checkpoint": str(folder), "bytes": size})
    else:
        console.print(f"wrote {folder} ({size / 1e6:.1f} MB)")


@app.command("info")
@handled
def info(
    name: Annotated[str, typer.Argument(help="A shipped checkpoint or a directory.")] = "mini",
    as_json: JsonOption = False,
) -> None:
    """Show a checkpoint's sizes, hashes and model cards."""
    from guardrail.dglm import checkpoint
    from guardrail.dglm.diffusion_checkpoint import find_diffusion, read_diffusion_metadata
    from guardrail.encoder import file_sha256

    folder = checkpoint.locate(name)
    metadata = checkpoint.read_metadata(folder)
    config = json.loads(metadata["config"])
    if "output_ids" in config:
        config["output_ids"] = len(config["output_ids"])
    diffusion: dict[str, Any] | None = None
    if find_diffusion(folder):
        configs = read_diffusion_metadata(folder)["configs"]
        diffusion = {"sha256": file_sha256(folder / "diffusion.safetensors"), "networks": configs}
    if as_json:
        emit_json(
            {
                "name": name,
                "sha256": checkpoint.sha256(folder),
                "encoder_sha256": metadata["encoder_sha256"],
                "config": config,
                "diffusion": diffusion,
            }
        )
        return
    console.print(f"[bold]{name}[/bold]  sha256 {checkpoint.sha256(folder)}")
    console.print(f"encoder sha256 {metadata['encoder_sha256']}")
    console.print(config)
    if diffusion is not None:
        console.print(f"diffusion sha256 {diffusion['sha256']}")
        console.print(diffusion["networks"])
    for card in (folder / "README.md", folder / "DIFFUSION.md"):
        if card.is_file():
            console.print(Markdown(card.read_text(encoding="utf8")))


app.command("eval")(evaluate)
