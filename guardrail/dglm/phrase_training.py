"""Learn the phrase table of a checkpoint from the pairs that its recipe names."""

from __future__ import annotations

from pathlib import Path

from guardrail.dglm import phrase_table
from guardrail.dglm.corpus import read_pairs
from guardrail.dglm.training import read_recipe
from guardrail.errors import ConfigurationError


def train_phrases(recipe_path: Path, data: Path, out: Path) -> int:
    """Learn the phrase table of a recipe from its `phrase_table` pairs; returns how many phrases it has.

    Args:
        recipe_path: YAML recipe. data: folder of the shared data. out: folder of the checkpoint.

    Raises:
        ConfigurationError: the recipe cannot be read, or names no pairs.
    """
    project = recipe_path.resolve().parents[2]
    recipe = read_recipe(recipe_path)
    if not recipe.get("phrase_table"):
        raise ConfigurationError(f"recipe {recipe_path} names no pairs for the phrase table (key `phrase_table`)")
    pairs = [
        (pair.source, pair.target)
        for spec in recipe["phrase_table"]
        for pair in read_pairs(_located(spec["file"], data, project), "train", float(spec.get("min_overlap", 0.0)))
        for _ in range(int(spec.get("times", 1)))
    ]
    table = phrase_table.learn(pairs)
    out.mkdir(parents=True, exist_ok=True)
    phrase_table.save(table, out / phrase_table.FILE)
    return len(table.table)


def _located(name: str, data: Path, project: Path) -> Path:
    return project / name[2:] if name.startswith("./") else data / name
