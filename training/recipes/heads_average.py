"""Average the weights of two tuned networks of one family, calibrate the average, and measure it.

    python training/recipes/heads_average.py --data runs/heads/mixture.jsonl.gz --work runs/tuned \\
        --network earlier.safetensors --onto later.safetensors --share 0.5 --out averaged.safetensors --metrics metrics.json

A network that went on from another lies in the same basin, so that every point between them is a network too; points
in the middle often rank data that neither was trained on better than both ends (Wortsman et al., Robust fine-tuning of
zero-shot models, CVPR 2022; Model soups, ICML 2022). An output that one of them alone has is taken as it is.
Calibration is by Platt scaling on dev rows, figures are on test rows; their hidden states lie in `--work` and are used again.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import torch

from guardrail.classifiers.network import Upper
from guardrail.classifiers.tuned import TunedNetwork, load_tuned, write_tuned
from guardrail.encoder import load_encoder
from guardrail.errors import CheckpointError
from guardrail.evaluate.data import read_many
from guardrail.learn.tuned import FROZEN
from guardrail.learn.tuned_data import Sampling, rows_to_learn
from guardrail.learn.tuned_measures import HeldAside, write_figures


def averaged(earlier: TunedNetwork, later: TunedNetwork, share: float) -> Upper:
    """The layers and outputs of `later`, moved the way of `share` (0 to 1) towards `earlier`.

    Raises:
        CheckpointError: the two stand on a different number of frozen layers.
    """
    if earlier.facts.frozen != later.facts.frozen:
        frozen = f"{earlier.facts.frozen} and {later.facts.frozen}"
        raise CheckpointError(f"networks on {frozen} frozen layers have no average")
    known = {name: place for place, name in enumerate(earlier.facts.heads)}
    upper = copy.deepcopy(later.upper)
    with torch.no_grad():
        for ours, theirs in zip(upper.layers.parameters(), earlier.upper.layers.parameters(), strict=True):
            ours.lerp_(theirs, share)
        for column, label in enumerate(later.facts.heads):
            if label in known:
                upper.out.weight[column].lerp_(earlier.upper.out.weight[known[label]], share)
                upper.out.bias[column].lerp_(earlier.upper.out.bias[known[label]], share)
    return upper.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--network", type=Path, required=True, help="the earlier one")
    parser.add_argument("--onto", type=Path, required=True, help="the later one, whose labels are kept")
    parser.add_argument("--share", type=float, default=0.5, help="of the earlier one")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, help="where the figures go; none are taken without it")
    parser.add_argument("--resamples", type=int, default=200, help="for the intervals")
    arguments = parser.parse_args()
    encoder = load_encoder(device="cpu")
    earlier, later = load_tuned(encoder, arguments.network), load_tuned(encoder, arguments.onto)
    upper = averaged(earlier, later, arguments.share)
    heads, rows = list(later.facts.heads), read_many([arguments.data])
    held = HeldAside(rows, heads, encoder, arguments.work)
    held.fill()
    calibrated = held.calibrate(upper)
    notes = {
        **later.facts.notes,
        "averaged": f"{arguments.share} of {earlier.facts.sha256[:12]}, the rest of {later.facts.sha256[:12]}",
    }
    sha256 = write_tuned(arguments.out, upper, later.facts.heads, FROZEN, encoder.sha256, notes)
    if arguments.metrics is not None:
        figures = held.measure(upper, calibrated, rows_to_learn(rows, heads, Sampling()), arguments.resamples)
        command = "python training/recipes/heads_average.py"
        write_figures(arguments.metrics, figures, encoder, command, 0)
    print(json.dumps({"sha256": sha256, "calibrated": calibrated}, indent=2))


if __name__ == "__main__":
    main()
